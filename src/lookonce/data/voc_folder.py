"""A folder of Pascal VOC: Annotations, JPEGImages, ImageSets/Main. Reader and writer."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lookonce.data import voc
from lookonce.data.finding import Folders, Sections, read_lines, sections, split_path, told_from
from lookonce.data.gathering import FIXED, Gathering, guessed, name_splits, take_folder_splits
from lookonce.data.leftovers import note_leftovers
from lookonce.data.pictures import is_hidden
from lookonce.data.record import DataPolicy, Dataset
from lookonce.data.split_names import is_split, split_word
from lookonce.errors import PictureError, UserError

EXPECTED = "Pascal VOC: Annotations/*.xml beside JPEGImages/"
IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "data")
TRIED = 20
"""Files of a folder that are looked into for a VOC annotation."""
HEAD = 1 << 16
"""Bytes in which an XML file's root element is looked for."""

ROOT = re.compile(rb"<(?:[\w.-]+:)?([\w.-]+)")


def find_voc(root: Path, inside: Sections | None = None) -> dict[Path, list[str]]:
    """Folders of a data set that hold VOC annotations, each with its .xml files; empty: it is no VOC data set.

    inside: sections(root), where that is known.
    """
    found = {}
    for folder, names in inside or sections(root):
        files = [name for name in names if name.lower().endswith(".xml")]
        if any(is_annotation(folder / name) for name in files[:TRIED]):
            found[folder] = files
    return found


def is_annotation(file: Path) -> bool:
    """Whether the root element of an XML file is <annotation>."""
    return root_tag(file) == "annotation"


def root_tag(file: Path) -> str:
    """Name of a file's root element, without its namespace, from the first HEAD bytes; "" where there is none."""
    try:
        with file.open("rb") as content:
            head = content.read(HEAD).replace(b"\0", b"")  # UTF-16, too
    except OSError:
        return ""
    at = head.find(b"<")
    while head.startswith((b"<?", b"<!"), at):
        end = b"?>" if head.startswith(b"<?", at) else b"-->" if head.startswith(b"<!--", at) else b">"
        if end == b">" and 0 <= head.find(b"[", at) < head.find(b">", at):
            end = b"]"  # a DOCTYPE with declarations
        close = head.find(end, at)
        at = head.find(b"<", close) if close >= 0 else len(head)
    found = ROOT.match(head, at) if at >= 0 else None
    return found[1].decode("ascii", "replace") if found else ""


def read_voc(root: Path, policy: DataPolicy) -> Gathering:
    """Every annotation of a VOC data set, and its splits. Raises UserError where there are no annotations.

    Splits are lists of names (ImageSets/Main/train.txt, or train.txt beside the folders), else folders (train/).
    """
    places = find_voc(root)
    if not places:
        raise UserError(f"{root}: no annotations found; expected {EXPECTED}")
    found = Gathering(root, policy, "voc")
    stems = Counter(os.path.splitext(name)[0] for names in places.values() for name in names)
    folders = Folders(root, {f"{stem}.jpg".lower() for stem, count in stems.items() if count > 1})
    listing = cache(lambda place: voc.picture_index([place], root))
    for folder, names in places.items():
        base, inner = _base(root, folder)
        near = [base / name / inner for name in IMAGE_FOLDERS] + [base / name for name in IMAGE_FOLDERS]
        homes = [*near, folder, base, *(root / name for name in IMAGE_FOLDERS), root]
        indexes = [index for place in dict.fromkeys(homes) if place.is_dir() and (index := listing(place))]
        above = folder.relative_to(base).parts[1:] if base == root else folder.relative_to(root).parts
        for name in names:
            file = folder / name
            _read(found, "/".join((*above, file.stem)), file, indexes, folders)
    for key in [key for key in found.place if stems[Path(key).name] == 1]:
        found.place.setdefault(Path(key).name, found.place[key])
    _take_splits(found)
    note_leftovers(found, folders)
    return found


def _base(root: Path, folder: Path) -> tuple[Path, Path]:
    """The folder whose JPEGImages a folder of annotations belongs to, and its path inside the annotations."""
    parts = folder.relative_to(root).parts
    for at, part in enumerate(parts):
        if not is_split(part):
            return root.joinpath(*parts[:at]), Path(*parts[at + 1 :])
    return folder, Path()


def _take_splits(found: Gathering) -> None:
    """The splits of lists, or of folders where there are no lists."""
    root = found.root
    main = root / "ImageSets" / "Main"
    place = main if main.is_dir() else root / "ImageSets"
    lists = {file.stem: file for file in sorted(place.glob("*.txt")) if not is_hidden(file.name)}
    known = frozenset((*found.place, *found.noted))
    readers: dict[str, Callable[[], list[str]]] = {
        name: cache(partial(voc.read_list, file, known, guessed(found, name, file))) for name, file in lists.items()
    }
    found.source = f"{place.relative_to(root).as_posix()}/*.txt"
    if not lists:
        lists = {file.stem: file for file in sorted(root.glob("*.txt")) if _lists_annotations(file, found)}
        readers = {name: partial(_list_of_paths, file, found) for name, file in lists.items()}
        found.source = ", ".join(file.name for file in lists.values())
    found.lists.update(lists)
    plain = {name: keys for name, keys in readers.items() if not of_one_class(name, found)}
    found.splits.update({name: keys for name, keys in readers.items() if name not in plain})
    name_splits(found, plain)
    if not lists:
        take_folder_splits(found)


