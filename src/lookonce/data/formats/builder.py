"""A data set while it is read; every format's reader fills one. Packed numbers, no Python object for a box.

All formats also share the splits that lists and folders mean, and the report of files beside the labelled ones that are
not read, so that nothing is left out silently.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

from lookonce.data.dataset import DataPolicy, Problem
from lookonce.data.images import IMAGE_SUFFIXES
from lookonce.data.lookup import Folders, folder_split, relative_path, split_word

Box = tuple[float, float, float, float]
Location = tuple[Path, object]
"""A file, and where in it: its line, or what names the entry; 0: the file as a whole."""
MOST_LISTED = 100
"""Problems of one kind in one file that are kept one by one; one more represents all others."""
SLACK = 1.0
"""Pixels outside an image that are clipped silently: rounding, and counting from 0 or from 1."""
INSIDE = 0.5
"""A box with at least this fraction of its area inside the image is clipped and kept."""
FIXED = "fixed"
"""Action for an object whose box is unambiguous although it is written wrongly."""
NO_ID = -(1 << 63)
"""An id that is not a whole number."""
SIDE_FILES = frozenset({".txt", ".xml", ".json", ".csv", ".yaml", ".yml", ".md", ".cache", ".npy", ".names", ".labels"})
"""Endings of files that are never images."""
OTHER_IMAGES = frozenset({".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".raw",
                          ".psd", ".svg", ".dcm", ".exr", ".jxl", ".nii", ".mp4", ".mov", ".avi"}
                         - IMAGE_SUFFIXES)  # fmt: skip
"""Endings of images and videos that are not read."""


@dataclass
class Builder:
    """Images and objects in the order in which they are found.

    Each image has a key, by which the splits name it; each problem has the key of its image, or of its split.
    """

    root: Path
    policy: DataPolicy
    format: str
    class_names: tuple[str, ...] | None = None
    """Classes in the format's order; None: it has none, so only classes with objects exist."""
    images_optional: bool = False
    """Images may be missing if the format gives their size."""
    paths: list[str] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("l"))
    files: list[Path] = field(default_factory=list)
    """The file that annotates each image."""
    image_ids: array[int] = field(default_factory=lambda: array("q"))
    """COCO: the id of each image in its file."""
    counts: array[int] = field(default_factory=lambda: array("q"))
    """Number of objects of each image."""
    boxes: array[float] = field(default_factory=lambda: array("f"))
    names: array[int] = field(default_factory=lambda: array("q"))
    """Class of each object: a value of `ids`."""
    difficult: array[int] = field(default_factory=lambda: array("b"))
    crowd: array[int] = field(default_factory=lambda: array("b"))
    areas: array[float] = field(default_factory=lambda: array("d"))
    """Area of each object, px²; 0 if the format does not give it."""
    lines: array[int] = field(default_factory=lambda: array("q"))
    """Line of each object; COCO: its index in the list of annotations."""
    annotation_ids: array[int] = field(default_factory=lambda: array("q"))
    """COCO: the id of each object's annotation, or NO_ID."""
    ids: dict[str, int] = field(default_factory=dict)
    """Class name -> number, in the order in which they are found."""
    categories: dict[Path, dict[int, str]] = field(default_factory=dict)
    """COCO: category id -> name, of each file."""
    index: dict[str, int] = field(default_factory=dict)
    """Key -> image."""
    splits: dict[str, Callable[[], list[str]]] = field(default_factory=dict)
    lists: dict[str, Path] = field(default_factory=dict)
    """Split -> the file that lists it, if one does."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Other name of a split -> its name: train2017 -> train."""
    source: str = ""
    """Source of the splits, for messages."""
    with_problems: set[str] = field(default_factory=set)
    """Keys with a problem."""
    _problems: list[tuple[str, Problem]] = field(default_factory=list)
    _seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    _last: dict[tuple[str, str], int] = field(default_factory=dict)
    """(file, kind) -> the problem that represents all further ones."""
    _more: Counter[int] = field(default_factory=Counter)
    """Their number."""

    @property
    def problems(self) -> list[tuple[str, Problem]]:
        """Problems, each with the key of its image or split."""
        more = self._more
        return [(key, replace(p, times=more[at]) if at in more else p) for at, (key, p) in enumerate(self._problems)]

    def add_image(self, key: str, image: str, size: tuple[int, int], file: Path) -> None:
        """Add an image; its objects follow. image: path from the root; size: (width, height) px; file: annotates it."""
        self.index[key] = len(self.paths)
        self.paths.append(image)
        self.files.append(file)
        self.sizes.extend(size)
        self.counts.append(0)

    def add_object(self, name: str, box: Box, line: int, difficult: bool = False, crowd: bool = False,
                   area: float = 0.0, annotation_id: int = NO_ID) -> None:  # fmt: skip
        """Add an object of the last image. box: xyxy image px; line: as in `lines`; area: px², 0: the box's."""
        self.lines.append(line)
        self.annotation_ids.append(annotation_id)
        self.counts[-1] += 1
        self.boxes.extend(box)
        self.names.append(self.ids.setdefault(name, len(self.ids)))
        self.difficult.append(difficult or crowd)
        self.crowd.append(crowd)
        self.areas.append(area)

    def problem(self, key: str, where: Location, kind: str, found: str, action: str, times: int = 1,
                box: Box | None = None) -> None:  # fmt: skip
        """Note a problem at a location. key: of the image or the split; "": the data set as a whole."""
        self.with_problems.add(key)
        counted = (str(where[0]), kind)
        self._seen[counted] += 1
        if self._seen[counted] > MOST_LISTED:
            at = self._last.setdefault(counted, len(self._problems))
            self._more[at] += times
            if at < len(self._problems):
                return
        self._problems.append((key, Problem(self.location(where), kind, found, action, times, box)))

    def location(self, where: Location) -> str:
        """Return file:line, or "file: entry", the file relative to the root."""
        file, at = where
        inside = file.is_relative_to(self.root) and file != self.root
        path = file.relative_to(self.root).as_posix() if inside else str(file)
        return f"{path}:{at}" if isinstance(at, int) and at else f"{path}: {at}" if at else path

    def object_location(self, image: int, n: int) -> str:
        """Return the location of object n, which is on that image."""
        if self.format != "coco":
            return self.location((self.files[image], self.lines[n]))
        number = self.annotation_ids[n]
        label = f"id {number}, {self.paths[image]}" if abs(number) < 1 << 62 else self.paths[image]
        return self.location((self.files[image], f"$.annotations[{self.lines[n]}] ({label})"))

    def note_encoding(self, key: str, file: Path) -> Callable[[str], None]:
        """Return a function that notes that the encoding of a file was guessed. key: as in problem()."""
        return lambda message: self.problem(key, (file, 0), "encoding guessed", message, "read all the same")

    def fit_box(self, key: str, where: Location, box: Box, size: tuple[int, int], first: int = 0) -> Box | None:
        """Return a box as xyxy image px inside the image, or None if it is dropped; note what was wrong.

        An unambiguous box is kept and counted as fixed: one with exchanged corners, and one over the edge with at
        least INSIDE of its area in the image, which is clipped. The policy decides about other boxes outside.

        Args:
            box: corners as the file gives them.
            size: (width, height) of the image, px.
            first: number of the first pixel if both corners are included (VOC: 1); 0: plain pixels.
        """
        x1, y1, x2, y2 = box
        exchanged = x1 - first > x2, y1 - first > y2  # one pixel less is a box with no area in VOC's numbers
        if any(exchanged):
            found = f"a box {short(box)}; expected the lower corner first"
            self.problem(key, where, "corners exchanged", found, FIXED)
            x1, x2 = (x2, x1) if exchanged[0] else (x1, x2)
            y1, y2 = (y2, y1) if exchanged[1] else (y1, y2)
        if not (x2 > x1 and y2 > y1):  # also true of nan
            found = f"a box with no area {short(box)}; expected width and height above 0"
            self.problem(key, where, "box with no area", found, "dropped", box=(x1, y1, x2, y2))
            return None
        x1, y1 = x1 - first, y1 - first
        width, height = size
        cut = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
        empty = cut[2] <= cut[0] or cut[3] <= cut[1]
        if not empty and max(-x1, -y1, x2 - width, y2 - height) <= SLACK:
            return cut
        inside = 0.0 if empty else (cut[2] - cut[0]) / (x2 - x1) * ((cut[3] - cut[1]) / (y2 - y1))
        if inside >= INSIDE:
            found = f"a box {short(box)} with {inside:.0%} of it in the image of {width} x {height}"
            self.problem(key, where, "box over the edge", found, FIXED)
            return cut
        drop = empty or self.policy != "clip"
        found = f"a box {short(box)} outside the image of {width} x {height}; expected at least half of it inside"
        self.problem(key, where, "box outside", found, "dropped" if drop else "clipped")
        return None if drop else cut

    def add_splits(self, lists: Mapping[str, Callable[[], list[str]]]) -> None:
        """Add splits, each as a function that returns the keys of its images. A name may mean train, val or test.

        If several names mean one split (train2014 and train2017), each keeps its own name, and the user has to choose.
        """
        meanings = [split_word(name) for name in lists]
        for (name, keys), word in zip(lists.items(), meanings, strict=True):
            if word is None or word in lists or meanings.count(word) > 1:
                self.splits[name] = keys
                continue
            self.splits[word] = keys
            self.aliases[name] = word
            if name in self.lists:
                self.lists[word] = self.lists[name]

    def add_folder_splits(self) -> None:
        """Add the splits of a data set without lists: those that the folders of its images name."""
        first: dict[int, str] = {}
        for key, at in self.index.items():
            first.setdefault(at, key)
        unread = (key for key in sorted(self.with_problems) if key not in self.index)
        members: dict[str, list[str]] = {}
        folders: dict[str, None] = {}
        for at, key in (*first.items(), *((-1, key) for key in unread)):
            for path in (key, self.paths[at] if at >= 0 else ""):
                above = path.split("/")[:-1]
                if name := folder_split(above):
                    members.setdefault(name, []).append(key)
                    folders["/".join(above)] = None
                    break
        if members:
            shown = list(folders)
            self.source = f"the folders {', '.join(shown[:4])}" + (" ..." if len(shown) > 4 else "")
            self.add_splits({name: partial(list, keys) for name, keys in members.items()})


