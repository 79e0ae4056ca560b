"""Read a data set: find its format, choose a split and classes, report its problems."""

from __future__ import annotations

import difflib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lookonce.choices import choose
from lookonce.data.dataset import DataPolicy, Dataset, Problem
from lookonce.data.formats import voc
from lookonce.data.formats.builder import Builder
from lookonce.data.formats.coco import find_coco, is_coco, read_coco
from lookonce.data.formats.shards import find_shards, read_shards
from lookonce.data.formats.voc import EXPECTED as VOC_EXPECTED
from lookonce.data.formats.voc import find_voc, of_one_class, read_voc
from lookonce.data.formats.yolo import DESCRIPTIONS, find_yolo, has_labels, read_yolo
from lookonce.data.images import inspect
from lookonce.data.lookup import is_hidden, sections, walk_files
from lookonce.data.other_formats import describe_folder, name_tool
from lookonce.data.remote import as_address, is_address
from lookonce.data.tars import mirror_of, mirrored
from lookonce.errors import ConfigError, ImageError, UserError

log = logging.getLogger("lookonce")
Format = Literal["auto", "voc", "coco", "yolo", "shards"]
EXPECTED = "Pascal VOC (Annotations/*.xml), COCO (annotations/*.json), YOLO (data.yaml or obj.data) or shards (*.tar)"
HASHED = ("train", "val", "test")
"""Splits of a data set without lists: 80, 10 and 10 % of its images, by a hash of their names."""
DEEPEST = 4
"""Most levels of folders that are searched for a data set."""
MOST_FOLDERS = 1000
"""Most folders of one level that are searched."""


def read_dataset(
    path: Path | str,
    split: str | None = None,
    labels: Sequence[str] | None = None,
    format: Format = "auto",
    policy: DataPolicy = "drop",
) -> Dataset:
    """Read the labels of a data set; its images are not opened.

    Args:
        path: folder of the data set, or its COCO .json, data.yaml or obj.data; or the address of its shards.
        split: the images of this split (VOC: ImageSets/Main/SPLIT.txt; COCO: *SPLIT*.json; YOLO: as data.yaml or
            obj.data says; of any: folders of this name); None: all. A data set that brings no splits is divided
            80/10/10 into train, val and test by a hash of the file names, the same each time.
        labels: keep these classes, by name, in this order. Images without any of them stay, empty.
        format: voc, coco, yolo or shards; auto: recognize it. YOLO, COCO and shards describe their classes, so all
            of them are kept, in that order (COCO: by id).
        policy: how to handle a box less than half inside its image: drop it, clip it to the image, or error.
            Boxes without area are dropped. A box whose place is clear is kept and counted as fixed: at least half
            inside (clipped), corners exchanged, a polygon (its bounding box). All problems are found in one pass.
    Returns:
        Dataset. Classes are those of the whole data set, whatever the split; of a VOC data set those with objects,
        in VOC's own order or by name. Problems are in .problems and reported in one warning.
    Raises:
        UserError: no such folder, nothing labelled in it, no such split (with those that there are), no such class,
            a list that cannot be read, nothing left; any problem
            under policy="error".
    """
    return read_splits(path, [split], labels, format, policy)[0]


def read_splits(
    path: Path | str,
    splits: Sequence[str | None],
    labels: Sequence[str] | None = None,
    format: Format = "auto",
    policy: DataPolicy = "drop",
) -> list[Dataset]:
    """Read several splits of one data set in one pass. Arguments and errors as read_dataset."""
    whole = read_whole(path, labels, format, policy)
    found = []
    problems_found: dict[Problem, None] = {}
    for split in splits:
        chosen = whole.members(split)
        problems = whole.problems_of(split)
        part = replace(whole.dataset.select(chosen), problems=problems)
        if not len(part):
            why = summarise(whole.problems_of(split, alone=True)) or "its list is empty"
            raise UserError(f"{path}: split {split!r} has no readable images; {why}")
        problems_found.update(dict.fromkeys(problems))
        found.append(part)
    settle(tuple(problems_found), policy, str(path))
    if any(split is not None for split in splits):
        log.info("%s: %s", path, whole.say_splits())
    if whole.dataset.crowd is not None:
        log.info("%s: %d crowd boxes are read as difficult objects", path, whole.dataset.crowd.sum())
    return found


