"""A data set while it is read: what every format's reader fills. Packed numbers, no object a box."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from lookonce.data.record import DataPolicy, Problem
from lookonce.data.split_names import folder_split, split_word

Box = tuple[float, float, float, float]

TOLD = 100
"""Problems of one kind told one by one of a file; the next stands for all the rest."""
SLACK = 1.0
"""px outside a picture that are cut silently: rounding, and counting from 0 or from 1."""


@dataclass
class Gathering:
    """Pictures and objects in the order in which they are found.

    Each picture has a key, by which the splits name it; each problem has the key of its picture, or of its split.
    """

    root: Path
    policy: DataPolicy
    format: str
    class_names: tuple[str, ...] | None = None
    """The order of classes that the format gives; None: it gives none, so only classes with objects exist."""
    paths: list[str] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("l"))
    files: list[Path] = field(default_factory=list)
    """The file that says what is on each picture."""
    counts: array[int] = field(default_factory=lambda: array("q"))
    boxes: array[float] = field(default_factory=lambda: array("f"))
    names: array[int] = field(default_factory=lambda: array("q"))
    difficult: array[int] = field(default_factory=lambda: array("b"))
    crowd: array[int] = field(default_factory=lambda: array("b"))
    areas: array[float] = field(default_factory=lambda: array("d"))
    """Of each object, px², where the format says it; else 0."""
    lines: array[int] = field(default_factory=lambda: array("q"))
    """Of each object, in its file."""
    numbers: array[int] = field(default_factory=lambda: array("q"))
    """COCO: the id of each picture in its file."""
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
    """Pictures need not be there, where the format says their size."""
    noted: set[str] = field(default_factory=set)
    """Keys of everything that has a problem."""
    _problems: list[tuple[str, Problem]] = field(default_factory=list)
    _seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    _last: dict[int, tuple[str, str]] = field(default_factory=dict)

    @property
    def problems(self) -> list[tuple[str, Problem]]:
        """What is wrong, with the key of its picture or its split."""
        more = {at: self._seen[counted] - TOLD for at, counted in self._last.items()}
        return [(key, replace(p, times=more[at]) if at in more else p) for at, (key, p) in enumerate(self._problems)]

    def begin(self, key: str, picture: str, size: tuple[int, int], file: Path) -> None:
        """The next picture: its path from the root, (width, height) px, what annotates it; its objects follow."""
        self.place[key] = len(self.paths)
        self.paths.append(picture)
        self.files.append(file)
        self.sizes.extend(size)
        self.counts.append(0)

    def add(self, name: str, box: Box, line: int, difficult: bool = False, crowd: bool = False,
            area: float = 0.0) -> None:  # fmt: skip
        """An object of the picture begun last. box: xyxy image px; line: of its file; area: px², 0: the box's."""
        self.lines.append(line)
        self.counts[-1] += 1
        self.boxes.extend(box)
        self.names.append(self.ids.setdefault(name, len(self.ids)))
        self.difficult.append(difficult or crowd)
        self.crowd.append(crowd)
        self.areas.append(area)

    def problem(self, key: str, place: tuple[Path, int], kind: str, found: str, action: str, times: int = 1) -> None:
        """Note what is wrong at (file, line); line 0: the file as a whole."""
        self.noted.add(key)
        counted = (str(place[0]), kind)
        self._seen[counted] += 1
        if self._seen[counted] > TOLD + 1:
            return
        if self._seen[counted] == TOLD + 1:
            self._last[len(self._problems)] = counted
        self._problems.append((key, Problem(self.told(place), kind, found, action, times)))

    def told(self, place: tuple[Path, int]) -> str:
        """file:line, the file from the root; line 0: the file alone."""
        file, line = place
        inside = file.is_relative_to(self.root) and file != self.root
        where = file.relative_to(self.root).as_posix() if inside else str(file)
        return f"{where}:{line}" if line else where

    def settled(self, key: str, place: tuple[Path, int], box: Box, size: tuple[int, int]) -> Box | None:
        """A box of xyxy image px by the policy: as it is, cut, or None; what was wrong is noted."""
        width, height = size
        if not (box[2] > box[0] and box[3] > box[1]):
            found = f"a box without area {short(box)}; expected width and height above 0"
            self.problem(key, place, "box without area", found, "dropped")
            return None
        cut = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height)))
        if max(-box[0], -box[1], box[2] - width, box[3] - height) <= SLACK and cut[2] > cut[0] and cut[3] > cut[1]:
            return cut
        gone = self.policy != "clip" or cut[2] <= cut[0] or cut[3] <= cut[1]
        found = f"a box {short(box)} outside the picture of {width} x {height}"
        self.problem(key, place, "box outside", found, "dropped" if gone else "clipped")
        return None if gone else cut


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


def short(box: tuple[float, ...]) -> str:
    """A box in an error: (x, y, x, y)."""
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"
