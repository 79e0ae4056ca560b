"""A data set in tars, as webdataset packs it: 0001.jpg, and 0001.json with its labels beside it.

    cells/shards.json               classes in order, and the tars of each split by the start of their names
    cells/train-00000.tar           images and their labels
    cells/train-00000.index.jsonl   the same labels, and the place of each image in the tar

    {"width": 640, "height": 480, "objects": [{"label": "red cell", "box": [10.5, 20, 110, 220]}]}

Boxes are xyxy, image pixels. An object may also have "difficult", "crowd" and "area". A tar without an index is read
whole; without shards.json the names of tars and folders mean splits.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from lookonce.data.archives import tar_members
from lookonce.data.dataset import DataPolicy, Dataset
from lookonce.data.formats.builder import Builder
from lookonce.data.images import IMAGE_SUFFIXES
from lookonce.data.lookup import Sections, relative_path, sections, split_word
from lookonce.data.remote import copy_remote
from lookonce.data.tars import Mirror, index_lines, mirror_of, read_at, read_bytes, write_index
from lookonce.errors import UserError
from lookonce.files import write_text
from lookonce.text import clean_name

DESCRIPTION = "shards.json"
SHARD_BYTES = 256 << 20
"""Of a tar that is written; the last image may exceed it."""
LABEL_BYTES = 4 << 20
"""Most bytes of the labels of one image."""
EXPECTED = '{"width": 640, "height": 480, "objects": [{"label": "cell", "box": [x1, y1, x2, y2]}]}'
LOOKED_AT = 64
"""Members of a tar that are searched for labels, to see whether it is a shard."""
OTHER = "other"
"""Start of the names of tars whose images are in no split."""


class Object(msgspec.Struct):
    """One object of an image."""

    label: str
    box: tuple[float, float, float, float]
    difficult: bool = False
    crowd: bool = False
    area: float = 0.0


class Labels(msgspec.Struct):
    """The labels of an image."""

    width: int
    height: int
    objects: tuple[Object, ...] = ()


class Entry(Labels, kw_only=True):
    """A line of an index."""

    image: str
    offset: int
    size: int


class Description(msgspec.Struct):
    """shards.json."""

    labels: tuple[str, ...]
    splits: dict[str, tuple[str, ...]] = {}
    """Split -> starts of the names of its tars."""


def find_shards(root: Path, inside: Sections | None = None) -> list[Path]:
    """Return the tars of a data set; none if the first one holds no labels. inside: sections(root), if known."""
    mirror = mirror_of(root / "x.tar")
    if mirror is not None and mirror.folder == root:
        return [root / name for name in sorted(mirror.tars)]
    found = sorted(folder / name for folder, names in inside or sections(root) for name in names
                   if name.endswith(".tar"))  # fmt: skip
    return found if found and ((root / DESCRIPTION).is_file() or _has_labels(found[0])) else []


def _has_labels(tar: Path) -> bool:
    """Return whether one of the first members of a tar is a .json."""
    try:
        with tarfile.open(tar, "r:") as opened:
            return any(entry.name.endswith(".json") for entry in itertools.islice(opened, LOOKED_AT))
    except (tarfile.TarError, OSError, ValueError):
        return False


def read_shards(root: Path, tars: list[Path], policy: DataPolicy) -> Builder:
    """Return every image and box of some tars. Raises UserError for a damaged tar, index or description."""
    builder = Builder(root, policy, "shards")
    about = _description(root)
    if about is not None:
        builder.class_names = tuple(dict.fromkeys(map(clean_name, about.labels)))
    keys: dict[str, list[str]] = {}
    for tar in tars:
        mine = keys.setdefault(relative_path(tar.with_name(re.sub(r"[-_.]?\d*\.tar$", "", tar.name)), root), [])
        for entry in _entries(builder, tar):
            key = f"{relative_path(tar, root)}/{entry.image}"
            where = tar, entry.image
            if entry.width < 1 or entry.height < 1:
                found = f"{entry.width} x {entry.height} pixels; expected the size of the image"
                builder.problem(key, where, "annotation unreadable", found, "skipped")
                continue
            mine.append(key)
            builder.add_image(key, key, (entry.width, entry.height), tar)
            for one in entry.objects:
                if fitted := builder.fit_box(key, where, one.box, (entry.width, entry.height)):
                    builder.add_object(clean_name(one.label), fitted, 0, one.difficult, one.crowd, one.area)
    if about is not None and about.splits:
        builder.add_splits({name: partial(_joined, keys, starts) for name, starts in about.splits.items()})
        builder.source = DESCRIPTION
    elif any(split_word(start.rpartition("/")[2]) for start in keys):
        builder.add_splits({start.rpartition("/")[2]: partial(list, mine) for start, mine in keys.items()})
        builder.source = "the names of the tars"
    else:
        builder.add_folder_splits()
    return builder


def _joined(keys: Mapping[str, list[str]], starts: Iterable[str]) -> list[str]:
    return [key for start in starts for key in keys.get(start, ())]


def _description(root: Path) -> Description | None:
    try:
        return msgspec.json.decode((root / DESCRIPTION).read_bytes(), type=Description)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, RecursionError) as error:
        raise UserError(f'{root / DESCRIPTION}: {error}; expected {{"labels": ["cell", ...]}}') from None


def _entries(builder: Builder, tar: Path) -> Iterator[Entry]:
    """Yield the images of a tar with their labels, by its index or else from the tar itself."""
    mirror = None if tar.exists() else mirror_of(tar)
    length = mirror.tars[relative_path(tar, mirror.folder)] if mirror else tar.stat().st_size
    lines = index_lines(tar, length)
    if lines is None and mirror is not None:
        _index_remote(builder, mirror, tar)
        lines = index_lines(tar, length)
    if lines is None:
        yield from _scanned(builder, tar, tar)
        return
    decoder = msgspec.json.Decoder(Entry)
    for number, line in enumerate(lines, 2):
        try:
            yield decoder.decode(line)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise UserError(f"{tar}: line {number} of its index is damaged ({error}); remove the index, or convert the "
                            "data set again") from None  # fmt: skip


def _index_remote(builder: Builder, mirror: Mirror, tar: Path) -> None:
    """Write the index of a remote tar that has none: copy it, read its headers and labels, and remove it."""
    with tempfile.TemporaryDirectory(dir=mirror.folder, ignore_cleanup_errors=True) as folder:
        whole = Path(folder, tar.name)
        copy_remote(f"{mirror.address}/{relative_path(tar, mirror.folder)}", whole)
        write_index(tar, whole.stat().st_size, map(msgspec.to_builtins, _scanned(builder, whole, tar)))


def _scanned(builder: Builder, tar: Path, shown: Path) -> Iterator[Entry]:
    """Yield the images of a tar without index; note images without labels, and labels that cannot be read."""
    members = tar_members(tar)
    decoder = msgspec.json.Decoder(Labels)
    with tar.open("rb") as file:
        for name, (offset, size) in members.items():
            stem, ending = os.path.splitext(name)
            if ending.lower() not in IMAGE_SUFFIXES:
                continue
            key = f"{relative_path(shown, builder.root)}/{name}"
            place = members.get(f"{stem}.json")
            if place is None:
                builder.problem(key, (shown, name), "image without annotation", f"no {stem}.json beside it", "left out")
                continue
            try:
                if place[1] > LABEL_BYTES:
                    raise ValueError(f"{place[1]:,} bytes")
                labels = decoder.decode(read_at(file, *place))
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                found = f"{error}; expected {EXPECTED}"
                builder.problem(key, (shown, f"{stem}.json"), "annotation unreadable", found, "skipped")
                continue
            yield Entry(labels.width, labels.height, labels.objects, image=name, offset=offset, size=size)


# Writing


def write_shards(root: Path, dataset: Dataset, names: list[str], splits: Mapping[str, NDArray[np.int64]]) -> Path:
    """Write the images and labels of a data set into tars of SHARD_BYTES, with an index each. Returns the folder.

    The images of a split stay in its order, so that training draws them as it does from files. An image is written
    once: a tar holds images of the same splits. names [M]: of the images, with unique stems.
    """
    groups = _groups(len(dataset), splits)
    short = _keys(names)
    for start, members in groups.items():
        for number, part in enumerate(_parts(dataset, members)):
            _write_tar(root / f"{start}-{number:05}.tar", dataset, part, short)
    starts = {name: [start for start in groups if name in start.split("+")] for name in splits}
    about = {"labels": list(dataset.labels), **({"splits": starts} if splits else {})}
    write_text(root / DESCRIPTION, json.dumps(about, indent=2) + "\n")
    return root


def _groups(count: int, splits: Mapping[str, NDArray[np.int64]]) -> dict[str, list[int]]:
    """Return the images that are in the same splits, by the names of these: train, train+trainval, other."""
    of_image: list[list[str]] = [[] for _ in range(count)]
    for name, members in splits.items():
        for index in members.tolist():
            of_image[index].append(name)
    groups: dict[str, list[int]] = {}
    order = dict.fromkeys(index for members in splits.values() for index in members.tolist())
    for index in (*order, *(index for index in range(count) if index not in order)):
        groups.setdefault("+".join(of_image[index]) or (OTHER if splits else "images"), []).append(index)
    return groups


def _keys(names: Iterable[str]) -> list[str]:
    """Return names without a dot before their ending: webdataset takes what follows the first dot as the ending."""
    taken: set[str] = set()
    found = []
    for name in names:
        stem, ending = os.path.splitext(name)
        key = stem.replace(".", "_")
        while key in taken:
            key += "_"
        taken.add(key)
        found.append(key + ending)
    return found


def _parts(dataset: Dataset, members: Iterable[int]) -> Iterator[list[int]]:
    """Yield images whose files have SHARD_BYTES together."""
    part: list[int] = []
    size = 0
    for index in members:
        part.append(index)
        size += len(read_bytes(dataset.records[index].path))
        if size >= SHARD_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _write_tar(path: Path, dataset: Dataset, members: Iterable[int], names: list[str]) -> None:
    entries: list[dict[str, Any]] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for index in members:
            content, labels = read_bytes(dataset.records[index].path), _labels(dataset, index)
            _add(tar, names[index], content)
            offset = tar.offset - -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            _add(tar, os.path.splitext(names[index])[0] + ".json", json.dumps(labels).encode())
            entries.append({"image": names[index], "offset": offset, "size": len(content), **labels})
    write_index(path, path.stat().st_size, iter(entries))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _labels(dataset: Dataset, index: int) -> dict[str, Any]:
    """Return the labels of an image as its .json holds them; boxes keep every digit."""
    width, height = (int(v) for v in dataset.sizes[index])
    objects = []
    for n in range(dataset.first[index], dataset.first[index + 1]):
        one: dict[str, Any] = {"label": dataset.labels[dataset.classes[n]], "box": dataset.boxes[n].tolist()}
        crowd = dataset.crowd is not None and bool(dataset.crowd[n])
        if dataset.difficult[n] and not crowd:
            one["difficult"] = True
        if crowd:
            one["crowd"] = True
        if dataset.area is not None and dataset.area[n]:
            one["area"] = float(dataset.area[n])
        objects.append(one)
    return {"width": width, "height": height, "objects": objects}
