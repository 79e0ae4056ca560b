"""Tests of lookonce.tutorial, and of the notebooks in docs/tutorial: they run, and their exercises judge answers."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from notebooks import read_notebook, run_cell, run_notebook
from PIL import Image

import lookonce.tutorial
from lookonce.model.boxes import shape_iou
from lookonce.model.sizes import heads_of
from lookonce.tutorial import check, lines_of, own_or_digits, small_network, write_animation

FILES = sorted((Path(__file__).parents[1] / "docs" / "tutorial").glob("*.py"))
ANSWERS = {
    "1-anchors": (
        "(w, h), (v, g) = wh[0], found.wh[0]\nboth = min(w, v) * min(h, g)\nanswer_1 = both / (w * h + v * g - both)",
        "shapes = [(2 * w, 2 * h) if n == 0 else (w, h) for n, (w, h) in enumerate(found.wh)]\n"
        "answer_2 = sum(max(min(w, v) * min(h, g) / (w * h + v * g - min(w, v) * min(h, g)) for v, g in shapes)"
        " for w, h in wh) / len(wh)",
    ),
    "2-encoding": ("answer_1 = 1", "answer_2 = (two_anchors[0], (2 * w / STRIDE, h / STRIDE / 2))"),
    "3-loss": (
        "answer_1 = 35",
        "import math\nvalues = zip(objectness.flatten().tolist(), is_background.flatten().tolist())\n"
        "answer_2 = sum((1 / (1 + math.exp(-t))) ** 2 for t, counts in values if counts) / 2",
    ),
    "4-training": ("answer_1 = 16 * 3 * 9 + 4 * 16", "answer_2 = 3"),
    "5-inference": (
        "def my_iou(a, b):\n"
        "    wide = max(0, min(a[2], b[2]) - max(a[0], b[0]))\n"
        "    both = wide * max(0, min(a[3], b[3]) - max(a[1], b[1]))\n"
        "    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)",
        "left = []\nfor box, score, label in zip(found.boxes, found.scores, found.labels):\n"
        "    if score > .1 and all(k != label or my_iou(box, other) <= .3 for other, k in left):\n"
        "        left.append((box, label))\nanswer_2 = len(left)",
    ),
    "6-evaluation": ("answer_1 = 0.75, 0.6", "answer_2 = 5 / 6"),
    "7-video": ("answer_1 = 1", "answer_2 = 0.04"),
}  # fmt: skip
"""Right answers to the exercises, worked out apart from the notebooks."""


@pytest.fixture(scope="module")
def values(squares, run):
    return {"DATA": str(squares), "RUN": str(run), "SIZE": 96, "EPOCHS": 1, "STEPS": 3}


def test_every_notebook_is_tested():
    assert [file.stem for file in FILES] == list(ANSWERS)
    assert all(f"]({after.name})" in file.read_text(encoding="utf-8") for file, after in pairwise(FILES))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_notebook_runs_in_an_empty_folder_and_judges_its_exercises(file, values, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = read_notebook(file)
    own = {name: value for name, value in values.items() if any(f"\n{name} = " in f"\n{c.text}" for c in cells[:3])}
    exercises = [cell for cell in cells if "exercise" in cell.tags]
    unanswered = [cell.text for cell in exercises]
    for cell, answer in zip(exercises, ANSWERS[file.stem], strict=True):
        cell.text = answer
    namespace = run_notebook(cells, file.stem, own)
    checks = [cell for cell in cells if "check" in cell.tags]
    assert [cell.shown for cell in checks] == [[("text", "✓ Right.")]] * 2
    for exercise, check_cell, text in zip(exercises, checks, unanswered, strict=True):
        run_cell(type(exercise)("code", (), text), namespace, file.stem)
        run_cell(check_cell, namespace, file.stem)
        assert check_cell.shown[-1][1].startswith("No answer yet")
        wrong = text.replace("None", "((7.0, 7.0), (3.0, 3.0))" if "2-enc" in file.stem and "_2" in text else "7.25")
        run_cell(type(exercise)("code", (), wrong), namespace, file.stem)
        run_cell(check_cell, namespace, file.stem)
        assert check_cell.shown[-1][1].startswith("✗ Not yet: ")
    assert any(kind == "html" for cell in cells for kind, _ in cell.shown)
    assert any("**What you should see:**" in cell.text for cell in cells)


def test_numbers_are_compared_to_three_digits_and_text_without_case():
    assert check(0.3333, 1 / 3, "").right
    assert not check(0.34, 1 / 3, "").right
    assert check([1, 2], (1.0, 2.0), "").right
    assert not check([1], (1, 2), "").right
    assert check("RBC ", "rbc", "").right
    assert not check("two", 2, "count them").right
    assert repr(check(3, 2, "count them")) == "✗ Not yet: count them"
    assert check(None, 2, "").right is None


def test_the_lines_beside_a_formula_are_those_of_the_source():
    text = lines_of(shape_iou, "inter =", "return")
    assert text.splitlines()[0] == "# lookonce/model/boxes.py, shape_iou"
    assert len(text.splitlines()) >= 3
    with pytest.raises(LookupError, match="no line contains 'no such code'"):
        lines_of(shape_iou, "no such code")


def test_the_small_network_has_a_stride_of_16():
    (head,) = heads_of(small_network(10, ((1.0, 1.0),)))
    assert head.stride == 16


def test_without_data_there_are_digits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lookonce.tutorial, "PAGES", (2, 1, 1))
    assert own_or_digits("").resolve() == (tmp_path / "digits").resolve()
    assert len(list((tmp_path / "digits" / "JPEGImages").iterdir())) == 4
    assert own_or_digits("~/cells") == Path("~/cells").expanduser()


def test_an_animation_has_the_frames_and_times_that_it_was_given(tmp_path):
    frames = [Image.fromarray(np.full((8, 8, 3), 80 * n, np.uint8)) for n in range(3)]
    shown = write_animation(frames, tmp_path / "a.gif", [100, 60, 140])
    with Image.open(tmp_path / "a.gif") as film:
        durations = []
        for n in range(film.n_frames):
            film.seek(n)
            durations.append(film.info["duration"])
    assert durations == [100, 60, 140]
    assert "data:image/gif" in shown.html
