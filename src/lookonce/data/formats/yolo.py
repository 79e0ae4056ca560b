"""YOLO text labels: one line a box, `class cx cy w h` as fractions of the image; read and written.

A data set has Ultralytics' data.yaml, Darknet's obj.data, or only images/ and labels/. Paths in these files are often
meant for other folders and machines, and are resolved by what exists. A line `class x1 y1 x2 y2 x3 y3 ...` is a polygon
(or an oriented box) and is read as its bounding box.
Source: darknet/src/data.c (read_boxes, fill_truth_detection, find_replace of "images" by "labels") and option_list.c;
docs.ultralytics.com/datasets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from lookonce.data.dataset import DataPolicy, Dataset
from lookonce.data.formats.builder import (
    FIXED,
    Box,
    Builder,
    note_unused_files,
    repeated_names,
)
from lookonce.data.images import IMAGE_SUFFIXES, image_size
from lookonce.data.lookup import (
    Folders,
    Sections,
    image_folders,
    is_hidden,
    relative_path,
    sections,
    split_path,
    walk_files,
    walk_images,
)
from lookonce.errors import ImageError, UserError
from lookonce.files import write_text
from lookonce.text import YAML_BYTES, Note, clean_name, read_lines, read_yaml

EXPECTED = "'class cx cy w h' as fractions of the image, or a polygon 'class x1 y1 x2 y2 x3 y3 ...'"
FARTHEST = 2.0
"""Numbers beyond this are not fractions of an image, but pixels most likely."""


def read_labels(found: Builder, key: str, file: Path, lines: Sequence[str], size: tuple[int, int],
                keypoints: int = 0) -> None:  # fmt: skip
    """Add the boxes of one label file to the last image; note each line that is not one.

    Args:
        found: the data set so far, with its class names.
        key: of the image.
        file: of the lines.
        size: (width, height) of the image, px.
        keypoints: numbers of keypoints that may follow a box; they are not read.
    """
    names = found.class_names or ()
    polygons, floats = [], []
    for number, text in enumerate(lines, start=1):
        fields = text.split()
        if not fields:
            continue
        if len(fields) == 5 + keypoints:
            fields = fields[:5]
        read = read_line(fields, len(names), size)
        if isinstance(read, str):
            found.problem(key, (file, number), "object unreadable", read, "dropped")
            continue
        label, box = read
        if len(fields) > 5:
            polygons.append(number)
        if not fields[0].isdecimal():
            floats.append(number)
        if placed := found.fit_box(key, (file, number), box, size):
            found.add_object(names[label], placed, number)
    if polygons:
        message = "a polygon; read as its bounding box"
        found.problem(key, (file, polygons[0]), "polygon", message, FIXED, len(polygons))
    if floats:
        message = f"class {lines[floats[0] - 1].split()[0][:20]!r}; expected a whole number"
        found.problem(key, (file, floats[0]), "class id as a float", message, FIXED, len(floats))


def read_line(fields: Sequence[str], classes: int, size: tuple[int, int]) -> tuple[int, Box] | str:
    """Return (class, xyxy image px) of a line's fields, or what is wrong. size: (width, height) of the image, px."""
    if len(fields) != 5 and (len(fields) < 7 or len(fields) % 2 == 0):
        return f"{len(fields)} fields; expected {EXPECTED}"
    try:
        label, *numbers = (float(value) for value in fields)
    except ValueError:
        return f"{' '.join(fields[:20])[:80]!r}; expected {EXPECTED}"
    if not label.is_integer() or not 0 <= label < classes:
        return f"class {fields[0][:20]}; expected 0 to {classes - 1}, as many as there are names"
    if not all(-FARTHEST <= value <= FARTHEST for value in numbers):  # also refuses nan
        pixels = ": pixels?" if max(numbers) > FARTHEST else ""
        return f"{' '.join(fields[1:9])[:80]}; expected {EXPECTED}{pixels}"
    width, height = size
    if len(numbers) > 4:
        xs, ys = numbers[::2], numbers[1::2]
        return int(label), (min(xs) * width, min(ys) * height, max(xs) * width, max(ys) * height)
    cx, cy, w, h = numbers
    return int(label), ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)


