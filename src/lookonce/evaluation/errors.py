"""The errors of a detector by kind, and what each kind costs in AP.

Six kinds, by the highest IoU of a wrong detection with the objects of its image. Letters: D detections, N objects,
C classes. Source: Bolya, Foley, Hays, Hoffman, "TIDE: A General Toolbox for Identifying Object Detection Errors",
ECCV 2020, section 2.2; of several kinds that fit, the first in the order of its code (tidecv, quantify.py): location,
class, duplicate, background, both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lookonce.data.dataset import Dataset
from lookonce.evaluation.average_precision import Rules, mean_average_precision
from lookonce.evaluation.matching import Matched, best_object

NEAR = 0.1
"""Lowest IoU of an error on an object. Source: TIDE, section 2.2, t_b; its t_f is Rules.iou_threshold, .5 there."""
KINDS = ("class", "location", "both", "duplicate", "background", "missed")
CLASS, LOCATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(len(KINDS))


@dataclass(frozen=True)
class Kind:
    """One kind of error."""

    name: str
    count: int  # detections; of kind missed: objects
    cost: float | None  # mAP gained if this kind alone were fixed; None: there is no mAP


@dataclass(frozen=True, eq=False)
class Errors:
    """The error of each detection, in the order of the matching."""

    kinds: tuple[Kind, ...]  # in the order of KINDS
    kind: NDArray[np.int64]  # [D] index into KINDS; -1: true positive or ignored
    about: NDArray[np.int64]  # [D] the object of an error of class or location; -1: none
    missed: NDArray[np.bool_]  # [N] not ignored, not found, and without an error of class or location

    @property
    def dearest(self) -> list[Kind]:
        """Return the kinds, the most expensive first."""
        return sorted(self.kinds, key=lambda kind: -(kind.cost or 0))


def find_errors(dataset: Dataset, found: Matched, ignore: NDArray[np.bool_], rules: Rules) -> Errors:
    """Find the kind of each error, and the mAP gained by fixing each kind alone.

    class: the IoU is high enough, the class is wrong. location: the class is right, the IoU between NEAR and the
    threshold. both: such an IoU and a wrong class. duplicate: an object that a detection of higher score found.
    background: IoU below NEAR with every object. missed: an object without a detection of any of the first two kinds.
    To fix an error of class or location, the detection gets the class and box of its object; of several on one object
    only the one of highest score is kept. Errors of the kinds both, duplicate and background are removed. Missed
    objects are ignored, and a class without other objects is left out of the mean.

    Args:
        found, ignore: from match(), by the same rules.
    """
    truths = np.flatnonzero(~ignore)
    kind, about = _kinds(dataset, found, truths, rules.iou_threshold)
    unfound = ~ignore
    unfound[found.object[found.true_positive]] = False
    unfound[about[about >= 0]] = False
    objects = np.bincount(dataset.classes[truths], minlength=len(dataset.labels))
    counted = ~found.ignored
    base = mean_average_precision(found.label[counted], found.true_positive[counted], objects, rules.protocol)
    kinds = []
    for number, name in enumerate(KINDS):
        if number == MISSED:
            fewer = objects - np.bincount(dataset.classes[unfound], minlength=len(objects))
            label, true_positive, keep, count = found.label, found.true_positive, counted, int(unfound.sum())
        else:
            fewer, count = objects, int((kind == number).sum())
            label, true_positive, keep = _fixed(dataset, found, kind == number, about)
            keep &= counted
        fixed = mean_average_precision(label[keep], true_positive[keep], fewer, rules.protocol)
        kinds.append(Kind(name, count, None if base is None or fixed is None else fixed - base))
    return Errors(tuple(kinds), kind, about, unfound)


def _kinds(dataset: Dataset, found: Matched, truths: NDArray[np.int64],
           enough: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """Return (kind [D], about [D]) of the errors; -1 elsewhere."""
    wrong = np.flatnonzero(~found.true_positive & ~found.ignored)
    image, label, boxes = found.image[wrong], found.label[wrong], found.boxes[wrong]
    image_of, class_of, objects = dataset.image_of_box[truths], dataset.classes[truths], dataset.boxes[truths]
    many = len(dataset.labels)
    own, own_iou = best_object(objects, image_of * many + class_of, boxes, image * many + label)
    other, other_iou = best_object(objects, image_of, boxes, image, apart=(class_of, label))
    tests = {
        LOCATION: (own_iou >= NEAR) & (own_iou < enough),
        CLASS: other_iou >= enough,
        DUPLICATE: own_iou >= enough,
        BACKGROUND: np.maximum(own_iou, other_iou) < NEAR,
    }
    which = np.select(list(tests.values()), list(tests), BOTH)
    kind, about = np.full(len(found.true_positive), -1), np.full(len(found.true_positive), -1)
    kind[wrong] = which
    for number, target in ((LOCATION, own), (CLASS, other)):
        rows = which == number
        about[wrong[rows]] = truths[target[rows]]
    return kind, about


def _fixed(dataset: Dataset, found: Matched, these: NDArray[np.bool_], about: NDArray[np.int64]
            ) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:  # fmt: skip
    """Return (label, true positive, kept) [D] of all detections after these are fixed."""
    label, true_positive, keep = found.label.copy(), found.true_positive.copy(), ~these
    rows = np.flatnonzero(these & (about >= 0))
    targets = np.full(len(these), -1)
    targets[found.true_positive] = found.object[found.true_positive]
    targets[rows] = about[rows]
    rivals = np.flatnonzero(np.isin(targets, about[rows]))  # to be fixed, and true positives of the same objects
    rivals = rivals[targets[rivals] >= 0]
    _, first = np.unique(targets[rivals], return_index=True)  # rows are by descending score
    keep[rivals] = False
    best = rivals[first]
    keep[best], true_positive[best], label[best] = True, True, dataset.classes[targets[best]]
    return label, true_positive, keep
