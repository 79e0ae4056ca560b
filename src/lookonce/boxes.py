"""Box formats and overlaps; the only module that knows how a box is stored.

Every box is xyxy float pixels unless a name says otherwise. Units pass through unchanged.
Arrays and tensors alike: see arrays.py.
"""

from __future__ import annotations

from lookonce.arrays import Array, library, like, rows


def xyxy_to_cxcywh(boxes: Array) -> Array:
    """Corners [..., 4] to centre and size [..., 4], in the unit they came in."""
    x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
    found: Array = library(boxes).stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), -1)
    return found


def cxcywh_to_xyxy(boxes: Array) -> Array:
    """Centre and size [..., 4] to corners [..., 4], in the unit they came in."""
    cx, cy, w, h = (boxes[..., i] for i in range(4))
    found: Array = library(boxes).stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), -1)
    return found


def area(boxes: Array) -> Array:
    """Area of xyxy boxes [..., 4]: [...]. Boxes turned inside out count as 0."""
    found: Array = library(boxes).clip(boxes[..., 2:] - boxes[..., :2], 0, None).prod(-1)
    return found


def iou(a: Array, b: Array) -> Array:
    """IoU of xyxy boxes a [..., 4] and b [..., 4], broadcast: [...]. Two empty boxes overlap 0.

    All pairs of [N, 4] and [M, 4] are iou(a[:, None], b): [N, M].
    """
    lib = library(a)
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = rows(a), rows(b)
    width = lib.clip(lib.minimum(ax2, bx2) - lib.maximum(ax1, bx1), 0, None)
    height = lib.clip(lib.minimum(ay2, by2) - lib.maximum(ay1, by1), 0, None)
    inter = width * height
    union = area(a) + area(b) - inter
    found: Array = inter / lib.clip(union, lib.finfo(union.dtype).tiny, None)
    return found


def shape_iou(a: Array, b: Array) -> Array:
    """IoU of shapes (w, h) a [..., 2] and b [..., 2] laid on one centre, broadcast: [...]."""
    inter = library(a).minimum(a, b).prod(-1)
    found: Array = inter / (a.prod(-1) + b.prod(-1) - inter)
    return found


def clip(boxes: Array, width: float, height: float) -> Array:
    """xyxy boxes [..., 4] cut to the frame 0..width, 0..height."""
    lib = library(boxes)
    found: Array = lib.minimum(lib.clip(boxes, 0, None), like((width, height, width, height), boxes))
    return found
