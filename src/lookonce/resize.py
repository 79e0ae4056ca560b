"""The one resize of detection, evaluation and anchors: letterbox (Darknet's) or stretch (the blog's).

A picture [3, h, w] of image pixels becomes [3, H, W] of input pixels; boxes go along and back.
Source: darknet/src/image.c, letterbox_image and resize_image; region_layer.c, correct_region_boxes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

ResizeMode = Literal["letterbox", "stretch"]
FILL = 0.5
"""What the letterbox puts around the picture, of 0..1. Source: image.c, fill_image(boxed, .5)."""


def fitted(sizes: NDArray[np.integer], frame: tuple[int, int], mode: ResizeMode) -> NDArray[np.integer]:
    """Sizes that pictures take in the frame.

    Args:
        sizes: [..., 2] (width, height) of pictures, image pixels.
        frame: (width, height) of the network's input, pixels.
        mode: letterbox keeps the aspect ratio (whole pixels, rounded down, at least 1); stretch does not.
    Returns:
        [..., 2] (width, height), input pixels.
    """
    sizes = np.asarray(sizes)
    if mode == "stretch":
        return np.broadcast_to(np.asarray(frame, sizes.dtype), sizes.shape)
    w, h = sizes[..., 0], sizes[..., 1]
    by_width = frame[0] / w < frame[1] / h
    new_w = np.where(by_width, frame[0], w * frame[1] // h)
    new_h = np.where(by_width, h * frame[0] // w, frame[1])
    return np.asarray(np.maximum(np.stack((new_w, new_h), -1), 1))


def resize(image: Tensor, frame: tuple[int, int], mode: ResizeMode) -> Tensor:
    """A picture [3, h, w], floats 0..1, as the network's input [3, H, W], floats 0..1. frame: (W, H)."""
    height, width = image.shape[-2:]
    new_w, new_h = (int(v) for v in fitted(np.array([width, height]), frame, mode))
    if mode == "stretch":
        return F.interpolate(image[None], (new_h, new_w), mode="bilinear", align_corners=False)[0]
    small = _lerp(_lerp(image, new_w, -1), new_h, -2)  # [3, new_h, new_w]
    left, top = (frame[0] - new_w) // 2, (frame[1] - new_h) // 2
    right, bottom = frame[0] - new_w - left, frame[1] - new_h - top
    return F.pad(small, (left, right, top, bottom), value=FILL)  # [3, H, W]


def _lerp(image: Tensor, size: int, dim: int) -> Tensor:
    """Linear interpolation along one axis with aligned corners, float32 steps as in Darknet's resize_image."""
    old = image.shape[dim]
    if old == size:
        return image
    scale = torch.tensor((old - 1) / max(size - 1, 1), dtype=torch.float32)
    at = torch.arange(size, dtype=torch.float32) * scale
    if dim == -1:
        at[-1] = old - 1  # Darknet takes the last column as it is, but lets the last row's position round
    low = at.long().clamp(max=old - 1)
    high = (low + 1).clamp(max=old - 1)
    part = (at - low).to(image)
    inside = (low + 1 < old).to(image)  # nothing lies beyond the edge
    weights = [weight.view(-1, *[1] * (-1 - dim)) for weight in (1 - part, part * inside)]
    return image.index_select(dim, low) * weights[0] + image.index_select(dim, high) * weights[1]


def geometry(sizes: NDArray[np.integer], frame: tuple[int, int], mode: ResizeMode) -> NDArray[np.float64]:
    """[..., 4] scale x, scale y, offset x, offset y that take image pixels to input pixels.

    sizes: [..., 2] (width, height) of pictures; frame: (W, H). The offset is a real half of the border, as Darknet
    computes it for boxes, although the picture itself lies on whole pixels.
    Source: region_layer.c, correct_region_boxes.
    """
    new = fitted(sizes, frame, mode)
    return np.concatenate((new / sizes, (np.asarray(frame) - new) / 2), -1)


def boxes_to_input(boxes: Tensor, size: tuple[int, int], frame: tuple[int, int], mode: ResizeMode) -> Tensor:
    """xyxy boxes [..., 4] of image pixels as input pixels. size: (w, h) of the picture; frame: (W, H)."""
    sx, sy, ox, oy = geometry(np.array(size), frame, mode).tolist()
    return boxes * boxes.new_tensor((sx, sy, sx, sy)) + boxes.new_tensor((ox, oy, ox, oy))


def boxes_to_image(boxes: Tensor, size: tuple[int, int], frame: tuple[int, int], mode: ResizeMode) -> Tensor:
    """xyxy boxes [..., 4] of input pixels as image pixels: the inverse of boxes_to_input."""
    sx, sy, ox, oy = geometry(np.array(size), frame, mode).tolist()
    return (boxes - boxes.new_tensor((ox, oy, ox, oy))) / boxes.new_tensor((sx, sy, sx, sy))
