"""A data set while it is read: what every format's reader fills. Packed numbers, no object a box.

What lies among the labelled files of a data set and is not read: counted, so that nothing is left out silently.
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
from lookonce.data.lookup import Folders, folder_split, split_word, told_from

Box = tuple[float, float, float, float]


Place = tuple[Path, int] | tuple[Path, int, object]
"""A file, the line (0: the file as a whole), and the entry, as str() names it, where a line is not enough."""


TOLD = 100
"""Problems of one kind told one by one of a file; the next stands for all the rest."""


SLACK = 1.0
"""px outside an image that are cut silently: rounding, and counting from 0 or from 1."""


INSIDE = 0.5
"""A box with at least this share of its area inside the image is clear: it is cut to the image and kept."""


FIXED = "fixed"
"""What was done with an object whose box is clear although it is written wrongly."""


NO_ID = -(1 << 63)
"""Stands for an id that is no whole number."""


@dataclass
class Gathering:
    """TrainingImages and objects in the order in which they are found.

    Each image has a key, by which the splits name it; each problem has the key of its image, or of its split.
    """

    root: Path
    policy: DataPolicy
    format: str
    class_names: tuple[str, ...] | None = None
    """The order of classes that the format gives; None: it gives none, so only classes with objects exist."""
    paths: list[str] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("l"))
    files: list[Path] = field(default_factory=list)
    """The file that says what is on each image."""
    counts: array[int] = field(default_factory=lambda: array("q"))
    boxes: array[float] = field(default_factory=lambda: array("f"))
    names: array[int] = field(default_factory=lambda: array("q"))
    difficult: array[int] = field(default_factory=lambda: array("b"))
    crowd: array[int] = field(default_factory=lambda: array("b"))
    areas: array[float] = field(default_factory=lambda: array("d"))
    """Of each object, px², where the format says it; else 0."""
    lines: array[int] = field(default_factory=lambda: array("q"))
    """Of each object, in its file."""
    entries: array[int] = field(default_factory=lambda: array("q"))
    """COCO: the id of each object's annotation, or NO_ID."""
    numbers: array[int] = field(default_factory=lambda: array("q"))
    """COCO: the id of each image in its file."""
    categories: dict[Path, dict[int, str]] = field(default_factory=dict)
    """COCO: category id -> name, of each file."""
    ids: dict[str, int] = field(default_factory=dict)
    place: dict[str, int] = field(default_factory=dict)
    splits: dict[str, Callable[[], list[str]]] = field(default_factory=dict)
    lists: dict[str, Path] = field(default_factory=dict)
    """Of each split that a file lists: that file."""
    also: dict[str, str] = field(default_factory=dict)
    """Other name of a split -> its name: train2017 -> train."""
    source: str = ""
    """Where the splits come from, as the user is told."""
    absent: bool = False
    """TrainingImages need not be there, where the format says their size."""
    noted: set[str] = field(default_factory=set)
    """Keys of everything that has a problem."""
    _problems: list[tuple[str, Problem]] = field(default_factory=list)
    _seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    _last: dict[tuple[str, str], int] = field(default_factory=dict)
    """Where the problem stands that stands for all further ones of its file and kind."""
    _more: Counter[int] = field(default_factory=Counter)
    """How many those are."""

    @property
    def problems(self) -> list[tuple[str, Problem]]:
        """What is wrong, with the key of its image or its split."""
        more = self._more
        return [(key, replace(p, times=more[at]) if at in more else p) for at, (key, p) in enumerate(self._problems)]

    def begin(self, key: str, image: str, size: tuple[int, int], file: Path) -> None:
        """The next image: its path from the root, (width, height) px, what annotates it; its objects follow."""
        self.place[key] = len(self.paths)
        self.paths.append(image)
        self.files.append(file)
        self.sizes.extend(size)
        self.counts.append(0)

    def add(self, name: str, box: Box, line: int, difficult: bool = False, crowd: bool = False,
            area: float = 0.0, entry: int = NO_ID) -> None:  # fmt: skip
        """An object of the image begun last. box: xyxy image px; line: of its file; area: px², 0: the box's;
        entry: the id of its annotation."""
        self.lines.append(line)
        self.entries.append(entry)
        self.counts[-1] += 1
        self.boxes.extend(box)
        self.names.append(self.ids.setdefault(name, len(self.ids)))
        self.difficult.append(difficult or crowd)
        self.crowd.append(crowd)
        self.areas.append(area)

    def problem(self, key: str, place: Place, kind: str, found: str, action: str, times: int = 1) -> None:
        """Note what is wrong at a place. key: of the image or the split; "": the data set as a whole."""
        self.noted.add(key)
        counted = (str(place[0]), kind)
        self._seen[counted] += 1
        if self._seen[counted] > TOLD:
            at = self._last.setdefault(counted, len(self._problems))
            self._more[at] += times
            if at < len(self._problems):
                return
        self._problems.append((key, Problem(self.told(place), kind, found, action, times)))

    def told(self, place: Place) -> str:
        """file:line: entry, the file from the root. Line 1 says nothing where the entry is known."""
        file, line, *entry = place
        inside = file.is_relative_to(self.root) and file != self.root
        where = file.relative_to(self.root).as_posix() if inside else str(file)
        return (f"{where}:{line}" if line > len(entry) else where) + "".join(f": {name}" for name in entry)

    def told_object(self, index: int, n: int) -> str:
        """The place of object n, which is on that index: file:line; of COCO also its annotation and image."""
        file, line, number, image = self.files[index], self.lines[n], self.entries[n], self.paths[index]
        if self.format != "coco":
            return self.told((file, line))
        numbered = abs(number) < 1 << 62
        return self.told((file, line, f"annotation {number} ({image})" if numbered else image))

    def settled(self, key: str, place: Place, box: Box, size: tuple[int, int], first: int = 0) -> Box | None:
        """A box as xyxy image px inside the image, or None where it is left out; what was wrong is noted.

        A clear box is kept and counted as fixed: one whose corners are exchanged, and one over the edge with at
        least INSIDE of its area in the image, which is cut. Of other boxes outside the policy decides.

        Args:
            box: corners as the file says them.
            size: (width, height) of the image, px.
            first: the number of the first pixel, whose both ends count (VOC: 1); 0: plain px.
        """
        x1, y1, x2, y2 = box
        turned = x1 - first > x2, y1 - first > y2  # one pixel less is a box without area in VOC's numbers
        if any(turned):
            found = f"a box {short(box)}; expected the lower corner first"
            self.problem(key, place, "corners exchanged", found, FIXED)
            x1, x2 = (x2, x1) if turned[0] else (x1, x2)
            y1, y2 = (y2, y1) if turned[1] else (y1, y2)
        if not (x2 > x1 and y2 > y1):  # also of a box that is not a number
            found = f"a box without area {short(box)}; expected width and height above 0"
            self.problem(key, place, "box without area", found, "dropped")
            return None
        x1, y1 = x1 - first, y1 - first
        width, height = size
        cut = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
        gone = cut[2] <= cut[0] or cut[3] <= cut[1]
        if not gone and max(-x1, -y1, x2 - width, y2 - height) <= SLACK:
            return cut
        share = 0.0 if gone else (cut[2] - cut[0]) / (x2 - x1) * ((cut[3] - cut[1]) / (y2 - y1))
        if share >= INSIDE:
            found = f"a box {short(box)} with {share:.0%} of it in the image of {width} x {height}"
            self.problem(key, place, "box over the edge", found, FIXED)
            return cut
        gone = gone or self.policy != "clip"
        found = f"a box {short(box)} outside the image of {width} x {height}; expected at least half of it inside"
        self.problem(key, place, "box outside", found, "dropped" if gone else "clipped")
        return None if gone else cut


