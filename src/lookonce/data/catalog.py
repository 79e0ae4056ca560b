"""From a folder to a Dataset: find its format, choose a split and classes, say what is wrong with it."""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lookonce.choices import choose
from lookonce.data import voc
from lookonce.data.coco_folder import find_coco, read_coco
from lookonce.data.gathering import Gathering
from lookonce.data.pictures import inspect
from lookonce.data.record import DataPolicy, Dataset, Problem
from lookonce.data.voc_folder import find_voc, read_voc
from lookonce.data.yolo_folder import DESCRIPTIONS, find_yolo, read_yolo
from lookonce.errors import ConfigError, PictureError, UserError

log = logging.getLogger("lookonce")

Format = Literal["auto", "voc", "coco", "yolo"]
EXPECTED = "Pascal VOC (Annotations/*.xml), COCO (annotations/*.json) or YOLO (data.yaml or obj.data)"
HASHED = ("train", "val", "test")
"""Splits of a data set that brings no lists: 80, 10 and 10 % of its pictures, by a hash of their names."""


def read_dataset(
    path: Path | str,
    split: str | None = None,
    labels: Sequence[str] | None = None,
    format: Format = "auto",
    policy: DataPolicy = "drop",
) -> Dataset:
    """Read labelled pictures; the pictures themselves stay closed.

    Args:
        path: folder of the data set, or its COCO .json, data.yaml or obj.data.
        split: the pictures of this list (VOC: ImageSets/Main/SPLIT.txt; COCO: *SPLIT*.json; YOLO: as data.yaml or
            obj.data says); None: all. A data set without lists of these names is split 80/10/10 into train,
            val and test by a hash of the names, the same each time.
        labels: keep these classes, by name, in this order. Pictures without any of them stay, empty.
        format: voc, coco or yolo; auto finds it by looking. YOLO and COCO describe their classes, so all of them
            are kept, in that order (COCO: by id).
        policy: how to handle a box less than half inside its image: drop it, clip it to the image, or error.
            Boxes without area are dropped. A box whose place is clear is kept and counted as fixed: at least half
            inside (clipped), corners exchanged, a polygon (its bounding box). All problems are found in one pass.
    Returns:
        Dataset. Classes are those of the whole data set, whatever the split; of a VOC data set those with objects,
        in VOC's own order or by name. What was wrong is in .problems, and said in one warning.
    Raises:
        UserError: no such folder, nothing labelled in it, no such split or class, nothing left; any problem
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
    """Several splits of one data set, read in one pass. Arguments and errors as read_dataset."""
    whole = read_whole(path, labels, format, policy)
    found = []
    for split in splits:
        chosen = whole.members(split)
        problems = whole.problems_of(split)
        part = replace(whole.dataset.select(chosen), problems=problems)
        if not len(part):
            raise UserError(
                f"{path}: split {split!r} has no readable pictures; {summarise(problems) or 'its list is empty'}"
            )
        settle(problems, policy, str(path))
        found.append(part)
    if whole.dataset.crowd is not None:
        log.info("%s: %d crowd boxes are read as difficult objects", path, whole.dataset.crowd.sum())
    return found


def check_pictures(
    dataset: Dataset,
    policy: DataPolicy = "drop",
    workers: int = 8,
    progress: Callable[[int], None] | None = None,
) -> Dataset:
    """Look at the header and the end of every picture file, in one pass, before anything is trained on them.

    Args:
        dataset: any.
        policy: error refuses a data set with problems; drop and clip leave out the pictures concerned.
        workers: threads.
        progress: called with the number of pictures done.
    Returns:
        The data set without pictures that are missing, cut, foreign, or of another size than their annotation says.
    """
    files = [record.path for record in dataset.records]
    problems, keep = [], np.ones(len(files), bool)
    with ThreadPoolExecutor(workers) as pool:
        for index, found in enumerate(pool.map(_look, files)):
            size = tuple(int(v) for v in dataset.sizes[index])
            if isinstance(found, str):
                kind = "picture missing" if found == "no such file" else "picture unreadable"
                problems.append(Problem(str(dataset.paths[index]), kind, found, "skipped"))
            elif found != size:
                said = f"the picture is {found[0]} x {found[1]} and its annotation says {size[0]} x {size[1]}"
                problems.append(Problem(str(dataset.paths[index]), "size mismatch", said, "skipped"))
            keep[index] = not problems or problems[-1].place != str(dataset.paths[index])
            if progress is not None:
                progress(index + 1)
    settle(tuple(problems), policy, str(dataset.root))
    if not keep.any():
        raise UserError(f"{dataset.root}: not one of {len(files)} pictures can be used; {summarise(problems)}")
    return replace(dataset.select(keep), problems=(*dataset.problems, *problems)) if problems else dataset


def summarise(problems: Sequence[Problem]) -> str:
    """Problems in one line, by kind: how many, what was done, the first place."""
    kinds: Counter[tuple[str, str]] = Counter()
    for p in problems:
        kinds[p.kind, p.action] += p.times
    said = []
    for (kind, action), count in kinds.most_common():
        first = next(p for p in problems if (p.kind, p.action) == (kind, action))
        said.append(f"{count} x {kind}, {action} (first: {first.place}: {first.found})")
    return "; ".join(said)


def settle(problems: Sequence[Problem], policy: DataPolicy, place: str) -> None:
    """Warn of problems, or refuse the data set under policy="error"."""
    if not problems:
        return
    if choose(policy, get_args(DataPolicy), "policy") == "error":
        raise UserError(f"{place}: {summarise(problems)}; mend them, or use policy drop or clip")
    log.warning("%s: %s", place, summarise(problems))


def _look(path: Path) -> tuple[int, int] | str:
    try:
        return inspect(path)
    except PictureError as error:
        return error.found


@dataclass(frozen=True)
class Whole:
    """A data set read once: every picture, and which pictures each split has."""

    found: Gathering
    dataset: Dataset
    """All pictures, with the classes asked for; its problems are those of the whole."""
    rows: NDArray[np.int64]
    """[N] which object of `found` each of the data set is."""

    def place(self, n: int) -> str:
        """file:line of an object of the data set; of a file of many pictures (COCO), also which."""
        picture = int(np.searchsorted(self.dataset.first, n, side="right")) - 1
        return self.found.told_object(picture, int(self.rows[n]))

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that it brings; those of VOC for one class each are left out. Empty: it brings none."""
        return tuple(name for name in self.found.splits if name.rpartition("_")[0] not in voc.CLASSES)

    def members(self, split: str | None) -> NDArray[np.int64]:
        """Indices of a split's pictures; None: of all. Names without a picture become problems."""
        found = self.found
        if split is None:
            return np.arange(len(found.paths))
        if split in HASHED and not any(name in found.splits for name in HASHED):
            chosen = [i for i, path in enumerate(found.paths) if _hashed(Path(path).stem) == split]
            return np.array(chosen, np.int64)
        if split not in found.splits:
            hashed = () if any(name in found.splits for name in HASHED) else HASHED
            known = ", ".join((*self.splits, *hashed))
            raise UserError(f"{found.root}: no split {split!r}; there are {known}")
        names = found.splits[split]()
        for name in names:
            if name not in found.place and not found.noted & {name, f"{split}: {name}"}:
                found.noted.add(f"{split}: {name}")
                place = found.lists.get(split, found.root)
                found.problem(split, (place, 0), "annotation missing", f"names {name!r}, which has none", "skipped")
        return np.array([found.place[name] for name in names if name in found.place], np.int64)

    def problems_of(self, split: str | None) -> tuple[Problem, ...]:
        """Problems of a split's images and of its list, and of the data set as a whole; None: of everything."""
        found = self.found
        if split is None:
            return tuple(p for _, p in found.problems)
        if split in found.splits:
            names = {*found.splits[split](), split, ""}
        else:
            names = {key for key, _ in found.problems if not key or _hashed(Path(key).stem) == split}
        return tuple(p for key, p in found.problems if key in names)