def write_labels(path: Path, size: tuple[int, int], boxes: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    """Write the labels of one image. boxes: [N, 4] xyxy image px; labels: [N]; size: (width, height) px."""
    scale = np.array([*size, *size], np.float64)
    x1, y1, x2, y2 = (boxes.astype(np.float64) / scale).T
    rows = np.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), -1)  # [N, 4]
    text = "".join(f"{label} {cx:.8f} {cy:.8f} {w:.8f} {h:.8f}\n"
                   for label, (cx, cy, w, h) in zip(labels.tolist(), rows.tolist(), strict=True))  # fmt: skip
    write_text(path, text)


DESCRIPTIONS = (".yaml", ".yml", ".data")
NAMES_FILES = ("classes.txt", "obj.names", "labels/classes.txt", "predefined_classes.txt", "labels.txt")
MOST_TRIED = 1000
"""Most text files that are searched for YOLO labels."""
MOST_CLASSES = 100_000
"""Most classes of a description that gives their number but no names."""
NOTHING = ("~", "null", "Null", "NULL")
"""YAML's words for no value."""
OTHER_KEYS = frozenset({"path", "names", "nc", "download", "roboflow", "kpt_shape", "flip_idx", "classes", "backup"})
"""Keys of a description that name no images."""
IMAGE_FOLDERS = ("images", "JPEGImages")
"""Folders of images whose labels are in the folder `labels` next to them."""


@dataclass(frozen=True)
class Description:
    """The description of a data set."""

    file: Path
    root: Path
    names: tuple[str, ...]
    """[C] by number; a name may appear twice."""
    sources: dict[str, list[str]]
    """Split -> folders, lists or images, as written."""
    count: int | None = None
    """Number of classes according to nc or classes."""
    keypoints: int = 0
    """Numbers after each box, according to kpt_shape."""


def find_yolo(root: Path, inside: Sections | None = None) -> Path | None:
    """Return the file that describes a YOLO data set, or else its names file; None: neither.

    inside: sections(root), if known.
    """
    try:
        files = sorted(p for p in root.iterdir() if p.suffix.lower() in DESCRIPTIONS and not is_hidden(p.name))
    except OSError:
        return None
    for file in sorted(files, key=lambda p: p.stem.lower() not in ("data", "obj", "dataset")):
        if file.is_file() and _looks_like(file):
            return file
    names = next((root / name for name in NAMES_FILES if _lists_names(root / name)), None)
    if names:
        return names if has_labels(walk_files(root)) else None
    names = next(_inner_names(inside or sections(root)), None)
    return names if names and has_labels(inside or sections(root)) else None


def has_labels(inside: Iterable[tuple[Path | str, list[str]]]) -> bool:
    """Return whether some folders hold YOLO label files. inside: folders, with the files in each."""
    files = (Path(folder, name) for folder, names in inside for name in names if name.lower().endswith(".txt"))
    return any(map(is_label_file, islice(files, MOST_TRIED)))


def is_label_file(file: Path) -> bool:
    """Return whether a text file's first line is a YOLO label: a class and at least four numbers."""
    fields = _first_line(file).split()
    try:
        return len(fields) >= 5 and float(fields[0]) >= 0 and all(math.isfinite(float(field)) for field in fields)
    except ValueError:
        return False


def _first_line(file: Path) -> str:
    """Return the first line that is not blank in the first kilobyte of a file; "" if it is not text."""
    try:
        with file.open("rb") as content:
            head = content.read(1 << 10)
    except OSError:
        return ""
    text = head.decode("utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace")
    return next((line for line in text.splitlines() if line.strip()), "")


def _inner_names(inside: Sections) -> Iterator[Path]:
    """Yield the names files in the folders of a data set."""
    for folder, names in inside:
        for name in names:
            named = name.lower().endswith((".names", "_darknet.labels")) or name in ("classes.txt", "labels.txt")
            if named and _lists_names(folder / name):
                yield folder / name


def _lists_names(file: Path) -> bool:
    return file.is_file() and not is_label_file(file)


