"""Pascal VOC: one XML file an image, lists of names a split. Parse, find, read, write.

VOC counts pixels from 1 and includes both corners: a record holds [xmin - 1, ymin - 1, xmax, ymax], so that plain IoU
equals the devkit's. A box with no area is one whose own numbers say so.
Source: the VOC 2012 devkit, VOCreadxml.m and VOCevaldet.m.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from xml.etree.ElementTree import ParseError
from xml.sax.saxutils import escape

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser
from numpy.typing import NDArray

from lookonce.data.dataset import DataPolicy, Dataset
from lookonce.data.formats.builder import (
    FIXED,
    Box,
    Builder,
    note_unused_files,
)
from lookonce.data.images import IMAGE_SUFFIXES, image_size
from lookonce.data.lookup import Folders, Sections, is_hidden, is_split, relative_path, sections, split_path, split_word
from lookonce.errors import ImageError, UserError, printable
from lookonce.files import alike, write_text
from lookonce.text import Note, clean_name, decode, note_guess, read_lines

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The 20 classes of VOC, in the devkit's order. Data sets that use these names keep that order."""
CORNERS = ("xmin", "ymin", "xmax", "ymax")
TEXT_TAGS = frozenset((*CORNERS, "name", "difficult", "width", "height", "filename"))
POLYGONS = ("polygon", "segmentation")
"""Elements of an object with points x1, y1, x2 ... or a list of x and y."""
ENDING = re.compile(rf"({'|'.join(map(re.escape, sorted({'.xml', *IMAGE_SUFFIXES})))})$", re.IGNORECASE)
MOST_BYTES = 32 << 20
"""Size limit of an annotation file; those of VOC have less than 20 kB."""


@dataclass
class ObjectElement:
    """One <object> as written in its file, with its first line."""

    line: int
    text: dict[str, str] = field(default_factory=dict)
    polygon: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))
    """x and y of its points, if it has any."""


@dataclass
class Annotation:
    """One annotation file as written."""

    filename: str = ""
    width: str = ""
    height: str = ""
    objects: list[ObjectElement] = field(default_factory=list)


class _Target:
    """Build an Annotation from parser events. The content of <part> is skipped; namespaces are ignored."""

    def __init__(self) -> None:
        self.annotation = Annotation()
        self.parser: DefusedXMLParser | None = None
        self._path: list[str] = []
        self._text: list[str] = []

    def start(self, tag: str, _: dict[str, str]) -> None:
        tag = tag.rpartition("}")[2]
        self._path.append(tag)
        self._text = []
        if tag == "object" and len(self._path) == 2 and self.parser is not None:
            self.annotation.objects.append(ObjectElement(self.parser.parser.CurrentLineNumber))

    def data(self, text: str) -> None:
        if self._path and (self._path[-1] in TEXT_TAGS or (self._path[2:3] and self._path[2] in POLYGONS)):
            self._text.append(text)

    def end(self, tag: str) -> None:
        text = "".join(self._text).strip()
        tag, path = self._path[-1], self._path[1:5]  # what lies deeper has no meaning
        if path[:1] == ["object"] and len(path) > 2 and path[1] in POLYGONS:
            if text and re.fullmatch(r"[xy]\d*", tag):
                self.annotation.objects[-1].polygon[tag[0] == "y"].append(text)
        elif path in (["object", tag], ["object", "bndbox", tag]) and tag in TEXT_TAGS:
            if tag not in self.annotation.objects[-1].text:
                self.annotation.objects[-1].text[tag] = text
        elif path == ["filename"]:
            self.annotation.filename = text
        elif path in (["size", "width"], ["size", "height"]):
            setattr(self.annotation, tag, text)
        self._path.pop()
        self._text = []

    def close(self) -> Annotation:
        return self.annotation


