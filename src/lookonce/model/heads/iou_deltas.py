"""Darknet's deltas of IoU losses: the direction in which a predicted box moves.

They are the derivative of IoU or GIoU, with twice the derivative by w and h. Those of DIoU and CIoU differ from every
derivative (a sign, and the shape term); networks of YOLOv4 were trained with them, so they are kept as they are.
Source: Darknet's fork, src/box.c, dx_box_iou; Rezatofighi et al. (2019), GIoU; Zheng et al. (2020), DIoU and CIoU.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lookonce.model.boxes import cxcywh_to_xyxy

if TYPE_CHECKING:
    from torch import Tensor

    from lookonce.model.layers import IouLoss


def iou_deltas(predicted: Tensor, truth: Tensor, kind: IouLoss) -> Tensor:
    """Return the deltas [K, 4] of x, y, w, h for pairs of boxes cx, cy, w, h [K, 4], fractions of the input.

    kind: iou, giou, diou or ciou. Where boxes do not overlap, only the term that giou, diou or ciou adds counts; iou
    has none, and uses negative overlaps.
    """
    import torch

    a, b = cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(truth)
    wh = a[:, 2:] - a[:, :2]  # [K, 2]
    inside = torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])  # [K, 2], negative if apart
    inter, size = inside.prod(1), wh.prod(1)
    union = size + (b[:, 2:] - b[:, :2]).prod(1) - inter
    starts, ends = a[:, :2] > b[:, :2], a[:, 2:] < b[:, 2:]  # the edge of the prediction bounds the intersection
    across, other = inside.flip(1), wh.flip(1)  # of the other axis
    by_start = _quotient(inter, union, -across * starts, -other + across * starts)  # [K, 2]
    by_end = _quotient(inter, union, across * ends, other - across * ends)
    apart = (inside <= 0).any(1, keepdim=True)
    moved = torch.cat((by_start + by_end, by_end - by_start), 1)  # [K, 4]
    hull = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])  # [K, 2]
    if kind == "iou":
        return torch.where(union[:, None] > 0, moved, 0)  # far boxes "overlap" in both directions: union < 0
    if kind == "giou":
        outer_start, outer_end = a[:, :2] < b[:, :2], a[:, 2:] > b[:, 2:]
        whole = hull.prod(1)
        by_start = _quotient(union, whole, -other + across * starts, -hull.flip(1) * outer_start)
        by_end = _quotient(union, whole, other - across * ends, hull.flip(1) * outer_end)
        added = torch.cat((by_start + by_end, by_end - by_start), 1)
    else:
        added = _distance_deltas(predicted, truth, hull)
        if kind == "ciou":
            added = added + _shape_deltas(predicted, truth, inter / union)
    return torch.where(apart, added, moved + added)


def _quotient(above: Tensor, below: Tensor, above_by: Tensor, below_by: Tensor) -> Tensor:
    """Return the derivative [K, 2] of above / below [K] by two edges."""
    found: Tensor = (below[:, None] * above_by - above[:, None] * below_by) / below[:, None] ** 2
    return found


def _distance_deltas(predicted: Tensor, truth: Tensor, hull: Tensor) -> Tensor:
    """Return the term that diou adds [K, 4]. hull: [K, 2] size of the box around both."""
    import torch

    a, b = cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(truth)
    apart = truth[:, :2] - predicted[:, :2]
    distance, diagonal = (apart**2).sum(1, keepdim=True), (hull**2).sum(1, keepdim=True)
    before, after = (a[:, :2] < b[:, :2]).to(hull), (a[:, 2:] > b[:, 2:]).to(hull)
    by_centre = (2 * apart * diagonal - 2 * hull * (after - before) * distance) / diagonal**2
    by_size = hull * (after + before) * distance / diagonal**2
    return torch.cat((by_centre, by_size), 1)


def _shape_deltas(predicted: Tensor, truth: Tensor, overlap: Tensor) -> Tensor:
    """Return the term that ciou adds to diou's [K, 4]. overlap: [K] IoU."""
    import torch

    (w, h), (true_w, true_h) = predicted[:, 2:].unbind(1), truth[:, 2:].unbind(1)
    turn = torch.atan(true_w / true_h) - torch.atan(w / h)
    shape = (4 / math.pi**2) * turn**2
    alpha = shape / (1 - overlap + shape + 1e-6)
    pull = alpha * (8 / math.pi**2) * turn
    return torch.stack((torch.zeros_like(w), torch.zeros_like(w), pull * h, -pull * w), 1)