def guessed(found: Gathering, key: str, file: Path) -> Callable[[str], None]:
    """What takes the sentence that the encoding of a file had to be guessed. key: of its image or split."""
    return lambda said: found.problem(key, (file, 0), "encoding guessed", said, "read all the same")


def name_splits(found: Gathering, lists: Mapping[str, Callable[[], list[str]]]) -> None:
    """Take the splits that a data set brings. A name that speaks of train, val or test gives that split.

    Where several names speak of one split (train2014 and train2017), each keeps its own: the user has to choose.

    Args:
        lists: name -> keys of its images.
    """
    for name, keys in lists.items():
        word = split_word(name)
        alone = word is not None and word not in lists and [split_word(other) for other in lists].count(word) == 1
        found.splits[word if word and alone else name] = keys
        if word and alone:
            found.also[name] = word
            if name in found.lists:
                found.lists[word] = found.lists[name]


def take_folder_splits(found: Gathering) -> None:
    """Take the splits of a data set without lists: those after which the folders of its images are named."""
    first: dict[int, str] = {}
    for key, at in found.place.items():
        first.setdefault(at, key)
    members: dict[str, list[str]] = {}
    folders: dict[str, None] = {}
    for at, key in (*first.items(), *((-1, key) for key in sorted(found.noted) if key not in found.place)):
        for path in (key, found.paths[at] if at >= 0 else ""):
            above = path.split("/")[:-1]
            if name := folder_split(above):
                members.setdefault(name, []).append(key)
                folders["/".join(above)] = None
                break
    if members:
        shown = list(folders)
        found.source = f"the folders {', '.join(shown[:4])}" + (" ..." if len(shown) > 4 else "")
        name_splits(found, {name: partial(list, keys) for name, keys in members.items()})


def listed(ids: Iterable[object]) -> str:
    """Ids in a message: the first of them."""
    first = [str(number) for number in islice(ids, 6)]
    return ", ".join(first[:5]) + (" and more" if len(first) > 5 else "")


