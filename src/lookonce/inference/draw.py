"""Draw boxes on images: a colour for each class, a label with name and score for each box.

Detections are solid boxes with a filled label. Ground truth is a dashed black and white box with a black label, so that
neither needs colour to be recognized. All sizes are image pixels.
Class names use Pillow's own font for Latin letters and DejaVu Sans (part of matplotlib) for Cyrillic, Greek, Arabic and
others. For scripts that neither has (Chinese, Japanese, Korean) a font of this computer is used; without one the name
is written in Latin letters.
"""

from __future__ import annotations

import colorsys
import logging
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from anyascii import anyascii
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

from lookonce.errors import UserError, printable
from lookonce.model.detections import Detections

log = logging.getLogger("lookonce")
NO_LETTERS = ("Last", "Adobe Blank", "AdobeBlank", "cm", "STIXNon", "STIXSize")
"""Beginnings of names of fonts that have only boxes or mathematical signs."""
_told: set[str] = set()


@lru_cache(maxsize=4096)
def lettering(name: str, own: bool = False) -> tuple[str, str | None]:
    """Return (the text to draw for a name, the file of a font that has all its letters; None: Pillow's own font).

    Letters that no font has are transliterated, and a warning is logged once.
    own: use DejaVu Sans only, as plots do.
    """
    text = printable(unicodedata.normalize("NFC", name)).replace("\ufe0f", "")
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
    if not _told:
        _told.add(name)
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
Found = tuple[NDArray[np.floating], Sequence[str], Sequence[float]]
"""boxes [N, 4] xyxy image pixels, N names, N scores"""
Truth = tuple[NDArray[np.floating], Sequence[str]]
"""boxes [N, 4] xyxy image pixels, N names"""
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
GOLDEN_ANGLE = 0.618034
"""Step of hue, in turns: any number of hues, with neighbours far apart."""
TONES = ((0.9, 1.0), (1.0, 0.6), (0.5, 1.0))
"""(saturation, value): bright, dark, pale, so that near hues differ in lightness."""


def draw(image: NDArray[np.uint8], found: Detections | Found, truth: Truth | None = None) -> Image.Image:
    """Draw detections on a copy of an image, and optionally the ground truth.

    Args:
        image: [h, w, 3] RGB. It is not changed.
        found: detections of this image, or boxes, names and scores.
        truth: boxes and names of the objects; drawn dashed, below the detections.
    Returns:
        A new image of the same size. Labels are inside it and do not overlap if there is room.
    Raises:
        UserError: an array that is not an RGB image of uint8.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UserError(f"draw: an array {image.shape} of {image.dtype}; expected [h, w, 3] of uint8, RGB")
    known: tuple[str, ...] = ()
    if isinstance(found, Detections):
        known = found.class_names
        found = found.boxes, found.names, found.scores.tolist()
    boxes, names, scores = np.asarray(found[0]).reshape(-1, 4), found[1], found[2]
    sheet = _Sheet(image)
    objects = [] if truth is None else list(zip(np.asarray(truth[0]).reshape(-1, 4), truth[1], strict=True))
    for box, _ in objects:
        sheet.dashed(box)
    order = np.argsort(scores, kind="stable")  # the best is drawn last, on top
    for n in order:
        sheet.solid(boxes[n], class_colour(names[n], known))
    for n in order[::-1]:
        sheet.note(boxes[n], names[n], class_colour(names[n], known), f" {scores[n]:.2f}")
    for box, name in objects:
        sheet.note(box, name, BLACK, below=True)
    return sheet.finished()


def draw_labels(image: NDArray[np.uint8], boxes: NDArray[np.floating], names: Sequence[str],
                class_names: Sequence[str] = ()) -> Image.Image:  # fmt: skip
    """Draw labelled objects on a copy of an image [h, w, 3]: a box in the colour of its class and the class name.

    boxes: [N, 4] xyxy image pixels; names: [N]; class_names: those of the data set, for the colours.
    """
    sheet = _Sheet(image)
    order = np.argsort(-(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), kind="stable")  # small boxes on top
    for n in order:
        sheet.solid(boxes[n], class_colour(names[n], class_names))
    for n in order[::-1]:
        sheet.note(boxes[n], names[n], class_colour(names[n], class_names))
    return sheet.finished()


def class_colour(name: str, class_names: Sequence[str] = ()) -> Colour:
    """Return RGB (0..255) of a class, the same on every image: from its index in class_names, else from its name."""
    place = class_names.index(name) if name in class_names else zlib.crc32(name.encode())
    hue = place * GOLDEN_ANGLE % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, *TONES[place % len(TONES)])
    return round(red * 255), round(green * 255), round(blue * 255)


@dataclass(frozen=True)
class _Tag:
    place: Rectangle
    text: str
    font: str | None
    """File of the font; None: Pillow's own."""
    fill: Colour


