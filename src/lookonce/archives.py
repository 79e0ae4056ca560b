"""Unpacking an archive that came from elsewhere: all of it into one folder, nothing outside, whole or not at all."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Self

from lookonce.errors import UserError

RATIO = 20
"""An archive may become so many times longer by unpacking; pictures hardly do."""
MEMBERS = 1_000_000
"""Files and folders an archive may hold."""
CHUNK = 1 << 20
MOST_BEHIND = 64 << 20
"""Bytes behind the last member of a tar: padding, with little of it."""

NAME_BYTES = 1 << 20
"""Of a tar's extended header, which holds a long name and is read into memory whole."""

DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError,
           NotImplementedError, ValueError, OverflowError, IndexError, struct.error, MemoryError)  # fmt: skip
"""What the two readers raise for an archive that is cut off, damaged or locked."""


@dataclass(frozen=True)
class Member:
    """One entry of an archive."""

    name: str
    size: int  # bytes, unpacked
    kind: str  # "file", "folder", or what it is instead


def unpack(archive: Path, folder: Path) -> int:
    """Unpack a tar (also .gz, .bz2, .xz) or a zip into a folder; how many files are new there.

    What is in the folder already is kept: a file of the same length counts as unpacked before, one of another length
    is an error. Everything is unpacked beside its place first, so that an archive never stands there half.

    Args:
        archive: the file; its content, not its ending, says what it is.
        folder: where to; made if it is not there.
    Raises:
        UserError: no archive, a damaged one, one with a member that is no plain file or folder or that would lie
            outside the folder, one that unpacks to more than RATIO times its length, a file in the way, a full disk.
    """
    with _opened(archive) as opened:
        members = _members(opened, archive)
        _check(members, archive)
        files = {PurePosixPath(m.name): m for m in members if m.kind == "file"}
        new = [name for name, member in files.items() if not _stands(folder / name, member, archive)]
        if not new:
            return 0
        staging = folder / f".{os.getpid()}-{archive.name}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _room(folder, sum(member.size for member in files.values()), archive)
            _extract(opened, staging)
            for name in new:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (staging / name).replace(folder / name)
        except (*DAMAGED, OSError) as error:
            raise _trouble(error, archive, f"cannot be unpacked into {folder}") from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return len(new)


