"""JSON read entry by entry: a long list never stands in memory whole, and each entry has its line.

NaN and Infinity are read as the floats they are, as other readers do: a field that may not hold them says so.

COCO json: images, categories and boxes `x y w h` in one file a split. One file, read and packed.

The file is read entry by entry: of an annotation with its polygons only the box is kept. An entry that cannot be
read is noted with its place, and reading goes on. Masks in run-length encoding are not read.
Source: cocodataset.org, "Data format"; pycocotools/coco.py.

A data set of COCO files: where they lie, what split each holds. Reader and writer.

A crowd (one box around many) is read as a difficult object.
"""

from __future__ import annotations

import json
import math
import os
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from json.decoder import WHITESPACE  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from lookonce import text as text_files
from lookonce.data.dataset import DataPolicy, Dataset
from lookonce.data.formats.builder import (
    FIXED,
    NO_ID,
    Box,
    Gathering,
    listed,
    name_splits,
    note_leftovers,
    shared_names,
    take_folder_splits,
)
from lookonce.data.images import image_size
from lookonce.data.lookup import Folders, Sections, homes, is_plain, is_split, sections, split_word, told_from
from lookonce.errors import ImageError, UserError
from lookonce.files import write_text

MOST_BYTES = 2 << 30
"""Of one file; instances_train2017.json has a quarter of that."""


@dataclass
class Line:
    """Counts lines up to where reading has come."""

    text: str
    at: int = 0
    number: int = 1

    def of(self, position: int) -> int:
        """The line of a position; positions grow."""
        if position > self.at:
            self.number += self.text.count("\n", self.at, position)
            self.at = position
        return self.number


def read_text(file: Path, expected: str, note: text_files.Note | None = None) -> str:
    """The text of a file of bounded size. Arguments and errors as text.read_text."""
    return text_files.read_text(file, expected, MOST_BYTES, note)


class Json:
    """Where reading has come in a text."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self._decode = json.JSONDecoder().raw_decode

    def skip(self) -> None:
        """Go on to what is no blank."""
        if self.text[self.at : self.at + 1] in " \t\n\r":  # a regular expression takes three times as long
            found = WHITESPACE.match(self.text, self.at)
            self.at = found.end() if found else self.at

    def sees(self, mark: str) -> bool:
        """Whether this mark comes next."""
        self.skip()
        return self.text.startswith(mark, self.at)

    def expect(self, marks: str) -> str:
        """Take one of these marks."""
        self.skip()
        mark = self.text[self.at : self.at + 1]
        if not mark or mark not in marks:
            raise ValueError(f"{mark or 'the end'!r} where {' or '.join(marks)} belongs")
        self.at += 1
        return mark

    def value(self) -> Any:
        """Take one whole value."""
        self.skip()
        found, self.at = self._decode(self.text, self.at)
        return found

    def entries(self) -> Iterator[tuple[Any, int]]:
        """Each entry of the list that comes next, and where it begins."""
        self.expect("[")
        if self.sees("]"):
            self.expect("]")
            return
        mark = ","
        while mark == ",":
            self.skip()
            start = self.at
            yield self.value(), start
            mark = self.expect(",]")


@contextmanager
def reading(file: Path, text: str, expected: str) -> Iterator[Json]:
    """Read a text; what is no JSON raises a UserError with its line."""
    found = Json(text)
    try:
        yield found
    except UserError:
        raise
    except RecursionError:
        raise UserError(f"{file}:{Line(text).of(found.at)}: nested too deep; expected {expected}") from None
    except (ValueError, StopIteration) as error:
        place = Line(text).of(error.pos if isinstance(error, json.JSONDecodeError) else found.at)
        said = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise UserError(f"{file}:{place}: not whole JSON ({said}); write it again") from None


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
        note(place[0], told, "image id unknown", f"image_id {_short(entry.get('image_id'))}; expected an id", "dropped")
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


HEAD = 1 << 20
"""Bytes of a file in which its sections are looked for."""


def find_coco(root: Path, inside: Sections | None = None) -> list[Path]:
    """The COCO files of a data set: those named instances*.json if there are any. inside: sections(root), if known."""
    inside = inside or sections(root)
    files = [folder / name for folder, names in inside for name in names if name.lower().endswith(".json")]
    files = [file for file in files if is_coco(file)]
    return [file for file in files if file.name.startswith("instances")] or files


def is_coco(file: Path) -> bool:
    """Whether a .json file has COCO's lists of images and annotations; of a large file one of them in its head."""
    try:
        with file.open("rb") as content:
            head = content.read(HEAD)
            whole = len(head) < HEAD
    except OSError:
        return False
    has = [re.search(rb'"%s"\s*:\s*\[' % section, head) is not None for section in (b"images", b"annotations")]
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" and (all(has) if whole else any(has))