class _Sheet:
    """An image to draw on: boxes at once, labels at the end, above all boxes."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.image = Image.fromarray(image)  # a copy
        self.pen = ImageDraw.Draw(self.image)
        short = min(self.image.size)
        self.line = max(1, round(short / 200))
        self.margin = max(1, self.line)
        self.letters = max(9, round(short / 30))  # px
        self.tags: list[_Tag] = []

    def corners(self, box: NDArray[np.floating]) -> Rectangle:
        """Return the first and last pixel of a box, inside the image."""
        width, height = self.image.size
        x1, y1, x2, y2 = (float(v) for v in np.clip(box, 0, (width, height, width, height)))
        left, top = min(int(x1), width - 1), min(int(y1), height - 1)
        return left, top, max(left, round(x2) - 1), max(top, round(y2) - 1)

    def solid(self, box: NDArray[np.floating], colour: Colour) -> None:
        """Draw a solid box."""
        self.pen.rectangle(self.corners(box), outline=colour, width=self.line)

    def dashed(self, box: NDArray[np.floating]) -> None:
        """Draw a box of black and white dashes."""
        left, top, right, bottom = self.corners(box)
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

    def note(self, box: NDArray[np.floating], name: str, fill: Colour, score: str = "", below: bool = False) -> None:
        """Place the label of a box at its upper or lower edge, free of other labels if possible."""
        width, height = self.image.size
        text, file = lettering(name)
        text += score
        while len(text) > 1 and self.extent(text, file)[0] > width:
            text = text[:-1]
        wide, high = self.extent(text, file)
        left, top, right, bottom = self.corners(box)
        above, under = [top - high, top], [bottom + 1 - high, bottom + 1]
        edges = [*under, *above] if below else [*above, *under]
        spots = [(x, y) for y in edges for x in (left, right + 1 - wide)]
        places = [self.inside(x, y, wide, high) for x, y in spots if 0 <= y <= height - high]
        places = places or [self.inside(left, top, wide, high)]
        free = [place for place in places if not any(_overlap(place, tag.place) for tag in self.tags)]
        self.tags.append(_Tag((free or places)[0], text, file, fill))

    def extent(self, text: str, file: str | None) -> tuple[int, int]:
        """Return (width, height) of a label; all labels of a font have the same height. file: of the font."""
        letters = font(file, self.letters)
        high = int(max(letters.getbbox(some)[3] for some in ("\u00c5gjy|", text)))
        return int(self.pen.textlength(text, letters)) + 1 + 2 * self.margin, high + 2

    def inside(self, left: int, top: int, wide: int, high: int) -> Rectangle:
        """Return the label's place moved into the image, clipped if the image is smaller."""
        width, height = self.image.size
        left, top = max(0, min(left, width - wide)), max(0, min(top, height - high))
        return left, top, min(left + wide, width) - 1, min(top + high, height) - 1

    def finished(self) -> Image.Image:
        """Return the image with its labels, the first one on top."""
        for tag in reversed(self.tags):
            self.pen.rectangle(tag.place, fill=tag.fill)
            light = np.dot(tag.fill, (0.299, 0.587, 0.114)) > 130  # luma of ITU-R BT.601
            at = tag.place[0] + self.margin, tag.place[1] + 1
            self.pen.text(at, tag.text, BLACK if light else WHITE, font(tag.font, self.letters))
        return self.image


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]