def first_few(ids: Iterable[object]) -> str:
    """Return the first of some ids, for a message."""
    first = [str(number) for number in islice(ids, 6)]
    return ", ".join(first[:5]) + (" and more" if len(first) > 5 else "")


def repeated_names(names: Iterable[tuple[object, str]]) -> Iterator[str]:
    """Yield a sentence for each name that several ids have. names: (id, name)."""
    by_name: dict[str, list[object]] = {}
    for number, name in names:
        by_name.setdefault(name, []).append(number)
    return (f"{name!r} has the ids {first_few(ids)}" for name, ids in by_name.items() if len(ids) > 1)


def short(box: tuple[float, ...]) -> str:
    """Return a box for a message: (x, y, x, y)."""
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"


def note_unused_files(builder: Builder, folders: Folders, is_label: Callable[[Path], bool] | None = None,
                      unlabelled: bool = True) -> None:  # fmt: skip
    """Note label files without an image, images without annotation, and files that may be images of another kind.

    Args:
        builder: the data set, read.
        folders: what exists.
        is_label: whether a .txt file holds YOLO labels; None: the format notes annotations without an image itself.
        unlabelled: note images that no annotation names; False: they are noted already.
    """
    root = builder.root
    images = {root / folder for folder in {path.rpartition("/")[0] for path in builder.paths}}
    labels = {Path(folder) for folder in {os.path.dirname(file) for file in builder.files}}
    if unlabelled:
        _note_unlabelled(builder, folders, images)
    if is_label is not None:
        _note_orphans(builder, folders, images, labels, is_label)
    _note_other_images(builder, folders, images | labels)