def parse(path: Path, note: Note | None = None) -> Annotation:
    """Parse one annotation file. Raises UserError for incomplete XML or XML that declares entities.

    note: called with a sentence if the encoding had to be guessed; None: log it.
    """
    place = str(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{place}: cannot be read ({error.strerror})") from None
    if len(content) > MOST_BYTES:
        raise UserError(f"{place}: {len(content)} bytes; an annotation has at most {MOST_BYTES}")
    try:
        try:
            return _parse(content)
        except (ParseError, ValueError, LookupError):  # perhaps because of its encoding
            text = _text(path, content, note)
            if text is None:
                raise
            return _parse(text.encode(), "utf-8")
    except ParseError as error:
        raise UserError(f"{place}:{error.position[0]}: not whole XML ({error.msg}); write it again") from None
    except DefusedXmlException as error:
        raise UserError(f"{place}: declares entities ({type(error).__name__}), which are refused") from None
    except (ValueError, LookupError) as error:
        raise UserError(f"{place}: not XML ({error})") from None


def _parse(content: bytes, encoding: str | None = None) -> Annotation:
    """Parse one annotation. encoding: of the content, whatever it declares; None: the declared one."""
    target = _Target()
    parser = DefusedXMLParser(
        target=target, encoding=encoding, forbid_dtd=False, forbid_entities=True, forbid_external=True
    )
    target.parser = parser
    parser.feed(content)
    parser.close()
    return target.annotation


def _text(path: Path, content: bytes, note: Note | None) -> str | None:
    """Return the text of an XML file in its declared encoding, else in a guessed one; None: UTF-8, or no text."""
    declared = re.match(rb"""\s*<\?xml[^>]*\bencoding\s*=\s*["']([\w.-]+)["']""", content[:200], re.ASCII)
    if declared:
        try:
            return content.decode(declared[1].decode())
        except (LookupError, ValueError):
            pass  # the declaration is wrong
    try:
        text, guess = decode(content)
    except ValueError:
        return None
    if guess:
        note_guess(path, text, guess, note)
    return text if guess else None


def read_box(element: ObjectElement) -> Box | str:
    """Return an object's corners as its file counts them (of a polygon, its bounding box), or what is wrong."""
    try:
        if element.polygon[0] and not element.text.keys() & set(CORNERS):
            xs, ys = ([float(v) for v in values] for values in element.polygon)
            if len(xs) != len(ys) or len(xs) < 3:
                return f"a polygon of {len(xs)} x and {len(ys)} y; expected at least three points"
            found = min(xs), min(ys), max(xs), max(ys)
        else:
            found = tuple(float(element.text[name]) for name in CORNERS)  # type: ignore[assignment]
            xs, ys = list(found[::2]), list(found[1::2])
    except KeyError as error:
        return f"an object without {error.args[0]}; expected <bndbox> with {', '.join(CORNERS)}"
    except ValueError as error:
        values = [v[:20] for v in map(element.text.get, CORNERS) if v]
        return f"a box of {values} ({str(error)[:60]}); expected four numbers"
    if not all(map(math.isfinite, (*xs, *ys))):
        return f"a box of {found}; expected four finite numbers"
    return found


def image_index(folders: Iterable[Path], root: Path) -> dict[str, list[str]]:
    """Return stem -> paths of images relative to root, from one listing of each folder; endings in any case.

    Several images of a folder may have one stem; a later folder adds no images to a known stem.
    """
    found: dict[str, list[str]] = {}
    for folder in folders:
        here: dict[str, list[str]] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.suffix.lower() in IMAGE_SUFFIXES:
                here.setdefault(path.stem, []).append(path.relative_to(root).as_posix())
        found = here | found
    return found


def images_of(stem: str, annotation: Annotation, images: dict[str, list[str]]) -> list[str]:
    """Return the images that an annotation may describe, the likeliest first: of its own stem, else as it names."""
    named = Path(annotation.filename.replace("\\", "/"))
    found = images.get(stem) or images.get(named.stem) or []
    return sorted(found, key=lambda path: Path(path).name != named.name)


def size_of(annotation: Annotation, image: Path) -> tuple[int, int]:
    """Return (width, height) from the XML, else from the image.

    Raises ImageError if the image has to be opened and cannot be.
    """
    try:
        size = (int(float(annotation.width)), int(float(annotation.height)))
    except (ValueError, OverflowError):
        size = (0, 0)
    return size if min(size) > 0 and max(size) < 1 << 24 else image_size(image)


def read_list(path: Path, known: Collection[str] = (), note: Note | None = None) -> list[str]:
    """Return the names in a split list, one a line, possibly with spaces; of a path the last part.

    A line is a name if an annotation has it, or one that is alike on systems that ignore case. Otherwise a last word 1,
    0 or -1 is removed, with which VOC says whether an image shows a class.

    Args:
        known: names of annotations.
        note: called with a sentence if the encoding had to be guessed; None: log it.
    Raises:
        UserError: a list that is not text.
    """
    names, same = [], dict[str, str]()
    for line in read_lines(path, "one name of an image a line", note=note):
        text = line.strip().replace("\\", "/")
        first, *last = text.rsplit(maxsplit=1)[:2] or [""]
        whole, short = (ENDING.sub("", words) for words in (text, first if last in (["1"], ["0"], ["-1"]) else text))
        tries = (whole, whole.rpartition("/")[2], short, short.rpartition("/")[2])
        if text:
            found = next((name for name in tries if name in known), None)
            if found is None and not same:
                same = {alike(name): name for name in known}
            names.append(found or next((same[alike(name)] for name in tries if alike(name) in same), short))
    return list(dict.fromkeys(names))


def write_annotation(path: Path, image: str, size: tuple[int, int], boxes: NDArray[np.float32],
                     names: Sequence[str], difficult: Sequence[bool] | None = None) -> None:  # fmt: skip
    """Write one annotation. boxes: [N, 4] xyxy image pixels; names: [N]; image: the file's name."""
    objects = []
    for number, (name, box) in enumerate(zip(names, boxes, strict=True)):
        corners = [box[0] + 1, box[1] + 1, box[2], box[3]]
        inner = "".join(f"<{tag}>{float(v):.8g}</{tag}>" for tag, v in zip(CORNERS, corners, strict=True))
        hard = int(bool(difficult[number])) if difficult is not None else 0
        objects.append(f"\t<object>\n\t\t<name>{escape(printable(name))}</name>\n\t\t<difficult>{hard}</difficult>\n"
                       f"\t\t<bndbox>{inner}</bndbox>\n\t</object>\n")  # fmt: skip
    write_text(path, f"<annotation>\n\t<folder>{escape(printable(path.parent.parent.name))}</folder>\n"
               f"\t<filename>{escape(printable(image))}</filename>\n"
               f"\t<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>\n"
               f"{''.join(objects)}</annotation>\n")  # fmt: skip


def write_split(path: Path, stems: Sequence[str]) -> None:
    """Write a split list, one name a line."""
    write_text(path, "".join(f"{stem}\n" for stem in stems))


EXPECTED = "Pascal VOC: Annotations/*.xml beside JPEGImages/"
IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "data")
TRIED = 20
"""Most files of a folder that are searched for a VOC annotation."""
HEAD = 1 << 16
"""Bytes that are searched for an XML file's root element."""
ROOT = re.compile(rb"<(?:[\w.-]+:)?([\w.-]+)")