class _Header(tarfile.TarInfo):
    """An entry of a tar whose size is believed only within bounds."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """One header. Raises tarfile.ReadError for a negative size, or a name longer than NAME_BYTES."""
        found = super().frombuf(buf, encoding, errors)
        if found.size < 0 or (found.size > NAME_BYTES and found.type not in PLAIN):
            raise tarfile.ReadError(f"a header of {found.size} bytes")
        return found


PLAIN = (*tarfile.REGULAR_TYPES, tarfile.DIRTYPE)


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile | zipfile.ZipFile]:
    """The archive, by its content."""
    try:
        zipped = zipfile.is_zipfile(archive)
        opened = zipfile.ZipFile(archive) if zipped else tarfile.open(archive, tarinfo=_Header)  # noqa: SIM115
    except OSError as error:
        raise _trouble(error, archive, "cannot be read") from None
    except DAMAGED:
        raise UserError(f"{archive}: neither a tar nor a zip, or cut off; remove it and get it again") from None
    with opened:
        yield opened


def _members(opened: tarfile.TarFile | zipfile.ZipFile, archive: Path) -> list[Member]:
    """All entries, read without unpacking."""
    found: list[Member] = []
    total, length = 0, archive.stat().st_size
    entries: Any = opened if isinstance(opened, tarfile.TarFile) else opened.infolist()
    try:
        for entry in entries:
            found.append(_tar_member(entry) if isinstance(entry, tarfile.TarInfo) else _zip_member(entry))
            total += found[-1].size
            if found[-1].size < 0:
                raise tarfile.ReadError(f"a member of {found[-1].size} bytes")
            if total > RATIO * length:  # at once: to get at the next entry, this one is unpacked into the void
                raise UserError(
                    f"{archive}: {length:,} bytes that would unpack to {total:,}, more than {RATIO} times as many; "
                    "nothing was unpacked"
                )
            if len(found) > MEMBERS:
                raise UserError(f"{archive}: more than {MEMBERS:,} members; nothing was unpacked")
    except UserError:
        raise
    except (*DAMAGED, OSError) as error:
        raise _trouble(error, archive, "cannot be read") from None
    return found


def _trouble(error: Exception, archive: Path, what: str) -> UserError:
    """What to say: of a damaged archive, or of a disk (gzip and bz2 raise OSErrors without a number for the first)."""
    if isinstance(error, OSError) and error.errno is not None:
        return UserError(f"{archive}: {what}: {error.strerror}")
    return UserError(f"{archive}: damaged ({error}); remove it and get it again; nothing was unpacked")


def _tar_member(entry: tarfile.TarInfo) -> Member:
    kind = (
        "file" if entry.isreg() else "folder" if entry.isdir() else "a link" if entry.issym() or entry.islnk() else ""
    )
    return Member(entry.name, entry.size if kind == "file" else 0, kind or "a device or pipe")


def _zip_member(entry: zipfile.ZipInfo) -> Member:
    mode = stat.S_IFMT(entry.external_attr >> 16)  # Unix only; 0 where another system made it
    plain = "folder" if entry.is_dir() else "file"
    kind = (
        plain if mode in (0, stat.S_IFREG, stat.S_IFDIR) else "a link" if mode == stat.S_IFLNK else "a device or pipe"
    )
    return Member(entry.filename, entry.file_size, kind)


def _check(members: list[Member], archive: Path) -> None:
    """Refuse an archive with a member that should not be written, before anything is."""
    for member in members:
        name = member.name
        if member.kind not in ("file", "folder"):
            raise UserError(f"{archive}: {name!r} is {member.kind}; only files and folders are unpacked; none was")
        parts = PurePosixPath(name.replace("\\", "/")).parts
        outside = ".." in parts or name.startswith(("/", "\\")) or PureWindowsPath(name).drive
        if outside or "\0" in name or "\\" in name or (member.kind == "file" and not parts):
            raise UserError(f"{archive}: {name!r} would lie outside the folder; nothing was unpacked")


def _stands(path: Path, member: Member, archive: Path) -> bool:
    """Whether a member was unpacked before. Raises UserError where something else is in its place."""
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:  # a file where a folder should be
        raise UserError(f"{path}: in the way of {archive.name}: {error.strerror or error}; move it away") from None
    if stat.S_ISREG(there.st_mode) and there.st_size == member.size:
        return True
    raise UserError(
        f"{path}: there already, but not as in {archive.name} ({there.st_size:,} bytes; expected {member.size:,}); "
        "move it away or choose another --out; nothing was unpacked"
    )


def _room(folder: Path, needed: int, archive: Path) -> None:
    if (free := shutil.disk_usage(folder).free) < needed:
        raise UserError(f"{archive}: unpacks to {needed:,} bytes, {folder} has room for {free:,}; make room")


def _extract(opened: tarfile.TarFile | zipfile.ZipFile, staging: Path) -> None:
    """Unpack all of it, into a folder that is thrown away if anything goes wrong."""
    if isinstance(opened, zipfile.ZipFile):
        return opened.extractall(staging)
    if hasattr(tarfile, "data_filter"):  # Python 3.11.4 and later; what it refuses, _check has refused before
        opened.extractall(staging, filter="data")
    else:
        opened.extractall(staging)
    rest = 0
    while opened.fileobj is not None and (read := len(opened.fileobj.read(CHUNK))):  # its checksum stands at the end
        rest += read
        if rest > MOST_BEHIND:
            raise tarfile.ReadError(f"more than {MOST_BEHIND >> 20} MB behind its last member")
