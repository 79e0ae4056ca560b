"""Unpacking a tar or zip from elsewhere: all of it into one folder, nothing outside, whole or not at all."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

from lookonce.errors import UserError
from lookonce.files import rename

RATIO = 20
"""An archive may unpack to at most so many times its length; images hardly compress."""
MEMBERS = 1_000_000
"""Files and folders that an archive may hold."""
HEADER = 1 << 20
"""Bytes of one header of a tar, at most."""
COMPRESSED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
"""How a compressed tar begins -> what decompresses it."""
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError,
           NotImplementedError, ValueError, IndexError, KeyError, AttributeError, TypeError, OverflowError, MemoryError,
           struct.error)  # fmt: skip
"""What the standard library raises for an archive that is cut off, damaged or encrypted."""


class _Limited:
    """A binary stream that reads at most `most` bytes at once: the sizes that an archive states may be wrong."""

    def __init__(self, stream: BinaryIO, most: int) -> None:
        self._stream, self._most = stream, most

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def read(self, size: int = -1) -> bytes:
        if not -1 <= size <= self._most:
            raise tarfile.ReadError(f"a part of it claims to have {size:,} bytes")
        return self._stream.read(size)


def unpack(archive: Path, folder: Path) -> int:
    """Unpack a tar (also .gz, .bz2, .xz) or a zip into a folder, whole or not at all; return the number of new files.

    A file that exists with the length it has in the archive is kept; one of another length is an error.

    Raises:
        UserError: not an archive, or a damaged one; a member that is not a plain file or folder, or would lie outside
            the folder; more than RATIO times its length unpacked; a file in the way; a full disk.
    """
    staging = folder / f".{os.getpid()}-{archive.name}"
    try:
        with _opened(archive) as opened:
            files = _checked(opened, archive)
            new = [name for name, size in files.items() if not _exists(folder / name, size, archive)]
            if not new:
                return 0
            folder.mkdir(parents=True, exist_ok=True)
            needed, free = sum(files.values()), shutil.disk_usage(folder).free
            if free < needed:
                raise UserError(f"{archive}: unpacks to {needed:,} bytes, {folder} has room for {free:,}; make room")
            opened.extractall(staging)
        for name in new:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            rename(staging / name, folder / name)
        return len(new)
    except UserError:
        raise
    except (*DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # gzip and bz2 raise some without a number
            raise UserError(f"{archive}: cannot be unpacked into {folder}: {error.strerror}") from None
        message = str(error) or type(error).__name__
        raise UserError(f"{archive}: damaged or not an archive ({message}); nothing was unpacked: remove it and "
                        "download it again") from None  # fmt: skip
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def tar_members(archive: Path) -> dict[str, tuple[int, int]]:
    """Return the files of a plain tar, in its order: name -> (offset, size) in bytes. Each can be read by one seek.

    Raises UserError for a compressed, damaged or cut file, and for members that unpack refuses.
    """
    with archive.open("rb") as file:
        if file.read(6).startswith(tuple(COMPRESSED)):
            raise UserError(f"{archive}: a compressed tar, in which no image can be found by a seek; expected a plain "
                            "one: gzip -d and the like unpack it")  # fmt: skip
    try:
        with _opened(archive) as opened:
            if not isinstance(opened, tarfile.TarFile):
                raise UserError(f"{archive}: a zip; expected a tar")
            files = _checked(opened, archive)
            return {str(PurePosixPath(entry.name)): (entry.offset_data, entry.size) for entry in opened.getmembers()
                    if str(PurePosixPath(entry.name)) in files and entry.isreg()}  # fmt: skip
    except UserError:
        raise
    except (*DAMAGED, OSError) as error:
        message = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"{archive}: damaged or not a tar ({message}); copy it again") from None


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile | zipfile.ZipFile]:
    """The archive, recognised by its content."""
    with ExitStack() as stack:
        file = stack.enter_context(archive.open("rb"))
        if zipfile.is_zipfile(file):
            limited: Any = _Limited(file, archive.stat().st_size)
            yield stack.enter_context(zipfile.ZipFile(limited))
            return
        file.seek(0)
        start = file.read(6)
        file.seek(0)
        opener = next((opener for mark, opener in COMPRESSED.items() if start.startswith(mark)), None)
        limited = _Limited(stack.enter_context(opener(file)) if opener else file, HEADER)
        opened = stack.enter_context(tarfile.open(fileobj=limited, mode="r:"))
        opened.extraction_filter = getattr(tarfile, "data_filter", None)  # from Python 3.11.4 on
        yield opened


def _checked(opened: tarfile.TarFile | zipfile.ZipFile, archive: Path) -> dict[str, int]:
    """Return the files of an archive and their sizes; refuse it if a member must not be written."""
    files: dict[str, int] = {}
    total, length = 0, archive.stat().st_size
    entries: Any = opened if isinstance(opened, tarfile.TarFile) else opened.infolist()
    for number, entry in enumerate(entries, 1):
        name, size, kind = _tar_member(entry) if isinstance(entry, tarfile.TarInfo) else _zip_member(entry)
        total += size  # checked at once: the next entry of a compressed tar is behind the content of this one
        _check_total(total, length, archive)
        if number > MEMBERS:
            raise UserError(f"{archive}: more than {MEMBERS:,} members; nothing was unpacked")
        if size < 0:
            raise tarfile.ReadError(f"{name!r} claims to have {size:,} bytes")
        if kind not in ("file", "folder"):
            raise UserError(f"{archive}: {name!r} is {kind}; expected files and folders; nothing was unpacked")
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if kind == "file" and not parts:
            raise tarfile.ReadError("a file of it has no name")
        outside = ".." in parts or name.startswith(("/", "\\")) or PureWindowsPath(name).drive
        if outside or "\0" in name or "\\" in name:
            raise UserError(f"{archive}: {name!r} would lie outside the folder; nothing was unpacked")
        if kind == "file":
            files[str(PurePosixPath(name))] = size
    if isinstance(opened, tarfile.TarFile):
        _check_end(opened, archive, length)
    return files


def _check_total(total: int, length: int, archive: Path) -> None:
    if total > RATIO * length:
        raise UserError(f"{archive}: {length:,} bytes that would unpack to {total:,}, more than {RATIO} times as many; "
                        "nothing was unpacked")  # fmt: skip


def _check_end(tar: tarfile.TarFile, archive: Path, length: int) -> None:
    """Refuse a tar that does not end with an empty block (tarfile stops at a damaged header as at the end), and read
    the rest of a compressed one: its checksum is at the very end."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError("a damaged header")
    rest = 0
    while data := tar.fileobj.read(HEADER):
        rest += len(data)
        if rest > HEADER:  # a tar is filled up to a whole record
            _check_total(tar.offset + rest, length, archive)


