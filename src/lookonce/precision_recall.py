"""Precision against recall: the curve, the area under it, the point of best F1.

K detections of one class by descending score, some of them right; all shares 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ApProtocol = Literal["voc2007", "voc2010"]
"""How precision becomes AP: the mean over 11 recalls, or the area under the curve."""


@dataclass(frozen=True)
class OperatingPoint:
    """The threshold of best F1 on the scored pictures, and what it gives there."""

    threshold: float  # detections with a greater score count; half-way to the next lower score
    f1: float
    precision: float
    recall: float


def pr_points(score: NDArray[np.float64], right: NDArray[np.bool_], objects: int) -> NDArray[np.float64]:
    """[K, 3] score, recall, precision after each detection. Recall is 0 without objects."""
    tp = np.cumsum(right)
    return np.stack((score, tp / max(objects, 1), tp / np.arange(1, len(right) + 1)), 1)


def average_precision(
    recall: NDArray[np.float64], precision: NDArray[np.float64], protocol: ApProtocol
) -> NDArray[np.float64]:
    """AP of curves: recall [..., K] rising, precision [..., K], to [...]; no points: 0.

    The recalls of voc2007 are the floats k * .1, as in the Python ports of the devkit: .3, .6 and .7 come
    out a hair above, so that a recall of just 3 of 10 does not reach the fourth point.
    Source: VOCap.m of 2007 (best precision at recall >= t) and of 2010 (area under that envelope);
    voc_eval.py (np.arange(0., 1.1, 0.1)).
    """
    envelope = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]  # best precision from here on
    if protocol == "voc2010":
        return np.asarray((np.diff(recall, axis=-1, prepend=0) * envelope).sum(-1))
    padded = np.concatenate((envelope, np.zeros((*recall.shape[:-1], 1))), -1)  # recalls never reached give 0
    total = np.zeros(recall.shape[:-1])
    for tenth in range(11):
        first = (recall < tenth * 0.1).sum(-1)  # [...] index of the first point at that recall
        total += np.take_along_axis(padded, first[..., None], -1)[..., 0]
    return total / 11


def mean_average_precision(label: NDArray[np.int64], right: NDArray[np.bool_], objects: NDArray[np.int64],
                           protocol: ApProtocol) -> float | None:  # fmt: skip
    """The mean AP of the classes that have objects; None: none has.

    label, right: of all detections by descending score; objects: [C] of each class.
    """
    order = np.argsort(label, kind="stable")
    parts = np.split(right[order], np.cumsum(np.bincount(label, minlength=len(objects)))[:-1])
    aps = []
    for part, many in zip(parts, objects.tolist(), strict=True):
        if many:
            tp = np.cumsum(part)
            aps.append(float(average_precision(tp / many, tp / np.arange(1, len(tp) + 1), protocol)))
    return sum(aps) / len(aps) if aps else None


def best_point(score: NDArray[np.float64], tp: NDArray[np.floating], objects: int, least: float) -> OperatingPoint:
    """The threshold of best F1, of equals the higher; at least one detection.

    tp: [K] how many are right up to each; least: what the scores were cut at.
    """
    many = np.arange(1, len(score) + 1)
    f1 = 2 * tp / (objects + many)
    f1[:-1][score[:-1] == score[1:]] = -1  # no threshold parts equal scores
    at = int(f1.argmax())
    lower = score[at + 1] if at + 1 < len(score) else min(least, score[-1])
    recall = float(tp[at]) / max(objects, 1)
    return OperatingPoint(float((score[at] + lower) / 2), float(f1[at]), float(tp[at] / many[at]), recall)
