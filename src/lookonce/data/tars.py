"""Images in tar files that stay packed: `cells/train-00000.tar/0001.jpg` is a path like any other.

A tar may have an index beside it (cells/train-00000.index.jsonl): a line that names the tar and its length, then one
for each image with its place in the tar and its labels. Without one, the headers of the tar are read once in each
process. Either way an image is read by one seek.

A tar may also be elsewhere: a folder with remote.json stands for an address (MIRROR). Images come from there by their
place in the tar. Some are kept beside the index: so many that they take MOST_KEPT bytes, always the same ones.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lookonce.data.archives import tar_members
from lookonce.data.remote import copy_remote, opened_system, read_remote, reading
from lookonce.errors import UserError
from lookonce.files import cache_folder, replacing, write_text

MOST_BYTES = 1 << 30
"""Of one member."""
OPEN = 4096
"""Tars whose members are remembered: 24 bytes each."""
MOST_KEPT = 20e9
"""Bytes of remote images that are kept, for each address."""
INDEX, MIRROR = ".index.jsonl", "remote.json"


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
    """Return the content of a member. Raises OSError if there is none of this name, UserError for a damaged tar."""
    mirror = None if tar.exists() else mirror_of(tar)
    if mirror is not None:
        return mirror.read(tar, name)
    offset, size = _members(str(tar), *_state(tar)).find(name)
    with tar.open("rb") as file:
        return read_at(file, offset, size)


def _state(tar: Path) -> tuple[int, int, int]:
    """Return the length of a tar, when it was written, and when its index was: what is remembered counts no more after
    a change."""
    status, index = tar.stat(), index_file(tar)
    return status.st_size, status.st_mtime_ns, index.stat().st_mtime_ns if index.exists() else 0


def index_file(tar: Path) -> Path:
    """Return the place of the index of a tar.

    >>> index_file(Path("cells/train-00000.tar")).as_posix()
    'cells/train-00000.index.jsonl'
    """
    return tar.with_name(tar.name.removesuffix(".tar") + INDEX)


def index_lines(tar: Path, length: int) -> Iterator[bytes] | None:
    """Return the lines of the index of a tar that has so many bytes; None: it has none, or one of another tar."""
    try:
        with index_file(tar).open("rb") as lines:
            first = json.loads(lines.readline(1 << 16))
    except (OSError, ValueError):
        return None
    if not isinstance(first, dict) or (first.get("tar"), first.get("bytes")) != (tar.name, length):
        return None
    return _lines_after_first(index_file(tar))


def _lines_after_first(file: Path) -> Iterator[bytes]:
    with file.open("rb") as lines:
        lines.readline()
        yield from lines


def write_index(tar: Path, length: int, entries: Iterator[dict[str, Any]]) -> None:
    """Write the index of a tar. entries: {"image", "offset", "size", ...} of each image."""
    with replacing(index_file(tar)) as beside, beside.open("w", encoding="utf-8", newline="\n") as lines:
        lines.write(json.dumps({"tar": tar.name, "bytes": length}) + "\n")
        lines.writelines(json.dumps(entry) + "\n" for entry in entries)


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
def _members(tar: str, length: int, *_changed: int) -> Members:
    lines = index_lines(Path(tar), length)
    if lines is None:
        return Members(tar_members(Path(tar)))
    try:
        entries = map(json.loads, lines)
        return Members({entry["image"]: (int(entry["offset"]), int(entry["size"])) for entry in entries})
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{index_file(Path(tar))}: damaged; remove it, or convert the data set again") from None


# Tars elsewhere


class Mirror:
    """A folder that stands for an address: its small files, and the images that are kept."""

    def __init__(self, folder: Path) -> None:
        about = json.loads((folder / MIRROR).read_bytes())
        self.folder, self.address = folder, str(about["address"])
        self.tars = {str(name): int(size) for name, size in about["tars"].items()}
        self.kept = min(1.0, MOST_KEPT / max(1, sum(self.tars.values())))
        """Fraction of the images that is kept."""

    def read(self, tar: Path, name: str) -> bytes:
        """Return the content of a member: as kept here, else from the address."""
        inside = tar.relative_to(self.folder).as_posix()
        key = _key(f"{inside}/{name}")
        kept = self.folder / "kept" / f"{key % np.uint64(256):02x}" / f"{key:016x}"
        try:
            return kept.read_bytes()
        except OSError:
            pass
        offset, size = _members(str(tar), self.tars.get(inside, 0)).find(name)
        if size > MOST_BYTES:
            raise OSError(f"{size:,} bytes; at most {MOST_BYTES:,}")
        content = read_remote(f"{self.address}/{inside}", MOST_BYTES, offset, size)
        if len(content) < size:
            raise OSError("the tar ends too early")
        if float(key) < self.kept * 2.0**64:
            with suppress(UserError), replacing(kept) as beside:  # a full disk only costs speed
                beside.write_bytes(content)
        return content


def mirror_of(tar: Path) -> Mirror | None:
    """Return the mirror that a tar would be in; None: it is in none."""
    for folder in tar.parents:
        if (folder / MIRROR).is_file():
            return _mirror(str(folder), (folder / MIRROR).stat().st_mtime_ns)
    return None


@lru_cache(64)
def _mirror(folder: str, _changed: int) -> Mirror:
    return Mirror(Path(folder))


def mirrored(address: str) -> Path:
    """Return the folder in the cache that stands for the shards at an address, with its small files as they are now.

    Raises UserError for an address that cannot be read or has no tars.
    """
    system, path = opened_system(address)
    address = address.rstrip("/")
    key = blake2b(address.encode(), digest_size=8).hexdigest()
    folder = cache_folder() / "shards" / key / (re.sub(r"[^\w.-]", "_", address.rpartition("/")[2]) or "shards")
    tars: dict[str, int] = {}
    with reading(address):
        found = {name.removeprefix(path.rstrip("/")).lstrip("/"): int(about["size"] or 0)
                 for name, about in system.find(path, detail=True).items()}  # fmt: skip
    for name, size in sorted(found.items()):
        if ".." in Path(name).parts:
            continue
        if name.endswith(".tar"):
            tars[name] = size
        elif name.endswith((INDEX, "shards.json")) and not _has_length(folder / name, size):
            copy_remote(f"{address}/{name}", folder / name)
    if not tars:
        raise UserError(f"{address}: no tars; expected what 'lookonce convert DATA OUT --format shards' writes")
    write_text(folder / MIRROR, json.dumps({"address": address, "tars": tars}))
    return folder


def mirrors() -> list[tuple[Path, str, int]]:
    """Return each mirror in the cache: its folder, the address, and the bytes that it takes."""
    found = []
    for about in sorted((cache_folder() / "shards").glob(f"*/*/{MIRROR}")):
        with suppress(OSError, ValueError, KeyError, TypeError):  # not a mirror, or one that is just written
            address = str(json.loads(about.read_text(encoding="utf-8"))["address"])
            sizes = [file.stat().st_size for file in about.parent.rglob("*") if file.is_file()]
            found.append((about.parent, address, sum(sizes)))
    return found


def _has_length(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size