def of_one_class(name: str, found: Gathering) -> bool:
    """Whether a list is of one class only: aeroplane_train, or cell_train beside a list train."""
    head, _, tail = name.rpartition("_")
    return head in voc.CLASSES or (head in found.ids and tail in found.lists)


def _lists_annotations(file: Path, found: Gathering) -> bool:
    """Whether the first line of a text file names an annotated image."""
    try:
        first = next((line for line in read_lines(file, "names of images") if line.strip()), "")
    except UserError:
        return split_word(file.stem) is not None
    return not is_hidden(file.name) and _key(first, found) in found.place


def _list_of_paths(file: Path, found: Gathering) -> list[str]:
    lines = read_lines(file, "one name of an image a line")
    return list(dict.fromkeys(_key(line, found) for line in lines if line.strip()))


def _key(line: str, found: Gathering) -> str:
    """The image that a line names: the whole line, or its first word, by stem; the line itself where none is."""
    for text in (line, line.split()[0] if line.split() else ""):
        parts = split_path(text)
        name = "/".join((*parts[:-1], Path(parts[-1]).stem)) if parts else ""
        for key in (text.strip(), name, Path(name).name):
            if key in found.place:
                return key
    return line.strip()


def _read(found: Gathering, key: str, file: Path, indexes: Sequence[dict[str, list[str]]], last: Folders) -> None:
    """Take one annotation in, or note why it is left out. indexes: stem -> images, nearest first; last: the rest."""
    try:
        page = voc.parse(file, guessed(found, key, file))
        choice = next((named for index in indexes if (named := voc.pictures_of(file.stem, page, index))), [])
        if not choice and (alone := last.alone(f"{file.stem}.jpg")):
            choice = [told_from(alone, found.root)]
        if not choice:
            if is_annotation(file):
                found.problem(key, (file, 0), "picture missing", f"no image {file.stem}.* beside it", "skipped")
            else:
                found.problem("", (file, 0), "file not read", "an .xml file that is no VOC annotation", "ignored")
            return
        picture = choice[0]
        if len(choice) > 1:
            names = " and ".join(Path(path).name for path in choice)
            said = f"{names} have one stem, and the annotation names {page.filename!r}"
            found.problem(key, (file, 0), "two images for one annotation", said, f"{choice[0]} read")
        size = voc.size_of(page, found.root / picture)
    except UserError as error:
        kind = "picture unreadable" if isinstance(error, PictureError) else "annotation unreadable"
        found.problem(key, (file, 0), kind, str(error).removeprefix(str(file)).lstrip(":"), "skipped")
        return
    if key in found.place:
        said = f"{found.told((found.files[found.place[key]], 0))} annotates the same image"
        found.problem(key, (file, 0), "picture annotated twice", said, "the first file's boxes kept")
        return
    found.begin(key, picture, size, file)
    for thing in page.objects:
        _add(found, key, file, thing, size)


def _add(found: Gathering, key: str, file: Path, thing: voc.Thing, size: tuple[int, int]) -> None:
    """Take one object in, or note why it is left out."""
    name, box, place = thing.text.get("name", ""), voc.read_box(thing), (file, thing.line)
    if not name or isinstance(box, str):
        said = box if isinstance(box, str) else "an object without a name"
        found.problem(key, place, "object unreadable", said, "dropped")
        return
    if "xmin" not in thing.text:
        found.problem(key, place, "polygon", "a polygon without bndbox; read as its bounding box", FIXED)
    placed = found.settled(key, place, box, size, first=1)
    if placed is not None:
        hard = thing.text.get("difficult", "0").strip() not in ("", "0", "0.0", "false")
        found.add(name, placed, thing.line, hard)


def write_voc(root: Path, dataset: Dataset, names: list[str], splits: Mapping[str, NDArray[np.int64]]) -> Path:
    """Write annotations and lists of a data set whose pictures lie in root/JPEGImages under `names` [M].

    splits: name -> indices of pictures. Returns the folder of the annotations.
    """
    stems = [Path(name).stem for name in names]
    for stem, name, record in zip(stems, names, dataset.records, strict=True):
        classes = [dataset.labels[label] for label in record.labels]
        voc.write_annotation(
            root / "Annotations" / f"{stem}.xml", name, record.size, record.boxes, classes, record.difficult.tolist()
        )
    for split, members in splits.items():
        voc.write_split(root / "ImageSets" / "Main" / f"{split}.txt", [stems[i] for i in members])
    return root / "Annotations"
