"""Read detections from files, which `evaluate` scores in place of a model.

From `lookonce detect`: detections.json, or the folder that holds it. An entry belongs to the image with its path, else
to the image with its file name.
COCO results: [{"image_id", "category_id", "bbox": [x, y, width, height], "score"}, ...], image pixels. With a COCO data
set the ids are those of its files. With others, image_id is the name of the image (or the number that its name is), and
category_id is the name of the class or its number from 1 in the data set's order, as `lookonce convert` writes it.
Text: IMAGE.txt for each image with detections, with lines "class score xmin ymin xmax ymax". Corners are as in the data
set: in VOC pixels start at 1 and both corners are included, else they are plain pixels. Or lines of YOLO, "class cx cy
w h score", as fractions of the image. The class is a name, or a number from 0 in the data set's order.
"""

from __future__ import annotations

import logging
import os
import re
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from lookonce.data.formats.coco_json import read_box
from lookonce.data.read import Whole, class_order
from lookonce.errors import AnnotationError, UserError
from lookonce.model.detections import Detections
from lookonce.text import LIST_BYTES, read_json, read_text

log = logging.getLogger("lookonce")
MOST = 1e9
"""Largest score or pixel coordinate that is accepted."""
BEYOND = 0.01
"""A relative box may exceed its image by this fraction, because such numbers are rounded."""
JSON_EXPECTED = (
    'a list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"}, or the detections.json of '
    "lookonce detect"
)
OWN_EXPECTED = (
    '{"file", "detections": [{"label", "score", "box": [xmin, ymin, xmax, ymax]}]}, as lookonce detect writes it'
)
TEXT_EXPECTED = "'class score xmin ymin xmax ymax', finite numbers, xmin <= xmax, ymin <= ymax"
YOLO_EXPECTED = "'class cx cy w h score', shares of the image from 0 to 1"


def holds_detections(path: Path) -> bool:
    """Return whether a path holds detections, not a model: a .json, or a folder with such files that is not a run."""
    if path.is_dir():
        return not (path / "model.safetensors").is_file() and _inside(path) is not None
    return path.suffix.lower() == ".json"


def _inside(folder: Path) -> Path | None:
    """Return detections.json of a folder, or the folder of its text files (labels, if Ultralytics wrote them)."""
    if (folder / "detections.json").is_file():
        return folder / "detections.json"
    return next((place for place in (folder, folder / "labels") if any(place.glob("*.txt"))), None)


def read_detections(path: Path, whole: Whole, split: str | None) -> list[Detections]:
    """Return the detections of a file or folder for each image of a split, with all classes of the data set.

    Raises:
        UserError: a file that cannot be read, a number that is not finite, an unknown image or class.
    """
    names = class_order(whole.found, None, Counter(whole.found.names))
    images = whole.members(split)
    found = _Builder(_Places(whole, images, split), names, _categories(whole, images, names),
                      whole.dataset.sizes[images], first=int(whole.found.format == "voc"))  # fmt: skip
    place = (_inside(path) or path) if path.is_dir() else path
    (_take_texts if place.is_dir() else _take_json)(place, found)
    image = np.array(found.image, np.int64)
    order = np.argsort(image, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(image, minlength=len(images)))[:-1])
    boxes = np.array(found.boxes, np.float64).reshape(-1, 4)
    score, label = np.array(found.score, np.float64), np.array(found.label, np.int64)
    return [Detections(boxes[rows], score[rows], label[rows], names) for rows in parts]  # type: ignore[arg-type]


@dataclass
class _Builder:
    """Detections while they are read."""

    places: _Places
    names: tuple[str, ...]
    categories: dict[int | str, int]
    """How JSON names a class -> its index among the names."""
    sizes: NDArray[np.int32]  # [images, 2] width, height
    first: int
    """1 if text files count pixels from 1 and include both corners; 0: plain pixels."""
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
    """The images of a split, by number or name."""

    def __init__(self, whole: Whole, images: NDArray[np.int64], split: str | None) -> None:
        self.split = "the data set" if split is None else f"split {split!r} (all: every image there is)"
        self.count = len(images)
        self.place: dict[int | str, int] = {}
        self.of_path: dict[str, int] = {}
        self.twice: set[int | str] = set()
        found = whole.found
        for place, n in enumerate(images.tolist()):
            name = Path(found.paths[n])
            self.of_path[os.path.abspath(found.root / name)] = place
            keys: set[int | str] = {name.stem, name.name}
            if found.format == "coco":
                keys.add(found.image_ids[n])
            elif name.stem.isdecimal() and len(name.stem) < 19:
                keys.add(int(name.stem))
            self.twice |= keys & self.place.keys()
            self.place |= dict.fromkeys(keys, place)

    def __call__(self, key: Any, what: str) -> int:
        """Return the index of an image by its key."""
        if isinstance(key, bool) or not isinstance(key, int | str) or key not in self.place:
            raise _Wrong(f"{what} {repr(key)[:60]}, which no image of {self.split} has")
        if key in self.twice:
            raise _Wrong(f"{what} {key!r}, which two images of {self.split} have")
        return self.place[key]

    def of_file(self, file: str) -> int | None:
        """Return the index of an image by the path of its file, else by its name; None: unknown."""
        place = self.of_path.get(os.path.abspath(file))
        name = re.split(r"[\\/]", file)[-1]
        if place is None and name in self.place:
            return self(name, "the file name")
        return place