def find_voc(root: Path, inside: Sections | None = None) -> dict[Path, list[str]]:
    """Return the folders with VOC annotations and their .xml files; empty: it is not a VOC data set.

    inside: sections(root), if known.
    """
    found = {}
    for folder, names in inside or sections(root):
        files = [name for name in names if name.lower().endswith(".xml")]
        if any(is_annotation(folder / name) for name in files[:TRIED]):
            found[folder] = files
    return found


def is_annotation(file: Path) -> bool:
    """Return whether the root element of an XML file is <annotation>."""
    return root_tag(file) == "annotation"


def root_tag(file: Path) -> str:
    """Return the name of a file's root element without namespace, from the first HEAD bytes; "" without one."""
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


def read_voc(root: Path, policy: DataPolicy) -> Builder:
    """Read every annotation of a VOC data set, and its splits. Raises UserError if there are no annotations.

    Splits are lists of names (ImageSets/Main/train.txt, or train.txt beside the folders), else folders (train/).
    """
    places = find_voc(root)
    if not places:
        raise UserError(f"{root}: no annotations found; expected {EXPECTED}")
    found = Builder(root, policy, "voc")
    stems = Counter(os.path.splitext(name)[0] for names in places.values() for name in names)
    folders = Folders(root, {f"{stem}.jpg".lower() for stem, count in stems.items() if count > 1})
    listing = cache(lambda place: image_index([place], root))
    for folder, names in places.items():
        base, inner = _base(root, folder)
        near = [base / name / inner for name in IMAGE_FOLDERS] + [base / name for name in IMAGE_FOLDERS]
        homes = [*near, folder, base, *(root / name for name in IMAGE_FOLDERS), root]
        indexes = [index for place in dict.fromkeys(homes) if place.is_dir() and (index := listing(place))]
        above = folder.relative_to(base).parts[1:] if base == root else folder.relative_to(root).parts
        for name in names:
            file = folder / name
            _read(found, "/".join((*above, file.stem)), file, indexes, folders)
    for key in [key for key in found.index if stems[Path(key).name] == 1]:
        found.index.setdefault(Path(key).name, found.index[key])
    _take_splits(found)
    note_unused_files(found, folders)
    return found