def read_coco(root: Path, files: list[Path], policy: DataPolicy, absent: bool = False) -> Gathering:
    """Every image and box of some COCO files, each a split. Raises UserError for a file that is not COCO json.

    absent: images need not be there where the file says their size.
    """
    found = Gathering(root, policy, "coco", absent=absent)
    contents = {file: parse(file, _note(found, file)) for file in files}
    folders = Folders(root, _shared(contents.values()))
    found.class_names = _classes(found, contents)
    seen: dict[str, int] = {}
    lists: dict[str, Callable[[], list[str]]] = {}
    for file, content in contents.items():
        keys = _take_in(found, file, content, folders, seen)
        name = split_name(file) if split_name(file) not in lists else told_from(file.with_suffix(""), root)
        lists[name] = partial(list, keys)
        found.lists[name] = file
    if len(files) > 1 or split_word(name):
        name_splits(found, lists)
        found.source = ", ".join(told_from(file, root) for file in files[:4]) + (" ..." if len(files) > 4 else "")
    else:
        take_folder_splits(found)
    if not absent:
        note_leftovers(found, folders, unlabelled=len(files) > 1 or find_coco(root) == files)
    return found


def _shared(contents: Iterable[Content]) -> set[str]:
    """File names, in lower case, that images in several folders have."""
    paths = {image[0].replace("\\", "/").lower() for content in contents for image in content.images.values()}
    counts = Counter(path.rpartition("/")[2] for path in paths)
    return {name for name, count in counts.items() if count > 1}


def split_name(file: Path) -> str:
    """The split that a file holds, by its name, or its folder's: instances_val2017.json, valid/_annotations..."""
    stem = file.parent.name if is_plain(file.stem) and is_split(file.parent.name) else file.stem
    name = re.sub(r"^instances[_-]?|[_-]?(instances|annotations|coco)$", "", stem) or stem
    return "val" if name == "valid" else name


def _note(found: Gathering, file: Path) -> Note:
    """What notes a problem of an entry of a file; "" as its key: it belongs to every split."""
    return lambda line, entry, kind, said, action: found.problem(
        "", (file, line, entry) if entry else (file, line), kind, said, action
    )


def _classes(found: Gathering, contents: Mapping[Path, Content]) -> tuple[str, ...]:
    """The classes of all files, each file's by id. Categories of one name are one class.

    A category that others name as their supercategory, and that no annotation has, is no class but a group of them:
    Roboflow writes one into each file. Such categories are taken out of the contents.
    """
    used = {(n, content.names.get(n)) for content in contents.values() for n in set(content.category)}
    for file, content in contents.items():
        members = Counter(content.parents.values())
        for number, name in sorted(content.names.items()):
            if (number, name) not in used and members[name] > (content.parents.get(number) == name):
                said = f"{name!r} is the supercategory of others and no annotation has it"
                _note(found, file)(0, f"category {content.ids.told(number)}", "group category", said, "no class")
                del content.names[number]
        for said in shared_names((content.ids.told(number), name) for number, name in sorted(content.names.items())):
            _note(found, file)(0, "", "category name twice", said, "read as one class")
        found.categories[file] = content.names
    by_id = [name for content in contents.values() for _, name in sorted(content.names.items())]
    return tuple(dict.fromkeys(by_id))


