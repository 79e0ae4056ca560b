"""Draw boxes on images: a colour for each class, a label with name and score for each box.

Detections are solid boxes with a filled label. Ground truth is a dashed black and white box with a black label, so that
neither needs colour to be recognized. All sizes are image pixels.
Class names use Pillow's own font for Latin letters and DejaVu Sans (part of matplotlib) for Cyrillic, Greek, Arabic and
others. For scripts that neither has (Chinese, Japanese, Korean) a font of this computer is used; without one the name
is written in Latin letters.
"""

from __future__ import annotations

import logging
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from anyascii import anyascii
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

from lookonce.data.images import ImageSource, load_rgb
from lookonce.errors import UserError, printable
from lookonce.model.detections import Detections
from lookonce.text import clean_name

log = logging.getLogger("lookonce")
NO_LETTERS = ("Last", "Adobe Blank", "AdobeBlank", "cm", "STIXNon", "STIXSize")
"""Beginnings of names of fonts that have only boxes or mathematical signs."""
_warned: set[str] = set()


@lru_cache(maxsize=4096)
def lettering(name: str, own: bool = False) -> tuple[str, str | None]:
    """Return (the text to draw for a name, the file of a font that has all its letters; None: Pillow's own font).

    Letters that no font has are transliterated, and a warning is logged once.
    own: use DejaVu Sans only, as plots do.
    """
    text = clean_name(unicodedata.normalize("NFC", name)).replace("\ufe0f", "")
    if text.isascii():
        return text, None
    needed = {ord(letter) for letter in text if unicodedata.category(letter) != "Cf"}
    fonts = () if not _can_be_drawn(text) else (_dejavu(),) if own else _fonts()
    for file, letters in fonts:
        if needed <= letters:
            return text, file
    file, letters = _dejavu()
    parts = (letter if ord(letter) in letters and _can_be_drawn(letter) else _spelled(letter) for letter in text)
    spelled = "".join(parts) or "?"
    if not _warned:
        _warned.add(name)
        log.warning("no font on this computer has the letters of the class %s, so it is drawn as %r; install a font "
                    "that has them, such as Noto Sans", printable(name), spelled)  # fmt: skip
    return spelled, file


def _spelled(letter: str) -> str:
    """Return a letter in Latin letters; nothing for a combining mark without any."""
    return anyascii(letter) or ("" if unicodedata.category(letter)[0] == "M" else "?")


@lru_cache(maxsize=64)
def font(file: str | None, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return a font by its file (None: Pillow's own) at a size in pixels."""
    return ImageFont.load_default(size=size) if file is None else ImageFont.truetype(file, size)


def _can_be_drawn(text: str) -> bool:
    """Return whether Pillow can draw this text: scripts such as Arabic need libraries that join and order letters."""
    joined = any(unicodedata.bidirectional(c) in ("R", "AL", "AN") or unicodedata.category(c)[0] == "M" for c in text)
    return not joined or bool(features.check("raqm") and features.check("fribidi"))


@lru_cache(maxsize=1)
def _dejavu() -> tuple[str, frozenset[int]]:
    import matplotlib

    file = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    return file, _letters(file)


@lru_cache(maxsize=1)
def _fonts() -> tuple[tuple[str, frozenset[int]], ...]:
    """Return (file, letters) of DejaVu Sans, then of each installed font that adds letters to those before it."""
    from matplotlib.font_manager import fontManager

    found = [_dejavu()]
    have = set(found[0][1])
    upright = [entry for entry in fontManager.ttflist if entry.style == "normal" and entry.fname is not None]
    upright.sort(key=lambda entry: (entry.weight not in (400, "normal", "regular"), "Sans" not in entry.name))
    for entry in upright:
        if entry.name.startswith(NO_LETTERS):
            continue
        letters = _letters(str(entry.fname))
        if not letters <= have:
            found.append((str(entry.fname), letters))
            have |= letters
    return tuple(found)


def _letters(file: str) -> frozenset[int]:
    """Return the code points of a font; none if Pillow cannot draw with it (bitmaps of emoji)."""
    from matplotlib.ft2font import FT2Font

    try:
        ImageFont.truetype(file, 20)
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()


Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]
"""First and last column and row: left, top, right, bottom."""
Found = tuple[NDArray[np.floating], Sequence[str], Sequence[float]]
"""boxes [N, 4] xyxy image pixels, N names, N scores"""
Truth = tuple[NDArray[np.floating], Sequence[str]]
"""boxes [N, 4] xyxy image pixels, N names"""
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
COLOURS = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
)  # fmt: skip
"""The palette of Okabe and Ito, for colour-blind readers. Further classes take it darker, then paler."""
OPACITY = 0.8
"""Opacity of labels: what is below shows through."""
GRID = 11
"""Places that are tried for the legend along each side of the image."""
MAX_LINE = 100
"""Largest width of lines, pixels."""
HIDDEN = 0.3
"""A label hides an object if it covers more than this part of its box."""


