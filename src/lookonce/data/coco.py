"""COCO json: images, categories and boxes `x y w h` in one file a split. One file, read and packed.

The file is read entry by entry: of an annotation with its polygons only the box is kept. An entry that cannot be
read is noted with its place, and reading goes on. Masks in run-length encoding are not read.
Source: cocodataset.org, "Data format"; pycocotools/coco.py.
"""

from __future__ import annotations

import json
import math
import os
import re
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from lookonce.data.gathering import NO_ID, Box
from lookonce.data.json_text import Line, read_text, reading
from lookonce.errors import UserError

MOST_ID = 1 << 62
"""Whole numbers below stand for themselves."""
SECTIONS = ("categories", "images", "annotations")
NAME_KEYS = ("file_name", "coco_url", "url", "path")
"""What may name an image; LVIS has coco_url alone."""
CROWD, IGNORE, POLYGON, TEXT = 1, 2, 4, 8
NUMBERS = frozenset((int, float))

Note = Callable[[int, str, str, str, str], None]
"""Takes (line, entry, kind, what was found, what was done)."""


class Ids:
    """Numbers for the ids of a file: "1", 1 and 1.0 are one, and other text has a number of its own."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._texts: list[str] = []

    def number(self, value: Any) -> int | None:
        """The number of an id; None: it is none."""
        if type(value) is int and abs(value) < MOST_ID:
            return value
        if type(value) is float and value.is_integer() and abs(value) < MOST_ID:
            return int(value)
        if type(value) not in (int, str) or not str(value).strip():
            return None
        text = str(value).strip()
        if re.fullmatch(r"-?[0-9]{1,18}(\.0*)?", text):
            return int(text.partition(".")[0])
        if text not in self._numbers:
            self._texts.append(text)
            self._numbers[text] = NO_ID + len(self._texts)
        return self._numbers[text]

    def told(self, number: int) -> str:
        """An id as the file says it."""
        if number > -MOST_ID:
            return str(number)
        return repr(self._texts[number - NO_ID - 1][:60])


@dataclass
class Content:
    """One file as it stands: N annotations, in the order of the file."""

    ids: Ids = field(default_factory=Ids)
    names: dict[int, str] = field(default_factory=dict)
    """Category id -> name."""
    parents: dict[int, str] = field(default_factory=dict)
    """Category id -> supercategory."""
    images: dict[int, tuple[str, int, int, int]] = field(default_factory=dict)
    """Image id -> (file name, width, height, line); width 0: the file says none."""
    image: array[int] = field(default_factory=lambda: array("q"))
    """[N] image ids."""
    category: array[int] = field(default_factory=lambda: array("q"))
    """[N] category ids; NO_ID: `wrong` says why."""
    entries: array[int] = field(default_factory=lambda: array("q"))
    """[N] annotation ids; NO_ID: none."""
    boxes: array[float] = field(default_factory=lambda: array("d"))
    """[N * 4] xyxy image px; 0 where `wrong` says why."""
    areas: array[float] = field(default_factory=lambda: array("d"))
    """[N] px²; 0: the file says none."""
    flags: array[int] = field(default_factory=lambda: array("b"))
    """[N] CROWD | IGNORE, and what the box was made of: POLYGON | TEXT."""
    lines: array[int] = field(default_factory=lambda: array("q"))
    """[N]"""
    wrong: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Annotation -> (kind of problem, what was found)."""


def parse(file: Path, note: Note) -> Content:
    """One file. Raises UserError, with its line, for what is no COCO json. note: takes what is wrong with an entry."""
    text = read_text(file, "COCO json", lambda said: note(0, "", "encoding guessed", said, "read all the same"))
    content, seen, sections = Content(), set[int](), set[str]()
    line = Line(text)
    for section, index, entry, position in _elements(file, text):
        sections.add(section)
        if index < 0:
            continue
        at = line.of(position)
        if not isinstance(entry, dict):
            found = f"{repr(entry)[:40]}; expected an object {{...}}"
            note(at, f"{section}[{index}]", "entry unreadable", found, "skipped")
        elif section == "annotations":
            _annotation(content, note, entry, (at, index), seen)
        else:
            (_category if section == "categories" else _image)(content, note, entry, (at, index))
    if missing := [section for section in SECTIONS if section not in sections]:
        raise UserError(f"{file}: no {' and no '.join(missing)}; expected COCO json with {', '.join(SECTIONS)}")
    return content


def _category(content: Content, note: Note, entry: dict[str, Any], place: tuple[int, int]) -> None:
    number, name = content.ids.number(entry.get("id")), entry.get("name")
    if type(name) in (int, float, bool):
        name = json.dumps(name)  # as the file says it
    if number is None or not isinstance(name, str) or not name.strip():
        found = f"id {_short(entry.get('id'))}, name {_short(entry.get('name'))}; expected an id and a name"
        note(place[0], f"categories[{place[1]}]", "entry unreadable", found, "skipped")
        return
    name = name.strip()
    if content.names.setdefault(number, name) != name:
        found = f"{name!r} has the id of {content.names[number]!r}; expected each id once"
        note(place[0], f"category {content.ids.told(number)}", "category id twice", found, "skipped")
        return
    parent = entry.get("supercategory")
    if isinstance(parent, str):
        content.parents[number] = parent.strip()


