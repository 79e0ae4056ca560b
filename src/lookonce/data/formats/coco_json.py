"""One COCO JSON file: its categories, images and annotations, packed.

msgspec splits the file into its entries, which are decoded one by one, so that an invalid one is noted with its place
($.annotations[12]) and the others are read. Of polygons only the bounding box is kept. Masks in run-length encoding are
not read.
Source: cocodataset.org, "Data format"; pycocotools/coco.py.
"""

from __future__ import annotations

import json
import math
import os
import re
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from lookonce.data.formats.builder import NO_ID, Box
from lookonce.errors import UserError
from lookonce.text import clean_name, read_json

EXPECTED = "COCO JSON with categories, images and annotations"
SECTIONS = ("categories", "images", "annotations")
MAX_ID = 1 << 62
"""Whole numbers below this are their own number."""
CROWD, IGNORE, POLYGON, TEXT = 1, 2, 4, 8
Note = Callable[[str, str, str, str], None]
"""Called with (entry, kind of problem, what was found, what was done)."""


class _File(msgspec.Struct):
    categories: list[msgspec.Raw] | None = None
    images: list[msgspec.Raw] | None = None
    annotations: list[msgspec.Raw] | None = None


class _Category(msgspec.Struct):
    id: Any = None
    name: Any = None
    supercategory: Any = None


class _Image(msgspec.Struct):
    id: Any = None
    file_name: Any = None
    coco_url: Any = None  # LVIS has only this
    url: Any = None
    path: Any = None
    width: Any = None
    height: Any = None


class _Annotation(msgspec.Struct):
    id: Any = None
    image_id: Any = None
    category_id: Any = None
    bbox: Any = None
    area: Any = None
    iscrowd: Any = None
    ignore: Any = None
    segmentation: msgspec.Raw = msgspec.Raw()  # decoded only if the bbox is not valid


class Ids:
    """Numbers for the ids of a file: "1", 1 and 1.0 are one, and other text has a number of its own."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._texts: list[str] = []

    def number(self, value: Any) -> int | None:
        """Return the number of an id; None: not an id."""
        if type(value) is int and abs(value) < MAX_ID:
            return value
        if type(value) is float and value.is_integer() and abs(value) < MAX_ID:
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

    def text(self, number: int) -> str:
        """Return an id as the file writes it."""
        if number > -MAX_ID:
            return str(number)
        return repr(self._texts[number - NO_ID - 1][:60])


@dataclass
class Content:
    """One file: N annotations, in the order of the file."""

    ids: Ids = field(default_factory=Ids)
    names: dict[int, str] = field(default_factory=dict)
    """Category id -> name."""
    parents: dict[int, str] = field(default_factory=dict)
    """Category id -> supercategory."""
    images: dict[int, tuple[str, int, int, int]] = field(default_factory=dict)
    """Image id -> (file name, width, height, place in the list of images); width 0: the file gives no size."""
    image: array[int] = field(default_factory=lambda: array("q"))
    """[N] image ids."""
    category: array[int] = field(default_factory=lambda: array("q"))
    """[N] category ids; NO_ID: `wrong` says why."""
    annotation_ids: array[int] = field(default_factory=lambda: array("q"))
    """[N] NO_ID: none."""
    index: array[int] = field(default_factory=lambda: array("q"))
    """[N] places in the file's list of annotations."""
    boxes: array[float] = field(default_factory=lambda: array("d"))
    """[N * 4] xyxy image px; 0 where `wrong` says why."""
    areas: array[float] = field(default_factory=lambda: array("d"))
    """[N] px²; 0: the file gives none."""
    flags: array[int] = field(default_factory=lambda: array("b"))
    """[N] CROWD | IGNORE, and what the box was made of: POLYGON | TEXT."""
    wrong: dict[int, tuple[str, str, str]] = field(default_factory=dict)
    """Annotation -> (field, kind of problem, what was found)."""

    def image_entry(self, number: int) -> str:
        """Return the place of an image in the file: $.images[3] (id 7, a.jpg)."""
        name, *_, index = self.images[number]
        return f"$.images[{index}] (id {self.ids.text(number)}, {name})"

    def annotation_entry(self, n: int, key: str, image: str) -> str:
        """Return the place of a field of an annotation: $.annotations[3].bbox (id 7, a.jpg)."""
        number = self.annotation_ids[n]
        label = ", ".join(filter(None, ("" if number == NO_ID else f"id {self.ids.text(number)}", image)))
        return f"$.annotations[{self.index[n]}].{key}" + (f" ({label})" if label else "")