def _base(root: Path, folder: Path) -> tuple[Path, Path]:
    """Return the folder whose JPEGImages belong to a folder of annotations, and its path inside the annotations."""
    parts = folder.relative_to(root).parts
    for at, part in enumerate(parts):
        if not is_split(part):
            return root.joinpath(*parts[:at]), Path(*parts[at + 1 :])
    return folder, Path()


def _take_splits(found: Builder) -> None:
    """Add the splits of lists, or of folders if there are no lists."""
    root = found.root
    main = root / "ImageSets" / "Main"
    place = main if main.is_dir() else root / "ImageSets"
    lists = {file.stem: file for file in sorted(place.glob("*.txt")) if not is_hidden(file.name)}
    known = frozenset((*found.index, *found.with_problems))
    readers: dict[str, Callable[[], list[str]]] = {
        name: cache(partial(read_list, file, known, found.note_encoding(name, file))) for name, file in lists.items()
    }
    found.source = f"{place.relative_to(root).as_posix()}/*.txt"
    if not lists:
        lists = {file.stem: file for file in sorted(root.glob("*.txt")) if _lists_annotations(file, found)}
        readers = {name: partial(_list_of_paths, file, found) for name, file in lists.items()}
        found.source = ", ".join(file.name for file in lists.values())
    found.lists.update(lists)
    plain = {name: keys for name, keys in readers.items() if not of_one_class(name, found)}
    found.splits.update({name: keys for name, keys in readers.items() if name not in plain})
    found.add_splits(plain)
    if not lists:
        found.add_folder_splits()


def of_one_class(name: str, found: Builder) -> bool:
    """Return whether a list is for one class only: aeroplane_train, or cell_train if there is a list train."""
    head, _, tail = name.rpartition("_")
    return head in CLASSES or (head in found.ids and tail in found.lists)


def _lists_annotations(file: Path, found: Builder) -> bool:
    """Return whether the first line of a text file names an annotated image."""
    try:
        first = next((line for line in read_lines(file, "names of images") if line.strip()), "")
    except UserError:
        return split_word(file.stem) is not None
    return not is_hidden(file.name) and _key(first, found) in found.index


