"""A data set of COCO files, one for each split: find, read, write.

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

from lookonce.data.dataset import DataPolicy, Dataset
from lookonce.data.formats.builder import FIXED, Box, Builder, first_few, note_unused_files, repeated_names
from lookonce.data.formats.coco_json import CROWD, IGNORE, POLYGON, SECTIONS, TEXT, Content, Note, parse
from lookonce.data.images import image_size
from lookonce.data.lookup import (
    Folders,
    Sections,
    image_folders,
    is_plain,
    is_split,
    relative_path,
    sections,
    split_word,
)
from lookonce.errors import ImageError
from lookonce.files import write_text

HEAD = 1 << 20
"""Bytes of a file that are searched for its sections."""


def find_coco(root: Path, inside: Sections | None = None) -> list[Path]:
    """Return the COCO files of a data set: those named instances*.json if any. inside: sections(root), if known."""
    inside = inside or sections(root)
    files = [folder / name for folder, names in inside for name in names if name.lower().endswith(".json")]
    files = [file for file in files if is_coco(file)]
    return [file for file in files if file.name.startswith("instances")] or files


def is_coco(file: Path) -> bool:
    """Return whether a .json file has COCO's lists of images and annotations; in a large file one of them is enough."""
    try:
        with file.open("rb") as content:
            head = content.read(HEAD)
            whole = len(head) < HEAD
    except OSError:
        return False
    has = [re.search(rb'"%s"\s*:\s*\[' % section, head) is not None for section in (b"images", b"annotations")]
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" and (all(has) if whole else any(has))


def read_coco(root: Path, files: list[Path], policy: DataPolicy, images_optional: bool = False) -> Builder:
    """Return every image and box of some COCO files, each a split. Raises UserError for a file that is not COCO JSON.

    images_optional: images may be missing if the file gives their size.
    """
    builder = Builder(root, policy, "coco", images_optional=images_optional)
    contents = {file: parse(file, _note(builder, file)) for file in files}
    folders = Folders(root, _shared(contents.values()))
    builder.class_names = _classes(builder, contents)
    seen: dict[str, int] = {}
    lists: dict[str, Callable[[], list[str]]] = {}
    for file, content in contents.items():
        keys = _add_file(builder, file, content, folders, seen)
        name = split_name(file) if split_name(file) not in lists else relative_path(file.with_suffix(""), root)
        lists[name] = partial(list, keys)
        builder.lists[name] = file
    if len(files) > 1 or split_word(name):
        builder.add_splits(lists)
        shown = ", ".join(relative_path(file, root) for file in files[:4])
        builder.source = shown + (" ..." if len(files) > 4 else "")
    else:
        builder.add_folder_splits()
    if not images_optional:
        note_unused_files(builder, folders, unlabelled=len(files) > 1 or find_coco(root) == files)
    return builder


def _note(builder: Builder, file: Path) -> Note:
    """Return a function that notes a problem of an entry of a file, for every split."""
    return lambda entry, kind, found, action: builder.problem("", (file, entry), kind, found, action)


def _shared(contents: Iterable[Content]) -> set[str]:
    """Return the file names, in lower case, that images in several folders have."""
    paths = {image[0].replace("\\", "/").lower() for content in contents for image in content.images.values()}
    counts = Counter(path.rpartition("/")[2] for path in paths)
    return {name for name, count in counts.items() if count > 1}


def split_name(file: Path) -> str:
    """Return the split that a file holds, by its name or its folder's: instances_val2017.json, valid/labels.json."""
    stem = file.parent.name if is_plain(file.stem) and is_split(file.parent.name) else file.stem
    name = re.sub(r"^instances[_-]?|[_-]?(instances|annotations|coco)$", "", stem) or stem
    return "val" if name == "valid" else name


def _classes(builder: Builder, contents: Mapping[Path, Content]) -> tuple[str, ...]:
    """Return the classes of all files, each file's by id. Categories of one name are one class.

    A category that others name as their supercategory and that no annotation uses is a group, not a class: Roboflow
    writes one into each file. Such categories are removed.
    """
    used = {(n, content.names.get(n)) for content in contents.values() for n in set(content.category)}
    for file, content in contents.items():
        note, text = _note(builder, file), content.ids.text
        members = Counter(content.parents.values())
        for number, name in sorted(content.names.items()):
            if (number, name) not in used and members[name] > (content.parents.get(number) == name):
                found = f"{name!r} is the supercategory of others and no annotation has it"
                note(f"category {text(number)}", "group category", found, "no class")
                del content.names[number]
        for found in repeated_names((text(number), name) for number, name in sorted(content.names.items())):
            note("", "category name twice", found, "read as one class")
        builder.categories[file] = content.names
    by_id = [name for content in contents.values() for _, name in sorted(content.names.items())]
    return tuple(dict.fromkeys(by_id))


