"""The one resize of detection, evaluation and anchors: letterbox (Darknet's) or stretch (the blog's).

A picture [3, h, w] of image pixels becomes [3, H, W] of input pixels; boxes go along and back.
Source: darknet/src/image.c, letterbox_image and resize_image; region_layer.c, correct_region_boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lookonce.arrays import Array, like

Floats = NDArray[np.float32]

ResizeMode = Literal["letterbox", "stretch"]
FILL = 0.5
"""What the letterbox puts around the picture, of 0..1. Source: image.c, fill_image(boxed, .5)."""


STRIP = 16
"""Rows of the input made at a time: what they need stays in the processor's cache, which is three times as fast."""


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


def to_input(picture: NDArray[np.uint8], frame: tuple[int, int], mode: ResizeMode) -> Floats:
    """A picture [h, w, 3] uint8 RGB as the network's input [3, H, W], floats 0..1. frame: (W, H)."""
    height, width = picture.shape[:2]
    new_w, new_h = (int(v) for v in fitted(np.array([width, height]), frame, mode))
    if mode == "stretch":
        across, down = _centred(width, new_w), _centred(height, new_h)
    else:
        across, down = _aligned(width, new_w), _aligned(height, new_h)
        across[-1] = width - 1  # Darknet takes the last column as it is, but lets the last row's position round
    columns, rows = _neighbours(across, width), _neighbours(down, height)
    left, top = (frame[0] - new_w) // 2, (frame[1] - new_h) // 2
    framed = np.full((3, frame[1], frame[0]), FILL, np.float32)
    for start in range(0, new_h, STRIP):
        strip = slice(start, start + STRIP)
        lines = _between(picture, [each[strip, None, None] for each in rows], 0)  # [STRIP, w, 3]
        planes = np.ascontiguousarray(lines.transpose(2, 0, 1))
        planes /= np.float32(255)
        under = slice(top + start, top + min(start + STRIP, new_h))
        framed[:, under, left : left + new_w] = _between(planes, columns, 2)
    return framed  # [3, H, W]


def _aligned(old: int, new: int) -> Floats:
    """Where new pixels lie among the old if corners stay corners: [new], float32 steps as in Darknet's resize_image."""
    return np.arange(new, dtype=np.float32) * np.float32((old - 1) / max(new - 1, 1))


def _centred(old: int, new: int) -> Floats:
    """Where the centres of new pixels lie among those of the old: [new]."""
    at = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * np.float32(old / new) - np.float32(0.5)
    found: Floats = np.clip(at, 0, old - 1)
    return found


def _neighbours(at: Floats, old: int) -> list[NDArray[Any]]:
    """The two pixels beside each position, and their weights: four times [new]. Beyond the last pixel lies nothing."""
    low = np.minimum(at.astype(np.int64), old - 1)
    part = at - low.astype(np.float32)
    return [low, np.minimum(low + 1, old - 1), 1 - part, part * (low + 1 < old)]


def _between(image: NDArray[np.uint8] | Floats, neighbours: Sequence[NDArray[Any]], axis: int) -> Floats:
    """Linear interpolation along one axis of three: see _neighbours, shaped to be multiplied."""
    low, high, low_weight, high_weight = neighbours
    near, far = (image.take(i.ravel(), axis).astype(np.float32, copy=False) for i in (low, high))
    near *= low_weight
    far *= high_weight
    near += far
    return near


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