def check_images(
    dataset: Dataset,
    policy: DataPolicy = "drop",
    workers: int = 8,
    progress: Callable[[int], None] | None = None,
) -> Dataset:
    """Check the header and the end of every image file in one pass, before training.

    Args:
        dataset: any.
        policy: error refuses a data set with problems; drop and clip leave out the images concerned.
        workers: threads.
        progress: called with the number of images done.
    Returns:
        The data set without images that are missing, truncated, no images, or not of their annotation's size. Remote
        images are not looked at.
    """
    if mirror_of(dataset.root / "train.tar") is not None:
        return dataset  # each look would be a request; an image that does not decode is left out when it is drawn
    files = [record.path for record in dataset.records]
    problems, keep = [], np.ones(len(files), bool)
    with ThreadPoolExecutor(workers) as pool:
        for index, found in enumerate(pool.map(_look, files)):
            size = tuple(int(v) for v in dataset.sizes[index])
            if isinstance(found, str):
                kind = "image missing" if found == "no such file" else "image unreadable"
                problems.append(Problem(str(dataset.paths[index]), kind, found, "skipped"))
            elif found != size:
                mismatch = f"the image is {found[0]} x {found[1]} and its annotation says {size[0]} x {size[1]}"
                problems.append(Problem(str(dataset.paths[index]), "size mismatch", mismatch, "skipped"))
            keep[index] = not problems or problems[-1].place != str(dataset.paths[index])
            if progress is not None:
                progress(index + 1)
    settle(tuple(problems), policy, str(dataset.root))
    if not keep.any():
        raise UserError(f"{dataset.root}: not one of {len(files)} images can be used; {summarise(problems)}")
    return replace(dataset.select(keep), problems=(*dataset.problems, *problems)) if problems else dataset


def summarise(problems: Sequence[Problem]) -> str:
    """Return problems in one line, by kind: the count, the action, the first location."""
    kinds: Counter[tuple[str, str]] = Counter()
    for p in problems:
        kinds[p.kind, p.action] += p.times
    parts = []
    for (kind, action), count in kinds.most_common():
        first = next(p for p in problems if (p.kind, p.action) == (kind, action))
        parts.append(f"{action} {count} x {kind} (first: {first.place}: {first.found})")
    return "; ".join(parts)


def settle(problems: Sequence[Problem], policy: DataPolicy, place: str) -> None:
    """Warn of problems, or refuse the data set under policy="error"."""
    if not problems:
        return
    if choose(policy, get_args(DataPolicy), "policy") == "error":
        raise UserError(f"{place}: {summarise(problems)}; fix them, or use policy drop or clip")
    log.warning("%s: %s", place, summarise(problems))


def _look(path: Path) -> tuple[int, int] | str:
    try:
        return inspect(path)
    except ImageError as error:
        return error.found