def _looks_like(file: Path) -> bool:
    try:
        with file.open("rb") as content:
            head = content.read(YAML_BYTES).replace(b"\0", b"")
    except OSError:
        return False
    return re.search(rb"^[^\w\n]*(names|nc)[ \t]*[:=]", head, re.MULTILINE) is not None


def read_yolo(root: Path, file: Path, policy: DataPolicy) -> Builder:
    """Read every image of a YOLO data set with its label file. Raises UserError for an unreadable description.

    Without a data.yaml or obj.data, `file` is the names file, and the splits are lists of images (train.txt) in root,
    or else its folders.
    """
    notes: list[tuple[Path, str]] = []
    what = describe(file, lambda place, message: notes.append((place, message)))
    bare = file.suffix.lower() not in DESCRIPTIONS
    if bare:
        what = replace(what, root=root, sources=_lists_in(root) | {"": [str(root)]})
        for other in _inner_names(sections(root)):
            if other.name == file.name and _names_of(other) != what.names:
                raise UserError(f"{file} and {other} name different classes; expected one names file for all labels")
    found = Builder(what.root, policy, "yolo", what.names)
    for noted, message in notes:
        found.note_encoding("", noted)(message)
    _check_description(found, what)
    search = _Search(image_folders(what.root), what.keypoints, Folders(what.root))
    labelled = 0
    lists: dict[str, Callable[[], list[str]]] = {}
    for split, sources in what.sources.items():
        keys: dict[str, None] = {}
        for place, listed in _images(found, split, sources, what, search.folders):
            key, labels = _take_in(found, place, listed, search)
            keys[key] = None
            labelled += labels
        if split:
            lists[split] = partial(list, keys)
    if not found.paths:
        first = [f" (first {problem.place}: {problem.found})" for _, problem in found.problems[:1]]
        raise UserError(f"{file}: no image that can be read{''.join(first)}; expected images where its splits say")
    if not labelled:
        raise UserError(
            f"{file}: not one of its {len(found.paths)} images has a label file; expected labels/NAME.txt for "
            "images/NAME.jpg, or NAME.txt beside the image"
        )
    found.class_names = tuple(dict.fromkeys(what.names))
    if lists:
        found.add_splits(lists)
        found.source = ", ".join(f"{name}.txt" for name in lists) if bare else file.name
    else:
        found.add_folder_splits()
    note_unused_files(found, search.folders, is_label_file, unlabelled=False)
    return found


def _lists_in(root: Path) -> dict[str, list[str]]:
    """Return the lists of images in a folder, by name: text files whose first line names an existing image."""
    folders = Folders(root)
    places = (root, root / "ImageSets" / "Main", root / "ImageSets")
    found: dict[str, list[str]] = {}
    for file in (place / name for place in places for name in folders.names_in(place) if name.lower().endswith(".txt")):
        first = _first_line(file)
        if Path(first.strip()).suffix.lower() in IMAGE_SUFFIXES and folders.resolve(
            first, image_folders(root), image=True
        ):
            found.setdefault(file.stem, [str(file)])
    return found


def _check_description(found: Builder, what: Description) -> None:
    """Note contradictions in a description's classes."""
    if what.count is not None and what.count != len(what.names):
        message = f"it says {what.count} classes and has {len(what.names)} names; expected one name a class"
        found.problem("", (what.file, 0), "names and nc differ", message, "the names count")
    for message in repeated_names(enumerate(what.names)):
        found.problem("", (what.file, 0), "category name twice", message, "read as one class")


