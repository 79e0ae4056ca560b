"""COCO json: pictures, categories and boxes `x y w h` in one file a split. One file, read and packed.

The file is read element by element: of an annotation with its polygons only the box is kept, and each problem
has its line. Segmentations are not read.
Source: cocodataset.org, "Data format"; pycocotools/coco.py.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lookonce.data.json_text import Line, read_text, reading
from lookonce.errors import AnnotationError, UserError

MOST_ID = 1 << 63
NO_ID = -MOST_ID
"""Stands for a category_id that is no whole number."""
SECTIONS = ("categories", "images", "annotations")
CROWD, IGNORE = 1, 2


@dataclass
class Content:
    """One file as it stands: N annotations, in the order of the file."""

    names: dict[int, str] = field(default_factory=dict)
    """Category id -> name."""
    images: dict[int, tuple[str, int, int, int]] = field(default_factory=dict)
    """Image id -> (file name, width, height, line); width 0: the file says none."""
    image: array[int] = field(default_factory=lambda: array("q"))
    """[N] image ids."""
    category: array[int] = field(default_factory=lambda: array("q"))
    """[N] category ids."""
    boxes: array[float] = field(default_factory=lambda: array("d"))
    """[N * 4] xyxy image px; 0 where `wrong` says why."""
    areas: array[float] = field(default_factory=lambda: array("d"))
    """[N] px²; 0: the file says none."""
    flags: array[int] = field(default_factory=lambda: array("b"))
    """[N] CROWD | IGNORE."""
    lines: array[int] = field(default_factory=lambda: array("q"))
    """[N]"""
    wrong: dict[int, str] = field(default_factory=dict)
    """Annotation -> what is wrong with its bbox."""
    repeated: list[int] = field(default_factory=list)
    """Lines of annotations whose id another had before."""


def parse(file: Path) -> Content:
    """One file. Raises UserError, with its line, for what is no COCO json or has an id twice."""
    text = read_text(file, "COCO json")
    content, seen, sections = Content(), set[int](), set[str]()
    line = Line(text)
    takers: dict[str, Callable[[Content, Path, dict[str, Any], int], None]] = {
        "categories": _category,
        "images": _image,
        "annotations": partial(_annotation, seen=seen),
    }
    for section, entry, position in _elements(file, text):
        sections.add(section)
        if entry is not None:
            at = line.of(position)
            if not isinstance(entry, dict):
                raise AnnotationError(file, at, f"{section}: {str(entry)[:40]!r}", "an object {...}")
            takers[section](content, file, entry, at)
    if missing := [section for section in SECTIONS if section not in sections]:
        raise UserError(f"{file}: no {' and no '.join(missing)}; expected COCO json with {', '.join(SECTIONS)}")
    return content


def _category(content: Content, file: Path, entry: dict[str, Any], line: int) -> None:
    number, name = _id(file, entry, "id", line, "category"), entry.get("name")
    if not isinstance(name, str) or not name.strip():
        raise AnnotationError(file, line, f"category {number} named {name!r}", "a name, text")
    if number in content.names or name.strip() in content.names.values():
        raise AnnotationError(file, line, f"category {number} {name!r} twice", "each id and name once")
    content.names[number] = name.strip()


def _image(content: Content, file: Path, entry: dict[str, Any], line: int) -> None:
    number, name = _id(file, entry, "id", line, "image"), entry.get("file_name")
    if not isinstance(name, str) or not name.strip():
        raise AnnotationError(file, line, f"image {number} with file_name {name!r}", "the picture's name, text")
    if number in content.images:
        raise AnnotationError(file, line, f"image id {number} twice", "each id once: give it another")
    size = [entry.get(side) for side in ("width", "height")]
    good = all(type(v) in (int, float) and 0 < v < 1 << 24 for v in size)  # type: ignore[operator]
    width, height = (int(v) for v in size) if good else (0, 0)  # type: ignore[arg-type]
    content.images[number] = name, width, height, line


def _annotation(content: Content, file: Path, entry: dict[str, Any], line: int, seen: set[int]) -> None:
    if "id" in entry:
        number = _id(file, entry, "id", line, "annotation")
        if number in seen:
            content.repeated.append(line)
        seen.add(number)
    category, box = entry.get("category_id"), read_box(entry.get("bbox"))
    content.image.append(_id(file, entry, "image_id", line, "annotation"))
    content.category.append(category if type(category) is int and abs(category) < MOST_ID else NO_ID)
    if isinstance(box, str):
        content.wrong[len(content.lines)] = box
        box = (0.0, 0.0, 0.0, 0.0)
    content.boxes.extend(box)
    area = entry.get("area")
    content.areas.append(float(area) if isinstance(area, int | float) and 0 < area < MOST_ID else 0.0)
    content.flags.append(CROWD * bool(entry.get("iscrowd")) | IGNORE * bool(entry.get("ignore")))
    content.lines.append(line)


def _id(file: Path, entry: dict[str, Any], key: str, line: int, what: str) -> int:
    number = entry.get(key)
    if type(number) is str and number.isdecimal() and len(number) < 20:
        number = int(number)
    if type(number) is not int or abs(number) >= MOST_ID:
        raise AnnotationError(file, line, f"{what} with {key} {str(number)[:40]}", "a whole number below 2^63")
    return number


def _elements(file: Path, text: str) -> Iterator[tuple[str, Any, int]]:
    """(section, entry, position) of each entry of the three lists; an empty list gives one entry None."""
    with reading(file, text, "COCO json") as json:
        json.expect("{")
        mark = "}" if json.sees("}") else ","
        while mark == ",":
            key = json.value()
            json.expect(":")
            if key in SECTIONS and json.sees("["):
                yield key, None, json.at
                for entry, start in json.entries():
                    yield key, entry, start
            else:
                json.value()
            mark = json.expect(",}")


def read_box(bbox: Any) -> tuple[float, float, float, float] | str:
    """xyxy image px of a bbox [x, y, w, h], or what is wrong with it."""
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(type(v) in (int, float) for v in bbox):
        return f"a bbox of {str(bbox)[:60]}; expected [x, y, width, height], four numbers"
    try:
        x, y, w, h = (float(v) for v in bbox)
    except OverflowError:
        return "a bbox with a number beyond 1e308; expected pixels"
    if not all(math.isfinite(v) for v in (x + w, y + h)):
        return f"a bbox of {bbox}; expected four finite numbers"
    return x, y, x + w, y + h
