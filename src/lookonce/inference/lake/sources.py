"""The names of a shard as images that can be opened: files, remote files read ahead, and the images of tars."""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lookonce.data.archives import tar_members
from lookonce.data.download import MOST_BYTES
from lookonce.data.images import IMAGE_SUFFIXES
from lookonce.data.remote import copy_remote, is_address, read_remote
from lookonce.data.tars import read_at
from lookonce.errors import ImageError, UserError
from lookonce.inference.lake.job import Job, place_of
from lookonce.inference.lake.listing import TAR

CONNECTIONS = 8
"""Remote images that are fetched at once."""
PAUSES = (1.0, 5.0)
"""Seconds before each new try of an address that could not be read."""


@dataclass(frozen=True)
class LocalImage:
    """A file: opened by its place, shown by its name."""

    name: str
    place: str

    def __fspath__(self) -> str:
        return self.place

    def __str__(self) -> str:
        return self.name


class ImageBytes(io.BytesIO):
    """An image in memory, or why it could not be read."""

    def __init__(self, name: str, content: bytes | UserError) -> None:
        super().__init__(b"" if isinstance(content, UserError) else content)
        self.name: str = name
        self.error = content if isinstance(content, UserError) else None

    def read(self, size: int | None = -1) -> bytes:
        """Return the bytes. Raises ImageError."""
        if self.error is not None:
            raise ImageError(self.name, str(self.error).removeprefix(f"{self.name}: "))
        return super().read(size)

    def __str__(self) -> str:
        return self.name


Source = LocalImage | ImageBytes


def open_sources(names: Sequence[str], job: Job) -> Iterator[Source]:
    """Yield the images of names in order. What cannot be read is yielded, too, and raises ImageError when it is."""
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        coming: deque[tuple[str, Future[bytes | UserError] | None]] = deque()
        for name in names:
            remote = is_address(name) and not name.endswith(TAR)
            coming.append((name, pool.submit(_fetched, name) if remote else None))
            if len(coming) > 2 * CONNECTIONS:
                yield from _sources_of(*coming.popleft(), job)
        while coming:
            yield from _sources_of(*coming.popleft(), job)


def _sources_of(name: str, fetched: Future[bytes | UserError] | None, job: Job) -> Iterator[Source]:
    if fetched is not None:
        yield ImageBytes(name, fetched.result())
    elif name.endswith(TAR):
        yield from _tar_images(name, job)
    else:
        yield LocalImage(name, place_of(name, job))


def _fetched(name: str) -> bytes | UserError:
    """Return a remote file, or the error of the last try."""
    for pause in (*PAUSES, None):
        try:
            return read_remote(name, MOST_BYTES)
        except UserError as error:
            if pause is None or "no such file" in str(error):
                return error
        time.sleep(pause)
    raise AssertionError


def _tar_images(name: str, job: Job) -> Iterator[Source]:
    """Yield the images of a tar, in its order. A remote one is copied first. A tar that is no good is one bad image."""
    with tempfile.TemporaryDirectory(prefix="lookonce-", ignore_cleanup_errors=True) as folder:
        try:
            tar = Path(place_of(name, job))
            if is_address(name):
                tar = Path(folder, "images.tar")
                copy_remote(name, tar)
            members = tar_members(tar)
            with tar.open("rb") as file:
                for member, (offset, size) in members.items():
                    if os.path.splitext(member)[1].lower() in IMAGE_SUFFIXES:
                        yield ImageBytes(f"{name}/{member}", read_at(file, offset, size))
        except UserError as error:
            yield ImageBytes(name, error)
        except OSError as error:
            yield ImageBytes(name, UserError(f"{name}: cannot be read ({error.strerror or error})"))
