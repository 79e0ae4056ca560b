"""The one resize of detection, evaluation and anchors: letterbox (Darknet's) or stretch (the blog's).

A picture [3, h, w] of image pixels becomes [3, H, W] of input pixels; boxes go along and back.
Source: darknet/src/image.c, letterbox_image and resize_image; region_layer.c, correct_region_boxes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lookonce.arrays import Array, like

Floats = NDArray[np.float32]

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


def resize(image: Floats, frame: tuple[int, int], mode: ResizeMode) -> Floats:
    """A picture [3, h, w], floats 0..1, as the network's input [3, H, W], floats 0..1. frame: (W, H)."""
    height, width = image.shape[-2:]
    new_w, new_h = (int(v) for v in fitted(np.array([width, height]), frame, mode))
    if mode == "stretch":
        return _lerp(_lerp(image, _centred(width, new_w), -1), _centred(height, new_h), -2)
    across = _aligned(width, new_w)
    across[-1] = width - 1  # Darknet takes the last column as it is, but lets the last row's position round
    small = _lerp(_lerp(image, across, -1), _aligned(height, new_h), -2)  # [3, new_h, new_w]
    left, top = (frame[0] - new_w) // 2, (frame[1] - new_h) // 2
    framed = np.full((3, frame[1], frame[0]), FILL, np.float32)
    framed[:, top : top + new_h, left : left + new_w] = small
    return framed  # [3, H, W]


def to_input(picture: NDArray[np.uint8], frame: tuple[int, int], mode: ResizeMode) -> Floats:
    """A picture [h, w, 3] uint8 RGB as the network's input [3, H, W], floats 0..1. frame: (W, H)."""
    return resize(picture.transpose(2, 0, 1).astype(np.float32, "C") / np.float32(255), frame, mode)


def _aligned(old: int, new: int) -> Floats:
    """Where new pixels lie among the old if corners stay corners: [new], float32 steps as in Darknet's resize_image."""
    return np.arange(new, dtype=np.float32) * np.float32((old - 1) / max(new - 1, 1))


def _centred(old: int, new: int) -> Floats:
    """Where the centres of new pixels lie among those of the old: [new]."""
    at = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * np.float32(old / new) - np.float32(0.5)
    found: Floats = np.clip(at, 0, old - 1)
    return found


def _lerp(image: Floats, at: Floats, axis: int) -> Floats:
    """Linear interpolation along one axis (-1 or -2) at the given positions; beyond the last pixel lies nothing."""
    old = image.shape[axis]
    if len(at) == old:
        return image
    low = np.minimum(at.astype(np.int64), old - 1)
    part = at - low.astype(np.float32)
    weights = [1 - part, part * (low + 1 < old)]
    if axis == -2:
        weights = [weight[:, None] for weight in weights]
    found: Floats = image.take(low, axis) * weights[0] + image.take(np.minimum(low + 1, old - 1), axis) * weights[1]
    return found


def geometry(sizes: NDArray[np.integer], frame: tuple[int, int], mode: ResizeMode) -> NDArray[np.float64]:
    """[..., 4] scale x, scale y, offset x, offset y that take image pixels to input pixels.

    sizes: [..., 2] (width, height) of pictures; frame: (W, H). The offset is a real half of the border, as Darknet
    computes it for boxes, although the picture itself lies on whole pixels.
    Source: region_layer.c, correct_region_boxes.
    """
    new = fitted(sizes, frame, mode)
    return np.concatenate((new / sizes, (np.asarray(frame) - new) / 2), -1)


def boxes_to_input(boxes: Array, size: tuple[int, int], frame: tuple[int, int], mode: ResizeMode) -> Array:
    """xyxy boxes [..., 4] of image pixels as input pixels. size: (w, h) of the picture; frame: (W, H)."""
    sx, sy, ox, oy = geometry(np.array(size), frame, mode).tolist()
    found: Array = boxes * like((sx, sy, sx, sy), boxes) + like((ox, oy, ox, oy), boxes)
    return found


def boxes_to_image(boxes: Array, size: tuple[int, int], frame: tuple[int, int], mode: ResizeMode) -> Array:
    """xyxy boxes [..., 4] of input pixels as image pixels: the inverse of boxes_to_input."""
    sx, sy, ox, oy = geometry(np.array(size), frame, mode).tolist()
    found: Array = (boxes - like((ox, oy, ox, oy), boxes)) / like((sx, sy, sx, sy), boxes)
    return found