def _tar_member(entry: tarfile.TarInfo) -> tuple[str, int, str]:
    """(name, unpacked size in bytes, kind)."""
    if entry.issparse():
        return entry.name, 0, "a sparse file"
    if entry.isreg():
        return entry.name, entry.size, "file"
    link = "a link" if entry.issym() or entry.islnk() else "a device or pipe"
    return entry.name, 0, "folder" if entry.isdir() else link


def _zip_member(entry: zipfile.ZipInfo) -> tuple[str, int, str]:
    mode = stat.S_IFMT(entry.external_attr >> 16)  # Unix only; 0 where another system made it
    plain = "folder" if entry.is_dir() else "file"
    special = "a link" if mode == stat.S_IFLNK else "a device or pipe"
    return entry.filename, entry.file_size, plain if mode in (0, stat.S_IFREG, stat.S_IFDIR) else special


def _exists(path: Path, size: int, archive: Path) -> bool:
    """Whether a file was unpacked before. Raises UserError where something else is in its place."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:  # a file where a folder should be
        raise UserError(f"{path}: in the way of {archive.name}: {error.strerror or error}; move it away") from None
    if stat.S_ISREG(found.st_mode) and found.st_size == size:
        return True
    raise UserError(
        f"{path}: exists, but not as in {archive.name} ({found.st_size:,} bytes; expected {size:,}); "
        "move it away or choose another --out; nothing was unpacked"
    )