def describe(file: Path, note: Callable[[Path, str], None] | None = None) -> Description:
    """Read a data.yaml, an obj.data, or the names file of a folder without either.

    note: called with a file whose encoding had to be guessed, and a sentence; None: log it.
    """

    def noted(place: Path) -> Note | None:
        return partial(note, place) if note else None

    folders = Folders()
    if file.suffix.lower() not in DESCRIPTIONS:
        root = file.parent.parent if file.parent.name == "labels" else file.parent
        return Description(file, root, _names_of(file, noted(file)), {"": [str(root)]})
    entries = (_read_data if file.suffix.lower() == ".data" else _read_yaml)(file, noted(file))
    root = file.parent
    if isinstance(entries.get("path"), str):
        root = folders.resolve(entries["path"], [file.parent]) or file.parent
    names, count = entries.get("names"), _whole(entries.get("nc", entries.get("classes")))
    if names in (None, "", *NOTHING) and 0 < (count or 0) < MOST_CLASSES:
        names = [f"class{number}" for number in range(count or 0)]
    if isinstance(names, str):
        place = folders.resolve(names, [file.parent, root])
        if place is None:
            raise UserError(f"{file}: names = {names!r}, which is not there; expected a file of one class a line")
        classes = _names_of(place, noted(place))
    else:
        classes = _check_names(file, names)
    sources = {}
    for key, value in entries.items():
        values = value if isinstance(value, list) else [value]
        if (
            re.fullmatch(r"[\w-]+", str(key))
            and key not in OTHER_KEYS
            and values
            and all(isinstance(v, str) and v.strip() and v not in NOTHING for v in values)
        ):
            split = "val" if key in ("valid", "validation") else str(key)
            if split in ("train", "val", "test") or any(folders.resolve(v, [root, file.parent]) for v in values):
                sources[split] = values
    if not sources:
        raise UserError(f"{file}: names no images; expected train: (and val:, test:) a folder or a list of images")
    points = entries.get("kpt_shape")
    shape = [_whole(v) for v in points] if isinstance(points, list) else []
    keypoints = (shape[0] or 0) * (shape[1] or 0) if len(shape) == 2 else 0
    return Description(file, root, classes, sources, count, keypoints)


def _whole(value: Any) -> int | None:
    """Return a number of at most nine digits that is given as text; None: it is not one."""
    return int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value) else None


def _read_yaml(file: Path, note: Note | None = None) -> dict[str, Any]:
    """Return the entries of a YAML file, with each scalar as text: a class may be named no, 007 or 12:30."""
    found = read_yaml(file, "plain names: and train:", as_text=True, note=note)
    if not isinstance(found, dict):
        raise UserError(f"{file}: no entries; expected names: and train:")
    return found


def _read_data(file: Path, note: Note | None = None) -> dict[str, Any]:
    """Read Darknet's `key = value` lines."""
    pairs = {}
    for line in read_lines(file, "lines like 'names = obj.names'", YAML_BYTES, note):
        key, equals, value = line.partition("=")
        if equals and not key.lstrip().startswith(("#", ";")):
            pairs[key.strip()] = value.strip()
    return pairs


def _names_of(file: Path, note: Note | None = None) -> tuple[str, ...]:
    lines = [line.strip() for line in read_lines(file, "one name of a class a line", YAML_BYTES, note)]
    while lines and not lines[-1]:
        lines.pop()
    return _check_names(file, lines)


