"""Tests of lookonce.server.answers."""

import json

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
from lookonce.model.detections import Detections
from lookonce.server.answers import exact
from lookonce.server.client import from_json


def test_every_digit_survives_json():
    draw = np.random.default_rng(0)
    boxes = (draw.random((200, 4)) * 10.0 ** draw.integers(-6, 5, (200, 4))).astype(np.float32)
    scores = draw.random(200).astype(np.float32)
    found = Detections(boxes, scores, draw.integers(0, 3, 200), ("a", "b", "c"))
    again = from_json(json.loads(json.dumps(exact(found))), found.class_names)
    np.testing.assert_array_equal(again.boxes, found.boxes)
    np.testing.assert_array_equal(again.scores, found.scores)
    np.testing.assert_array_equal(again.labels, found.labels)
    assert again.backed_off is None


def test_classes_that_were_backed_off_from_survive_too():
    found = Detections([[0, 0, 1, 1]] * 2, [0.9, 0.8], [0, 1], ("animal", "cat"), backed_off=[1, -1])
    again = from_json(exact(found), found.class_names)
    assert again.backed_off.tolist() == [1, -1]
