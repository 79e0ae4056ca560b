"""Tests of lookonce.model.detections."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lookonce.errors import UserError
from lookonce.inference.draw import draw
from lookonce.model.detections import Detection, Detections

NAMES = ("cat", "dog", "bird")


def three() -> Detections:
    boxes = np.array([[0, 0, 10, 10], [5, 5, 20.126, 20], [1, 2, 3, 4]])
    return Detections(boxes, np.array([0.25, 0.9, 0.5]), np.array([2, 0, 0]), NAMES)


def test_detections_stand_by_descending_score() -> None:
    one = three()
    assert one.scores.tolist() == [np.float32(0.9), 0.5, 0.25]
    assert one.names == ("cat", "cat", "bird")
    assert one.boxes[1].tolist() == [1, 2, 3, 4]
    assert (one.boxes.dtype, one.scores.dtype, one.labels.dtype) == (np.float32, np.float32, np.int64)


def test_equal_scores_keep_their_order() -> None:
    one = Detections(np.zeros((3, 4)), np.array([0.5, 0.7, 0.5]), np.array([2, 1, 0]), NAMES)
    assert one.labels.tolist() == [1, 2, 0]


def test_arrays_given_are_left_as_they_were() -> None:
    boxes, scores = np.arange(8, dtype=np.float32).reshape(2, 4), np.array([0.1, 0.2], np.float32)
    Detections(boxes, scores, np.array([0, 1]), NAMES)
    assert boxes[0].tolist() == [0, 1, 2, 3]
    assert scores.tolist() == pytest.approx([0.1, 0.2])


def test_above_asks_each_class_for_its_own_threshold() -> None:
    assert three().above([0.5, 0.0, 0.2]).names == ("cat", "bird")  # a score of just the threshold is not above
    assert three().above(0.4).names == ("cat", "cat")
    with pytest.raises(UserError, match="expected one, or one for each of the 3 classes"):
        three().above([0.1, 0.2])


def test_of_classes_keeps_names_and_changes_numbers() -> None:
    one = three().of_classes(("bird", "dog"))
    assert (one.names, one.labels.tolist(), one.class_names) == (("bird",), [0], ("bird", "dog"))
    with pytest.raises(UserError, match="'cow'; expected one of the detector's: cat, dog, bird"):
        three().of_classes(("cow",))


def test_json_has_the_name_and_rounded_numbers() -> None:
    rows = three().to_json()
    assert rows[0] == {"label": "cat", "class_id": 0, "score": 0.9, "box": [5.0, 5.0, 20.13, 20.0]}
    assert json.loads(json.dumps(rows)) == rows


def test_nothing_found_is_an_empty_list() -> None:
    one = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0), NAMES)
    assert (len(one), one.to_json(), one.names, len(one.above([0.1] * 3))) == (0, [], (), 0)
    assert Detections(np.array([]), np.array([]), np.array([]), ()).boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("boxes", "scores", "labels", "said"),
    [
        (np.zeros((2, 4)), [0.5], [0, 1], "one score"),
        (np.zeros((1, 4)), [float("nan")], [0], "not a finite number"),
        (np.full((1, 4), np.inf), [0.5], [0], "not a finite number"),
        (np.zeros((1, 4)), [0.5], [3], "expected 0 to 2"),
        (np.zeros((1, 4)), [0.5], [-1], "expected 0 to 2"),
    ],
)
def test_what_is_no_detection_is_an_error(boxes: np.ndarray, scores: list[float], labels: list[int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Detections(boxes, np.array(scores), np.array(labels), NAMES)


def test_supervision_that_is_not_installed_is_an_error_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match="pip install supervision"):
        three().to_supervision()


@pytest.mark.skipif(importlib.util.find_spec("supervision") is None, reason="the package supervision is not installed")
def test_supervision_gets_the_same_numbers() -> None:
    one, other = three(), three().to_supervision()
    assert np.array_equal(other.xyxy, one.boxes)
    assert np.array_equal(other.class_id, one.labels)
    assert other.data["class_name"].tolist() == list(one.names)


def test_detections_are_indexed_sliced_masked_and_iterated() -> None:
    one = three()
    assert one[1] == Detection("cat", 0.5, (1.0, 2.0, 3.0, 4.0), 0)
    assert one[-1].name == "bird"
    assert [name for name, *_ in one] == ["cat", "cat", "bird"]
    assert one[:2].names == one[one.labels == 0].names == one[[0, 1]].names == ("cat", "cat")
    assert len(one[[]]) == len(one[5:]) == 0
    with pytest.raises(IndexError, match="detection 3 of 3"):
        one[3]


def test_ids_follow_their_detections_through_sorting_selecting_and_saving() -> None:
    one = replace(three(), boxes=np.zeros((3, 4)), scores=np.array([0.25, 0.9, 0.5]), ids=np.array([7, -1, 3]))
    assert one.ids.tolist() == [-1, 3, 7]
    assert [each.id for each in one] == [None, 3, 7]
    assert one[1:].ids.tolist() == one[one.scores < 0.6].ids.tolist() == [3, 7]
    assert [entry["id"] for entry in one.to_json()] == [None, 3, 7]
    assert one.of_classes(("bird",)).ids.tolist() == one.only("bird").ids.tolist() == [3]
    assert "id" not in three().to_json()[0]


def test_only_keeps_the_numbers_of_classes() -> None:
    assert three().only("Bird").labels.tolist() == three().only(["bird", "dog"]).labels.tolist() == [2]
    with pytest.raises(UserError, match=r"labels: 'birds'; expected one of cat, dog, bird; did you mean 'bird'\?"):
        three().only(["birds"])


def test_one_line_shows_classes_and_their_best_scores() -> None:
    assert repr(three()) == "Detections(3: 2x 'cat' .90 .50, 1x 'bird' .25)"
    assert repr(three()[:0]) == "Detections(0)"
    many = Detections(np.zeros((9, 4)), np.full(9, 1.0), np.zeros(9), ("a\nb",))
    assert repr(many) == r"Detections(9: 9x 'a\\nb' 1.00 1.00 1.00 ...)"


def test_notebooks_show_a_table_of_the_best() -> None:
    many = Detections(np.zeros((25, 4)), np.linspace(0, 1, 25), np.zeros(25), ("<b>",))
    page = many._repr_html_()
    assert page.count("<tr>") == 1 + 20
    assert "&lt;b&gt;" in page
    assert "and 5 more" in page


def test_draw_save_and_crops_take_the_image_or_the_file_they_know(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    one = three()
    known = Detections(one.boxes, one.scores, one.labels, NAMES, str(tmp_path / "a.png"))
    expected = np.asarray(draw(pixels, one))
    for drawn in (one.draw(pixels), one.draw(tmp_path / "a.png"), known.draw(), known[:].above(0).draw()):
        assert np.array_equal(np.asarray(drawn), expected)
    assert known.save(tmp_path / "drawn.png") == tmp_path / "drawn.png"
    assert np.array_equal(np.asarray(Image.open(tmp_path / "drawn.png")), expected)
    assert np.array_equal(np.asarray(one.crops(pixels)[1]), pixels[2:4, 1:3])
    assert [crop.size for crop in known.crops()] == [(15, 15), (2, 2), (10, 10)]
    with pytest.raises(UserError, match="know no image file; give the image"):
        one.draw()
    with pytest.raises(UserError, match="names no image format"):
        known.save(tmp_path / "drawn.nothing")


def test_a_box_beside_the_image_has_a_crop_of_a_pixel() -> None:
    one = Detections([[50, 50, 60, 60], [3, 3, 3, 3]], [1, 0.5], [0, 0], ("a",))  # type: ignore[arg-type]
    assert [crop.size for crop in one.crops(np.zeros((20, 20, 3), np.uint8))] == [(1, 1), (1, 1)]


def test_coco_counts_classes_from_1_and_gives_width_and_height() -> None:
    entry = {"image_id": 7, "category_id": 1, "bbox": [1.0, 2.0, 2.0, 2.0], "score": 0.5}
    assert three().to_coco(image_id=7)[1] == entry


def test_pandas_gets_a_row_a_detection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=lambda rows, columns: (rows, columns)))
    rows, columns = three().to_pandas()
    assert dict(zip(columns, rows[1])) == {"label": "cat", "class_id": 0, "score": 0.5, "xmin": 1.0, "ymin": 2.0,
                                           "xmax": 3.0, "ymax": 4.0}  # fmt: skip
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pip install pandas"):
        three().to_pandas()
