"""Images in tar files that stay packed: `cells/train-00000.tar/0001.jpg` is a path like any other.

The members of a tar are found once, and then each is read by one seek.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from lookonce.data.archives import tar_members

MOST_BYTES = 1 << 30
"""Of one member."""
OPEN = 4096
"""Tars whose members are remembered: 24 bytes each."""


def split_tar(path: str | os.PathLike[str]) -> tuple[Path, str] | None:
    """Return (tar, name of the member) of a path that leads into a tar; None: it does not.

    >>> split_tar("cells/a.tar/0001.jpg")[1], split_tar("cells/a.tar"), split_tar("cells/0001.jpg")
    ('0001.jpg', None, None)
    """
    text = os.fspath(path)
    if ".tar" not in text:
        return None
    parts = Path(text).parts
    for at, part in enumerate(parts[:-1]):
        if part.endswith(".tar") and not (tar := Path(*parts[: at + 1])).is_dir():
            return tar, "/".join(parts[at + 1 :])
    return None


@contextmanager
def open_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file, which may be in a tar. Raises OSError, and UserError for a damaged tar."""
    found = split_tar(path)
    if found is None:
        with open(path, "rb") as file:
            yield file
        return
    yield io.BytesIO(read_member(*found))


def read_bytes(path: Path) -> bytes:
    """Return the content of a file, which may be in a tar."""
    with open_file(path) as file:
        return file.read()


def read_member(tar: Path, name: str) -> bytes:
    """Return the content of a member. Raises FileNotFoundError if there is none of this name."""
    status = tar.stat()
    offset, size = _members(str(tar), status.st_size, status.st_mtime_ns).find(name)
    with tar.open("rb") as file:
        return read_at(file, offset, size)


def read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """Return `size` bytes of a file from an offset. Raises OSError if it has fewer, or for more than MOST_BYTES."""
    if size > MOST_BYTES:
        raise OSError(f"{size:,} bytes; at most {MOST_BYTES:,}")
    file.seek(offset)
    content = file.read(size)
    if len(content) < size:
        raise OSError("the tar ends too early")
    return content


class Members:
    """Where the members of a tar are, in 24 bytes each."""

    def __init__(self, places: dict[str, tuple[int, int]]) -> None:
        keys = np.fromiter(map(_key, places), np.uint64, len(places))
        order = np.argsort(keys)
        self._keys: NDArray[np.uint64] = keys[order]
        self._places = np.array(list(places.values()), np.int64).reshape(-1, 2)[order]

    def find(self, name: str) -> tuple[int, int]:
        """Return (offset, size) of a member. Raises FileNotFoundError."""
        key = _key(name)
        at = int(np.searchsorted(self._keys, key))
        if at == len(self._keys) or self._keys[at] != key:
            raise FileNotFoundError("no such file")
        offset, size = self._places[at].tolist()
        return offset, size


def _key(name: str) -> np.uint64:
    digest = blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


@lru_cache(OPEN)
def _members(tar: str, size: int, changed: int) -> Members:
    """size, changed: of the file, so that one that was written again is read again."""
    return Members(tar_members(Path(tar)))