@dataclass(frozen=True)
class Whole:
    """A whole data set: every image, and the images of each split."""

    found: Builder
    dataset: Dataset
    """All images with the requested classes, and all problems."""
    rows: NDArray[np.int64]
    """[N] index in `found` of each object of the data set."""

    def place(self, n: int) -> str:
        """Return the location of object n: file:line, or in a COCO file its entry."""
        image = int(np.searchsorted(self.dataset.first, n, side="right")) - 1
        return self.found.object_location(image, int(self.rows[n]))

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the data set's own splits, without VOC's lists for one class each. Empty: it has none."""
        found = self.found
        return tuple(name for name in found.splits if found.format != "voc" or not of_one_class(name, found))

    @cached_property
    def brought(self) -> tuple[str, ...]:
        """Names of the splits that divide it: all but lists of every image. Raises UserError for an unreadable list."""
        if any(name in self.found.splits for name in HASHED):
            return self.splits
        return tuple(name for name in self.splits if len(self.members(name)) < len(self.found.paths))

    @property
    def training(self) -> tuple[str, ...]:
        """Names of train, val and test that exist: its own splits, or those by hash if it has none."""
        if self.brought:
            return tuple(name for name in HASHED if name in self.found.splits)
        return HASHED if len(self._hashed) > 1 else ("train",)

    @property
    def source(self) -> str:
        """Source of the splits: a file, lists, folders, or a hash of the file names."""
        if self.brought:
            return f"from {self.found.source}"
        if len(self._hashed) > 1:
            return "no lists: 80/10/10 by a hash of the file names"
        return f"no lists, and {_count(len(self.found.paths))}: too few to split"

    def say_splits(self) -> str:
        """Return one line: train, val and test, the number of images of each, and their source."""
        counts = ", ".join(f"{name} {len(self.members(name)):,}" for name in self.training or self.brought)
        return f"split: {counts} images, {self.source}"

    @cached_property
    def _hashed(self) -> dict[str, NDArray[np.int64]]:
        """Divide a data set without splits into exactly 80, 10 and 10 % by the hash of the file names."""
        paths = self.found.paths
        order = sorted(
            range(len(paths)),
            key=lambda i: (sha256(Path(paths[i]).stem.encode("utf-8", "surrogatepass")).digest(), paths[i]),
        )
        if len(order) < len(HASHED):
            return {"train": np.arange(len(order))}
        tenth = max(1, round(len(order) / 10))
        parts = {"train": order[2 * tenth :], "val": order[tenth : 2 * tenth], "test": order[:tenth]}
        return {name: np.array(sorted(part), np.int64) for name, part in parts.items()}

    def members(self, split: str | None) -> NDArray[np.int64]:
        """Return the indices of a split's images (None: all). Names without an image become problems."""
        found = self.found
        if split is None:
            return np.arange(len(found.paths))
        split = found.aliases.get(split, split)
        if split not in found.splits:
            if split in HASHED and not self.brought and split in self._hashed:
                return self._hashed[split]
            raise UserError(self._no_split(split))
        names = [name for name in found.splits[split]() if not is_hidden(name.rpartition("/")[2])]
        for name in names:
            if name not in found.index and not found.with_problems & {name, f"{split}: {name}"}:
                found.with_problems.add(f"{split}: {name}")
                place = found.lists.get(split, found.root)
                found.problem(split, (place, 0), "annotation missing", f"names {name!r}, which has none", "skipped")
        places = dict.fromkeys(found.index[name] for name in names if name in found.index)
        return np.array(list(places), np.int64)

    def _no_split(self, split: str) -> str:
        """Return the message for an unknown split: the splits that exist, and what to do."""
        root, images = self.found.root, _count(len(self.found.paths))
        if not self.brought and split in HASHED:
            return f"{root}: {images}, too few for train, val and test; train with --val-split none"
        names = self.brought or (*self.splits, *self._hashed)
        known = ", ".join(f"{name} ({_count(len(self.members(name)))})" for name in names[:MOST_NAMED])
        known += f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        unknown = f"{root}: no split {split!r}; there are {known}"
        if self.brought and not self.training:
            return (
                f"{unknown}: say which to use with --train-split NAME and --val-split NAME (or none), or --split NAME"
            )
        if split == "val":
            return f"{unknown}: use one of them with --val-split NAME, or train without validation: --val-split none"
        return f"{unknown}: use one of them with {'--train-split' if split == 'train' else '--split'} NAME" + (
            ", or --split all" if split == "test" else ""
        )

    def problems_of(self, split: str | None, alone: bool = False) -> tuple[Problem, ...]:
        """Return the problems of a split's images and list (None: of all splits), and those of the data set itself.

        alone: without those of the data set itself.
        """
        found = self.found
        if split is None:
            return tuple(p for _, p in found.problems)
        split = found.aliases.get(split, split)
        if split in found.splits:
            others = {name: {*keys(), name} for name, keys in found.splits.items() if name in (*self.training, split)}
        else:
            first = {at: key for key, at in reversed(found.index.items())}  # its own name comes before aliases
            others = {name: {first[i] for i in self._hashed[name].tolist()} for name in self._hashed}
        mine = others.pop(split)
        elsewhere = set().union(*others.values()) if others else set()
        return tuple(p for key, p in found.problems if key in mine or (not alone and key not in elsewhere))