class _Wrong(Exception):
    """An invalid detection."""


def _categories(whole: Whole, images: NDArray[np.int64], names: tuple[str, ...]) -> dict[int | str, int]:
    """How JSON names a class -> its index among the names."""
    by_name: dict[int | str, int] = {name: place for place, name in enumerate(names)}
    if whole.found.format != "coco":
        return by_name | {place + 1: place for place in range(len(names))}
    found = dict(by_name)
    for file in {whole.found.files[n] for n in images.tolist()}:
        for number, name in whole.found.categories[file].items():
            if found.setdefault(number, by_name[name]) != by_name[name]:
                raise UserError(f"{file}: category {number} is another one in another file; evaluate one split")
    return found


class _Result(msgspec.Struct):
    image_id: Any = None
    category_id: Any = None
    bbox: Any = None
    score: Any = None


class _OwnDetection(msgspec.Struct):
    label: str
    score: Any = None
    box: Any = None


class _OwnImage(msgspec.Struct):
    file: str
    detections: list[_OwnDetection]


class _Own(msgspec.Struct):
    """The file of `lookonce detect`; version 0.1 called the images pictures."""

    labels: Any = None
    images: list[_OwnImage] | None = None
    pictures: list[_OwnImage] | None = None


def _take_json(path: Path, found: _Builder) -> None:
    """Read COCO results or the file of `lookonce detect`. Raises for an invalid entry, with its location."""
    whole = read_json(path, list[_Result] | _Own, JSON_EXPECTED)  # type: ignore[arg-type]
    if isinstance(whole, _Own):
        return _take_own(path, whole, found)
    for index, entry in enumerate(whole):
        try:
            found.add(*_entry(entry, found))
        except _Wrong as wrong:
            raise UserError(f"{path}: $[{index}]: {wrong}; expected {JSON_EXPECTED}") from None
    if found.boxes and max(map(abs, found.boxes)) <= 1:
        raise UserError(f"{path}: no coordinate is greater than 1: relative coordinates? Expected pixels of the image")


def _take_own(path: Path, whole: _Own, found: _Builder) -> None:
    """Read the images of the split. Images of other splits and unknown classes are left out."""
    images = whole.images if whole.images is not None else whole.pictures
    if images is None:
        raise UserError(f"{path}: no $.images; expected {JSON_EXPECTED}")
    known = {name for name in whole.labels if isinstance(name, str)} if isinstance(whole.labels, list) else set()
    others: Counter[str] = Counter()
    seen: set[int] = set()
    for index, entry in enumerate(images):
        try:
            _take_own_image(entry, found, seen, known, others)
        except _Wrong as wrong:
            raise UserError(f"{path}: $.images[{index}]{wrong}; expected {OWN_EXPECTED}") from None
    if not seen:
        raise UserError(f"{path}: none of its images is one of {found.places.split}; score all of them with "
                        "--split all, or detect on the images of the split")  # fmt: skip
    _log_left_out(path, others, found.places.count - len(seen))


def _take_own_image(entry: _OwnImage, found: _Builder, seen: set[int], known: set[str], others: Counter[str]) -> None:
    """Read one image of `lookonce detect`. others: counts what is left out."""
    try:
        place = found.places.of_file(entry.file)
    except _Wrong as wrong:
        raise _Wrong(f": {wrong}") from None
    if place is None:
        others["images"] += 1
        return
    if place in seen:
        raise _Wrong(f": file {entry.file!r} a second time")
    seen.add(place)
    for index, one in enumerate(entry.detections):
        try:
            if one.label in found.names:
                found.add(place, found.names.index(one.label), _score(one.score), _corners(one.box))
            elif one.label in known:
                others["classes"] += 1
            else:
                raise _Wrong(f"label {one.label[:40]!r}, and the data set has {', '.join(found.names)[:400]}")
        except _Wrong as wrong:
            raise _Wrong(f".detections[{index}]: {wrong}") from None


def _log_left_out(path: Path, others: Counter[str], absent: int) -> None:
    """Log what an evaluation of `lookonce detect`'s own file leaves out."""
    parts = [f"{count} {what}" for count, what in (
        (others["images"], "images that are not of this split are left out"),
        (others["classes"], "detections of classes that the data set does not have are left out"),
        (absent, "images of this split are not in it and count as images without detections"),
    ) if count]  # fmt: skip
    parts.append("detect writes no scores below its threshold, so AP is lower than that of lookonce evaluate MODEL")
    log.info("%s: %s", path, "; ".join(parts))