def _check_names(file: Path, names: Any) -> tuple[str, ...]:
    """Return the names of a data.yaml, which are a list, or number -> name without gaps."""
    if isinstance(names, dict):
        by_number = {_whole(number): name for number, name in names.items()}
        if len(by_number) < len(names) or by_number.keys() != set(range(len(names))):
            raise UserError(f"{file}: names with numbers {str(list(names))[:60]}; expected 0, 1, 2 ... without a gap")
        names = [by_number[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{file}: names is {str(names)[:60]!r}; expected the names of the classes")
    if any(isinstance(name, dict | list) or not str(name).strip() for name in names):
        raise UserError(f"{file}: a class without a name; expected one name each")
    return tuple(clean_name(str(name)) for name in names)


def _images(found: Builder, split: str, sources: list[str], what: Description,
              folders: Folders) -> Iterator[tuple[tuple[Path, int], str]]:  # fmt: skip
    """Yield ((file, line) that names it, path as written) for each image of a split."""
    for source in sources:
        place = Path(source) if not split else folders.resolve(source, [what.root, what.file.parent])
        if place is None:
            message = f"{split}: {source!r}, which is not there"
            found.problem(split, (what.file, 0), "list missing", message, "skipped")
        elif place.is_dir():
            yield from (((place, 0), path) for path in walk_images(place))
        else:
            lines = read_lines(place, "one image a line", note=found.note_encoding(split, place))
            for number, line in enumerate(lines, start=1):
                if line.strip() and not any(map(is_hidden, split_path(line)[-1:])):
                    yield (place, number), line.strip()


@dataclass
class _Search:
    """Where to look for a data set's images and labels, and the images found so far."""

    places: list[Path]
    keypoints: int
    folders: Folders
    image_of: dict[Path, str] = field(default_factory=dict)
    """Label file -> the first image with it."""


def _take_in(found: Builder, place: tuple[Path, int], listed: str, search: _Search) -> tuple[str, bool]:
    """Add one image with its labels; return (its key, whether it has a label file)."""
    folders = search.folders
    bases = [found.root, place[0].parent]
    walked = not place[1]  # found in a folder, so it exists
    path = Path(listed) if walked else folders.resolve(listed, [*bases, *search.places], image=True)
    if path is None:
        found.problem(listed, place, "image missing", f"no image {listed[:200]!r} here", "skipped")
        return listed, False
    key = relative_path(path, found.root)
    if key in found.index:
        return key, False
    file = _label_of(path, listed, bases, folders)
    try:
        size = image_size(path)
    except ImageError as error:
        found.problem(key, (path, 0), "image unreadable", error.found, "skipped")
        return key, file is not None
    lines: list[str] = []
    if file is None:
        found.problem(key, (path, 0), "label file missing", "no label file for it; an empty one says that nothing is "
                      "on it", "read as an image without objects")  # fmt: skip
    else:
        try:
            lines = read_lines(file, "'class cx cy w h' a line", note=found.note_encoding(key, file))
        except UserError as error:
            message = str(error).removeprefix(str(file)).lstrip(": ")
            found.problem(key, (file, 0), "annotation unreadable", message, "skipped")
            return key, True
        if search.image_of.setdefault(file, key) != key:
            message = f"the label file of {key} and of {search.image_of[file]}; expected one for each"
            found.problem(key, (file, 0), "two images for one annotation", message, "read for both")
    found.add_image(key, key, size, file or path)
    read_labels(found, key, file or path, lines, size, search.keypoints)
    return key, file is not None


def _label_of(path: Path, listed: str, bases: list[Path], folders: Folders) -> Path | None:
    """Return the label file of an image: in labels/ for images/, beside it, or below the path as listed."""
    beside = path.with_suffix(".txt")
    for file in (_in_labels(beside), beside):
        if folders.has(file):
            return file
    other = Path(*split_path(listed)).with_suffix(".txt")
    for text in dict.fromkeys((_in_labels(other), other)):
        if file_there := folders.resolve(str(text), bases):
            return file_there
    return folders.by_name(beside.name, image=False) if folders.by_name(path.name) == path else None


def _in_labels(file: Path) -> Path:
    """Return the path with its last `images` replaced by `labels`."""
    parts = list(file.parts)
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] in IMAGE_FOLDERS:
            parts[at] = "labels"
            return Path(*parts)
    return file


def write_yolo(root: Path, dataset: Dataset, names: list[str], splits: Mapping[str, NDArray[np.int64]]) -> Path:
    """Write labels, lists, data.yaml and obj.data of a data set whose images are in root/images under `names` [M].

    splits: name -> indices of images. Returns data.yaml.
    """
    for name, record in zip(names, dataset.records, strict=True):
        write_labels(root / "labels" / f"{Path(name).stem}.txt", record.size, record.boxes, record.labels)
    for split, members in splits.items():
        write_text(root / f"{split}.txt", "".join(f"./images/{names[i]}\n" for i in members))
    lists = {split: f"{split}.txt" for split in splits}
    entries = {**lists, "names": dict(enumerate(dataset.labels))}  # without a path Ultralytics looks beside the file
    write_text(root / "data.yaml", yaml.safe_dump(entries, sort_keys=False, allow_unicode=True))
    write_text(root / "obj.names", "".join(f"{name}\n" for name in dataset.labels))
    pairs = {"classes": len(dataset.labels), **lists, "names": "obj.names"}
    pairs["valid"] = pairs.get("val", pairs.get("train", ""))
    write_text(root / "obj.data", "".join(f"{key} = {value}\n" for key, value in pairs.items() if key != "val"))
    return root / "data.yaml"