def _image(content: Content, note: Note, entry: dict[str, Any], place: tuple[int, int]) -> None:
    number, name = content.ids.number(entry.get("id")), _file_name(entry)
    if number is None or name is None:
        found = f"id {_short(entry.get('id'))}, file_name {_short(entry.get('file_name'))}; expected an id and a name"
        note(place[0], f"images[{place[1]}]", "entry unreadable", found, "skipped")
        return
    size = [entry.get(side) for side in ("width", "height")]
    good = all(type(v) in (int, float) and 0 < v < 1 << 24 for v in size)  # type: ignore[operator]
    width, height = (int(v) for v in size) if good else (0, 0)  # type: ignore[arg-type]
    if number not in content.images:
        content.images[number] = name, width, height, place[0]
    elif content.images[number][0] == name:
        note(place[0], f"image {content.ids.told(number)}", "image listed twice", f"{name!r} again", "read once")
    else:
        found = f"{name!r} has the id of {content.images[number][0]!r}; expected each id once"
        note(place[0], f"image {content.ids.told(number)}", "image id twice", found, "skipped")


def _annotation(content: Content, note: Note, entry: dict[str, Any], place: tuple[int, int], seen: set[int]) -> None:
    number = content.ids.number(entry.get("id"))
    image, category = content.ids.number(entry.get("image_id")), content.ids.number(entry.get("category_id"))
    if number is not None and number in seen:
        found = "another annotation has its id"
        note(place[0], f"annotation {content.ids.told(number)}", "annotation id twice", found, "read all the same")
    if image is None:
        told = f"annotations[{place[1]}]" if number is None else f"annotation {content.ids.told(number)}"
        note(place[0], told, "image missing", f"image_id {_short(entry.get('image_id'))}; expected an id", "dropped")
        return
    flags = CROWD * bool(entry.get("iscrowd")) | IGNORE * bool(entry.get("ignore"))
    box = read_box(entry.get("bbox"))
    if isinstance(box, str) or not any(box):
        box, made_of = _clear_box(entry, box)
        flags |= made_of
    if isinstance(box, str):
        content.wrong[len(content.lines)] = "object unreadable", box
        box = (0.0, 0.0, 0.0, 0.0)
    elif category is None:
        found = f"category_id {_short(entry.get('category_id'))}; expected the id of a category"
        content.wrong[len(content.lines)] = "category missing", found
    content.image.append(image)
    content.category.append(NO_ID if category is None else category)
    content.entries.append(NO_ID if number is None else number)
    content.boxes.extend(box)
    area = entry.get("area")
    content.areas.append(float(area) if isinstance(area, int | float) and 0 < area < MOST_ID else 0.0)
    content.flags.append(flags)
    content.lines.append(place[0])
    if number is not None:
        seen.add(number)


def _short(value: Any) -> str:
    return repr(value)[:60]


def _file_name(entry: dict[str, Any]) -> str | None:
    """The path of an image: its file_name, or that in its address; None: it has none."""
    text = next((v for v in map(entry.get, NAME_KEYS) if isinstance(v, str) and v.strip()), None)
    if text is None or not ("://" in text or "?d=" in text):  # ?d=: what Label Studio writes
        return text
    try:
        address = urlsplit(text.strip())
    except ValueError:  # no address after all
        return text
    path, asked = unquote(address.path), unquote(address.query.rpartition("=")[2])
    return asked if asked and not os.path.splitext(path)[1] else path or text


def _clear_box(entry: dict[str, Any], wrong: Box | str) -> tuple[Box | str, int]:
    """The box of an annotation whose bbox is `wrong`, and what it was made of, where something else says it clearly."""
    bbox, mask = entry.get("bbox"), entry.get("segmentation")
    if isinstance(bbox, list) and len(bbox) == 4 and isinstance(wrong, str):
        try:
            numbers = [float(v) if type(v) is str else v for v in bbox]
        except ValueError:
            return wrong, 0
        box = read_box(numbers)
        return box, 0 if isinstance(box, str) else TEXT
    if bbox and isinstance(wrong, str):
        return wrong, 0
    if isinstance(mask, dict):
        return "no bbox, and a run-length encoded segmentation; expected a bbox, or polygons", 0
    around = polygon_box(mask)
    return (wrong, 0) if around is None else (around, POLYGON)


def polygon_box(mask: Any) -> Box | None:
    """xyxy box around polygons [[x, y, x, y, ...], ...], one of them, or points [[x, y], ...]; None: they are none."""
    rings = mask if isinstance(mask, list) and mask and isinstance(mask[0], list) else [mask]
    if not all(isinstance(ring, list) and ring and len(ring) % 2 == 0 for ring in rings):
        return None
    numbers = [v for ring in rings for v in ring]
    if len(numbers) < 6 or not all(type(v) in NUMBERS and abs(v) < MOST_ID for v in numbers):
        return None
    return min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])


def _elements(file: Path, text: str) -> Iterator[tuple[str, int, Any, int]]:
    """(section, index, entry, position) of each entry of the three lists; each list begins with index -1."""
    with reading(file, text, "COCO json") as json:
        json.expect("{")
        mark = "}" if json.sees("}") else ","
        while mark == ",":
            key = json.value()
            json.expect(":")
            if key in SECTIONS and json.sees("["):
                yield key, -1, None, json.at
                for index, (entry, start) in enumerate(json.entries()):
                    yield key, index, entry, start
            else:
                json.value()
            mark = json.expect(",}")


def read_box(bbox: Any) -> Box | str:
    """xyxy image px of a bbox [x, y, w, h], or what is wrong with it."""
    if type(bbox) is not list or len(bbox) != 4 or not NUMBERS.issuperset(map(type, bbox)):
        return f"a bbox of {_short(bbox)}; expected [x, y, width, height], four numbers"
    try:
        x, y, w, h = map(float, bbox)
    except OverflowError:
        return "a bbox with a number beyond 1e308; expected pixels"
    right, bottom = x + w, y + h
    if math.isfinite(right) and math.isfinite(bottom):
        return x, y, right, bottom
    return f"a bbox of {bbox}; expected four finite numbers"