def read_whole(
    path: Path | str,
    labels: Sequence[str] | None = None,
    format: Format = "auto",
    policy: DataPolicy = "drop",
    absent: bool = False,
) -> Whole:
    """A data set and its splits, without a word on its problems; absent: without COCO's pictures. As read_dataset."""
    format, policy = choose(format, get_args(Format), "format"), choose(policy, get_args(DataPolicy), "policy")
    root = Path(path).expanduser()
    if not root.exists():
        raise UserError(f"{root}: no such folder; expected a data set: {EXPECTED}")
    found = _reader(root, format, absent)(policy)
    return Whole(found, *_dataset(found, tuple(labels) if labels is not None else None))


def _reader(root: Path, format: Format, absent: bool) -> Callable[[DataPolicy], Gathering]:
    """What reads the data set at `root`, by looking at it."""
    if root.is_file():
        ending = root.suffix.lower()
        if ending == ".json" and format in ("auto", "coco"):
            return partial(read_coco, root.parent, [root], absent=absent)
        if ending in DESCRIPTIONS and format in ("auto", "yolo"):
            return partial(read_yolo, root.parent, root)
        raise UserError(f"{root}: a file; expected the folder of a data set, a COCO .json or a YOLO data.yaml or .data")
    ways = {
        "voc": partial(read_voc, root) if find_voc(root) else None,
        "coco": partial(read_coco, root, here, absent=absent) if (here := find_coco(root, format == "coco")) else None,
        "yolo": partial(read_yolo, root, file) if (file := find_yolo(root, format == "yolo")) else None,
    }
    fitting = [name for name, way in ways.items() if way and format in ("auto", name)]
    if not fitting:
        raise UserError(f"{root}: no annotations found; expected {EXPECTED}")
    if len(fitting) > 1:
        log.info("%s: read as %s; it also holds %s", root, fitting[0], " and ".join(fitting[1:]))
    way = ways[fitting[0]]
    assert way is not None
    return way