def _take_in(found: Gathering, file: Path, content: Content, folders: Folders, seen: dict[str, int]) -> list[str]:
    """The images of one file with their boxes; returns their keys. seen: key -> what its boxes are, of any file."""
    split = split_name(file)
    bases = list(dict.fromkeys([*homes(file.parent), *homes(found.root, (split, f"images/{split}"))]))
    rows = _rows(found, file, content)
    boxes = np.frombuffer(content.boxes, np.float64).reshape(-1, 4) if content.boxes else np.zeros((0, 4))
    numbers: dict[str, list[int]] = {}
    paths: dict[str, Path | None] = {}
    for number, (name, *_) in sorted(content.images.items()):  # COCO ranks equal scores so
        path = folders.resolve(name, bases, image=True)
        if path is None and "%" in name:
            path = folders.resolve(unquote(name), bases, image=True)
        key = name if path is None else told_from(path, found.root)
        numbers.setdefault(key, []).append(number)
        paths[key] = path
    for key, ids in numbers.items():
        name, width, height, line = content.images[ids[0]]
        place = file, line, f"image {content.ids.told(ids[0])} ({name})"
        if paths[key] is None and not (found.absent and width):
            found.problem(key, place, "image missing", f"no image {name!r} here", "skipped")
            continue
        mine = rows.get(ids[0], np.zeros(0, np.int64))
        if len(ids) > 1:
            mine = _of_all_ids(found, key, (file, content), ids, rows)
        what = hash((boxes[mine].tobytes(), tuple(content.names.get(content.category[n]) for n in mine)))
        if seen.setdefault(key, what) != what:
            said = f"{key} has other boxes here than in another file"
            found.problem(key, place, "image annotated twice", said, "the first file's boxes kept")
        if key in found.place:
            continue
        try:
            size = (width, height) if width else image_size(paths[key] or name)
        except ImageError as error:
            found.problem(key, place, "image unreadable", f"{name}: {error.found}", "skipped")
            continue
        found.begin(key, key, size, file)
        found.numbers.append(ids[0])
        for n in mine.tolist():
            _add(found, key, file, content, n, size)
    return list(numbers)


def _of_all_ids(found: Gathering, key: str, where: tuple[Path, Content], ids: Sequence[int],
                rows: Mapping[int, NDArray[np.int64]]) -> NDArray[np.int64]:  # fmt: skip
    """The annotations of an image that the file has under several ids, equal ones once; that it has is noted."""
    file, content = where
    found_boxes: dict[tuple[float, ...], int] = {}
    each = []
    for number in ids:
        own = {(content.category[n], *content.boxes[4 * n : 4 * n + 4]): n for n in rows.get(number, ())}
        each.append(set(own))
        for box, n in own.items():
            found_boxes.setdefault(box, n)
    told = listed(map(content.ids.told, ids))
    same = all(boxes == each[0] or not boxes for boxes in each)
    kind = "image listed twice" if same else "image under two ids"
    said = f"{key} has the ids {told}" + ("" if same else f", with different boxes: {len(found_boxes)} in all")
    line = content.images[ids[1]][3]
    found.problem(
        key, (file, line, f"image {content.ids.told(ids[1])}"), kind, said, "read once, with the boxes of all"
    )
    return np.array(list(found_boxes.values()), np.int64)


