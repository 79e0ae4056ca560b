"""Box formats and overlaps, and the formulas that numpy and torch share.

Boxes are xyxy float pixels unless a name says otherwise; units pass through unchanged. Each function takes arrays or
tensors and returns the same type: detection without torch uses the formulas of training.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


Array = TypeVar("Array", "Tensor", NDArray[Any])
"""An array or a tensor; a function returns the type of its argument."""


def library(x: Array) -> Any:
    """Return the module of x: numpy or torch. torch takes seconds to import, so arrays do not import it."""
    return np if isinstance(x, np.ndarray) else importlib.import_module("torch")


def like(values: object, x: Array) -> Array:
    """Return numbers as an array or tensor of x's dtype and device."""
    if isinstance(x, np.ndarray):
        return np.asarray(values, x.dtype)
    on_host = library(x).asarray(values, dtype=x.dtype)
    made: Array = importlib.import_module("lookonce.model.device").to_device(on_host, x.device)
    return made


def rows(x: Array) -> Array:
    """Turn [..., k] into [k, ...], each row contiguous: five times as fast as strided columns."""
    if isinstance(x, np.ndarray):
        return np.ascontiguousarray(np.moveaxis(x, -1, 0))
    return x.movedim(-1, 0).contiguous()


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + e^-x), any shape."""
    if isinstance(x, np.ndarray):
        made: NDArray[Any] = 1 / (1 + np.exp(-np.maximum(x, -80)))  # e^80 is a float32
        return made
    return x.sigmoid()


def softmax(x: Array) -> Array:
    """Return e^x over its sum along the last axis, same shape."""
    if isinstance(x, np.ndarray):
        powers = np.exp(x - x.max(-1, keepdims=True))
        made: NDArray[Any] = powers / powers.sum(-1, keepdims=True)
        return made
    return x.softmax(-1)


def xyxy_to_cxcywh(boxes: Array) -> Array:
    """Convert corners [..., 4] to centre and size [..., 4], in the unit they came in."""
    x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
    found: Array = library(boxes).stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), -1)
    return found


def cxcywh_to_xyxy(boxes: Array) -> Array:
    """Convert centre and size [..., 4] to corners [..., 4], in the unit they came in."""
    cx, cy, w, h = (boxes[..., i] for i in range(4))
    found: Array = library(boxes).stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), -1)
    return found


def area(boxes: Array) -> Array:
    """Return the area of xyxy boxes [..., 4]: [...]; 0 where x2 < x1 or y2 < y1."""
    sides = library(boxes).clip(boxes[..., 2:] - boxes[..., :2], 0, None)
    found: Array = sides[..., 0] * sides[..., 1]  # the gradient of prod reads values, for which a GPU would wait
    return found


def iou(a: Array, b: Array) -> Array:
    """Return the IoU of xyxy boxes a [..., 4] and b [..., 4], broadcast: [...]. Two empty boxes overlap 0.

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


def relative_distance(a: Array, b: Array) -> Array:
    """Return the squared distance of centres over the squared diagonal of the hull, 0 to 1; broadcast as in iou."""
    lib = library(a)
    centre_a, centre_b = (a[..., :2] + a[..., 2:]) / 2, (b[..., :2] + b[..., 2:]) / 2
    hull = lib.maximum(a[..., 2:], b[..., 2:]) - lib.minimum(a[..., :2], b[..., :2])
    diagonal = (hull**2).sum(-1)
    found: Array = ((centre_a - centre_b) ** 2).sum(-1) / lib.clip(diagonal, lib.finfo(diagonal.dtype).tiny, None)
    return found


def shape_iou(a: Array, b: Array) -> Array:
    """Return the IoU of shapes (w, h) a [..., 2] and b [..., 2] on a common centre, broadcast: [...]."""
    inter = library(a).minimum(a, b).prod(-1)
    found: Array = inter / (a.prod(-1) + b.prod(-1) - inter)
    return found


def clip(boxes: Array, width: float, height: float) -> Array:
    """Clip xyxy boxes [..., 4] to 0..width, 0..height."""
    lib = library(boxes)
    found: Array = lib.minimum(lib.clip(boxes, 0, None), like((width, height, width, height), boxes))
    return found
