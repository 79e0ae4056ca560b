"""Tests of lookonce.inference.draw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from PIL import Image, features

from lookonce.errors import UserError
from lookonce.inference import draw as module
from lookonce.inference.draw import class_colour, draw, draw_labels, font, lettering
from lookonce.model.detections import Detections

GREY = 128


def grey(width: int, height: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), GREY, np.uint8)


def changed(image: Image.Image) -> NDArray[np.bool_]:
    return (np.asarray(image) != GREY).any(-1)


def filled(image: Image.Image, name: str, class_names: tuple[str, ...] = ()) -> NDArray[np.bool_]:
    """Where a label of a class lies on grey: its colour, 80 % opaque."""
    label = 0.8 * np.array(class_colour(name, class_names)) + 0.2 * GREY
    return (np.abs(np.asarray(image) - label) <= 1).all(-1)


def one(box: list[float], name: str = "cat", score: float = 0.9) -> Detections:
    names = ("dog", "cat", "a class of a very long name that no image has room for")
    return Detections(np.array([box]), np.array([score]), np.array([names.index(name)]), names)


def test_the_image_given_is_not_drawn_on_and_the_new_one_has_its_size() -> None:
    image = grey(300, 200)
    drawn = draw(image, one([50, 50, 150, 150]))
    assert (image == GREY).all()
    assert drawn.size == (300, 200)
    assert changed(drawn).any()


def test_a_frame_lies_on_the_edge_of_its_box_in_the_colour_of_its_class() -> None:
    pixels = np.asarray(draw(grey(300, 200), one([50, 60, 150, 160])))
    colour = list(class_colour("cat", ("dog", "cat")))
    assert pixels[100, 50].tolist() == pixels[100, 149].tolist() == pixels[159, 100].tolist() == colour
    assert pixels[100, 49].tolist() == pixels[100, 150].tolist() == pixels[160, 100].tolist() == [0] * 3  # the halo
    assert pixels[100, 48].tolist() == pixels[100, 151].tolist() == pixels[161, 100].tolist() == [GREY] * 3
    assert pixels[100, 100].tolist() == [GREY] * 3


@pytest.mark.parametrize(
    "box",
    [
        [0, 0, 40, 30],
        [260, 0, 300, 20],
        [0, 170, 30, 200],
        [280, 180, 300, 200],
        [-50, -50, 400, 300],
        [10, 10, 10, 10],
    ],
)
def test_the_tag_has_its_full_size_inside_the_image_wherever_the_box_is(box: list[float]) -> None:
    middle = changed(draw(grey(300, 200), one([100, 80, 160, 120])))
    width_of_tag = int(middle[:79].any(0).sum())  # the tag stands above the frame, wider than nothing else there
    height_of_tag = int(middle[:80].any(1).sum())
    label = filled(draw(grey(300, 200), one(box)), "cat", ("dog", "cat"))
    rows = np.flatnonzero(label.sum(1) >= 0.3 * width_of_tag)
    assert len(rows) >= height_of_tag - 3
    assert label.any(0).sum() >= width_of_tag - 2


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (40, 5), (32, 32)])
def test_an_image_too_small_for_a_tag_is_drawn_without_complaint(size: tuple[int, int]) -> None:
    name = "a class of a very long name that no image has room for"
    image = draw(grey(*size), one([0, 0, *size], name), (np.array([[0, 0, *size]]), [name]))
    assert image.size == size


def test_truth_is_dashed_black_and_white() -> None:
    nothing = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0), ("cat",))
    pixels = np.asarray(draw(grey(400, 400), nothing, (np.array([[100, 100, 300, 300]]), ["cat"])))
    edge = pixels[100, 100:300]
    assert {tuple(p) for p in edge.tolist()} == {(0, 0, 0), (255, 255, 255)}
    steps = np.flatnonzero(np.diff(edge[:, 0].astype(int)))
    assert len(set(np.diff(steps).tolist())) == 1
    assert len(steps) > 10


def test_lines_grow_with_the_image() -> None:
    def thickness(side: int) -> int:
        pixels = changed(draw(grey(side, side), one([0.25 * side, 0.25 * side, 0.75 * side, 0.75 * side])))
        return int(pixels[side // 2, : side // 2].sum())

    assert thickness(100) == 1 + 1  # and the halo
    assert thickness(1000) == 5 + 1


def test_boxes_names_and_scores_draw_as_detections_do() -> None:
    loose = (np.array([[50, 50, 150, 150]]), ["cat"], [0.9])
    ours = draw(grey(300, 200), one([50, 50, 150, 150]))
    assert np.array_equal(changed(draw(grey(300, 200), loose)), changed(ours))


def test_labels_of_two_boxes_at_one_place_do_not_hide_each_other() -> None:
    boxes, names, scores = np.array([[100, 80, 200, 160]] * 2), ["cat", "dog"], [0.9, 0.8]
    both = draw(grey(300, 200), (boxes, names, scores))
    for n, name in enumerate(names):
        alone = draw(grey(300, 200), (boxes[n:][:1], [name], [scores[n]]))
        assert filled(both, name).sum() >= 0.9 * filled(alone, name).sum() > 100


CROWD = np.array([[x, y, x + 12, y + 12] for x in range(20, 270, 16) for y in range(40, 170, 16)], float)


def test_in_a_crowd_no_label_hides_an_object() -> None:
    names = ["platelets"] * len(CROWD)
    pixels = np.asarray(draw(grey(300, 200), (CROWD, names, [0.5] * len(CROWD))))
    inside = [pixels[int(y) + 2 : int(y) + 10, int(x) + 2 : int(x) + 10] for x, y, *_ in CROWD]
    assert min((part == GREY).all(-1).mean() for part in inside) > 0.65


def test_a_class_without_room_for_its_labels_stands_in_a_legend() -> None:
    crowded = draw(grey(300, 200), (CROWD, ["platelets"] * len(CROWD), [0.5] * len(CROWD)))
    corners = [filled(crowded, "platelets")[rows, columns].sum()
               for rows in (slice(0, 25), slice(175, 200)) for columns in (slice(0, 60), slice(240, 300))]  # fmt: skip
    assert max(corners) > 200


def test_options_hide_labels_or_scores_and_set_the_width_of_lines() -> None:
    def label(**options: bool) -> int:
        return int(filled(draw(grey(300, 200), one([100, 80, 200, 160]), **options), "cat", ("dog", "cat")).sum())

    assert label() > label(hide_scores=True) > label(hide_labels=True) == 0
    thick = np.asarray(draw(grey(300, 200), one([100, 80, 200, 160]), line_width=7))
    assert (thick[120, 100:107] == class_colour("cat", ("dog", "cat"))).all()
    assert (thick[120, 107] == GREY).all()
    with pytest.raises(UserError, match="line-width: 0; expected 1 to 100"):
        draw(grey(300, 200), one([100, 80, 200, 160]), line_width=0)


def test_a_file_is_drawn_upright(tmp_path: Path) -> None:
    turned = Image.fromarray(grey(40, 20)).getexif()
    turned[274] = 6
    Image.fromarray(grey(40, 20)).save(tmp_path / "a.png", exif=turned)
    assert draw(tmp_path / "a.png", one([0, 0, 10, 10])).size == (20, 40)


def test_twenty_classes_have_twenty_colours_the_same_on_every_image() -> None:
    names = tuple(map(str, range(20)))
    colours = [class_colour(name, names) for name in names]
    assert colours == [class_colour(name, names) for name in names]
    gaps = [np.abs(np.subtract(a, b)).sum() for k, a in enumerate(colours) for b in colours[:k]]
    assert min(gaps) > 40


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_what_is_no_image_is_an_error(bad: NDArray[np.uint8]) -> None:
    with pytest.raises(UserError, match=r"an image is a path"):
        draw(bad, one([0, 0, 2, 2]))


def test_labels_are_framed_in_the_colour_of_their_class():
    image = np.full((100, 120, 3), 128, np.uint8)
    drawn = np.asarray(draw_labels(image, np.array([[10, 20, 60, 90.0]]), ["b"], ("a", "b")))
    assert (drawn[60, 10] == class_colour("b", ("a", "b"))).all()
    assert (drawn[89, 40] == class_colour("b", ("a", "b"))).all()
    assert (image == 128).all()
    assert draw_labels(image, np.zeros((0, 4)), []).size == (120, 100)


JOINED = features.check("raqm") and features.check("fribidi")


@pytest.fixture
def fonts(monkeypatch):
    """Sets the fonts that this computer has, beside DejaVu Sans."""

    def only(*files):
        entries = [SimpleNamespace(fname=str(f), name=Path(f).stem, style="normal", weight=400) for f in files]
        monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
        module._warned.clear()
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


def test_a_very_long_name_is_cut_and_stays_apart_from_others():
    texts = [lettering("\u732b" * 2000 + ending)[0] for ending in "ab"]
    assert texts[0] != texts[1]
    assert max(len(lettering("x" * 20_000 + ending)[0]) for ending in "ab") == 200


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


def test_the_numbers_of_tracked_objects_are_drawn():
    image = np.full((120, 160, 3), 200, np.uint8)
    plain = Detections([[20, 40, 120, 100]], [0.9], [0], ("cat",))
    assert np.array_equal(draw(image, plain), draw(image, replace(plain, ids=np.array([-1]))))
    assert not np.array_equal(draw(image, plain), draw(image, replace(plain, ids=np.array([7]))))