def draw(image: ImageSource, found: Detections | Found, truth: Truth | None = None, *,
         class_names: Sequence[str] = (), hide_labels: bool = False, hide_scores: bool = False,
         line_width: int | None = None) -> Image.Image:  # fmt: skip
    """Draw detections on a copy of an image, and optionally the ground truth.

    Args:
        image: a path, a PIL image, or an array [h, w, 3] of uint8, RGB. It is not changed.
        found: detections of this image, with the numbers of tracked objects, or boxes, names and scores.
        truth: boxes and names of the objects; drawn dashed, below the detections.
        class_names: all classes, for the colours of boxes and names; Detections bring their own.
        hide_labels: draw boxes alone.
        hide_scores: leave the scores out of the labels.
        line_width: pixels; None: 1/200 of the image's shorter side.
    Returns:
        A new image of the same size. Labels are inside it and do not overlap. Where there is no room for a label, it is
        the number of its class, which a legend explains, or left out.
    Raises:
        UserError: what is no image, or a line of 0 or more than 100 pixels.
    """
    if line_width is not None and not 1 <= line_width <= MAX_LINE:
        raise UserError(f"line-width: {line_width}; expected 1 to {MAX_LINE} pixels")
    ids: Sequence[int] = ()
    if isinstance(found, Detections):
        class_names = found.class_names
        ids = () if found.ids is None else found.ids.tolist()
        found = found.boxes, found.names, found.scores.tolist()
    boxes, names, scores = np.asarray(found[0], np.float64).reshape(-1, 4), found[1], found[2]
    objects = [] if truth is None else list(zip(np.asarray(truth[0], np.float64).reshape(-1, 4), truth[1], strict=True))
    sheet = _Sheet(load_rgb(image), class_names, line_width)
    for box, _ in objects:
        sheet.dashed(box)
    order = np.argsort(scores, kind="stable")  # the best is drawn last, on top
    for n in order:
        sheet.solid(boxes[n], names[n])
    if not hide_labels:
        for n in order[::-1]:
            number = f" #{ids[n]}" if ids and ids[n] > 0 else ""
            sheet.label(boxes[n], names[n], number + ("" if hide_scores else f" {scores[n]:.2f}"))
        for box, name in objects:
            sheet.label(box, name, truth=True)
    return sheet.finished()


def draw_labels(image: ImageSource, boxes: NDArray[np.floating], names: Sequence[str],
                class_names: Sequence[str] = ()) -> Image.Image:  # fmt: skip
    """Draw labelled objects on a copy of an image: a box in the colour of its class and the class name.

    boxes: [N, 4] xyxy image pixels; names: [N]; class_names: those of the data set, for the colours.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])  # small boxes on top
    return draw(image, (boxes, names, (-areas).tolist()), class_names=class_names, hide_scores=True)


def class_colour(name: str, class_names: Sequence[str] = ()) -> Colour:
    """Return RGB (0..255) of a class, the same on every image: from its index in class_names, else from its name."""
    index = class_names.index(name) if name in class_names else zlib.crc32(name.encode())
    colour, shade = COLOURS[index % len(COLOURS)], index // len(COLOURS) % 3
    red, green, blue = (round((v, 0.55 * v, 0.5 * v + 0.5 * 255)[shade]) for v in colour)
    return red, green, blue


def contrasting(colour: Colour) -> Colour:
    """Return black or white, whichever can be read on a colour."""
    return BLACK if np.dot(colour, (0.299, 0.587, 0.114)) > 110 else WHITE  # luma of ITU-R BT.601


@dataclass(frozen=True)
class _Tag:
    """A label and its place."""

    place: Rectangle
    text: str
    font: str | None
    """File of the font; None: Pillow's own."""
    letters: int
    """Height of the letters, pixels."""
    fill: Colour