def _corners(box: Any) -> tuple[float, ...]:
    """Return xyxy of one detection, pixels."""
    numbers = isinstance(box, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in box)
    if not numbers or len(box) != 4 or not all(abs(v) <= MOST for v in box) or box[2] < box[0] or box[3] < box[1]:
        raise _Wrong(f"a box of {str(box)[:60]}")
    return tuple(float(v) for v in box)


def _score(score: Any) -> float:
    if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) <= MOST:
        raise _Wrong(f"a score of {str(score)[:40]}")
    return float(score)


def _entry(entry: _Result, found: _Builder) -> tuple[int, int, float, tuple[float, ...]]:
    """Return (image, class, score, xyxy box) of one entry."""
    box, category = read_box(entry.bbox), entry.category_id
    if isinstance(box, str):
        raise _Wrong(f"bbox: {box}")
    if box[2] < box[0] or box[3] < box[1] or max(map(abs, box)) > MOST:
        raise _Wrong(f"a bbox of {entry.bbox} with a negative or huge number")
    score = _score(entry.score)
    if isinstance(category, bool) or not isinstance(category, int | str) or category not in found.categories:
        numbers = sorted((key, place) for key, place in found.categories.items() if isinstance(key, int))
        known = ", ".join(f"{number} {found.names[place]}" for number, place in numbers)[:400]
        raise _Wrong(f"category_id {repr(category)[:40]}, and the data set has {known}")
    return found.places(entry.image_id, "image_id"), found.categories[category], score, box


def _take_texts(folder: Path, found: _Builder) -> None:
    numbers = {name: place for place, name in enumerate(found.names)}
    relative = _is_relative(folder)
    expected = YOLO_EXPECTED if relative else TEXT_EXPECTED
    if relative:
        log.info("%s: read as YOLO's lines, %s", folder, YOLO_EXPECTED)
    for file in sorted(folder.glob("*.txt")):
        at = 0
        try:
            place = found.places(file.stem, "the name")
            width, height = found.sizes[place].tolist()
            for line, text in enumerate(read_text(file, expected, LIST_BYTES).splitlines(), 1):
                at = line
                if not text.strip():
                    continue
                word, values = _fields(text)
                label = _label(word, numbers)
                if relative:
                    cx, cy, w, h, score = values
                    box = (cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height
                else:
                    score, x1, y1, x2, y2 = values
                    box = x1 - found.first, y1 - found.first, x2, y2
                    if not all(abs(v) <= MOST for v in values) or x2 < x1 or y2 < y1:  # also refuses nan
                        raise _Wrong(f"{text.strip()[:80]!r}")
                found.add(place, label, score, box)
        except _Wrong as wrong:
            raise AnnotationError(file, at, str(wrong), expected) from None


def _is_relative(folder: Path) -> bool:
    """Return whether the lines are YOLO's: every number is a fraction and every box fits into its image.

    Raises UserError for other lines whose numbers are all fractions, because their meaning is unknown.
    """
    fit, first = True, None
    for file in sorted(folder.glob("*.txt")):
        for line, text in enumerate(read_text(file, TEXT_EXPECTED, LIST_BYTES).splitlines(), 1):
            if not text.strip():
                continue
            try:
                _, values = _fields(text)
            except _Wrong:
                return False  # refused with its location when it is read
            if not all(-BEYOND <= value <= 1 + BEYOND for value in values):  # also nan
                return False
            cx, cy, w, h, score = values
            edges = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
            fit &= min(w, h, score) >= 0 and all(-BEYOND <= edge <= 1 + BEYOND for edge in edges)
            first = first or (file, line, text.strip()[:80])
    if first and not fit:
        file, line, text = first
        found = f"{text!r}, and no number of any file is greater than 1: relative coordinates?"
        raise AnnotationError(file, line, found, f"{TEXT_EXPECTED}, in pixels, or {YOLO_EXPECTED}")
    return first is not None


def _fields(text: str) -> tuple[str, tuple[float, float, float, float, float]]:
    """Return (class, the five numbers after it) of one line. A class name may contain spaces."""
    word, *numbers = text.rsplit(None, 5)
    try:
        one, two, three, four, five = map(float, numbers)
    except ValueError:
        raise _Wrong(f"{text.strip()[:80]!r}{_without_score(text)}") from None
    return word.strip(), (one, two, three, four, five)


def _without_score(text: str) -> str:
    """Return the hint for a line of labels, which has no score."""
    try:
        box = [float(value) for value in text.split()[1:]]
    except ValueError:
        return ""
    labels = len(box) == 4 and all(0 <= value <= 1 for value in box)
    return ", a label without a score (Ultralytics writes it with save_conf=True)" if labels else ""


def _label(word: str, names: dict[str, int]) -> int:
    """Return the index of a class by its name or number."""
    number = re.fullmatch(r"([0-9]{1,8})(\.0*)?", word)
    label = names.get(word, int(number[1]) if number else -1)
    if not 0 <= label < len(names):
        known = ", ".join(f"{place} {name}" for name, place in names.items())[:400]
        raise _Wrong(f"class {word[:40]!r}, and the data set has {known}")
    return label
