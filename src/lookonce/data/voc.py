"""Pascal VOC: one XML an image, lists of names a split. Reader and writer.

VOC counts pixels from 1 and includes both ends: a record holds [xmin - 1, ymin - 1, xmax, ymax], so that
plain IoU equals the devkit's. "No area" is judged on the file's own numbers, before that.
Source: the VOC 2012 devkit, VOCreadxml.m and VOCevaldet.m.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import ParseError
from xml.sax.saxutils import escape

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser
from numpy.typing import NDArray

from lookonce.data.finding import read_lines
from lookonce.data.gathering import Box
from lookonce.data.pictures import PICTURE_SUFFIXES, picture_size
from lookonce.data.record import DataPolicy as DataPolicy
from lookonce.errors import UserError
from lookonce.files import write_text
from lookonce.text import Note, decode, guess_note

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The twenty of VOC, in the devkit's order, which is kept for data sets that use these names."""

CORNERS = ("xmin", "ymin", "xmax", "ymax")
TEXT_TAGS = frozenset((*CORNERS, "name", "difficult", "width", "height", "filename"))
POLYGONS = ("polygon", "segmentation")
"""Elements of an object with points x1, y1, x2 ... or a list of x and y."""
ENDING = re.compile(rf"({'|'.join(map(re.escape, sorted({'.xml', *PICTURE_SUFFIXES})))})$", re.IGNORECASE)
MOST_BYTES = 32 << 20
"""Of one annotation file; those of VOC itself stay below 20 kB."""


@dataclass
class Thing:
    """One <object> as its file says it, with the line it starts on."""

    line: int
    text: dict[str, str] = field(default_factory=dict)
    polygon: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))
    """x and y of its points, where it has some."""


@dataclass
class Page:
    """One annotation file as it stands."""

    filename: str = ""
    width: str = ""
    height: str = ""
    objects: list[Thing] = field(default_factory=list)


class _Target:
    """Builds a Page from parser events. What lies in <part> is no object's; namespaces are as nothing."""

    def __init__(self) -> None:
        self.page = Page()
        self.parser: DefusedXMLParser | None = None
        self._path: list[str] = []
        self._text: list[str] = []

    def start(self, tag: str, _: dict[str, str]) -> None:
        tag = tag.rpartition("}")[2]
        self._path.append(tag)
        self._text = []
        if tag == "object" and len(self._path) == 2 and self.parser is not None:
            self.page.objects.append(Thing(self.parser.parser.CurrentLineNumber))

    def data(self, text: str) -> None:
        if self._path and (self._path[-1] in TEXT_TAGS or (self._path[2:3] and self._path[2] in POLYGONS)):
            self._text.append(text)

    def end(self, tag: str) -> None:
        path, text = self._path, "".join(self._text).strip()
        tag = path[-1]
        inside = path[1] if len(path) > 1 else ""
        if inside == "object" and len(path) > 3 and path[2] in POLYGONS:
            if text and re.fullmatch(r"[xy]\d*", tag):
                self.page.objects[-1].polygon[tag[0] == "y"].append(text)
        elif inside == "object" and (path[2:] == [tag] or path[2:] == ["bndbox", tag]) and tag in TEXT_TAGS:
            if tag not in self.page.objects[-1].text:
                self.page.objects[-1].text[tag] = text
        elif path[1:] == ["filename"]:
            self.page.filename = text
        elif path[1:] in (["size", "width"], ["size", "height"]):
            setattr(self.page, tag, text)
        path.pop()
        self._text = []

    def close(self) -> Page:
        return self.page


