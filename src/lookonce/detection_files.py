"""Detections that some detector wrote, in place of a model: COCO's result json, or a text file a picture.

json: [{"image_id", "category_id", "bbox": [x, y, width, height], "score"}, ...], image px. Of a COCO data set the ids
are those of its files. Of others image_id is the picture's name, or its number where the name is one, and category_id
the class by name, or counted from 1 in the data set's order, as `lookonce convert` writes it.
text: PICTURE.txt for each picture with any, a line a detection: class score xmin ymin xmax ymax, corners as those of
the data set: of a VOC one from 1 and both included, else plain px. The class is a name, or counted from 0 in its order.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookonce.data.catalog import Whole, class_order
from lookonce.data.coco import read_box
from lookonce.data.json_text import Line, read_text, reading
from lookonce.detections import Detections
from lookonce.errors import AnnotationError, UserError

MOST = 1e9
"""No score or pixel is beyond it."""
JSON_LAW = 'a list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"}'
TEXT_LAW = "'class score xmin ymin xmax ymax', finite numbers, xmin <= xmax, ymin <= ymax"


def holds_detections(path: Path) -> bool:
    """Whether a path is one of detections and none of a model: a .json, or a folder of texts that is no run's."""
    if path.is_dir():
        return not (path / "model.safetensors").is_file() and any(path.glob("*.txt"))
    return path.suffix.lower() == ".json"


def read_detections(path: Path, whole: Whole, split: str | None) -> list[Detections]:
    """The detections of a file or folder, for each picture of a split in its order; all classes of the data set.

    Raises:
        UserError: what cannot be read, is no finite number, or is on a picture or of a class that is not there.
    """
    names = class_order(whole.found, None, Counter(whole.found.names))
    pictures = whole.members(split)
    found = _Gathered(_Places(whole, pictures, split), names, _categories(whole, pictures, names),
                      first=int(whole.found.format == "voc"))  # fmt: skip
    (_take_texts if path.is_dir() else _take_json)(path, found)
    image = np.array(found.image, np.int64)
    order = np.argsort(image, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(image, minlength=len(pictures)))[:-1])
    boxes = np.array(found.boxes, np.float64).reshape(-1, 4)
    score, label = np.array(found.score, np.float64), np.array(found.label, np.int64)
    return [Detections(boxes[rows], score[rows], label[rows], names) for rows in parts]  # type: ignore[arg-type]


@dataclass
class _Gathered:
    """D detections as they are read."""

    places: _Places
    names: tuple[str, ...]
    categories: dict[int | str, int]
    """What stands for a class in json -> its place among the names."""
    first: int
    """The number of the first pixel in texts, which then hold both corners; 0: plain px."""
    image: array[int] = field(default_factory=lambda: array("q"))
    label: array[int] = field(default_factory=lambda: array("q"))
    score: array[float] = field(default_factory=lambda: array("d"))
    boxes: array[float] = field(default_factory=lambda: array("d"))

    def add(self, image: int, label: int, score: float, box: tuple[float, ...]) -> None:
        self.image.append(image)
        self.label.append(label)
        self.score.append(score)
        self.boxes.extend(box)


class _Places:
    """Where the pictures of a split stand, by number or name."""

    def __init__(self, whole: Whole, pictures: NDArray[np.int64], split: str | None) -> None:
        self.split = "the data set" if split is None else f"split {split!r} (all: every picture there is)"
        self.place: dict[int | str, int] = {}
        self.twice: set[int | str] = set()
        found = whole.found
        for place, n in enumerate(pictures.tolist()):
            name = Path(found.paths[n])
            keys: set[int | str] = {name.stem, name.name}
            if found.format == "coco":
                keys.add(found.numbers[n])
            elif name.stem.isdecimal() and len(name.stem) < 19:
                keys.add(int(name.stem))
            self.twice |= keys & self.place.keys()
            self.place |= dict.fromkeys(keys, place)

    def __call__(self, key: Any, what: str) -> int:
        """The place of a picture by its key."""
        if isinstance(key, bool) or not isinstance(key, int | str) or key not in self.place:
            raise _Wrong(f"{what} {repr(key)[:60]}, which no picture of {self.split} has")
        if key in self.twice:
            raise _Wrong(f"{what} {key!r}, which two pictures of {self.split} have")
        return self.place[key]