def parse(file: Path, note: Note) -> Content:
    """Return the content of one file. note: takes what is wrong with an entry.

    Raises UserError, with its line, for what is no COCO JSON.
    """
    whole = read_json(file, _File, EXPECTED, lambda message: note("", "encoding guessed", message, "read all the same"))
    if missing := [section for section in SECTIONS if getattr(whole, section) is None]:
        raise UserError(f"{file}: no {' and no '.join(missing)}; expected {EXPECTED}")
    content = Content()
    _each(content, note, whole.categories, "categories", _Category, _add_category)
    _each(content, note, whole.images, "images", _Image, _add_image)
    _each(content, note, whole.annotations, "annotations", _Annotation, partial(_add_annotation, seen=set()))
    return content


def _each(content: Content, note: Note, entries: list[msgspec.Raw] | None, section: str, shape: type[Any],
          add: Callable[[Content, Note, Any, int], None]) -> None:  # fmt: skip
    """Decode the entries of a section one by one, so that a bad one is noted and the others are read."""
    decode = msgspec.json.Decoder(shape).decode
    for index, raw in enumerate(entries or ()):
        try:
            entry = decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            found, _, place = str(error).replace("`", "").partition(" - at $")
            note(f"$.{section}[{index}]{place}", "entry unreadable", found, "skipped")
        else:
            add(content, note, entry, index)


def _add_category(content: Content, note: Note, entry: _Category, index: int) -> None:
    number, name = content.ids.number(entry.id), entry.name
    if type(name) in (int, float, bool):
        name = json.dumps(name)  # as the file writes it
    if number is None or not isinstance(name, str) or not name.strip():
        found = f"id {_short(entry.id)}, name {_short(entry.name)}; expected an id and a name"
        note(f"$.categories[{index}]", "entry unreadable", found, "skipped")
        return
    name = clean_name(name)
    if content.names.setdefault(number, name) != name:
        found = f"{name!r} has the id of {content.names[number]!r}; expected each id once"
        note(f"$.categories[{index}] (id {content.ids.text(number)})", "category id twice", found, "skipped")
        return
    if isinstance(entry.supercategory, str):
        content.parents[number] = clean_name(entry.supercategory)


def _add_image(content: Content, note: Note, entry: _Image, index: int) -> None:
    number, name = content.ids.number(entry.id), _file_name(entry)
    if number is None or name is None:
        found = f"id {_short(entry.id)}, file_name {_short(entry.file_name)}; expected an id and a name"
        note(f"$.images[{index}]", "entry unreadable", found, "skipped")
        return
    size = entry.width, entry.height
    width, height = (int(v) for v in size) if all(type(v) in (int, float) and 0 < v < 1 << 24 for v in size) else (0, 0)
    where = f"$.images[{index}] (id {content.ids.text(number)})"
    if number not in content.images:
        content.images[number] = name, width, height, index
    elif content.images[number][0] == name:
        note(where, "image listed twice", f"{name!r} again", "read once")
    else:
        found = f"{name!r} has the id of {content.images[number][0]!r}; expected each id once"
        note(where, "image id twice", found, "skipped")


def _file_name(entry: _Image) -> str | None:
    """Return the path of an image: its file_name, or that in its address; None: it has none."""
    names = (entry.file_name, entry.coco_url, entry.url, entry.path)
    text = next((v for v in names if isinstance(v, str) and v.strip()), None)
    if text is None or not ("://" in text or "?d=" in text):  # ?d=: what Label Studio writes
        return text
    try:
        address = urlsplit(text.strip())
    except ValueError:  # no address after all
        return text
    path, query = unquote(address.path), unquote(address.query.rpartition("=")[2])
    return query if query and not os.path.splitext(path)[1] else path or text