def parse(path: Path, note: Note | None = None) -> Page:
    """One annotation file. Raises UserError for one that is not whole XML, or that declares entities.

    note: takes a sentence where its encoding had to be guessed; None: that is logged.
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
            return _page(content)
        except (ParseError, ValueError, LookupError):  # perhaps for its encoding
            text = _text(path, content, note)
            if text is None:
                raise
            return _page(text.encode(), "utf-8")
    except ParseError as error:
        raise UserError(f"{place}:{error.position[0]}: not whole XML ({error.msg}); write it again") from None
    except DefusedXmlException as error:
        raise UserError(f"{place}: declares entities ({type(error).__name__}), which are refused") from None
    except (ValueError, LookupError) as error:
        raise UserError(f"{place}: not XML ({error})") from None


def _page(content: bytes, encoding: str | None = None) -> Page:
    """Parse one annotation. encoding: of the content, whatever it declares; None: as it declares."""
    target = _Target()
    parser = DefusedXMLParser(
        target=target, encoding=encoding, forbid_dtd=False, forbid_entities=True, forbid_external=True
    )
    target.parser = parser
    parser.feed(content)
    parser.close()
    return target.page


def _text(path: Path, content: bytes, note: Note | None) -> str | None:
    """The text of an XML file by the encoding that it declares, else guessed; None: it is UTF-8 or no text."""
    declared = re.match(rb"""\s*<\?xml[^>]*\bencoding\s*=\s*["']([\w.-]+)["']""", content[:200], re.ASCII)
    if declared:
        try:
            return content.decode(declared[1].decode())
        except (LookupError, ValueError):
            pass  # it is not what it declares
    try:
        text, guess = decode(content)
    except ValueError:
        return None
    if guess:
        guess_note(path, text, guess, note)
    return text if guess else None


def read_box(thing: Thing) -> Box | str:
    """Corners of an object as its file counts them, or what is wrong with them; of a polygon alone, those around it."""
    try:
        if thing.polygon[0] and not thing.text.keys() & set(CORNERS):
            xs, ys = ([float(v) for v in values] for values in thing.polygon)
            if len(xs) != len(ys) or len(xs) < 3:
                return f"a polygon of {len(xs)} x and {len(ys)} y; expected at least three points"
            found = min(xs), min(ys), max(xs), max(ys)
        else:
            found = tuple(float(thing.text[name]) for name in CORNERS)  # type: ignore[assignment]
            xs, ys = list(found[::2]), list(found[1::2])
    except KeyError as error:
        return f"an object without {error.args[0]}; expected <bndbox> with {', '.join(CORNERS)}"
    except ValueError as error:
        return (
            f"a box of {[v[:20] for v in map(thing.text.get, CORNERS) if v]} ({str(error)[:60]}); expected four numbers"
        )
    if not all(map(math.isfinite, (*xs, *ys))):
        return f"a box of {found}; expected four finite numbers"
    return found


def picture_index(folders: Iterable[Path], root: Path) -> dict[str, list[str]]:
    """Stem of each image -> its path relative to root, from one listing a folder; endings in any case.

    Images of one stem in one folder are all of them; a folder further down the list adds none to a stem.
    """
    found: dict[str, list[str]] = {}
    for folder in folders:
        here: dict[str, list[str]] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.suffix.lower() in PICTURE_SUFFIXES:
                here.setdefault(path.stem, []).append(path.relative_to(root).as_posix())
        found = here | found
    return found


def pictures_of(stem: str, page: Page, pictures: dict[str, list[str]]) -> list[str]:
    """The images that an annotation may be of, the right one first: those of its own stem, else those it names."""
    named = Path(page.filename.replace("\\", "/"))
    found = pictures.get(stem) or pictures.get(named.stem) or []
    return sorted(found, key=lambda path: Path(path).name != named.name)


def size_of(page: Page, picture: Path) -> tuple[int, int]:
    """(width, height) as the XML says; as the picture says where the XML does not.

    Raises PictureError where the picture has to be opened and cannot be.
    """
    try:
        size = (int(float(page.width)), int(float(page.height)))
    except (ValueError, OverflowError):
        size = (0, 0)
    return size if min(size) > 0 and max(size) < 1 << 24 else picture_size(picture)


def read_list(path: Path, known: Container[str] = (), note: Note | None = None) -> list[str]:
    """Names in a split list, a line each, which may hold blanks; of a path the last part.

    A line is a name where an annotation has it; else without its last word, where that is 1, 0 or -1, by which VOC
    says whether a class is on the image.

    Args:
        known: names of annotations.
        note: takes a sentence where the encoding had to be guessed; None: that is logged.
    Raises:
        UserError: a list that is no text.
    """
    names = []
    for line in read_lines(path, "one name of an image a line", note=note):
        text = line.strip().replace("\\", "/")
        whole, short = (ENDING.sub("", words) for words in (text, re.sub(r"\s+(-?1|0)$", "", text)))
        tries = (whole, whole.rpartition("/")[2], short, short.rpartition("/")[2])
        if text:
            names.append(next((name for name in tries if name in known), short))
    return list(dict.fromkeys(names))


def scale_as_blog(
    boxes: NDArray[np.int_], size: tuple[int, int], side: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The blog's scaling of VOC corners to a square input: every corner cut to a whole pixel.

    Args:
        boxes: [N, 4] xmin, ymin, xmax, ymax as in the file.
        size: (width, height) of the picture.
        side: of the input, pixels.
    Returns:
        (scaled [N, 4], kept [N]): boxes that still have an area.
    Source: FairyOnIce, ObjectDetectionYolo, backend.py, the annotation's resize (int()).
    """
    scale = np.array([side / size[0], side / size[1]] * 2)
    scaled = np.clip((boxes * scale).astype(np.int64), 0, side)
    return scaled, (scaled[:, 2] > scaled[:, 0]) & (scaled[:, 3] > scaled[:, 1])


def write_annotation(path: Path, picture: str, size: tuple[int, int], boxes: NDArray[np.float32],
                     names: Sequence[str], difficult: Sequence[bool] | None = None) -> None:  # fmt: skip
    """Write one annotation. boxes: [N, 4] xyxy image pixels; names: [N]; picture: the file's name."""
    objects = []
    for number, (name, box) in enumerate(zip(names, boxes, strict=True)):
        corners = [box[0] + 1, box[1] + 1, box[2], box[3]]
        inner = "".join(f"<{tag}>{float(v):.8g}</{tag}>" for tag, v in zip(CORNERS, corners, strict=True))
        hard = int(bool(difficult[number])) if difficult is not None else 0
        objects.append(f"\t<object>\n\t\t<name>{escape(name)}</name>\n\t\t<difficult>{hard}</difficult>\n"
                       f"\t\t<bndbox>{inner}</bndbox>\n\t</object>\n")  # fmt: skip
    write_text(path, f"<annotation>\n\t<folder>{escape(path.parent.parent.name)}</folder>\n"
               f"\t<filename>{escape(picture)}</filename>\n"
               f"\t<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>\n"
               f"{''.join(objects)}</annotation>\n")  # fmt: skip


def write_split(path: Path, stems: Sequence[str]) -> None:
    """Write a split list, a name a line."""
    write_text(path, "".join(f"{stem}\n" for stem in stems))