class _Wrong(Exception):
    """What is wrong with one detection."""


def _categories(whole: Whole, pictures: NDArray[np.int64], names: tuple[str, ...]) -> dict[int | str, int]:
    """What stands for a class in json -> its place among the names."""
    by_name: dict[int | str, int] = {name: place for place, name in enumerate(names)}
    if whole.found.format != "coco":
        return by_name | {place + 1: place for place in range(len(names))}
    found = dict(by_name)
    for file in {whole.found.files[n] for n in pictures.tolist()}:
        for number, name in whole.found.categories[file].items():
            if found.setdefault(number, by_name[name]) != by_name[name]:
                raise UserError(f"{file}: category {number} is another one in another file; evaluate one split")
    return found


def _take_json(path: Path, found: _Gathered) -> None:
    text = read_text(path, JSON_LAW)
    line = Line(text)
    with reading(path, text, JSON_LAW) as json:
        if not json.sees("["):
            raise AnnotationError(path, 1, f"{text[:20].strip()!r} at its start", JSON_LAW)
        for entry, at in json.entries():
            try:
                found.add(*_entry(entry, path, found))
            except _Wrong as wrong:
                raise AnnotationError(path, line.of(at), str(wrong), JSON_LAW) from None
        json.skip()
        if json.at < len(text):
            raise AnnotationError(path, line.of(json.at), "something after the list", JSON_LAW)


def _entry(entry: Any, path: Path, found: _Gathered) -> tuple[int, int, float, tuple[float, ...]]:
    """(picture, class, score, xyxy box) of one entry."""
    if not isinstance(entry, dict):
        raise _Wrong(f"{str(entry)[:40]!r}")
    box, score, category = read_box(entry.get("bbox")), entry.get("score"), entry.get("category_id")
    if isinstance(box, str):
        raise _Wrong(box)
    if box[2] < box[0] or box[3] < box[1] or max(map(abs, box)) > MOST:
        raise _Wrong(f"a bbox of {entry['bbox']} with a negative or huge number")
    if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) <= MOST:
        raise _Wrong(f"a score of {str(score)[:40]}")
    if isinstance(category, bool) or not isinstance(category, int | str) or category not in found.categories:
        numbers = sorted((key, place) for key, place in found.categories.items() if isinstance(key, int))
        known = ", ".join(f"{number} {found.names[place]}" for number, place in numbers)[:400]
        raise _Wrong(f"category_id {repr(category)[:40]}, and the data set has {known}")
    return found.places(entry.get("image_id"), "image_id"), found.categories[category], float(score), box


def _take_texts(folder: Path, found: _Gathered) -> None:
    numbers = {name: place for place, name in enumerate(found.names)}
    for file in sorted(folder.glob("*.txt")):
        at = 0
        try:
            place = found.places(file.stem, "the name")
            for line, text in enumerate(read_text(file, TEXT_LAW).splitlines(), 1):
                at = line
                if text.strip():
                    label, score, (x1, y1, x2, y2) = _line(text, numbers)
                    found.add(place, label, score, (x1 - found.first, y1 - found.first, x2, y2))
        except _Wrong as wrong:
            raise AnnotationError(file, at, str(wrong), TEXT_LAW) from None


def _line(text: str, names: dict[str, int]) -> tuple[int, float, tuple[float, float, float, float]]:
    """(class, score, corners) of one line; a name may hold blanks."""
    fields = text.rsplit(None, 5)
    word = fields[0].strip()
    try:
        score, x1, y1, x2, y2 = (float(value) for value in fields[1:])
    except ValueError:
        raise _Wrong(f"{text.strip()[:80]!r}") from None
    if not all(abs(v) <= MOST for v in (score, x1, y1, x2, y2)) or x2 < x1 or y2 < y1:  # also refuses nan
        raise _Wrong(f"{text.strip()[:80]!r}")
    label = names.get(word, int(word) if word.isascii() and word.isdecimal() and len(word) < 9 else -1)
    if not 0 <= label < len(names):
        known = ", ".join(f"{place} {name}" for name, place in names.items())[:400]
        raise _Wrong(f"class {word[:40]!r}, and the data set has {known}")
    return label, score, (x1, y1, x2, y2)