def _rows(found: Gathering, file: Path, content: Content) -> dict[int, NDArray[np.int64]]:
    """Image id -> its annotations, in the order of the file; those of no image are noted."""
    if not content.image:
        return {}
    image = np.frombuffer(content.image, np.int64)
    order = np.argsort(image, kind="stable")
    ids, starts = np.unique(image[order], return_index=True)
    rows = dict(zip(ids.tolist(), np.split(order, starts[1:]), strict=True))
    for number in [number for number in rows if number not in content.images]:
        for n in rows.pop(number):
            said = f"a box on image_id {content.ids.told(number)}, which no image has"
            found.problem("", (file, content.lines[n], _Entry(content, n)), "image id unknown", said, "dropped")
    return rows


class _Entry(NamedTuple):
    """What an annotation is called in a message: by its id and its image, since a file may be one line."""

    content: Content
    n: int
    image: str = ""

    def __str__(self) -> str:
        number = self.content.entries[self.n]
        entry = "annotation without an id" if number == NO_ID else f"annotation {self.content.ids.told(number)}"
        return f"{entry} ({self.image})" if self.image else entry


def _add(found: Gathering, key: str, file: Path, content: Content, n: int, size: tuple[int, int]) -> None:
    """Take one box in, or note why it is left out."""
    place = file, content.lines[n], _Entry(content, n, key)
    if n in content.wrong:
        kind, said = content.wrong[n]
        found.problem(key, place, kind, said, "dropped")
        return
    category, flags = content.category[n], content.flags[n]
    name = content.names.get(category)
    if name is None:
        known = f"expected one of its {len(content.names)}"
        said = f"category_id {content.ids.told(category)}, which no category has; {known}"
        found.problem(key, place, "category missing", said, "dropped")
        return
    if flags & POLYGON:
        found.problem(key, place, "polygon", "a segmentation without bbox; read as its bounding box", FIXED)
    if flags & TEXT:
        found.problem(key, place, "number as text", "a bbox of text; expected four numbers", FIXED)
    box: Box = tuple(content.boxes[4 * n : 4 * n + 4])  # type: ignore[assignment]
    placed = found.settled(key, place, box, size)
    if placed is not None:
        hard, crowd = bool(flags & IGNORE), bool(flags & CROWD)
        found.add(name, placed, content.lines[n], hard, crowd, content.areas[n], content.entries[n])


def write_coco(root: Path, dataset: Dataset, names: list[str], splits: Mapping[str, NDArray[np.int64]]) -> Path:
    """Write a file a split, of a data set whose images lie in root/images under `names` [M].

    Ids count from 1, in the order of the data set and its classes. A difficult object has "ignore": 1, which COCO
    itself does not define and this reader reads back. splits: name -> indices of images. Returns the folder.
    """
    categories = [{"id": number, "name": name} for number, name in enumerate(dataset.labels, 1)]
    crowd = np.zeros(len(dataset.boxes), bool) if dataset.crowd is None else dataset.crowd
    for split, members in (splits or {"": np.arange(len(dataset))}).items():
        images, annotations = [], []
        for i in members.tolist():
            width, height = (int(v) for v in dataset.sizes[i])
            images.append({"id": i + 1, "file_name": names[i], "width": width, "height": height})
            for n in range(dataset.first[i], dataset.first[i + 1]):
                x1, y1, x2, y2 = (float(f"{v:.8g}") for v in dataset.boxes[n].tolist())
                box = [x1, y1, round(x2 - x1, 4), round(y2 - y1, 4)]
                annotations.append({
                    "id": n + 1, "image_id": i + 1, "category_id": int(dataset.classes[n]) + 1, "bbox": box,
                    "area": round(box[2] * box[3], 4), "iscrowd": int(crowd[n]),
                    "ignore": int(dataset.difficult[n]),
                })  # fmt: skip
        lines = [f'"{section}": [\n' + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n]"
                 for section, entries in zip(SECTIONS, (categories, images, annotations), strict=True)]  # fmt: skip
        name = f"instances_{split}.json" if split else "instances.json"
        write_text(root / "annotations" / name, "{\n" + ",\n".join(lines) + "\n}\n")
    return root / "annotations"
