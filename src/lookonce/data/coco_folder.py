"""A data set of COCO files: where they lie, what split each holds. Reader and writer.

A crowd (one box around many) is read as a difficult object.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from lookonce.data.coco import CROWD, IGNORE, POLYGON, SECTIONS, TEXT, Content, Note, parse
from lookonce.data.finding import Folders, Sections, homes, sections, told_from
from lookonce.data.gathering import FIXED, NO_ID, Box, Gathering, name_splits, take_folder_splits
from lookonce.data.leftovers import note_leftovers
from lookonce.data.pictures import picture_size
from lookonce.data.record import DataPolicy, Dataset
from lookonce.data.split_names import is_plain, is_split, split_word
from lookonce.errors import PictureError
from lookonce.files import write_text

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
        for name, count in Counter(content.names.values()).items():
            if count > 1:
                ids = ", ".join(content.ids.told(n) for n in sorted(content.names) if content.names[n] == name)
                _note(found, file)(0, "", "category name twice", f"{name!r} has the ids {ids}", "read as one class")
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
        path = folders.resolve(name, bases, picture=True)
        if path is None and "%" in name:
            path = folders.resolve(unquote(name), bases, picture=True)
        key = name if path is None else told_from(path, found.root)
        numbers.setdefault(key, []).append(number)
        paths[key] = path
    for key, ids in numbers.items():
        name, width, height, line = content.images[ids[0]]
        place = file, line, f"image {content.ids.told(ids[0])} ({name})"
        if paths[key] is None and not (found.absent and width):
            found.problem(key, place, "picture missing", f"no image {name!r} here", "skipped")
            continue
        mine = rows.get(ids[0], np.zeros(0, np.int64))
        if len(ids) > 1:
            mine = _of_all_ids(found, key, (file, content), ids, rows)
        what = hash((boxes[mine].tobytes(), tuple(content.names.get(content.category[n]) for n in mine)))
        if seen.setdefault(key, what) != what:
            said = f"{key} has other boxes here than in another file"
            found.problem(key, place, "picture annotated twice", said, "the first file's boxes kept")
        if key in found.place:
            continue
        try:
            size = (width, height) if width else picture_size(paths[key] or name)
        except PictureError as error:
            found.problem(key, place, "picture unreadable", f"{name}: {error.found}", "skipped")
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
    told = ", ".join(content.ids.told(number) for number in ids)
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
            found.problem("", (file, content.lines[n], _Entry(content, n)), "image missing", said, "dropped")
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
    """Write a file a split, of a data set whose pictures lie in root/images under `names` [M].

    Ids count from 1, in the order of the data set and its classes. A difficult object has "ignore": 1, which COCO
    itself does not define and this reader reads back. splits: name -> indices of pictures. Returns the folder.
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
