"""Mirrors src/lookonce/view/lettering.py."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import features

from lookonce.inference import draw as module
from lookonce.inference.draw import draw, draw_labels, font, lettering

JOINED = features.check("raqm") and features.check("fribidi")


@pytest.fixture
def fonts(monkeypatch):
    """Sets the fonts that this computer has, beside DejaVu Sans."""

    def only(*files):
        entries = [SimpleNamespace(fname=str(f), name=Path(f).stem, style="normal", weight=400) for f in files]
        monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
        module._told.clear()
        for cached in (module._fonts, module.lettering):
            cached.cache_clear()

    only()
    yield only
    monkeypatch.undo()
    for cached in (module._fonts, module.lettering):
        cached.cache_clear()


@pytest.mark.parametrize("name", ["cat", "$a$", "a_b^c", "\\frac", "<b>", "&amp;"])
def test_latin_names_are_drawn_in_pillows_own_font(fonts, name):
    assert lettering(name) == (name, None)


@pytest.mark.parametrize("name", ["кот", "γάτα", "na\u00efve", "Ə", "կատու",
                                  *(["قطة", "חתול"] if JOINED else [])])  # fmt: skip
def test_names_of_many_scripts_are_drawn_as_they_are(fonts, name):
    text, file = lettering(name)
    assert text == name
    assert Path(file).name == "DejaVuSans.ttf"
    assert {ord(letter) for letter in name} <= set(FT2Font(file).get_charmap())


@pytest.mark.parametrize("name, drawn", [("猫", "Mao"), ("ねこ", "neko"), ("кот 猫", "кот Mao"), ("\ue000", "?")])
def test_letters_that_no_font_has_are_transliterated_and_one_line_says_so(fonts, caplog, name, drawn):
    assert lettering(name)[0] == drawn
    lettering("犬")
    assert len(caplog.messages) == 1
    assert f"is drawn as {drawn!r}; install a font" in caplog.messages[0]


def test_arabic_is_transliterated_where_letters_cannot_be_joined(fonts, monkeypatch):
    monkeypatch.setattr("PIL.features.check", lambda _: False)
    assert lettering("قطة")[0].isascii()


def test_a_font_of_this_computer_that_has_the_letters_is_taken(fonts):
    own = module._dejavu()[1]
    stix = next(Path(e.fname) for e in font_manager.FontManager().ttflist if e.name == "STIXGeneral")
    letter = next(chr(code) for code in sorted(module._letters(str(stix)) - own) if chr(code).isalpha())
    assert lettering(letter)[0] != letter or lettering(letter)[1] != str(stix)
    fonts("missing.ttf", stix)
    assert lettering(letter) == (letter, str(stix))
    assert lettering(letter, own=True)[0] != letter


def test_a_font_with_boxes_for_letters_is_never_taken(fonts):
    boxes = [e.fname for e in font_manager.FontManager().ttflist if e.name.startswith("Last Resort")]
    fonts(*boxes)
    assert lettering("猫")[0] == "Mao"


def test_names_cannot_break_lines_or_send_escape_sequences(fonts):
    assert lettering("a\nb\x1b[1m\u202e") == (r"a\nb\x1b[1m\u202e", None)


@pytest.mark.parametrize("name", ["кот", "猫", "قطة", "a\nb", "$a$ \\frac", "\U0001f408", "x" * 400])
def test_every_name_is_drawn_without_boxes_in_place_of_letters(fonts, name):
    text, file = lettering(name)
    if file is not None:
        shapes = [font(file, 40).getmask(letter).getbbox() for letter in text if letter.isalnum()]
        unknown = bytes(font(file, 40).getmask("\U0010fffe"))
        assert all(shapes)
        assert not any(bytes(font(file, 40).getmask(letter)) == unknown for letter in text if letter.isalnum())
    image, box = np.full((90, 120, 3), 99, np.uint8), np.array([[5.0, 30, 100, 80]])
    for drawn in (draw_labels(image, box, [name]), draw(image, (box, [name], [0.5]), (box, [name]))):
        assert drawn.size == (120, 90)
