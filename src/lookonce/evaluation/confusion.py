"""Which class is taken for which, at one threshold; and whether scores are to be believed.

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
"""Of the calibration, equally wide."""


@dataclass(frozen=True, eq=False)
class Confusion:
    """What objects were taken for, among detections of a score above one threshold."""

    names: tuple[str, ...]  # [C]
    at: OperatingPoint  # of best F1 of all classes together
    iou_threshold: float
    counts: NDArray[np.int64]  # [C + 1, C + 1] row: what is there, or nothing; column: what was found, or nothing


@dataclass(frozen=True, eq=False)
class Calibration:
    """Scores against the share that is right, in bins of equal width over 0..1."""

    edges: NDArray[np.float64]  # [B + 1]
    counts: NDArray[np.int64]  # [B] detections
    score: NDArray[np.float64]  # [B] their mean; nan where there are none
    precision: NDArray[np.float64]  # [B] the share that is right; nan where there are none
    error: float
    """Expected calibration error: the mean of |score - precision| over bins, by their counts."""


def confuse(dataset: Dataset, found: Matched, ignore: NDArray[np.bool_], iou_threshold: float,
            least: float = 0.0) -> Confusion | None:  # fmt: skip
    """The confusion matrix at the threshold of best F1; None: no objects or nothing right was found.

    Right detections stand on the diagonal. Of what is left, detections and objects of different classes go together
    from the highest IoU down to the threshold, each once; a detection left then found nothing that is there (also a
    second one on an object), and an object left was not found. Rows sum to objects, columns to detections.

    Args:
        found: from match(); ignore: [N] objects that need not be found, both as there.
        least: what the scores were cut at.
    """
    many = len(dataset.labels)
    given, objects = ~found.ignored, int((~ignore).sum())
    if not objects or not found.true_positive.any():
        return None
    at = best_point(found.score[given], np.cumsum(found.true_positive[given]), objects, least)
    shown = given & (found.score > at.threshold)
    right = np.flatnonzero(shown & found.true_positive)
    counts = np.zeros((many + 1, many + 1), np.int64)
    np.add.at(counts, (found.label[right], found.label[right]), 1)
    unfound = ~ignore
    unfound[found.object[right]] = False
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
    """Detections and objects of different classes, each of highest IoU for the other."""
    image, label = found.image[wrong], found.label[wrong]
    image_of, class_of = dataset.image_of_box[left], dataset.classes[left]
    boxes, objects = found.boxes[wrong], dataset.boxes[left].astype(np.float64)
    forth, overlap = best_object(objects, image_of, boxes, image, apart=(class_of, label))
    back, _ = best_object(boxes, image, objects, image_of, apart=(label, class_of))
    rows = np.flatnonzero((forth >= 0) & (overlap >= iou_threshold))
    rows = rows[back[forth[rows]] == rows]
    return wrong[rows], left[forth[rows]]


def calibrate(score: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS) -> Calibration | None:
    """Whether scores [D] are the share of right ones; None: no detections, or scores that are no shares, 0..1.

    Source of the error: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 2.
    """
    if not len(score) or score.min() < 0 or score.max() > 1:
        return None
    edges = np.linspace(0, 1, bins + 1)
    place = np.minimum((score * bins).astype(np.int64), bins - 1)  # a bin begins with its lower edge
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, score, bins) / counts
        precision = np.bincount(place, right, bins) / counts
    error = float(np.nansum(np.abs(mean - precision) * counts) / len(score))
    return Calibration(edges, counts, mean, precision, error)
