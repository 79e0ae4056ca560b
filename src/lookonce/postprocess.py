"""From predictions to detections: threshold -> undo the resize -> suppress per class -> clip.

Greedy suppression is exact, and ties are stated: of equal scores the lower index comes first.
Source: darknet/src/region_layer.c, get_region_detections; darknet/src/box.c, do_nms_sort.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lookonce.boxes import area, clip, iou
from lookonce.detections import Detections
from lookonce.errors import ConfigError
from lookonce.region import Predictions
from lookonce.resize import ResizeMode, boxes_to_image

PLAIN_THRESHOLD = 0.3
"""Score threshold of a model that brings none of its own."""


@dataclass(frozen=True)
class Selection:
    """Which predictions become detections. The score is objectness times class probability."""

    score_threshold: float
    """A detection's score and its objectness are greater than this; 0 to 1."""
    iou_threshold: float = 0.45
    """Of two boxes of one class with a greater IoU the better stays. Source: detector.c, nms=.45."""
    max_candidates: int = 3000
    """At most so many (box, class) pairs, the best, meet in suppression: bounds memory to some 300 MB."""
    max_detections: int = 1000
    """At most so many detections a picture, the best."""
    clip: bool = True
    """Cut boxes to the picture (after suppression) and drop those without area in it; Darknet does not."""

    def __post_init__(self) -> None:
        for name in ("score_threshold", "iou_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: {getattr(self, name)}; expected 0 to 1")
        for name in ("max_candidates", "max_detections"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: {getattr(self, name)}; expected at least 1")


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression within one class.

    Args:
        boxes:  [N, 4] xyxy, any unit.
        scores: [N].
        iou_threshold: a box goes if its IoU with a better one that stays is greater than this.
    Returns:
        Indices of the boxes that stay, by descending score; of equal scores the lower index first.
    """
    order = scores.sort(descending=True, stable=True).indices
    ranked = boxes[order]
    return order[_survivors(iou(ranked[:, None], ranked) > iou_threshold)]


def nms_per_class(boxes: Tensor, scores: Tensor, selection: Selection) -> tuple[Tensor, Tensor]:
    """Greedy suppression within each class on its own; a box may stay for several classes.

    Args:
        boxes:  [N, 4] xyxy, any unit.
        scores: [N, C]; those not above selection.score_threshold, and nan, do not take part.
    Returns:
        (box [M], class [M]) that stay, by descending score; of equal scores the lower box, then class, first.
        Exact as long as no more than selection.max_candidates pairs are above the threshold.
    """
    box, label = (scores > selection.score_threshold).nonzero(as_tuple=True)  # [M]
    order = scores[box, label].sort(descending=True, stable=True).indices[: selection.max_candidates]
    box, label = box[order], label[order]
    distinct, place = torch.unique(box, return_inverse=True)  # [D], [M]
    corners = boxes[distinct]
    clash = (iou(corners[:, None], corners) > selection.iou_threshold)[place][:, place]  # [M, M]
    keep = _survivors(clash & (label[:, None] == label))
    return box[keep], label[keep]


def _survivors(clash: Tensor) -> Tensor:
    """Which of N boxes, the best first, greedy suppression keeps: [N] bool. clash: [N, N] bool.

    A box stays if no earlier box that stays clashes with it. Repeating that sentence on all boxes at
    once settles at least one more box of the order each time, so it ends, and only greedy's answer stands still.
    """
    better, worse = clash.triu(1).nonzero(as_tuple=True)
    keep = torch.ones(len(clash), dtype=torch.bool, device=clash.device)
    while True:
        settled = torch.ones_like(keep)
        settled[worse[keep[better]]] = False
        if torch.equal(settled, keep):
            return keep
        keep = settled


def postprocess(
    predictions: Predictions,
    sizes: Sequence[tuple[int, int]],
    frame: tuple[int, int],
    mode: ResizeMode,
    class_names: tuple[str, ...],
    selection: Selection,
) -> list[Detections]:
    """What was found on each picture of a batch. Runs on the CPU; anything not finite is dropped.

    Args:
        predictions: of B pictures, boxes in input pixels.
        sizes:       B (width, height) of the pictures, image pixels.
        frame:       (width, height) of the network's input, pixels.
        mode:        how the pictures were brought into the frame.
        class_names: C names.
    Returns:
        B Detections, boxes in image pixels. IoU is that of the boxes in image pixels, as in Darknet.
    """
    batch = (predictions.boxes, predictions.objectness, predictions.class_prob)
    parts = zip(*(tensor.detach().float().cpu() for tensor in batch), sizes, strict=True)
    results = []
    for boxes, objectness, class_prob, size in parts:  # [N, 4], [N], [N, C]
        likely = ((objectness > selection.score_threshold) & boxes.isfinite().all(-1)).nonzero()[:, 0]  # [K]
        corners = boxes_to_image(boxes[likely], size, frame, mode)
        scores = (objectness[likely, None] * class_prob[likely]).nan_to_num(0, 0, 0)  # [K, C]
        box, label = nms_per_class(corners, scores, selection)
        found, value = corners[box], scores[box, label]
        if selection.clip:
            found = clip(found, *size)
            inside = area(found) > 0
            found, value, label = found[inside], value[inside], label[inside]
        top = slice(selection.max_detections)
        results.append(Detections(found[top].numpy(), value[top].numpy(), label[top].numpy(), class_names))
    return results