MOST_NAMED = 12
"""Most splits that a message lists."""


def _count(images: int) -> str:
    return "1 image" if images == 1 else f"{images:,} images"


def read_whole(
    path: Path | str,
    labels: Sequence[str] | None = None,
    format: Format = "auto",
    policy: DataPolicy = "drop",
    images_optional: bool = False,
) -> Whole:
    """Return a data set and its splits without reporting its problems. Arguments and errors as read_dataset.

    images_optional: images of a COCO data set need not be there.
    """
    format, policy = choose(format, get_args(Format), "format"), choose(policy, get_args(DataPolicy), "policy")
    root = mirrored(as_address(path)) if is_address(path) else Path(path).expanduser()
    if not root.exists():
        raise UserError(f"{root}: no such folder; expected a data set: {EXPECTED}")
    found = _read(root, format, images_optional, policy)
    return Whole(found, *_dataset(found, tuple(labels) if labels is not None else None))


Reader = Callable[[DataPolicy], Builder]


def _read(root: Path, format: Format, images_optional: bool, policy: DataPolicy) -> Builder:
    """Read the data set at `root` in the requested format, or in the one that its content shows.

    If several formats can be read, the one with the most labelled images is used.
    """
    place, ways = _named(root, format, images_optional) if root.is_file() else _find(root, format, images_optional)
    read: dict[str, Builder] = {}
    failed: dict[str, UserError] = {}
    for name, way in ways.items():
        try:
            read[name] = way(policy)
        except UserError as error:
            failed[name] = error
    if not read:
        first, *more = failed.items()
        as_well = "".join(f"; as {name}: {str(error).removeprefix(f'{place}: ')}" for name, error in more)
        raise UserError(f"{first[1]}{as_well}")
    best = max(read, key=lambda name: sum(map(bool, read[name].counts)))
    also = [name for name in ways if name != best]
    if also:
        log.info("%s: read as %s; it also holds %s", place, best, " and ".join(also))
    if place != root and root.is_dir():
        log.info("%s: the data set is in its folder %s", root, place.relative_to(root).as_posix())
    return read[best]


def _named(file: Path, format: Format, images_optional: bool) -> tuple[Path, dict[str, Reader]]:
    """Return (root, reader by format) of a file that describes a data set."""
    ending = file.suffix.lower()
    if ending == ".json" and format in ("auto", "coco") and (is_coco(file) or name_tool(file) is None):
        return file, {"coco": partial(read_coco, file.parent, [file], images_optional=images_optional)}
    if ending in DESCRIPTIONS and format in ("auto", "yolo"):
        return file, {"yolo": partial(read_yolo, file.parent, file)}
    tool = name_tool(file)
    raise UserError(
        f"{file}: {tool or 'a file'}; expected the folder of a data set, a COCO .json or a YOLO data.yaml or .data"
    )


def _find(root: Path, format: Format, images_optional: bool) -> tuple[Path, dict[str, Reader]]:
    """Return the data set's folder (`root`, or the only one below it) and the readers that fit, by format."""
    level = [root]
    for _ in range(DEEPEST):
        fitting = {place: ways for place in level if (ways := _ways(place, format, images_optional))}
        if len(fitting) > 1:
            names = ", ".join(place.relative_to(root).as_posix() for place in list(fitting)[:MOST_NAMED])
            raise UserError(f"{root}: {len(fitting)} data sets lie in it: {names}; name one of them")
        if fitting:
            return next(iter(fitting.items()))
        level = [below for place in level for below in _folders_of(place)][:MOST_FOLDERS]
    if format in ("auto", "yolo") and has_labels(walk_files(root)):
        raise UserError(
            f"{root}: YOLO labels are here but no class names: write classes.txt, one name a line in the order of "
            "the class numbers, or a data.yaml"
        )
    expected = EXPECTED if format == "auto" else {"voc": VOC_EXPECTED}.get(format, f"a {format.upper()} data set")
    other = _find_other(root, format)
    raise UserError(f"{root}: no annotations found; {describe_folder(root)}{other}; expected {expected}")


