"""From predictions to detections: threshold -> undo the resize -> suppress per class -> clip.

Greedy suppression is exact. Of equal scores the lower index comes first.
Source: darknet/src/region_layer.c, get_region_detections; darknet/src/box.c, do_nms_sort.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lookonce.errors import ConfigError
from lookonce.model.boxes import Array, area, clip, iou, relative_distance
from lookonce.model.detections import Detections, Predictions
from lookonce.model.resize import ResizeMode, boxes_to_image
from lookonce.model.tree import Tree

PLAIN_THRESHOLD = 0.3
"""Score threshold of a model that has none."""
LOWEST_THRESHOLD = 0.1
"""Lowest recommended threshold: below it the detections of a weak model cover the image."""
FLOOR, SAME_OBJECT = 0.005, 0.6
"""Lowest score and IoU at which views are taken to show the same object. Our choice (docs/experiments.md)."""

Nms = Literal["iou", "diou"]
DIOU_EXPONENT = 0.6
"""Exponent of the distance of centres in DIoU suppression. Source: Darknet's fork, beta_nms."""


@dataclass(frozen=True)
class Selection:
    """Which predictions become detections. The score is objectness times class probability."""

    score_threshold: float
    """A detection's score and its objectness are greater than this; 0 to 1."""
    iou_threshold: float = 0.45
    """Of two boxes of one class with a greater IoU, the one of higher score stays. Source: detector.c, nms=.45."""
    distance_exponent: float | None = None
    """DIoU suppression: IoU minus (squared distance of the centres over squared diagonal of the hull)^this counts, so
    that boxes with distant centres stay. None: IoU alone."""
    max_candidates: int = 3000
    """Maximum (box, class) pairs that enter suppression, best first: limits memory to 300 MB."""
    max_detections: int = 1000
    """Maximum detections of an image, best first."""
    clip: bool = True
    """Clip boxes to the image after suppression and drop those without area in it; Darknet does not."""
    tree: Tree | None = None
    """Each box gets the one class that this tree selects, and its objectness as score, as in Darknet: the deepest class
    whose path is likelier than the tree's threshold. None: every class, with objectness times class probability."""
    views: int = 1
    """An image's predictions are those of this many views of it, one after the other; detections are their averages."""

    def __post_init__(self) -> None:
        for name in ("score_threshold", "iou_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: {getattr(self, name)}; expected 0 to 1")
        if self.distance_exponent is not None and not 0 < self.distance_exponent < np.inf:
            raise ConfigError(f"distance_exponent: {self.distance_exponent}; expected a number above 0, or None")
        for name in ("max_candidates", "max_detections"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: {getattr(self, name)}; expected at least 1")


def nms_per_class(
    boxes: ArrayLike, scores: ArrayLike, selection: Selection
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Suppress boxes greedily within each class; a box may stay for several classes.

    Args:
        boxes:  [N, 4] xyxy, any unit.
        scores: [N, C]; those not above selection.score_threshold, and nan, are ignored.
    Returns:
        (box [M], class [M]) that stay, by descending score; of equal scores the lower box, then class, first.
        Exact if at most selection.max_candidates pairs are above the threshold.
    """
    boxes, scores = np.asarray(boxes), np.asarray(scores)
    box, label = (scores > selection.score_threshold).nonzero()  # [M]
    order = np.argsort(-scores[box, label], kind="stable")[: selection.max_candidates]
    box, label = box[order], label[order]
    distinct, row = np.unique(box, return_inverse=True)  # [D], [M]
    corners = boxes[distinct]
    overlap = iou(corners[:, None], corners)  # [D, D]
    if selection.distance_exponent is not None:
        overlap = overlap - relative_distance(corners[:, None], corners) ** selection.distance_exponent
    clash = (overlap > selection.iou_threshold)[row][:, row]  # [M, M]
    better, worse = np.triu(clash & (label[:, None] == label), 1).nonzero()
    keep = survivors(better, worse, len(clash))
    return box[keep], label[keep]


def survivors(better: NDArray[np.int64], worse: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Return which of so many boxes, best first, greedy suppression keeps: [N] bool.

    A box stays if no better box that stays clashes with it. Applying this rule to all boxes at once settles at least
    one more box each time, so the loop ends; its only fixed point is the greedy result.

    better, worse: [P] each pair that clashes, better < worse.
    """
    keep = np.ones(count, np.bool_)
    while True:
        settled = np.ones_like(keep)
        settled[worse[keep[better]]] = False
        if np.array_equal(settled, keep):
            return keep
        keep = settled


def average_views(
    boxes: NDArray[np.floating], scores: NDArray[np.floating], view: NDArray[np.int64], views: int,
    box: NDArray[np.int64], label: NDArray[np.int64],
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:  # fmt: skip
    """Average what several views of an image say of each detection. A view that does not see it counts as a score of 0.

    Args:
        boxes: [K, 4] xyxy, predictions of all views in one frame.
        scores: [K, C] of their classes.
        view: [K] the view of each, 0 to views - 1.
        views: how many there are.
        box, label: [M] prediction and class of each detection, from nms_per_class.
    Returns:
        Boxes [M, 4], the mean of the predictions with an IoU above SAME_OBJECT, weighted by score; and scores [M], the
        mean over views of the best among them.
    Source of weighted boxes: Solovyev et al., Weighted boxes fusion (2021), section 3.
    """
    weight = np.where(iou(boxes[box][:, None], boxes) > SAME_OBJECT, scores[:, label].T, 0)  # [M, K]
    best = [weight[:, view == one].max(1, initial=0) for one in range(views)]
    total = weight.sum(1, keepdims=True)
    return np.divide(weight @ boxes, total, out=boxes[box].copy(), where=total > 0), np.mean(best, 0)


def postprocess(
    predictions: Predictions[Array],
    sizes: Sequence[tuple[int, int]],
    input_size: tuple[int, int],
    mode: ResizeMode,
    class_names: tuple[str, ...],
    selection: Selection,
) -> list[Detections]:
    """Turn the predictions of a batch into detections. Drop what is not finite.

    Tensors of a GPU are selected there (device_postprocess.py), unless the classes are a tree; all else on the CPU.

    Args:
        predictions: of B images, boxes in input pixels.
        sizes:       B (width, height) of the images, image pixels.
        input_size:  (width, height) of the network's input, pixels.
        mode:        how the images were resized to the input.
        class_names: C names.
    Returns:
        B Detections, boxes in image pixels. IoU is that of the boxes in image pixels, as in Darknet.
    """
    if is_on_gpu(predictions) and selection.tree is None and selection.views == 1:
        from lookonce.model.device_postprocess import survivors_of

        tensors: Any = predictions
        each = survivors_of(tensors, sizes, input_size, mode, selection)
        return [_of_rows(rows, size, class_names, selection) for rows, size in zip(each, sizes, strict=True)]
    arrays = predictions.numpy()
    parts = zip(arrays.boxes, arrays.objectness, arrays.class_prob, sizes, strict=True)
    # An average can be above the threshold although some of its scores are not.
    lowest = selection if selection.views == 1 else replace(selection, score_threshold=min(
        FLOOR, selection.score_threshold))  # fmt: skip
    results = []
    for boxes, objectness, class_prob, size in parts:  # [N, 4], [N], [N, C]
        likely = ((objectness > lowest.score_threshold) & np.isfinite(boxes).all(-1)).nonzero()[0]  # [K]
        corners = boxes_to_image(boxes[likely], size, input_size, mode)
        shares = class_prob[likely] if selection.tree is None else _selected(selection.tree, class_prob[likely])
        scores = np.nan_to_num(objectness[likely, None] * shares, nan=0, posinf=0, neginf=0)  # [K, C]
        box, label = nms_per_class(corners, scores, lowest)
        found, value = corners[box], scores[box, label]
        if selection.views > 1:
            view = likely * selection.views // len(boxes)  # [K]
            found, value = average_views(corners, scores, view, selection.views, box, label)
            order = np.argsort(-value, kind="stable")[: int((value > selection.score_threshold).sum())]
            found, value, box, label = found[order], value[order], box[order], label[order]
        found, inside = _in_image(found, size, selection)
        found, value, label, box = found[inside], value[inside], label[inside], box[inside]
        top = slice(selection.max_detections)
        child = None
        if selection.tree is not None:
            pairs = zip(label[top].tolist(), class_prob[likely[box[top]]], strict=True)
            child = np.array([selection.tree.best_child(index, own) for index, own in pairs], np.int64)
        results.append(Detections(found[top], value[top], label[top], class_names, backed_off=child))
    return results


def is_on_gpu(predictions: Predictions[Array]) -> bool:
    """Return whether predictions are tensors of a CUDA device."""
    return not isinstance(predictions.boxes, np.ndarray) and predictions.boxes.device.type == "cuda"


def _of_rows(rows: NDArray[np.float32], size: tuple[int, int], class_names: tuple[str, ...],
             selection: Selection) -> Detections:  # fmt: skip
    """Return the detections of an image of (width, height). rows: [M, 6] xyxy, score, class; best first."""
    boxes, inside = _in_image(rows[:, :4], size, selection)
    top = inside.nonzero()[0][: selection.max_detections]
    return Detections(boxes[top], rows[top, 4], rows[top, 5].astype(np.int64), class_names)


def _in_image(
    boxes: NDArray[Any], size: tuple[int, int], selection: Selection
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return boxes [M, 4] clipped to an image of (width, height), and which have area in it [M]; all if not clipped."""
    if not selection.clip:
        return boxes, np.ones(len(boxes), np.bool_)
    clipped = clip(boxes, *size)
    return clipped, area(clipped) > 0


def _selected(tree: Tree, absolute: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return 1 at the class that a tree selects and 0 elsewhere, [K, C]. absolute: [K, C] probability of each path."""
    import torch

    return np.asarray(tree.top_only(torch.from_numpy(absolute)).numpy())
