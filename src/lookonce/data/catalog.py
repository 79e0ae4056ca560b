"""From a folder to a Dataset: find its format, choose a split and classes, say what is wrong with it."""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from lookonce.data import voc
from lookonce.data.pictures import inspect
from lookonce.data.record import Dataset, Problem
from lookonce.data.voc import DataPolicy
from lookonce.errors import ConfigError, PictureError, UserError

log = logging.getLogger("lookonce")

Format = Literal["auto", "voc"]
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
        path: folder of the data set.
        split: the pictures of this list (ImageSets/Main/SPLIT.txt); None: all. A data set without lists
            is split 80/10/10 into train, val and test by a hash of the names, the same each time.
        labels: keep these classes, by name, in this order. Pictures without any of them stay, empty.
        format: auto finds it.
        policy: what becomes of a wrong box: error, drop, or clip (cut to the picture). Boxes without area
            cannot be cut and are dropped. All problems are found in one pass.
    Returns:
        Dataset. Classes are those of the whole data set, whatever the split: VOC's in their own order, others
        by name. What was wrong is in .problems, and said in one warning.
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
    if format not in ("auto", "voc"):
        raise ConfigError(f"format: {format!r}; expected auto or voc")
    if policy not in ("error", "drop", "clip"):
        raise ConfigError(f"policy: {policy!r}; expected error, drop or clip")
    root = Path(path).expanduser()
    whole = _Reading(root, policy)
    dataset = whole.dataset(tuple(labels) if labels is not None else None)
    found = []
    for split in splits:
        chosen = whole.chosen(split)
        problems = whole.problems_of(chosen, split)
        part = replace(dataset.select(np.array(chosen, np.int64)), problems=problems)
        if not len(part):
            raise UserError(
                f"{root}: split {split!r} has no readable pictures; {summarise(problems) or 'its list is empty'}"
            )
        settle(problems, policy, str(root))
        found.append(part)
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
    kinds = Counter((p.kind, p.action) for p in problems)
    said = []
    for (kind, action), count in kinds.most_common():
        first = next(p for p in problems if (p.kind, p.action) == (kind, action))
        said.append(f"{count} x {kind}, {action} (first: {first.place}: {first.found})")
    return "; ".join(said)


def settle(problems: Sequence[Problem], policy: DataPolicy, place: str) -> None:
    """Warn of problems, or refuse the data set under policy="error"."""
    if not problems:
        return
    if policy == "error":
        raise UserError(f"{place}: {summarise(problems)}; mend them, or use policy drop or clip")
    log.warning("%s: %s", place, summarise(problems))


def _look(path: Path) -> tuple[int, int] | str:
    try:
        return inspect(path)
    except PictureError as error:
        return error.found


@dataclass
class _Columns:
    """The index while it grows."""

    paths: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    boxes: list[tuple[float, ...]] = field(default_factory=list)
    names: list[int] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)


