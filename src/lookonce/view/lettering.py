"""Letters of class names on images: a font that has them, or else the same name in Latin letters.

Pillow's own font has Latin letters. DejaVu Sans, which comes with matplotlib, adds Cyrillic, Greek, Arabic and others;
what it lacks (Chinese, Japanese, Korean, ...) is looked for in the fonts of this computer.
"""

from __future__ import annotations

import logging
import unicodedata
from functools import lru_cache
from pathlib import Path

from anyascii import anyascii
from PIL import ImageFont, features

from lookonce.errors import printable

log = logging.getLogger("lookonce")

NO_LETTERS = ("Last", "Adobe Blank", "AdobeBlank", "cm", "STIXNon", "STIXSize")
"""Names that begin so are of fonts with a box in place of every letter, or with signs of mathematics alone."""

_told: set[str] = set()


@lru_cache(maxsize=4096)
def lettering(name: str, own: bool = False) -> tuple[str, str | None]:
    """(what to draw for a name, the file of the font that has all of it; None: Pillow's own font).

    Where no font has the letters, those that are missing are transliterated, and a line says so once.
    own: take DejaVu Sans alone, as plots do.
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
    """A letter in Latin ones; marks above others may have none."""
    return anyascii(letter) or ("" if unicodedata.category(letter)[0] == "M" else "?")


@lru_cache(maxsize=64)
def font(file: str | None, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font by its file, at a size in pixels; None: Pillow's own."""
    return ImageFont.load_default(size=size) if file is None else ImageFont.truetype(file, size)


def _can_be_drawn(text: str) -> bool:
    """Whether Pillow can join and order letters as scripts such as Arabic and Devanagari need it, or need not."""
    joined = any(unicodedata.bidirectional(c) in ("R", "AL", "AN") or unicodedata.category(c)[0] == "M" for c in text)
    return not joined or bool(features.check("raqm") and features.check("fribidi"))


@lru_cache(maxsize=1)
def _dejavu() -> tuple[str, frozenset[int]]:
    import matplotlib

    file = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    return file, _letters(file)


@lru_cache(maxsize=1)
def _fonts() -> tuple[tuple[str, frozenset[int]], ...]:
    """(file, its letters) of DejaVu Sans, then of each font of this computer that has letters which none before has."""
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
    """Code points that a font has; none, where Pillow cannot draw with it, as with bitmaps of emoji."""
    from matplotlib.ft2font import FT2Font

    try:
        ImageFont.truetype(file, 20)
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()