def _add_file(builder: Builder, file: Path, content: Content, folders: Folders, seen: dict[str, int]) -> list[str]:
    """Add the images of one file with their boxes; return their keys. seen: key -> hash of its boxes in any file."""
    rows = _rows(builder, file, content)
    boxes = np.frombuffer(content.boxes, np.float64).reshape(-1, 4) if content.boxes else np.zeros((0, 4))
    keys, paths = _find_images(builder.root, file, content, folders)
    for key, ids in keys.items():
        name, width, height, _ = content.images[ids[0]]
        where = file, content.image_entry(ids[0])
        if paths[key] is None and not (builder.images_optional and width):
            builder.problem(key, where, "image missing", f"no image {name!r} here", "skipped")
            continue
        mine = rows.get(ids[0], np.zeros(0, np.int64))
        if len(ids) > 1:
            mine = _merge_ids(builder, key, (file, content), ids, rows)
        annotated = hash((boxes[mine].tobytes(), tuple(content.names.get(content.category[n]) for n in mine)))
        if seen.setdefault(key, annotated) != annotated:
            found = f"{key} has other boxes here than in another file"
            builder.problem(key, where, "image annotated twice", found, "the first file's boxes kept")
        if key in builder.index:
            continue
        try:
            size = (width, height) if width else image_size(paths[key] or name)
        except ImageError as error:
            builder.problem(key, where, "image unreadable", f"{name}: {error.found}", "skipped")
            continue
        builder.add_image(key, key, size, file)
        builder.image_ids.append(ids[0])
        for n in mine.tolist():
            _add_box(builder, key, file, content, n, size)
    return list(keys)


def _find_images(root: Path, file: Path, content: Content,
                 folders: Folders) -> tuple[dict[str, list[int]], dict[str, Path | None]]:  # fmt: skip
    """Return (key -> ids of an image, key -> its path or None), by id: COCO ranks equal scores so."""
    split = split_name(file)
    bases = list(dict.fromkeys([*image_folders(file.parent), *image_folders(root, (split, f"images/{split}"))]))
    keys: dict[str, list[int]] = {}
    paths: dict[str, Path | None] = {}
    for number, (name, *_) in sorted(content.images.items()):
        path = folders.resolve(name, bases, image=True)
        if path is None and "%" in name:
            path = folders.resolve(unquote(name), bases, image=True)
        key = name if path is None else relative_path(path, root)
        keys.setdefault(key, []).append(number)
        paths[key] = path
    return keys, paths


def _merge_ids(builder: Builder, key: str, where: tuple[Path, Content], ids: Sequence[int],
               rows: Mapping[int, NDArray[np.int64]]) -> NDArray[np.int64]:  # fmt: skip
    """Return the annotations of an image that the file has under several ids, equal ones once; note that."""
    file, content = where
    merged: dict[tuple[float, ...], int] = {}
    each = []
    for number in ids:
        own = {(content.category[n], *content.boxes[4 * n : 4 * n + 4]): n for n in rows.get(number, ())}
        each.append(set(own))
        for box, n in own.items():
            merged.setdefault(box, n)
    same = all(boxes == each[0] or not boxes for boxes in each)
    kind = "image listed twice" if same else "image under two ids"
    found = f"{key} has the ids {first_few(map(content.ids.text, ids))}"
    found += "" if same else f", with different boxes: {len(merged)} in all"
    builder.problem(key, (file, content.image_entry(ids[1])), kind, found, "read once, with the boxes of all")
    return np.array(list(merged.values()), np.int64)


def _rows(builder: Builder, file: Path, content: Content) -> dict[int, NDArray[np.int64]]:
    """Return image id -> its annotations, in the order of the file; note those of no image."""
    if not content.image:
        return {}
    image = np.frombuffer(content.image, np.int64)
    order = np.argsort(image, kind="stable")
    ids, starts = np.unique(image[order], return_index=True)
    rows = dict(zip(ids.tolist(), np.split(order, starts[1:]), strict=True))
    for number in [number for number in rows if number not in content.images]:
        for n in rows.pop(number).tolist():
            found = f"a box on image_id {content.ids.text(number)}, which no image has"
            builder.problem("", (file, _Entry(content, n, "image_id")), "image id unknown", found, "dropped")
    return rows


class _Entry(NamedTuple):
    """The place of a field of an annotation, made into text only where it is shown."""

    content: Content
    n: int
    key: str
    image: str = ""

    def __str__(self) -> str:
        return self.content.annotation_entry(self.n, self.key, self.image)


def _add_box(builder: Builder, key: str, file: Path, content: Content, n: int, size: tuple[int, int]) -> None:
    """Add one box, or note why it is dropped."""
    if n in content.wrong:
        at, kind, found = content.wrong[n]
        builder.problem(key, (file, _Entry(content, n, at, key)), kind, found, "dropped")
        return
    category, flags = content.category[n], content.flags[n]
    name = content.names.get(category)
    if name is None:
        known = f"expected one of its {len(content.names)}"
        found = f"category_id {content.ids.text(category)}, which no category has; {known}"
        builder.problem(key, (file, _Entry(content, n, "category_id", key)), "category missing", found, "dropped")
        return
    where = file, _Entry(content, n, "bbox", key)
    if flags & POLYGON:
        builder.problem(key, where, "polygon", "a segmentation without bbox; read as its bounding box", FIXED)
    if flags & TEXT:
        builder.problem(key, where, "number as text", "a bbox of text; expected four numbers", FIXED)
    box: Box = tuple(content.boxes[4 * n : 4 * n + 4])  # type: ignore[assignment]
    if fitted := builder.fit_box(key, where, box, size):
        hard, crowd = bool(flags & IGNORE), bool(flags & CROWD)
        builder.add_object(name, fitted, content.index[n], hard, crowd, content.areas[n], content.annotation_ids[n])


def write_coco(root: Path, dataset: Dataset, names: list[str], splits: Mapping[str, NDArray[np.int64]]) -> Path:
    """Write one file for each split of a data set whose images are in root/images under `names` [M].

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
