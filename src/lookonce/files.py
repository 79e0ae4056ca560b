"""Write output files whole or not at all, to places that hold nothing else.

A file appears under its final name when it is complete. What exists is replaced only with `--overwrite`.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import re
import shutil
import sys
import threading
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from lookonce.errors import UserError

HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
"""This machine in the names of temporary files: machines may share folders."""
TEMPORARY = re.compile(r"\.writing-([0-9a-f]{8})-(\d+)-\d+-")
"""Start of the name of a temporary file: machine, process, thread."""
MAX_AGE = 24 * 60 * 60.0
"""Seconds after which a temporary file of another machine counts as abandoned."""
MAX_NAME = 120
"""Bytes of a file name that its temporary name repeats; file systems allow 255."""
LOCK = ".lock"
PATIENCE = 1.0 if sys.platform == "win32" else 0.0
"""Seconds in which a file of Windows is tried again that another program, such as a virus scanner, holds open."""
log = logging.getLogger("lookonce")


def cache_folder() -> Path:
    """Return the cache folder: LOOKONCE_CACHE, or the system's folder for caches."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("LOOKONCE_CACHE") or user_cache_dir("lookonce", appauthor=False)).expanduser()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path with the ending of `path`; rename it to `path` if the block succeeds, else remove it.

    Raises UserError if the disk is full or the folder cannot be written.
    """
    beside = temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        rename(beside, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}; nothing was changed") from None
    finally:
        with suppress(OSError):  # the error above names the cause
            beside.unlink(missing_ok=True)


def rename(source: Path, target: Path) -> None:
    """Rename a file or folder to `target`, in place of a file there. Raises OSError."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            source.replace(target)
            return
        except PermissionError:
            if time.monotonic() >= end:
                raise
        time.sleep(0.05)


@contextmanager
def optional_output() -> Iterator[None]:
    """Log an error of writing a file that people read: another program may hold it, and a training goes on without."""
    try:
        yield
    except (UserError, OSError) as error:
        log.warning("%s; the training goes on without it", error)


def temporary(path: Path) -> Path:
    """Return the hidden path beside `path` where this thread writes it."""
    name = path.name
    if len(os.fsencode(name)) > MAX_NAME:
        name = hashlib.sha256(os.fsencode(path.stem)).hexdigest()[:16] + path.suffix
    return path.with_name(f".writing-{HOST}-{os.getpid()}-{threading.get_native_id()}-{name}")


def alike(name: str) -> str:
    """Return what two names share that mean one file on some systems, which ignore case and the form of accents."""
    return unicodedata.normalize("NFC", name).casefold()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with \\n line ends, whole or not at all. Names that are not UTF-8 are escaped, as JSON does."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def file_digest(paths: Iterable[Path]) -> str | None:
    """Return "sha256:..." of the content of one file, or of several as if they were one; None without files."""
    paths = tuple(paths)
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as content:
            while block := content.read(1 << 20):
                found.update(block)
    return f"sha256:{found.hexdigest()}" if paths else None


def sweep(folder: Path) -> None:
    """Remove the temporary files and folders that killed processes left in a folder.

    Those of a running process stay, and those of another machine until they are a day old.
    """
    for path in folder.glob(".writing-*"):
        found = TEMPORARY.match(path.name)
        if found is None or _in_use(path, found[1], int(found[2])):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _in_use(path: Path, host: str, process: int) -> bool:
    if host == HOST:
        return is_running(process)
    try:
        return time.time() - path.stat().st_mtime < MAX_AGE
    except OSError:  # removed meanwhile
        return True


def is_running(process: int) -> bool:
    """Return whether a process of this machine with this id runs."""
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
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def check_output(path: Path, overwrite: bool = False, data: Path | None = None) -> None:
    """Raise UserError if writing `path` would replace a file or add one to a data set.

    Args:
        path: a file that a command is about to write.
        overwrite: the user allows both.
        data: the data set that the command reads; if it is a folder, `path` must lie outside it.
    """
    if overwrite:
        return
    if path.exists() or path.is_symlink():
        raise UserError(f"{path}: already exists; give another name, or --overwrite to replace it")
    if data is not None and Path(data).expanduser().is_dir() and is_inside(path, Path(data)):
        raise UserError(
            f"{path}: is inside the data set {data}; give a place outside it, or --overwrite to write there anyway"
        )


def is_inside(path: Path, folder: Path) -> bool:
    """Return whether a path is a folder or lies below it, with links followed."""
    return path.expanduser().resolve().is_relative_to(folder.expanduser().resolve())


def free_name(path: Path) -> Path:
    """Return the path, or the first of NAME-2, NAME-3, ... with its ending, that does not exist."""
    names = (path.with_name(f"{path.stem}-{number}{path.suffix}") if number > 1 else path for number in count(1))
    return next(name for name in names if not name.exists() and not name.is_symlink())


@contextmanager
def new_folder(folder: Path, reuse: bool = False) -> Iterator[Path]:
    """Make and lock an output folder. If the block fails, remove the folder if it is still empty.

    Args:
        folder: new or empty.
        reuse: also accept a folder that holds files.
    Raises:
        UserError: the folder holds files, is locked by another process, or cannot be made.
    """
    with _no_empty_folders(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_write(folder, error) from None
        with held(folder):
            if not reuse and any(path.name != LOCK for path in folder.iterdir()):
                raise UserError(f"{folder}: holds files already; give another name, or --overwrite to write there")
            yield folder


@contextmanager
def numbered_folder(folder: Path, start: int = 1) -> Iterator[Path]:
    """Make and lock the first of NAME-1, NAME-2, ... that does not exist, as new_folder does; start=2: NAME, NAME-2."""
    for number in count(1):
        path = folder if number < start else folder.with_name(f"{folder.name}-{number}")
        with _no_empty_folders(path):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.mkdir()
            except FileExistsError:
                if path.parent.exists() and not path.parent.is_dir():
                    raise UserError(f"{path.parent}: is a file; expected a folder") from None
                continue
            except OSError as error:
                raise _cannot_write(path, error) from None
            with held(path):
                yield path
            return


@contextmanager
def _no_empty_folders(folder: Path) -> Iterator[None]:
    """If the block fails, remove those folders on the way to `folder` that it made and left empty."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        with suppress(OSError):  # not empty
            for path in missing:
                path.rmdir()
        raise


def _cannot_write(folder: Path, error: OSError) -> UserError:
    return UserError(f"{folder}: cannot be written: {error.strerror or error}; give another place for the output")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Lock a folder. Raises UserError if another process holds it."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{folder}: is in use by another process; wait until it ends, or give another name") from None
    except (NotImplementedError, OSError):
        pass  # the file system has no locks, or is read-only, which the first file will show
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):  # the folder is gone, or another process opened the file meanwhile
                if sys.platform != "win32":  # Windows cannot remove an open file
                    Path(lock.lock_file).unlink(missing_ok=True)
                lock.release()
                Path(lock.lock_file).unlink(missing_ok=True)
