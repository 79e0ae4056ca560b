"""Output: written whole or not at all, to places that nothing else holds.

Two rules for every command. A file appears under its final name only when it is whole. Output goes to a place that does
not exist yet; what exists is replaced only when the user says so (`--overwrite`).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lookonce.errors import UserError

HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
"""This machine in the names of temporary files: folders may be shared between machines."""


TEMPORARY = re.compile(r"\.writing-([0-9a-f]{8})-(\d+)-\d+-")
"""Begins the name of a temporary file: machine, process, thread."""


DAY = 24 * 60 * 60.0
"""Age in seconds from which on the temporary files of another machine are taken for left over."""


LONGEST = 120
"""Bytes of a file name that a temporary name repeats; file systems take 255."""


LOCK = ".lock"


def temporary(path: Path) -> Path:
    """The place beside `path` where this thread writes it: hidden, and with the ending of `path`."""
    name = path.name
    if len(os.fsencode(name)) > LONGEST:
        name = hashlib.sha256(os.fsencode(path.stem)).hexdigest()[:16] + path.suffix
    return path.with_name(f".writing-{HOST}-{os.getpid()}-{threading.get_native_id()}-{name}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; renamed to `path` when the block ends well, else removed.

    Its ending is that of `path`, for writers that choose a format by it.
    Raises UserError naming `path` where the disk is full or writing is not allowed.
    """
    beside = temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        beside.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}; nothing was changed") from None
    finally:
        try:
            beside.unlink(missing_ok=True)
        except OSError:
            pass  # the folder itself is out of reach, and the error above said so


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with \\n line ends, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def sweep(folder: Path) -> None:
    """Remove the temporary files and folders that killed processes left in a folder.

    Those of a process that still runs stay, and those of another machine until they are a day old.
    """
    for left in folder.glob(".writing-*"):
        found = TEMPORARY.match(left.name)
        if found is None or _in_use(left, found[1], int(found[2])):
            continue
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _in_use(left: Path, host: str, process: int) -> bool:
    if host == HOST:
        return is_running(process)
    try:
        return time.time() - left.stat().st_mtime < DAY
    except OSError:  # gone meanwhile
        return True


def is_running(process: int) -> bool:
    """Whether a process of this machine with this id runs."""
    if not 0 < process < 2**31:
        return False
    if sys.platform == "win32":  # os.kill would end the process
        kernel = ctypes.windll.kernel32
        handle = kernel.OpenProcess(0x1000, False, process)  # PROCESS_QUERY_LIMITED_INFORMATION
        if not handle:
            return bool(kernel.GetLastError() == 5)  # ERROR_ACCESS_DENIED: it runs, as another user
        code = ctypes.c_ulong()
        kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel.CloseHandle(handle)
        return code.value == 259  # STILL_ACTIVE
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def check_output(path: Path, overwrite: bool = False, data: Path | None = None) -> None:
    """Raise UserError where writing `path` would replace a file, or put it among the files of a data set.

    Args:
        path: a file that a command is about to write.
        overwrite: the user allows both.
        data: the data set that the command reads: a folder, or a file of one (which is then only not replaced).
    """
    if overwrite:
        return
    if path.exists() or path.is_symlink():
        raise UserError(f"{path}: already exists; give another name, or --overwrite to replace it")
    if data is not None and Path(data).expanduser().is_dir() and is_inside(path, Path(data)):
        raise UserError(
            f"{path}: is inside the data set {data}; give a place outside it, or --overwrite to write there anyway"
        )


def free_name(path: Path) -> Path:
    """The path, or the first of NAME-2, NAME-3, ... with its ending that does not exist."""
    tried, number = path, 2
    while tried.exists() or tried.is_symlink():
        tried, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    return tried


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies below it, links followed."""
    return path.expanduser().resolve().is_relative_to(folder.expanduser().resolve())


@contextmanager
def new_folder(folder: Path, reuse: bool = False) -> Iterator[Path]:
    """A folder for output that this process alone holds. An error in the block removes it if it has become empty.

    reuse: one that holds files already will do, too.
    Raises UserError for a folder that holds files, that another process holds, or that cannot be made.
    """
    missing = _missing(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_made(folder, error) from None
    try:
        with held(folder):
            if not reuse and any(path.name != LOCK for path in folder.iterdir()):
                raise UserError(f"{folder}: holds files already; give another name, or --overwrite to write there")
            yield folder
    except BaseException:
        _remove_empty(missing)
        raise


@contextmanager
def numbered_folder(folder: Path, start: int = 1) -> Iterator[Path]:
    """The first of NAME-1, NAME-2, ... that does not exist, as new_folder gives it; start=2: NAME, NAME-2, ..."""
    missing = _missing(folder.parent)
    number = 1
    while True:
        tried = folder if number < start else folder.with_name(f"{folder.name}-{number}")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            tried.mkdir()
            break
        except FileExistsError:
            if folder.parent.exists() and not folder.parent.is_dir():
                raise UserError(f"{folder.parent}: is a file; expected a folder") from None
            number += 1
        except OSError as error:
            raise _not_made(tried, error) from None
    try:
        with held(tried):
            yield tried
    except BaseException:
        _remove_empty([tried, *missing])
        raise


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder: no other process that asks for it gets it. Raises UserError where another process holds it."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{folder}: is in use by another process; wait until it ends, or give another name") from None
    except (NotImplementedError, OSError):
        pass  # a file system without locks, or one that cannot be written, which the first file will say
    try:
        yield
    finally:
        if lock.is_locked:
            try:
                if sys.platform != "win32":  # Windows removes no open file
                    Path(lock.lock_file).unlink(missing_ok=True)
                lock.release()
                Path(lock.lock_file).unlink(missing_ok=True)
            except OSError:
                pass  # the folder is gone, or another process opened the file meanwhile


def _not_made(folder: Path, error: OSError) -> UserError:
    return UserError(f"{folder}: cannot be written: {error.strerror or error}; give another place for the output")


def _missing(folder: Path) -> list[Path]:
    """A folder and those above it that do not exist, the deepest first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return  # it holds something, or is gone
