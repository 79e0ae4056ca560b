"""Unpacking an archive that came from elsewhere: all of it into one folder, nothing outside, whole or not at all."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

from lookonce.errors import UserError

RATIO = 20
"""An archive may become so many times longer by unpacking; pictures hardly do."""
MEMBERS = 1_000_000
"""Files and folders an archive may hold."""
CHUNK = 1 << 20
BLOCK = 512
"""Bytes; a tar is made of such blocks."""
HEADER = 1 << 20
"""Bytes of a tar's long names and attributes, at most."""
PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open, b"]\0\0": lzma.open}
"""How a packed tar begins -> what unpacks it."""
LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
"""Entries of a tar that say something about the next one; tarfile reads them whole."""
SIZES = re.compile(rb"\d+ (size|GNU\.sparse[^=]*)=")
"""Attributes that say another size than the header does."""

AGAIN = "remove it and get it again; nothing was unpacked"

DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError,
           NotImplementedError, ValueError, IndexError, KeyError, AttributeError, TypeError, OverflowError, MemoryError,
           struct.error)  # fmt: skip
"""What the readers of the standard library raise for an archive that is cut off, damaged or locked."""


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


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile | zipfile.ZipFile]:
    """The archive, by its content."""
    with ExitStack() as stack:
        try:
            whole = stack.enter_context(_Bounded(archive))
            if zipfile.is_zipfile(whole):
                whole.seek(0)
                opened: tarfile.TarFile | zipfile.ZipFile = zipfile.ZipFile(whole)
            else:
                unpacked = stack.enter_context(_unpacked(whole))
                _check_headers(unpacked, archive, whole.length)
                unpacked.seek(0)
                opened = tarfile.open(fileobj=unpacked, mode="r:")  # noqa: SIM115
        except UserError:
            raise
        except (*DAMAGED, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise _trouble(error, archive, "cannot be read") from None
            raise UserError(f"{archive}: neither a tar nor a zip, or cut off; remove it and get it again") from None
        with opened:
            yield opened


class _Bounded(io.BufferedReader):
    """A file of which no more is asked for than it has: lengths that an archive states are not believed."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.length = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self.length - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def _unpacked(whole: io.BufferedReader) -> IO[bytes]:
    """The tar itself, from its beginning."""
    whole.seek(0)
    start = whole.read(6)
    whole.seek(0)
    return next((open_(whole) for mark, open_ in PACKED.items() if start.startswith(mark)), whole)  # type: ignore[operator]


def _check_headers(tar: IO[bytes], archive: Path, length: int) -> None:
    """Read every header of a tar, before tarfile does and believes the sizes in it.

    Raises UserError: a size that is negative, beyond HEADER for a long name or attributes, or stated twice; more than
    RATIO times the archive's length; DAMAGED: a header that is none.
    """
    total = entries = 0
    while (block := tar.read(BLOCK)) and block.count(0) < BLOCK:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        long = header.type in LONG
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise UserError(
                f"{archive}: {header.name!r} is a sparse file; only files and folders are unpacked; none was"
            )
        if header.size < 0 or (long and header.size > HEADER):
            raise UserError(f"{archive}: damaged ({header.name!r} is said to have {header.size:,} bytes); {AGAIN}")
        follows = long or header.isreg() or header.type not in tarfile.SUPPORTED_TYPES
        size = -(-header.size // BLOCK) * BLOCK if follows else 0
        total, entries = total + (header.size if follows else 0), entries + 1
        if total > RATIO * length:  # at once: to get at the next entry, this one is unpacked into the void
            raise _bomb(archive, length, total)
        if entries > 2 * MEMBERS:  # a long name is an entry of its own
            raise _too_many(archive)
        if not long:
            _skip(tar, size)
        elif SIZES.search(tar.read(size)):
            raise UserError(f"{archive}: {header.name!r} states a second size, as sparse files do; {AGAIN}")
    end = 0
    while rest := len(tar.read(CHUNK)):
        end += rest
        if end > max(RATIO * length, CHUNK):
            raise _bomb(archive, length, total + end)


def _skip(tar: IO[bytes], size: int) -> None:
    """Go on by so many bytes. Raises EOFError where they are not there."""
    while size:
        read = len(tar.read(min(size, CHUNK)))
        if not read:
            raise EOFError("cut off")
        size -= read


def _too_many(archive: Path) -> UserError:
    return UserError(f"{archive}: more than {MEMBERS:,} members; nothing was unpacked")


def _bomb(archive: Path, length: int, total: int) -> UserError:
    return UserError(f"{archive}: {length:,} bytes that would unpack to {total:,}, more than {RATIO} times as many; "
                     "nothing was unpacked")  # fmt: skip


def _members(opened: tarfile.TarFile | zipfile.ZipFile, archive: Path) -> list[Member]:
    """All entries, read without unpacking."""
    found: list[Member] = []
    total, length = 0, archive.stat().st_size
    entries: Any = opened if isinstance(opened, tarfile.TarFile) else opened.infolist()
    try:
        for entry in entries:
            found.append(_tar_member(entry) if isinstance(entry, tarfile.TarInfo) else _zip_member(entry))
            total += found[-1].size
            if total > RATIO * length:
                raise _bomb(archive, length, total)
            if len(found) > MEMBERS:
                raise _too_many(archive)
    except UserError:
        raise
    except (*DAMAGED, OSError) as error:
        raise _trouble(error, archive, "cannot be read") from None
    return found


def _trouble(error: Exception, archive: Path, what: str) -> UserError:
    """What to say: of a damaged archive, or of a disk (gzip and bz2 raise OSErrors without a number for the first)."""
    if isinstance(error, OSError) and error.errno is not None:
        return UserError(f"{archive}: {what}: {error.strerror}")
    return UserError(f"{archive}: damaged ({error or type(error).__name__}); {AGAIN}")


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
    while opened.fileobj is not None and opened.fileobj.read(CHUNK):
        pass  # a packed tar's checksum stands at its very end
