"""Tests of lookonce.model.detections."""

from __future__ import annotations

import importlib.util
import json
import sys

import numpy as np
import pytest

from lookonce.errors import UserError
from lookonce.model.detections import Detections

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
    assert rows[0] == {"label": "cat", "score": 0.9, "box": [5.0, 5.0, 20.13, 20.0]}
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