def _find_other(root: Path, format: Format) -> str:
    """Return a hint if the data set has another format than the requested one."""
    fits = [] if format == "auto" else list(_ways(root, "auto", True))
    return f"; it looks like {' and '.join(fits)}" if fits else ""


def _ways(place: Path, format: Format, images_optional: bool) -> dict[str, Reader]:
    """Return the readers that fit the data set in a folder, by format; empty: none."""
    ways: dict[str, Reader] = {}
    inside = sections(place)
    if format in ("auto", "voc") and find_voc(place, inside):
        ways["voc"] = partial(read_voc, place)
    if format in ("auto", "coco") and (files := find_coco(place, inside)):
        ways["coco"] = partial(read_coco, place, files, images_optional=images_optional)
    if format in ("auto", "yolo") and (file := find_yolo(place, inside)):
        ways["yolo"] = partial(read_yolo, place, file)
    if format in ("auto", "shards") and (tars := find_shards(place, inside)):
        ways["shards"] = partial(read_shards, place, tars)
    return ways


def _folders_of(place: Path) -> list[Path]:
    try:
        return sorted(p for p in place.iterdir() if not is_hidden(p.name) and p.is_dir())
    except OSError:
        return []


def _dataset(found: Builder, labels: tuple[str, ...] | None) -> tuple[Dataset, NDArray[np.int64]]:
    """Return every image with the requested classes, and the indices of its objects in `found`."""
    if not found.ids:
        summary = summarise([p for _, p in found.problems])
        after = f"; {summary}" if summary else ""
        raise UserError(f"{found.root}: no objects in {len(found.paths)} annotated images{after}")
    names = np.frombuffer(found.names, np.int64)
    order = class_order(found, labels, Counter(names.tolist()))
    new_id = np.full(len(found.ids), -1)
    for label, name in enumerate(order):
        if name in found.ids:
            new_id[found.ids[name]] = label
    classes = new_id[names]
    keep = classes >= 0
    images = len(found.paths)
    image = np.repeat(np.arange(images), found.counts)[keep]
    first = np.concatenate(([0], np.bincount(image, minlength=images).cumsum()))
    crowd, area = np.array(found.crowd, bool)[keep], np.array(found.areas, np.float64)[keep]
    dataset = Dataset(
        found.root.resolve().name, found.root, order,
        np.array(found.paths, np.str_), np.array(found.sizes, np.int32).reshape(-1, 2),
        first.astype(np.int64), np.array(found.boxes, np.float32).reshape(-1, 4)[keep], classes[keep].astype(np.int64),
        np.array(found.difficult, bool)[keep], tuple(p for _, p in found.problems), crowd if crowd.any() else None,
        area if area.any() else None,
    )  # fmt: skip
    return dataset, np.flatnonzero(keep)


def class_order(found: Builder, labels: tuple[str, ...] | None, counts: Counter[int]) -> tuple[str, ...]:
    """Return the requested classes, or all in the format's order. counts: objects of each, for the message."""
    ids, given = found.ids, found.class_names
    if labels is None:
        if given is not None:
            return given
        order = voc.CLASSES if set(ids) <= set(voc.CLASSES) else sorted(ids)
        return tuple(name for name in order if name in ids)
    known_names = {*ids, *(given or ())}
    if not labels or len(set(labels)) < len(labels):
        raise ConfigError(f"labels: {list(labels)}; expected one or more names, each once")
    for name in labels:
        if name not in known_names:
            near = difflib.get_close_matches(name, given or ids, 1)
            known = ", ".join(f"{n} ({counts[ids[n]] if n in ids else 0})" for n in sorted(given or ids))
            raise UserError(f"labels: no object is a {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
                            + f"; there are {known}")  # fmt: skip
    return labels