def _note_unlabelled(builder: Builder, folders: Folders, images: Iterable[Path]) -> None:
    """Note images beside annotated ones that nothing annotates: one problem a folder."""
    used = set(builder.paths)
    for folder in sorted(images):
        inside = relative_path(folder, builder.root)
        names = [name for name in folders.names_in(folder) if _is_image(name)]
        paths = names if inside == "." else [f"{inside}/{name}" for name in names]
        left = [path for path in paths if path not in used and not _has_problem(builder, path)]
        if left:
            count = "1 image" if len(left) == 1 else f"{len(left):,} images"
            found = f"{count} without annotation, the first: {left[0]}"
            builder.problem("", (folder, 0), "image without annotation", found, "left out", times=len(left))


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _has_problem(builder: Builder, path: str) -> bool:
    """Return whether an image has a problem already, under its path or its stem."""
    stem = os.path.splitext(path)[0]
    return bool(builder.with_problems & {path, stem, Path(stem).name})


def _note_orphans(builder: Builder, folders: Folders, images: Iterable[Path], labels: Iterable[Path],
                  is_label: Callable[[Path], bool]) -> None:  # fmt: skip
    """Note label files without an image in folders of label files that are used."""
    used = {os.fspath(file) for file in builder.files}
    stems = {
        folder: {os.path.splitext(name)[0] for name in folders.names_in(folder) if _is_image(name)} for folder in images
    }
    for folder in sorted(labels):
        beside = [place for place in stems if _belong_together(place, folder)] or stems
        there = set().union(*(stems[place] for place in beside))
        for name in folders.names_in(folder):
            stem, ending = os.path.splitext(name)
            orphan = ending.lower() == ".txt" and stem not in there and os.path.join(folder, name) not in used
            if orphan and is_label(folder / name):
                found = f"no image {stem}.* for this label file"
                builder.problem("", (folder / name, 0), "image missing", found, "skipped")


def _belong_together(images: Path, labels: Path) -> bool:
    """Return whether labels belong to a folder of images: the same folder, or labels/ in place of images/."""
    return images == labels or [p for p in labels.parts if p != "labels"] == [
        p for p in images.parts if p not in ("images", "JPEGImages")
    ]


def _note_other_images(builder: Builder, folders: Folders, places: Iterable[Path]) -> None:
    """Note files of a labelled stem, or beside labelled images, with the ending of an image that is not read."""
    problems = builder.problems
    missing = {os.path.splitext(p.place.rpartition("/")[2])[0] for _, p in problems if p.kind == "image missing"}
    counts: dict[str, list[str]] = defaultdict(list)
    for folder in sorted(places):
        for name in folders.names_in(folder):
            stem, ending = os.path.splitext(name)
            if ending.lower() in OTHER_IMAGES or (stem in missing and ending and ending.lower() not in SIDE_FILES
                                                  and not _is_image(name)):  # fmt: skip
                counts[ending.lower()].append(relative_path(folder / name, builder.root))
    for ending, files in counts.items():
        found = f"{len(files)} {ending} {'file' if len(files) == 1 else 'files'}"
        builder.problem("", (builder.root / files[0], 0), "file not read", found, "ignored", times=len(files))