class _Reading:
    """One pass over a VOC data set: every annotation is parsed once, whatever the splits."""

    def __init__(self, root: Path, policy: DataPolicy) -> None:
        if not root.exists():
            raise UserError(f"{root}: no such folder; expected a data set (Annotations/*.xml and JPEGImages/)")
        if not root.is_dir():
            raise UserError(f"{root}: a file; expected the folder of a data set (Annotations/*.xml and JPEGImages/)")
        self.root, self.policy = root, policy
        self.columns, self.ids = _Columns(), dict[str, int]()
        self.problems: list[tuple[str, Problem]] = []
        self.place: dict[str, int] = {}
        folder = next(
            (root / n for n in ("Annotations", "annotations", "labels", ".") if any((root / n).glob("*.xml"))), None
        )
        if folder is None:
            raise UserError(f"{root}: no annotations found; expected Pascal VOC: Annotations/*.xml beside JPEGImages/")
        homes = [root / n for n in ("JPEGImages", "images", "Images")] + [folder, root]
        pictures = voc.picture_index(dict.fromkeys(homes), root)
        for file in sorted(folder.glob("*.xml")):
            self._read(file, pictures)
        lists = root / "ImageSets" / "Main"
        self.lists = {p.stem: p for p in sorted((lists if lists.is_dir() else root / "ImageSets").glob("*.txt"))}

    def _read(self, file: Path, pictures: dict[str, str]) -> None:
        try:
            page = voc.parse(file)
            picture = voc.picture_of(file.stem, page, pictures)
            if picture is None:
                self._problem(file, 0, "picture missing", f"no picture {file.stem}.* beside it", "skipped")
                return
            size = voc.size_of(page, self.root / picture)
        except UserError as error:
            kind = "picture unreadable" if isinstance(error, PictureError) else "annotation unreadable"
            self._problem(file, 0, kind, str(error).removeprefix(str(file)).lstrip(":"), "skipped")
            return
        self.place[file.stem] = len(self.columns.paths)
        self.columns.paths.append(picture)
        self.columns.sizes.append(size)
        self.columns.counts.append(sum(self._object(file, thing, size) for thing in page.objects))

    def _object(self, file: Path, thing: voc.Thing, size: tuple[int, int]) -> bool:
        """Take one object in; False where it is left out."""
        name, box = thing.text.get("name", ""), voc.read_box(thing)
        if not name or isinstance(box, str):
            found = box if isinstance(box, str) else "an object without a name"
            self._problem(file, thing.line, "object unreadable", found, "dropped")
            return False
        placed, kind, found = voc.place_box(box, size, self.policy)
        if kind:
            self._problem(file, thing.line, kind, found, "dropped" if placed is None else "clipped")
        if placed is None:
            return False
        self.columns.boxes.append(placed)
        self.columns.names.append(self.ids.setdefault(name, len(self.ids)))
        self.columns.difficult.append(thing.text.get("difficult", "0").strip() not in ("", "0", "0.0", "false"))
        return True

    def _problem(self, file: Path, line: int, kind: str, found: str, action: str) -> None:
        self.problems.append((file.stem, voc.problem(file, self.root, line, kind, found, action)))

    def dataset(self, labels: tuple[str, ...] | None) -> Dataset:
        """Every picture, with the classes asked for."""
        c = self.columns
        if not self.ids:
            said = summarise([p for _, p in self.problems])
            raise UserError(
                f"{self.root}: no objects in {len(c.paths)} annotated pictures" + (f"; {said}" if said else "")
            )
        order = _class_order(self.ids, labels, Counter(c.names))
        new_id = np.full(len(self.ids), -1)
        for label, name in enumerate(order):
            new_id[self.ids[name]] = label
        classes = new_id[np.array(c.names, np.int64)]
        keep = classes >= 0
        picture = np.repeat(np.arange(len(c.paths)), c.counts)[keep]
        first = np.concatenate(([0], np.bincount(picture, minlength=len(c.paths)).cumsum()))
        return Dataset(
            self.root.resolve().name, self.root, order,
            np.array(c.paths, np.str_), np.array(c.sizes, np.int32).reshape(-1, 2),
            first.astype(np.int64), np.array(c.boxes, np.float32).reshape(-1, 4)[keep], classes[keep].astype(np.int64),
            np.array(c.difficult, bool)[keep],
        )  # fmt: skip

    def chosen(self, split: str | None) -> list[int]:
        """Places of a split's pictures; names without an annotation become problems."""
        if split is None:
            return list(range(len(self.columns.paths)))
        if not self.lists and split in HASHED:
            return [place for stem, place in self.place.items() if _hashed(stem) == split]
        if split not in self.lists:
            known = [name for name in self.lists if name.rpartition("_")[0] not in voc.CLASSES] or list(HASHED)
            raise UserError(f"{self.root}: no split {split!r}; there are {', '.join(known)}")
        names = voc.read_list(self.lists[split])
        told = {stem for stem, _ in self.problems}
        for name in names:
            if name not in self.place and name not in told:
                self._problem(self.lists[split], 0, "annotation missing", f"names {name!r}, which has none", "skipped")
        return [self.place[name] for name in names if name in self.place]

    def problems_of(self, chosen: list[int], split: str | None) -> tuple[Problem, ...]:
        """Problems of these pictures, of what the split's list names, or of everything."""
        if split is None:
            return tuple(p for _, p in self.problems)
        if split in self.lists:
            names = {*voc.read_list(self.lists[split]), split}
        else:
            names = {stem for stem, _ in self.problems if _hashed(stem) == split}
        return tuple(p for stem, p in self.problems if stem in names)


def _hashed(stem: str) -> str:
    """The split of a picture's name. Adding pictures moves no other."""
    tenth = int(hashlib.sha256(stem.encode()).hexdigest()[:8], 16) % 10
    return {0: "test", 1: "val"}.get(tenth, "train")


def _class_order(ids: dict[str, int], labels: tuple[str, ...] | None, counts: Counter[int]) -> tuple[str, ...]:
    if labels is None:
        order = voc.CLASSES if set(ids) <= set(voc.CLASSES) else sorted(ids)
        return tuple(name for name in order if name in ids)
    if not labels or len(set(labels)) < len(labels):
        raise ConfigError(f"labels: {list(labels)}; expected one or more names, each once")
    for name in labels:
        if name not in ids:
            near = difflib.get_close_matches(name, ids, 1)
            known = ", ".join(f"{n} ({counts[i]})" for n, i in sorted(ids.items()))
            raise UserError(f"labels: no object is a {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
                            + f"; there are {known}")  # fmt: skip
    return labels
