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
"""IoU from which on a detection is about an object at all. Source: TIDE, section 2.2, t_b; t_f is Rules.iou_threshold,
.5 there."""
KINDS = ("class", "location", "both", "duplicate", "background", "missed")
CLASS, LOCATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(len(KINDS))


@dataclass(frozen=True)
class Kind:
    """One kind of error."""

    name: str
    count: int  # detections; of the missed: objects
    cost: float | None  # by how much mean AP rises when this kind alone is fixed; None: there is no mean AP


@dataclass(frozen=True, eq=False)
class Errors:
    """What is wrong with detections, in the order in which they were matched."""

    kinds: tuple[Kind, ...]  # in the order of KINDS
    kind: NDArray[np.int64]  # [D] index into KINDS; -1: right, or ignored
    about: NDArray[np.int64]  # [D] the object that one of wrong class or location is about; -1: none
    missed: NDArray[np.bool_]  # [N] not ignored, not found, and no detection of wrong class or location is near

    @property
    def dearest(self) -> list[Kind]:
        """The kinds, the one that costs most first."""
        return sorted(self.kinds, key=lambda kind: -(kind.cost or 0))


def find_errors(dataset: Dataset, found: Matched, ignore: NDArray[np.bool_], rules: Rules) -> Errors:
    """Sort what is wrong by kind, and fix each kind alone.

    class: on an object of another class. location: on an object of its class, from NEAR on and below the IoU that
    counts. both: near an object of another class. duplicate: on an object that a better one found. background: near
    nothing. missed: an object that was not found, nor by one of wrong class or location.
    A wrong class or place is fixed to the object's own; of several on one object only that of highest score stays.
    Wrong ones of the kinds both, duplicate and background go; missed objects are ignored, and a class with no
    other objects leaves the mean.

    Args:
        found: from match(), by the same rules.
        ignore: [N] objects that need not be found; nothing is about them.
    """
    truths = np.flatnonzero(~ignore)
    kind, about = _kinds(dataset, found, truths, rules.iou_threshold)
    unfound = ~ignore
    unfound[found.object[found.true_positive]] = False
    unfound[about[about >= 0]] = False
    objects = np.bincount(dataset.classes[truths], minlength=len(dataset.labels))
    given = ~found.ignored
    base = mean_average_precision(found.label[given], found.true_positive[given], objects, rules.protocol)
    kinds = []
    for number, name in enumerate(KINDS):
        if number == MISSED:
            fewer = objects - np.bincount(dataset.classes[unfound], minlength=len(objects))
            label, right, keep, count = found.label, found.true_positive, given, int(unfound.sum())
        else:
            fewer, count = objects, int((kind == number).sum())
            label, right, keep = _fixed(dataset, found, kind == number, about)
            keep &= given
        fixed = mean_average_precision(label[keep], right[keep], fewer, rules.protocol)
        kinds.append(Kind(name, count, None if base is None or fixed is None else fixed - base))
    return Errors(tuple(kinds), kind, about, unfound)


def _kinds(dataset: Dataset, found: Matched, truths: NDArray[np.int64],
           enough: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """([D] kind, [D] about) of the wrong ones; -1 elsewhere."""
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
    """(label, right, whether it stays) [D] of all detections once these are fixed."""
    label, right, keep = found.label.copy(), found.true_positive.copy(), ~these
    rows = np.flatnonzero(these & (about >= 0))
    targets = np.full(len(these), -1)
    targets[found.true_positive] = found.object[found.true_positive]
    targets[rows] = about[rows]
    rivals = np.flatnonzero(np.isin(targets, about[rows]))  # those to be fixed, and those already right on the same
    rivals = rivals[targets[rivals] >= 0]
    _, first = np.unique(targets[rivals], return_index=True)  # rows are by descending score
    keep[rivals] = False
    best = rivals[first]
    keep[best], right[best], label[best] = True, True, dataset.classes[targets[best]]
    return label, right, keep
