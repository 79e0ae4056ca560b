"""Match detections with ground truth: each detection with an object of its image and class, highest score first.

Letters: M images, N objects, D detections. Source: the VOC devkits, VOCevaldet.m.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from lookonce.data.dataset import Dataset
from lookonce.errors import UserError
from lookonce.model.boxes import iou
from lookonce.model.detections import Detections

PAIRS = 1_000_000
"""Pairs of detection and object in memory at once."""


@dataclass(frozen=True, eq=False)
class Matched:
    """All detections of a data set, by descending score, then image, then place in the image."""

    image: NDArray[np.int64]  # [D]
    label: NDArray[np.int64]  # [D] index into the data set's labels
    score: NDArray[np.float64]  # [D]
    boxes: NDArray[np.float64]  # [D, 4] xyxy image px
    object: NDArray[np.int64]  # [D] the object of its class with the highest IoU at or above the threshold; -1: none
    true_positive: NDArray[np.bool_]  # [D] the first detection of an object that is not ignored
    ignored: NDArray[np.bool_]  # [D] on an ignored object: neither a true nor a false positive

    @property
    def side(self) -> NDArray[np.float64]:
        """Square root of each box's area [D], image px."""
        return np.asarray(np.sqrt(np.maximum(self.boxes[:, 2:] - self.boxes[:, :2], 0).prod(1)))

    def ignoring(self, ignore: NDArray[np.bool_]) -> Matched:
        """Return the same matching with other ignored objects. ignore: [N]."""
        hit = self.object >= 0
        ignored = np.zeros_like(hit)
        ignored[hit] = ignore[self.object[hit]]
        claims = np.flatnonzero(hit & ~ignored)
        _, first = np.unique(self.object[claims], return_index=True)
        true_positive = np.zeros_like(hit)
        true_positive[claims[first]] = True
        return replace(self, true_positive=true_positive, ignored=ignored)


def match(
    dataset: Dataset, detections: Sequence[Detections], ignore: NDArray[np.bool_], iou_threshold: float
) -> Matched:
    """Match each detection with the object of highest IoU of its image and class.

    Args:
        dataset:    M images with N objects.
        detections: M, in the same order; class names the same as dataset.labels, in any order.
        ignore:     [N] objects that need not be found, as difficult ones.
        iou_threshold: lowest IoU of a match. The first detection of an object is its true positive.
    On images that are labelled as a whole, whose objects have no boxes, detections are ignored.
    Raises:
        UserError: a number of images or class names that differ from the data set's.
    """
    image, label, score, boxes = gather(dataset, detections)
    order = np.argsort(-score, kind="stable")
    image, label, score, boxes = image[order], label[order], score[order], boxes[order]
    classes = len(dataset.labels)
    best, overlap = best_object(
        dataset.boxes, dataset.image_of_box * classes + dataset.classes, boxes, image * classes + label
    )
    best[overlap < iou_threshold] = -1
    nothing = np.zeros(len(best), bool)
    found = Matched(image, label, score, boxes, best, nothing, nothing).ignoring(ignore)
    if dataset.image_labels is None:
        return found
    return replace(found, ignored=found.ignored | (dataset.image_labels[image] >= 0))


def gather(dataset: Dataset, detections: Sequence[Detections]
           ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """(image, label, score) [D] and boxes [D, 4] of all detections, image by image; labels are the data set's.

    Raises UserError as match().
    """
    if len(detections) != len(dataset):
        raise UserError(
            f"{dataset.name}: detections of {len(detections)} images; expected {len(dataset)}, one for each image "
            "of the data set in its order"
        )
    lists = {one.class_names for one in detections}
    place = {names: _places(dataset, names) for names in lists}
    label = np.concatenate([np.zeros(0, np.int64), *(place[one.class_names][one.labels] for one in detections)])
    score = np.concatenate([np.zeros(0), *(one.scores for one in detections)])
    boxes = np.concatenate([np.zeros((0, 4)), *(one.boxes for one in detections)])
    image = np.repeat(np.arange(len(detections)), [len(one) for one in detections])
    return image, label, score, boxes


def image_f1(dataset: Dataset, found: Matched, ignore: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return [M] the F1 of each image over all classes; 1 where there are neither objects nor detections.

    found: from match(), of detections above a threshold. ignore: as in match().
    """
    objects = np.bincount(dataset.image_of_box[~ignore], minlength=len(dataset))
    counted = np.bincount(found.image[~found.ignored], minlength=len(dataset))
    correct = np.bincount(found.image[found.true_positive], minlength=len(dataset))
    return np.asarray((2 * correct + 1e-9) / (objects + counted + 1e-9))


def _places(dataset: Dataset, names: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the index of each of the detector's classes among the data set's labels. The names must be the same."""
    place, found = {name: index for index, name in enumerate(dataset.labels)}, set(names)
    only_data = [name for name in dataset.labels if name not in found]
    only_found = [name for name in names if name not in place]
    if only_data or only_found or len(found) != len(names):
        raise UserError(
            f"{dataset.name}: its classes and the detector's differ: only in the data {only_data}, only in the "
            f"detections {only_found}; expected the same names, each once; is one misspelt? else pick classes by name"
        )
    return np.array([place[name] for name in names], np.int64)


def best_object(
    objects: NDArray[np.floating],
    group_of_object: NDArray[np.int64],
    boxes: NDArray[np.float64],
    group: NDArray[np.int64],
    apart: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the object of highest IoU in each detection's group (the first of equals), and that IoU.

    Args:
        objects:         [N, 4] xyxy image px.
        group_of_object: [N] a number for each image and class, for example.
        boxes:           [D, 4] of the detections.
        group:           [D]
        apart:           ([N], [D]) numbers; an object with the detection's own number is left out.
    Returns:
        (index of the object [D], its IoU [D]); -1 and 0 without one.
    """
    order = np.argsort(group_of_object, kind="stable")
    ranked = group_of_object[order]
    low, high = np.searchsorted(ranked, group, "left"), np.searchsorted(ranked, group, "right")
    best, most = np.full(len(group), -1, np.int64), np.zeros(len(group))
    have = np.flatnonzero(high > low)
    if not len(have):
        return best, most
    pairs = np.cumsum((high - low)[have])
    for rows in np.split(have, np.searchsorted(pairs, np.arange(PAIRS, pairs[-1], PAIRS))):
        if not len(rows):
            continue
        count = (high - low)[rows]
        start = np.cumsum(count) - count
        row = np.repeat(np.arange(len(rows)), count)  # [P] one for each pair of detection and object
        member = order[low[rows][row] + np.arange(len(row)) - start[row]]  # [P]
        shapes = torch.from_numpy(objects[member].astype(np.float64))
        overlap = iou(torch.from_numpy(boxes[rows[row]]), shapes).numpy()  # [P]
        if apart is not None:
            overlap[apart[0][member] == apart[1][rows[row]]] = -1
        highest = np.maximum.reduceat(overlap, start)  # [rows]
        top = np.flatnonzero((overlap == highest[row]) & (overlap >= 0))
        _, first = np.unique(row[top], return_index=True)
        best[rows[row[top[first]]]] = member[top[first]]
        most[rows] = np.maximum(highest, 0)
    return best, most
