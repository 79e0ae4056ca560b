"""The cache folder: results that are computed once and used again.

    <cache>/<kind>/<key>/          an entry: its files, and entry.json, which is written last
    <cache>/<kind>/<key>.lock      held while an entry is written, or read and must not be removed
    <cache>/<kind>/<key>.use-*     held by each process that keeps reading an entry

A key is a digest of everything that determines the files. When the folder grows too large, the entries that were used
longest ago are removed, never a locked one. Nothing else in the folder is touched.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from lookonce.errors import UserError
from lookonce.files import cache_folder as cache_folder
from lookonce.files import write_text

log = logging.getLogger("lookonce")
MOST_BYTES = 20e9
"""Size limit of all entries together."""
KINDS = ("forms", "features")
ABOUT = "entry.json"
KEY_LENGTH = 32
"""Hexadecimal digits of a key."""


class CacheError(UserError):
    """The cache folder cannot be written."""


@dataclass(frozen=True)
class Entry:
    """The files of one key."""

    folder: Path

    @property
    def _about(self) -> dict[str, object]:
        try:
            found = json.loads((self.folder / ABOUT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def what(self) -> str:
        """Description of the entry; empty: it was not finished."""
        return str(self._about.get("what", ""))

    @property
    def size(self) -> int:
        """Size in bytes."""
        return sum(_stat(file).st_size for file in self.folder.glob("*"))

    @property
    def used(self) -> float:
        """Time of the last use, seconds since 1970."""
        return _stat(self.folder / ABOUT).st_mtime

    def finish(self, what: str, *files: Path) -> None:
        """Mark the entry as complete. what: its description; files: those that must not change any more."""
        digests = {file.name: _digest(file) for file in files}
        write_text(self.folder / ABOUT, json.dumps({"what": what, "digests": digests}))

    def is_whole(self) -> bool:
        """Return whether the entry is complete and its files are unchanged. Marks it as used."""
        digests = self._about.get("digests")
        if not isinstance(digests, dict):
            return False
        try:
            whole = all(_digest(self.folder / name) == digest for name, digest in digests.items())
            os.utime(self.folder / ABOUT)
        except OSError:
            return False
        return whole

    def empty(self) -> None:
        """Remove all files of the entry."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def locked(kind: str, key: str) -> Iterator[Entry]:
    """Lock the entry of a key until the block ends. Waits for a process that holds it.

    Raises CacheError if the cache folder cannot be written.
    """
    entry = Entry(cache_folder() / kind / key)
    lock = _lock(entry, ".lock")
    try:
        entry.folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1)
        except Timeout:
            log.info("waiting for another process, which has %s", entry.folder)
            lock.acquire()
        entry.folder.mkdir(exist_ok=True)  # it may have been removed in the meantime
    except (OSError, NotImplementedError) as error:
        lock.release()
        raise CacheError(f"{cache_folder()}: the cache folder cannot be written ({error})") from None
    try:
        yield entry
    finally:
        lock.release()


@contextmanager
def in_use(entry: Entry) -> Iterator[None]:
    """Protect an entry from removal until the block ends. Enter the block while the entry is locked."""
    lock = _lock(entry, f".use-{uuid4().hex}")
    try:
        with lock:
            yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)


def make_room(need: float = 0) -> None:
    """Remove the least recently used entries until `need` more bytes fit within MOST_BYTES."""
    entries = sorted(_entries(), key=lambda entry: entry.used)
    total = sum(entry.size for entry in entries) + need
    for entry in entries:
        if total <= MOST_BYTES:
            return
        size = entry.size
        if _removed(entry):
            total -= size
            log.info("the cache holds more than %.0f GB: removed %s", MOST_BYTES / 1e9, entry.what or entry.folder)


def _entries() -> Iterator[Entry]:
    """Yield an entry for each folder whose name is a key."""
    for kind in KINDS:
        for folder in sorted((cache_folder() / kind).glob("*")):
            if len(folder.name) == KEY_LENGTH and set(folder.name) <= set("0123456789abcdef") and folder.is_dir():
                yield Entry(folder)


def _removed(entry: Entry) -> bool:
    """Remove an entry unless a process uses it, and return whether it was removed."""
    lock = _lock(entry, ".lock")
    try:
        with lock.acquire(timeout=0):
            for mark in entry.folder.parent.glob(f"{entry.folder.name}.use-*"):
                with FileLock(mark).acquire(timeout=0):  # its process has ended
                    pass
                mark.unlink(missing_ok=True)
            shutil.rmtree(entry.folder)
    except (Timeout, OSError, NotImplementedError):
        return False
    return True


def _lock(entry: Entry, ending: str) -> FileLock:
    return FileLock(entry.folder.with_name(entry.folder.name + ending), thread_local=False)


def _stat(file: Path) -> os.stat_result:
    """Return a file's status; zeros if another process has just removed it."""
    try:
        return file.stat()
    except OSError:
        return os.stat_result([0] * 10)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _count(entries: int) -> str:
    return "1 entry" if entries == 1 else f"{entries} entries"


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