class _Sheet:
    """An image to draw on: boxes at once, labels at the end, above all boxes."""

    def __init__(self, image: NDArray[np.uint8], class_names: Sequence[str], line_width: int | None) -> None:
        self.image = Image.fromarray(image)  # a copy
        self.pen = ImageDraw.Draw(self.image)
        short = min(self.image.size)
        self.class_names = list(class_names)
        self.line = line_width or max(1, round(short / 200))
        self.margin = max(1, round(short / 200))
        self.letters = max(10, round(short / 36))  # px
        self.boxes: list[Rectangle] = []
        self.tags: list[_Tag] = []
        self.numbered: dict[str, int] = {}
        """Classes that the legend explains, and their numbers."""

    def corners(self, box: NDArray[np.floating]) -> Rectangle:
        """Return the first and last pixel of a box, inside the image."""
        width, height = self.image.size
        x1, y1, x2, y2 = (float(v) for v in np.clip(box, 0, (width, height, width, height)))
        left, top = min(int(x1), width - 1), min(int(y1), height - 1)
        return left, top, max(left, round(x2) - 1), max(top, round(y2) - 1)

    def solid(self, box: NDArray[np.floating], name: str) -> None:
        """Draw a solid box with a halo of one pixel round it, so that it is seen on any background."""
        left, top, right, bottom = self.corners(box)
        self.boxes.append((left, top, right, bottom))
        colour = class_colour(name, self.class_names)
        self.pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=contrasting(colour))
        self.pen.rectangle((left, top, right, bottom), outline=colour, width=self.line)

    def dashed(self, box: NDArray[np.floating]) -> None:
        """Draw a box of black and white dashes."""
        left, top, right, bottom = self.corners(box)
        self.boxes.append((left, top, right, bottom))
        self.pen.rectangle((left, top, right, bottom), outline=BLACK, width=self.line)
        dash, thick = 4 * self.line, self.line - 1
        for x in range(left, right + 1, 2 * dash):
            end = min(x + dash - 1, right)
            self.pen.rectangle((x, top, end, min(top + thick, bottom)), fill=WHITE)
            self.pen.rectangle((x, max(bottom - thick, top), end, bottom), fill=WHITE)
        for y in range(top, bottom + 1, 2 * dash):
            end = min(y + dash - 1, bottom)
            self.pen.rectangle((left, y, min(left + thick, right), end), fill=WHITE)
            self.pen.rectangle((max(right - thick, left), y, right, end), fill=WHITE)

    def label(self, box: NDArray[np.floating], name: str, score: str = "", truth: bool = False) -> None:
        """Place the label of a box where it hides neither another label nor an object.

        Without such a place it gets smaller letters, else the number of its class, else it is left out. truth: a black
        label, below the box if possible.
        """
        text, file = lettering(name)
        fill = BLACK if truth else class_colour(name, self.class_names)
        corners, small = self.corners(box), max(9, round(0.75 * self.letters))
        number = self.number(name)
        for words, letters in ((text + score, self.letters), (text + score, small), (str(number), small)):
            tag = self.placed(_Tag(corners, words, file, letters, fill), truth)
            if tag is not None:
                break
        if tag is None or tag.text != text + score:
            self.numbered.setdefault(name, number)
        if tag is not None:
            self.tags.append(tag)

    def number(self, name: str) -> int:
        """Return the number of a class, from 1."""
        if name not in self.class_names:
            self.class_names.append(name)
        return self.class_names.index(name) + 1

    def placed(self, tag: _Tag, below: bool) -> _Tag | None:
        """Return the label at the best of its places, which hides least; None: it would hide a label or an object."""
        wide, high = self.extent(tag)
        if wide > self.image.width or high > self.image.height:
            return None
        places = self.places(tag.place, wide, high, below)
        tags = np.array([other.place for other in self.tags]).reshape(-1, 4)
        hidden = _covered(places, np.array(self.boxes)).max(1, initial=0)  # [P] part of the object that it hides most
        hidden[_covered(places, tags).max(1, initial=0) > 0] = 2
        best = int(np.argmin(np.maximum(hidden, 0.02)))  # of places that hide next to nothing the first
        if hidden[best] > (HIDDEN if len(self.boxes) > 1 else 1):
            return None
        left, top, right, bottom = (int(v) for v in places[best])
        return replace(tag, place=(left, top, right, bottom))

    def places(self, box: Rectangle, wide: int, high: int, below: bool) -> NDArray[np.int64]:
        """Return eight places round a box and two inside it, moved into the image: [10, 4]."""
        left, top, right, bottom = box
        xs, ys = (left, right + 1 - wide), (top, bottom + 1 - high)
        above, under = [(x, top - high - 1) for x in xs], [(x, bottom + 2) for x in xs]
        beside = [(x, y) for x in (right + 2, left - wide - 1) for y in ys]
        outside = [*under, *above, *beside] if below else [*above, *under, *beside]
        starts = np.array([*outside, (left, top), (left, ys[1])])  # [10, 2]
        starts = np.clip(starts, 0, (self.image.width - wide, self.image.height - high))
        return np.concatenate((starts, starts + np.array((wide - 1, high - 1))), 1)

    def extent(self, tag: _Tag) -> tuple[int, int]:
        """Return (width, height) of a label; all labels of one font and size have the same height."""
        letters = font(tag.font, tag.letters)
        high = int(max(letters.getbbox(some)[3] for some in ("\u00c5gjy|", tag.text)))
        return int(self.pen.textlength(tag.text, letters)) + 1 + 2 * self.margin, high + 2

    def finished(self) -> Image.Image:
        """Return the image with its labels and the legend."""
        for tag in (*self.tags, *self.legend()):
            part = self.image.crop((tag.place[0], tag.place[1], tag.place[2] + 1, tag.place[3] + 1))
            self.image.paste(Image.blend(part, Image.new("RGB", part.size, tag.fill), OPACITY), tag.place[:2])
            at = tag.place[0] + self.margin, tag.place[1] + 1
            self.pen.text(at, tag.text, contrasting(tag.fill), font(tag.font, tag.letters))
        return self.image

    def legend(self) -> list[_Tag]:
        """Return a line for each class that is numbered, where it hides least."""
        lines = []
        for name, number in sorted(self.numbered.items(), key=lambda item: item[1]):
            text, file = lettering(name)
            colour = class_colour(name, self.class_names)
            lines.append(_Tag((0, 0, 0, 0), f"{number} {text}", file, self.letters, colour))
        extents = [self.extent(line) for line in lines]
        wide, high = max((w for w, _ in extents), default=0), max((h for _, h in extents), default=1)
        lines = lines[: self.image.height // high] if wide <= self.image.width else []
        if not lines:
            return []
        free = self.image.width - wide, self.image.height - high * len(lines)
        columns, rows = (np.linspace(0, side, GRID).astype(np.int64) for side in free)
        starts = np.array([(x, y) for x in columns for y in rows])  # [GRID * GRID, 2]
        places = np.concatenate((starts, starts + np.array((wide - 1, high * len(lines) - 1))), 1)
        hidden = 3 * _covered(places, np.array([tag.place for tag in self.tags])).sum(1)
        hidden += _covered(places, np.array(self.boxes)).sum(1)
        left, top = (int(v) for v in starts[np.argmin(hidden)])
        return [replace(line, place=(left, top + n * high, left + wide - 1, top + n * high + high - 1))
                for n, line in enumerate(lines)]  # fmt: skip


def _covered(places: NDArray[np.int64], areas: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return which part of each area each place covers: [P, N], from rectangles [P, 4] and [N, 4]."""
    areas = areas.reshape(-1, 4)
    low = np.maximum(places[:, None, :2], areas[None, :, :2])
    high = np.minimum(places[:, None, 2:], areas[None, :, 2:]) + 1
    covered: NDArray[np.float64] = np.clip(high - low, 0, None).prod(-1) / (areas[:, 2:] - areas[:, :2] + 1).prod(-1)
    return covered