def _add_annotation(content: Content, note: Note, entry: _Annotation, index: int, seen: set[int]) -> None:
    ids = content.ids
    number, image, category = ids.number(entry.id), ids.number(entry.image_id), ids.number(entry.category_id)
    where = f"$.annotations[{index}]" + ("" if number is None else f" (id {ids.text(number)})")
    if number is not None and number in seen:
        note(where, "annotation id twice", "another annotation has its id", "read all the same")
    if image is None:
        note(where, "image id unknown", f"image_id {_short(entry.image_id)}; expected an id", "dropped")
        return
    flags = CROWD * bool(entry.iscrowd) | IGNORE * bool(entry.ignore)
    box = read_box(entry.bbox)
    if isinstance(box, str) or not any(box):
        box, source = _other_box(entry, box)
        flags |= source
    if isinstance(box, str):
        content.wrong[len(content.index)] = "bbox", "object unreadable", box
        box = (0.0, 0.0, 0.0, 0.0)
    elif category is None:
        found = f"category_id {_short(entry.category_id)}; expected the id of a category"
        content.wrong[len(content.index)] = "category_id", "category missing", found
    content.image.append(image)
    content.category.append(NO_ID if category is None else category)
    content.annotation_ids.append(NO_ID if number is None else number)
    content.index.append(index)
    content.boxes.extend(box)
    area = entry.area
    content.areas.append(float(area) if isinstance(area, int | float) and 0 < area < MAX_ID else 0.0)
    content.flags.append(flags)
    if number is not None:
        seen.add(number)


def _short(value: Any) -> str:
    return repr(value)[:60]


def read_box(bbox: Any) -> Box | str:
    """Return xyxy image px of a bbox [x, y, w, h], or what is wrong with it."""
    if not isinstance(bbox, list):
        return f"expected [x, y, width, height], found {_short(bbox)}"
    if len(bbox) != 4:
        return f"expected 4 numbers, found {len(bbox)}"
    try:
        x, y, w, h = (float(v) if type(v) in (int, float) else math.inf for v in bbox)
    except OverflowError:
        return f"expected 4 finite numbers, found {_short(bbox)}"
    right, bottom = x + w, y + h
    if math.isfinite(right) and math.isfinite(bottom):
        return x, y, right, bottom
    return f"expected 4 finite numbers, found {_short(bbox)}"


def _other_box(entry: _Annotation, wrong: Box | str) -> tuple[Box | str, int]:
    """Return the box of an annotation whose bbox is `wrong`, and its source, where something else gives it clearly."""
    bbox = entry.bbox
    if isinstance(bbox, list) and len(bbox) == 4 and isinstance(wrong, str):
        try:
            box = read_box([float(v) if type(v) is str else v for v in bbox])
        except ValueError:
            return wrong, 0
        return box, 0 if isinstance(box, str) else TEXT
    if bbox and isinstance(wrong, str):
        return wrong, 0
    try:
        mask = msgspec.json.decode(entry.segmentation) if bytes(entry.segmentation) else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return wrong, 0
    if isinstance(mask, dict):
        return "no bbox, and a run-length encoded segmentation; expected a bbox, or polygons", 0
    around = polygon_box(mask)
    return (wrong, 0) if around is None else (around, POLYGON)


def polygon_box(mask: Any) -> Box | None:
    """Return the xyxy box around polygons [[x, y, x, y, ...], ...], one of them, or points [[x, y], ...].

    None: they are none of these.
    """
    rings = mask if isinstance(mask, list) and mask and isinstance(mask[0], list) else [mask]
    if not all(isinstance(ring, list) and ring and len(ring) % 2 == 0 for ring in rings):
        return None
    numbers = [v for ring in rings for v in ring]
    if len(numbers) < 6 or not all(type(v) in (int, float) and abs(v) < MAX_ID for v in numbers):
        return None
    return min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])