def _list_of_paths(file: Path, found: Builder) -> list[str]:
    lines = read_lines(file, "one name of an image a line")
    return list(dict.fromkeys(_key(line, found) for line in lines if line.strip()))


def _key(line: str, found: Builder) -> str:
    """Return the image that a line names (the line or its first word, by stem); without one the line itself."""
    for text in (line, line.split()[0] if line.split() else ""):
        parts = split_path(text)
        name = "/".join((*parts[:-1], Path(parts[-1]).stem)) if parts else ""
        for key in (text.strip(), name, Path(name).name):
            if key in found.index:
                return key
    return line.strip()


def _read(found: Builder, key: str, file: Path, indexes: Sequence[dict[str, list[str]]], last: Folders) -> None:
    """Add one annotation, or note why it is left out. indexes: stem -> images, nearest first; last: the rest."""
    try:
        annotation = parse(file, found.note_encoding(key, file))
        choice = next((named for index in indexes if (named := images_of(file.stem, annotation, index))), [])
        if not choice and (alone := last.by_name(f"{file.stem}.jpg")):
            choice = [relative_path(alone, found.root)]
        if not choice:
            if is_annotation(file):
                found.problem(key, (file, 0), "image missing", f"no image {file.stem}.* beside it", "skipped")
            else:
                found.problem("", (file, 0), "file not read", "an .xml file that is no VOC annotation", "ignored")
            return
        image = choice[0]
        if len(choice) > 1:
            names = " and ".join(Path(path).name for path in choice)
            text = f"{names} have one stem, and the annotation names {annotation.filename!r}"
            found.problem(key, (file, 0), "two images for one annotation", text, f"{choice[0]} read")
        size = size_of(annotation, found.root / image)
    except UserError as error:
        kind = "image unreadable" if isinstance(error, ImageError) else "annotation unreadable"
        found.problem(key, (file, 0), kind, str(error).removeprefix(str(file)).lstrip(":"), "skipped")
        return
    if key in found.index:
        text = f"{found.location((found.files[found.index[key]], 0))} annotates the same image"
        found.problem(key, (file, 0), "image annotated twice", text, "the first file's boxes kept")
        return
    found.add_image(key, image, size, file)
    for element in annotation.objects:
        _add(found, key, file, element, size)


def _add(found: Builder, key: str, file: Path, element: ObjectElement, size: tuple[int, int]) -> None:
    """Add one object, or note why it is left out."""
    name, box, place = clean_name(element.text.get("name", "")), read_box(element), (file, element.line)
    if not name or isinstance(box, str):
        text = box if isinstance(box, str) else "an object without a name"
        found.problem(key, place, "object unreadable", text, "dropped")
        return
    if "xmin" not in element.text:
        found.problem(key, place, "polygon", "a polygon without bndbox; read as its bounding box", FIXED)
    placed = found.fit_box(key, place, box, size, first=1)
    if placed is not None:
        hard = element.text.get("difficult", "0").strip() not in ("", "0", "0.0", "false")
        found.add_object(name, placed, element.line, hard)


def write_voc(root: Path, dataset: Dataset, names: list[str], splits: Mapping[str, NDArray[np.int64]]) -> Path:
    """Write annotations and lists of a data set whose images are in root/JPEGImages under `names` [M].

    splits: name -> indices of images. Returns the folder of the annotations.
    """
    stems = [Path(name).stem for name in names]
    for stem, name, record in zip(stems, names, dataset.records, strict=True):
        classes = [dataset.labels[label] for label in record.labels]
        write_annotation(
            root / "Annotations" / f"{stem}.xml", name, record.size, record.boxes, classes, record.difficult.tolist()
        )
    for split, members in splits.items():
        write_split(root / "ImageSets" / "Main" / f"{split}.txt", [stems[i] for i in members])
    return root / "Annotations"
