"""Tests of lookonce.report.explain_boxes."""

import numpy as np
import pytest
import torch

from lookonce.data.read import read_dataset
from lookonce.inference.detector import Detector
from lookonce.model.detections import Predictions
from lookonce.model.postprocess import Selection
from lookonce.model.resize import boxes_to_image
from lookonce.report.explain_boxes import LOWEST, candidates, objectness_map, predictions_of
from lookonce.report.explain_encoding import example


def test_what_is_kept_is_what_the_detector_finds(run, squares):
    dataset, detector = read_dataset(squares, "test"), Detector(run, "torch")
    for n in range(len(dataset)):
        shown = example(dataset, n, detector.about.input_size, detector.about.resize)
        pixels = (255 * shown.pixels.transpose(1, 2, 0)).round().astype(np.uint8)
        raws, predictions = predictions_of(detector, shown)
        found = candidates(predictions)
        assert found.predictors == 2 * 3 * 3 == raws[0][0, 0].numel() * 2
        for threshold, iou in ((0.05, 0.45), (0.3, 0.2), (0.3, 0.9)):
            kept = found.kept(threshold, iou)
            (expected,) = detector.detect([pixels], Selection(threshold, iou, clip=False))
            boxes = boxes_to_image(found.boxes[kept], shown.size, shown.input_size, detector.about.resize)
            np.testing.assert_allclose(boxes, expected.boxes, atol=0.05)
            np.testing.assert_allclose(found.scores[kept], expected.scores, atol=1e-5)


def test_candidates_are_the_pairs_above_the_lowest_score_best_first():
    boxes = np.array([[[0.0, 0, 10, 10], [0, 0, 10, 10], [np.nan, 0, 1, 1]]])
    found = candidates(Predictions(boxes, np.array([[0.5, 1.0, 1.0]]), np.array([[[0.9, 0.015], [0.2, 0.8], [1, 0]]])))
    assert found.scores.tolist() == pytest.approx([0.8, 0.45, 0.2])
    assert found.labels.tolist() == [1, 0, 0]
    assert found.scores.min() > LOWEST
    assert found.kept(0.1, 0.45).tolist() == [0, 1]  # equal boxes: the second of class 0 is suppressed
    assert found.kept(0.5, 0.45).tolist() == [0]
    assert (found.predictors, found.left_out) == (3, 0)


def test_objectness_is_that_of_each_predictor(run, squares):
    detector = Detector(run, "torch")
    shown = example(read_dataset(squares, "test"), 0, detector.about.input_size, detector.about.resize)
    raws, predictions = predictions_of(detector, shown)
    found = objectness_map(raws[0], detector.about.heads[0])
    torch.testing.assert_close(found.flatten(), torch.from_numpy(predictions.objectness[0]))