def shared_names(names: Iterable[tuple[object, str]]) -> Iterator[str]:
    """A sentence for each name that several ids have. names: (id, name)."""
    by_name: dict[str, list[object]] = {}
    for number, name in names:
        by_name.setdefault(name, []).append(number)
    return (f"{name!r} has the ids {listed(ids)}" for name, ids in by_name.items() if len(ids) > 1)


def short(box: tuple[float, ...]) -> str:
    """A box in an error: (x, y, x, y)."""
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"


SIDE_FILES = frozenset({".txt", ".xml", ".json", ".csv", ".yaml", ".yml", ".md", ".cache", ".npy", ".names", ".labels"})
"""Endings beside which a file of the same stem is no image."""


RAW = frozenset({".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".raw", ".psd",
                 ".svg", ".dcm", ".exr", ".jxl", ".nii", ".mp4", ".mov", ".avi"} - IMAGE_SUFFIXES)  # fmt: skip
"""Endings of images and videos of other kinds."""


def note_leftovers(
    found: Gathering, folders: Folders, is_label: Callable[[Path], bool] | None = None, unlabelled: bool = True
) -> None:
    """Note label files without an image, images without annotation, and files that may be images of another kind.

    Args:
        found: the data set, read.
        folders: what exists.
        is_label: whether a .txt file holds YOLO labels; none: other annotations noted already that have no image.
        unlabelled: note images that no annotation names; False: they have been noted already.
    """
    root = found.root
    images = {root / folder for folder in {path.rpartition("/")[0] for path in found.paths}}
    labels = {Path(folder) for folder in {os.path.dirname(file) for file in found.files}}
    if unlabelled:
        _note_unlabelled(found, folders, images)
    if is_label is not None:
        _note_orphans(found, folders, images, labels, is_label)
    _note_foreign(found, folders, images | labels)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _note_unlabelled(found: Gathering, folders: Folders, images: Iterable[Path]) -> None:
    """Images beside annotated ones that nothing annotates: one problem a folder."""
    used = set(found.paths)
    for folder in sorted(images):
        inside = told_from(folder, found.root)
        paths = [name if inside == "." else f"{inside}/{name}" for name in folders.named(folder) if _is_image(name)]
        left = [path for path in paths if path not in used and not _noted(found, path)]
        if left:
            said = f"{_images(len(left))} without annotation, the first: {left[0]}"
            found.problem("", (folder, 0), "image without annotation", said, "left out", times=len(left))


def _noted(found: Gathering, path: str) -> bool:
    """Whether a problem of this image is noted, under its path or its stem."""
    stem = os.path.splitext(path)[0]
    return bool(found.noted & {path, stem, Path(stem).name})


def _note_orphans(found: Gathering, folders: Folders, images: Iterable[Path], labels: Iterable[Path],
                  is_label: Callable[[Path], bool]) -> None:  # fmt: skip
    """Label files, beside ones that are used, whose image is nowhere."""
    used = {os.fspath(file) for file in found.files}
    stems = {
        folder: {os.path.splitext(name)[0] for name in folders.named(folder) if _is_image(name)} for folder in images
    }
    for folder in sorted(labels):
        beside = [place for place in stems if _belongs(place, folder)] or stems
        there = set().union(*(stems[place] for place in beside))
        for name in folders.named(folder):
            stem, ending = os.path.splitext(name)
            orphan = ending.lower() == ".txt" and stem not in there and os.path.join(folder, name) not in used
            if orphan and is_label(folder / name):
                found.problem(
                    "", (folder / name, 0), "image missing", f"no image {stem}.* for this label file", "skipped"
                )


def _belongs(images: Path, labels: Path) -> bool:
    """Whether a folder of labels may be that of a folder of images: the same, or labels/ in place of images/."""
    return images == labels or [p for p in labels.parts if p != "labels"] == [
        p for p in images.parts if p not in ("images", "JPEGImages")
    ]


def _note_foreign(found: Gathering, folders: Folders, places: Iterable[Path]) -> None:
    """Files of a labelled stem, or beside labelled images, whose ending is none of an image that is read."""
    missing = {os.path.splitext(p.place.rpartition("/")[2])[0] for _, p in found.problems if p.kind == "image missing"}
    counts: dict[str, list[str]] = defaultdict(list)
    for folder in sorted(places):
        for name in folders.named(folder):
            stem, ending = os.path.splitext(name)
            if ending.lower() in RAW or (stem in missing and ending and ending.lower() not in SIDE_FILES
                                         and not _is_image(name)):  # fmt: skip
                counts[ending.lower()].append(told_from(folder / name, found.root))
    for ending, files in counts.items():
        said = f"{len(files)} {ending} {'file' if len(files) == 1 else 'files'}"
        found.problem("", (found.root / files[0], 0), "file not read", said, "ignored", times=len(files))


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"
