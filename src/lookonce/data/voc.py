"""Pascal VOC: one XML a picture, lists of names a split. Reader and writer.

VOC counts pixels from 1 and includes both ends: a record holds [xmin - 1, ymin - 1, xmax, ymax], so that
plain IoU equals the devkit's. "No area" is judged on the file's own numbers, before that.
Source: the VOC 2012 devkit, VOCreadxml.m and VOCevaldet.m.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import ParseError
from xml.sax.saxutils import escape

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser
from numpy.typing import NDArray

from lookonce.data.finding import read_lines
from lookonce.data.pictures import PICTURE_SUFFIXES, picture_size
from lookonce.data.record import DataPolicy as DataPolicy
from lookonce.errors import UserError
from lookonce.files import write_text

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The twenty of VOC, in the devkit's order, which is kept for data sets that use these names."""

CORNERS = ("xmin", "ymin", "xmax", "ymax")
TEXT_TAGS = frozenset((*CORNERS, "name", "difficult", "width", "height", "filename"))
MOST_BYTES = 32 << 20
"""Of one annotation file; those of VOC itself stay below 20 kB."""


@dataclass
class Thing:
    """One <object> as its file says it, with the line it starts on."""

    line: int
    text: dict[str, str] = field(default_factory=dict)


@dataclass
class Page:
    """One annotation file as it stands."""

    filename: str = ""
    width: str = ""
    height: str = ""
    objects: list[Thing] = field(default_factory=list)


class _Target:
    """Builds a Page from parser events. What lies in <part> is no object's."""

    def __init__(self) -> None:
        self.page = Page()
        self.parser: DefusedXMLParser | None = None
        self._path: list[str] = []
        self._text: list[str] = []

    def start(self, tag: str, _: dict[str, str]) -> None:
        self._path.append(tag)
        self._text = []
        if tag == "object" and len(self._path) == 2 and self.parser is not None:
            self.page.objects.append(Thing(self.parser.parser.CurrentLineNumber))

    def data(self, text: str) -> None:
        if self._path and self._path[-1] in TEXT_TAGS:
            self._text.append(text)

    def end(self, tag: str) -> None:
        path, text = self._path, "".join(self._text).strip()
        inside = path[1] if len(path) > 1 else ""
        if inside == "object" and (path[2:] == [tag] or path[2:] == ["bndbox", tag]) and tag in TEXT_TAGS:
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


def parse(path: Path) -> Page:
    """One annotation file. Raises UserError for one that is not whole XML, or that declares entities."""
    place = str(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{place}: cannot be read ({error.strerror})") from None
    if len(content) > MOST_BYTES:
        raise UserError(f"{place}: {len(content)} bytes; an annotation has at most {MOST_BYTES}")
    target = _Target()
    parser = DefusedXMLParser(target=target, forbid_dtd=False, forbid_entities=True, forbid_external=True)
    target.parser = parser
    try:
        parser.feed(content)
        parser.close()
        return target.page
    except ParseError as error:
        raise UserError(f"{place}:{error.position[0]}: not whole XML ({error.msg}); write it again") from None
    except DefusedXmlException as error:
        raise UserError(f"{place}: declares entities ({type(error).__name__}), which are refused") from None
    except (ValueError, LookupError) as error:
        raise UserError(f"{place}: not XML ({error})") from None


def read_box(thing: Thing) -> tuple[float, float, float, float] | str:
    """Corners of an object as its file counts them, or what is wrong with them."""
    try:
        found = tuple(float(thing.text[name]) for name in CORNERS)
    except KeyError as error:
        return f"an object without {error.args[0]}; expected <bndbox> with {', '.join(CORNERS)}"
    except ValueError:
        values = [thing.text[name] for name in CORNERS]
        return f"a box of {values}; expected four numbers"
    if not all(map(math.isfinite, found)):
        return f"a box of {found}; expected four finite numbers"
    return found[0], found[1], found[2], found[3]


def place_box(box: tuple[float, float, float, float], size: tuple[int, int],
              policy: DataPolicy) -> tuple[tuple[float, float, float, float] | None, str, str]:  # fmt: skip
    """A box of VOC's numbers as xyxy pixels in the picture: (box or None, kind of problem or "", what was found).

    Up to one pixel outside is the difference between counting from 0 and from 1, and is cut silently.
    """
    xmin, ymin, xmax, ymax = box
    if xmax <= xmin or ymax <= ymin:
        return None, "box without area", f"a box without area {_short(box)}; expected xmin < xmax and ymin < ymax"
    width, height = size
    cut = (max(xmin - 1, 0.0), max(ymin - 1, 0.0), min(xmax, float(width)), min(ymax, float(height)))
    over = max(-(xmin - 1), -(ymin - 1), xmax - width, ymax - height)
    if over <= 1:
        return cut, "", ""
    found = f"a box {_short(box)} outside the picture of {width} x {height}"
    gone = cut[2] - cut[0] <= 0 or cut[3] - cut[1] <= 0
    return (None if gone or policy != "clip" else cut), "box outside", found


def picture_index(folders: Iterable[Path], root: Path) -> dict[str, str]:
    """Stem of each picture -> its path relative to root, from one listing a folder; endings in any case."""
    found: dict[str, str] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.suffix.lower() in PICTURE_SUFFIXES:
                found.setdefault(path.stem, path.relative_to(root).as_posix())
    return found


def picture_of(stem: str, page: Page, pictures: dict[str, str]) -> str | None:
    """The picture of an annotation: the one of its own name, else the one it names."""
    return pictures.get(stem) or pictures.get(Path(page.filename.replace("\\", "/")).stem)


def size_of(page: Page, picture: Path) -> tuple[int, int]:
    """(width, height) as the XML says; as the picture says where the XML does not.

    Raises PictureError where the picture has to be opened and cannot be.
    """
    try:
        size = (int(float(page.width)), int(float(page.height)))
    except (ValueError, OverflowError):
        size = (0, 0)
    return size if min(size) > 0 and max(size) < 1 << 24 else picture_size(picture)


def read_list(path: Path) -> list[str]:
    """Names in a split list: the first word of each line. A BOM, UTF-16, CR and blanks are as nothing.

    Raises UserError for a name that leaves the data set's folder, or a list that is no text.
    """
    names = []
    for number, line in enumerate(read_lines(path, "one name of a picture a line"), start=1):
        if not line.strip():
            continue
        name = line.split()[0].replace("\\", "/")
        if name.startswith("/") or ".." in name.split("/") or re.match(r"^[A-Za-z]:", name):
            raise UserError(f"{path}:{number}: {name!r} leaves the data set's folder; expected a name inside it")
        names.append(re.sub(r"\.(xml|jpe?g|png|bmp)$", "", name, flags=re.IGNORECASE))
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


def _short(box: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"
