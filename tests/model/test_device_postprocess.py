"""Tests of lookonce.model.device_postprocess, on the CPU. Oracle: postprocess.py, image by image with numpy."""

import numpy as np
import pytest
import torch

from lookonce.model import device_postprocess
from lookonce.model import postprocess as postprocess_module
from lookonce.model.detections import Predictions
from lookonce.model.device_postprocess import PAIRS, survivors_of
from lookonce.model.postprocess import DIOU_EXPONENT, Selection, postprocess

LABELS = ("a", "b", "c")
SIZES = [(640, 480), (97, 211), (416, 416), (1000, 30)]


def drawn(seed=0, count=300, images=4, classes=3):
    """Predictions in clusters, so that suppression has work, with equal scores and numbers that are not finite."""
    draw = torch.Generator().manual_seed(seed)
    centre = (torch.rand(images, 12, 2, generator=draw) * 416).repeat_interleave(-(-count // 12), 1)[:, :count]
    centre = centre + torch.randn(images, count, 2, generator=draw) * 8
    side = 20 + torch.rand(images, count, 2, generator=draw) * 60
    boxes = torch.cat((centre - side / 2, centre + side / 2), -1)
    objectness = torch.rand(images, count, generator=draw)
    class_prob = torch.rand(images, count, classes, generator=draw).softmax(-1)
    objectness[:, ::7], class_prob[:, ::7] = 0.75, 1 / classes
    boxes[0, 3, 1], objectness[1, 5], class_prob[2, 8, 0] = np.nan, np.inf, np.nan
    return Predictions(boxes, objectness, class_prob)


def on_device(predictions, sizes, mode, selection, monkeypatch):
    """postprocess, as for tensors of a GPU."""
    monkeypatch.setattr(postprocess_module, "is_on_gpu", lambda _: True)
    found = postprocess(predictions, sizes, (416, 416), mode, LABELS, selection)
    monkeypatch.undo()
    return found


@pytest.mark.parametrize("mode", ["letterbox", "stretch", "letterbox_antialias"])
@pytest.mark.parametrize("selection", [
    Selection(0.05), Selection(0.3), Selection(0), Selection(1.0), Selection(0.1, 0.2),
    Selection(0.05, 0.45, DIOU_EXPONENT), Selection(0.05, max_candidates=40), Selection(0.05, max_detections=7),
    Selection(0.05, clip=False),
])  # fmt: skip
def test_a_batch_on_a_device_gives_the_detections_of_numpy(mode, selection, monkeypatch):
    predictions = drawn()
    expected = postprocess(predictions, SIZES, (416, 416), mode, LABELS, selection)
    found = on_device(predictions, SIZES, mode, selection, monkeypatch)
    assert [len(one) for one in found] == [len(one) for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.labels.tolist() == other.labels.tolist()
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3, rtol=1e-5)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)
        assert one.class_names == LABELS


def test_images_are_compared_a_few_at_a_time_where_they_have_many_candidates(monkeypatch):
    predictions, given = drawn(1, images=5), [(300, 200)] * 5
    whole = survivors_of(predictions, given, (416, 416), "stretch", Selection(0.05))
    monkeypatch.setattr(device_postprocess, "PAIRS", 1)
    alone = survivors_of(predictions, given, (416, 416), "stretch", Selection(0.05))
    assert PAIRS > 3000**2
    for one, other in zip(whole, alone, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("images, count", [(0, 5), (2, 0), (2, 5)])
def test_nothing_gives_nothing(images, count, monkeypatch):
    predictions = Predictions(torch.zeros(images, count, 4), torch.zeros(images, count), torch.zeros(images, count, 3))
    found = on_device(predictions, [(9, 9)] * images, "stretch", Selection(0.1), monkeypatch)
    assert [len(one) for one in found] == [0] * images


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_gpu_gives_the_detections_of_the_cpu():
    predictions = drawn()
    there = Predictions(*(t.cuda() for t in (predictions.boxes, predictions.objectness, predictions.class_prob)))
    for selection in (Selection(0.05), Selection(0.005, max_candidates=3000)):
        expected = postprocess(predictions, SIZES, (416, 416), "letterbox", LABELS, selection)
        found = postprocess(there, SIZES, (416, 416), "letterbox", LABELS, selection)
        for one, other in zip(found, expected, strict=True):
            assert one.labels.tolist() == other.labels.tolist()
            np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3, rtol=1e-5)