def _dataset(found: Gathering, labels: tuple[str, ...] | None) -> tuple[Dataset, NDArray[np.int64]]:
    """Every picture, with the classes asked for; and which objects found are in it."""
    if not found.ids:
        said = summarise([p for _, p in found.problems])
        after = f"; {said}" if said else ""
        raise UserError(f"{found.root}: no objects in {len(found.paths)} annotated pictures{after}")
    names = np.frombuffer(found.names, np.int64)
    order = class_order(found, labels, Counter(names.tolist()))
    new_id = np.full(len(found.ids), -1)
    for label, name in enumerate(order):
        if name in found.ids:
            new_id[found.ids[name]] = label
    classes = new_id[names]
    keep = classes >= 0
    pictures = len(found.paths)
    picture = np.repeat(np.arange(pictures), found.counts)[keep]
    first = np.concatenate(([0], np.bincount(picture, minlength=pictures).cumsum()))
    crowd, area = np.array(found.crowd, bool)[keep], np.array(found.areas, np.float64)[keep]
    dataset = Dataset(
        found.root.resolve().name, found.root, order,
        np.array(found.paths, np.str_), np.array(found.sizes, np.int32).reshape(-1, 2),
        first.astype(np.int64), np.array(found.boxes, np.float32).reshape(-1, 4)[keep], classes[keep].astype(np.int64),
        np.array(found.difficult, bool)[keep], tuple(p for _, p in found.problems), crowd if crowd.any() else None,
        area if area.any() else None,
    )  # fmt: skip
    return dataset, np.flatnonzero(keep)


def _hashed(stem: str) -> str:
    """The split of a picture's name. Adding pictures moves no other."""
    tenth = int(hashlib.sha256(stem.encode()).hexdigest()[:8], 16) % 10
    return {0: "test", 1: "val"}.get(tenth, "train")


def class_order(found: Gathering, labels: tuple[str, ...] | None, counts: Counter[int]) -> tuple[str, ...]:
    """The classes asked for, or all, in the order of the format. counts: objects of each, for the error."""
    ids, given = found.ids, found.class_names
    if labels is None:
        if given is not None:
            return given
        order = voc.CLASSES if set(ids) <= set(voc.CLASSES) else sorted(ids)
        return tuple(name for name in order if name in ids)
    if not labels or len(set(labels)) < len(labels):
        raise ConfigError(f"labels: {list(labels)}; expected one or more names, each once")
    for name in labels:
        if name not in ids and name not in (given or ()):
            near = difflib.get_close_matches(name, given or ids, 1)
            known = ", ".join(f"{n} ({counts[ids[n]] if n in ids else 0})" for n in sorted(given or ids))
            raise UserError(f"labels: no object is a {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
                            + f"; there are {known}")  # fmt: skip
    return labels
