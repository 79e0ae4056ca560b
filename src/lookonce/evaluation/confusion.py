"""The confusion matrix at one threshold, and the calibration of scores.

Letters: D detections, N objects, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lookonce.data.dataset import Dataset
from lookonce.evaluation.average_precision import OperatingPoint, best_point
from lookonce.evaluation.matching import Matched, best_object

BINS = 10
"""Bins of the calibration, of equal width."""


@dataclass(frozen=True, eq=False)
class Confusion:
    """Predicted class of each object, among detections above one threshold."""

    names: tuple[str, ...]  # [C]
    at: OperatingPoint  # best F1 of all classes together
    iou_threshold: float
    counts: NDArray[np.int64]  # [C + 1, C + 1] row: true class or background; column: predicted class or none


@dataclass(frozen=True, eq=False)
class Calibration:
    """Scores against precision, in bins of equal width over 0..1."""

    edges: NDArray[np.float64]  # [B + 1]
    counts: NDArray[np.int64]  # [B] detections
    score: NDArray[np.float64]  # [B] mean score; nan in an empty bin
    precision: NDArray[np.float64]  # [B] fraction of true positives; nan in an empty bin
    error: float
    """Expected calibration error: mean of |score - precision| over the bins, weighted by their counts."""


def confuse(dataset: Dataset, found: Matched, ignore: NDArray[np.bool_], iou_threshold: float,
            least: float = 0.0) -> Confusion | None:  # fmt: skip
    """Return the confusion matrix at the threshold of best F1; None without objects or true positives.

    True positives are on the diagonal. The remaining detections and objects of different classes are paired from the
    highest IoU down to the threshold, each at most once. A detection without a partner counts as background (also a
    duplicate), an object without one as missed. Rows sum to objects, columns to detections.

    Args:
        found, ignore: as in match().
        least: lowest score that detection kept.
    """
    many = len(dataset.labels)
    counted, objects = ~found.ignored, int((~ignore).sum())
    if not objects or not found.true_positive.any():
        return None
    at = best_point(found.score[counted], np.cumsum(found.true_positive[counted]), objects, least)
    shown = counted & (found.score > at.threshold)
    true_positive = np.flatnonzero(shown & found.true_positive)
    counts = np.zeros((many + 1, many + 1), np.int64)
    np.add.at(counts, (found.label[true_positive], found.label[true_positive]), 1)
    unfound = ~ignore
    unfound[found.object[true_positive]] = False
    wrong, left = np.flatnonzero(shown & ~found.true_positive), np.flatnonzero(unfound)
    while True:
        rows, columns = _pairs(dataset, found, wrong, left, iou_threshold)
        if not len(rows):
            break
        np.add.at(counts, (dataset.classes[columns], found.label[rows]), 1)
        wrong, left = np.setdiff1d(wrong, rows), np.setdiff1d(left, columns)
    counts[many, :many] = np.bincount(found.label[wrong], minlength=many)
    counts[:many, many] = np.bincount(dataset.classes[left], minlength=many)
    return Confusion(dataset.labels, at, iou_threshold, counts)


def _pairs(dataset: Dataset, found: Matched, wrong: NDArray[np.int64], left: NDArray[np.int64],
           iou_threshold: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """Pair detections with objects of other classes, each the one of highest IoU for the other."""
    image, label = found.image[wrong], found.label[wrong]
    image_of, class_of = dataset.image_of_box[left], dataset.classes[left]
    boxes, objects = found.boxes[wrong], dataset.boxes[left].astype(np.float64)
    forth, overlap = best_object(objects, image_of, boxes, image, apart=(class_of, label))
    back, _ = best_object(boxes, image, objects, image_of, apart=(label, class_of))
    rows = np.flatnonzero((forth >= 0) & (overlap >= iou_threshold))
    rows = rows[back[forth[rows]] == rows]
    return wrong[rows], left[forth[rows]]


def calibrate(score: NDArray[np.float64], true_positive: NDArray[np.bool_], bins: int = BINS) -> Calibration | None:
    """Compare scores [D] with precision; None without detections, or if scores are not in 0..1.

    Source of the error: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 2.
    """
    if not len(score) or score.min() < 0 or score.max() > 1:
        return None
    edges = np.linspace(0, 1, bins + 1)
    place = np.minimum((score * bins).astype(np.int64), bins - 1)  # a bin includes its lower edge
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, score, bins) / counts
        precision = np.bincount(place, true_positive, bins) / counts
    error = float(np.nansum(np.abs(mean - precision) * counts) / len(score))
    return Calibration(edges, counts, mean, precision, error)
