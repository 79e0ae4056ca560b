"""Resize an image to the network's input, and its boxes there and back. Detection, evaluation and anchors use it.

letterbox keeps the aspect ratio and fills the rest with grey; stretch does not keep it. The modes that end in
_antialias average the pixels that a smaller image leaves out, as training does; networks trained here use them.
The other two interpolate between two pixels at any scale: letterbox is Darknet's own, stretch the blog's cv2.resize.
Source of letterbox: darknet/src/image.c, letterbox_image and resize_image;
region_layer.c, correct_region_boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookonce.model.boxes import Array, like

Floats = NDArray[np.float32]
ResizeMode = Literal["letterbox", "stretch", "letterbox_antialias", "stretch_antialias"]
FILL = 0.5
"""Padding value of the letterbox, 0..1. Source: image.c, fill_image(boxed, .5)."""
GAP = 2.0
"""Times the new size: the least that blocks of whole pixels may leave before the image is resized."""
STRIP = 16
"""Rows of the input made at a time: what they need stays in the processor's cache, which is three times as fast."""


def stretches(mode: ResizeMode) -> bool:
    """Return whether a mode fills the whole input and changes the aspect ratio."""
    return mode.startswith("stretch")


def antialiases(mode: ResizeMode) -> bool:
    """Return whether a mode averages where it shrinks."""
    return mode.endswith("_antialias")


def fitted(sizes: NDArray[np.integer], input_size: tuple[int, int], mode: ResizeMode) -> NDArray[np.integer]:
    """Sizes that images take in the input_size.

    Args:
        sizes: [..., 2] (width, height) of images, image pixels.
        input_size: (width, height) of the network's input, pixels.
        mode: a letterbox keeps the aspect ratio (whole pixels, rounded down, at least 1); a stretch does not.
    Returns:
        [..., 2] (width, height), input pixels.
    """
    sizes = np.asarray(sizes)
    if stretches(mode):
        return np.broadcast_to(np.asarray(input_size, sizes.dtype), sizes.shape)
    w, h = sizes[..., 0], sizes[..., 1]
    by_width = input_size[0] / w < input_size[1] / h
    new_w = np.where(by_width, input_size[0], w * input_size[1] // h)
    new_h = np.where(by_width, h * input_size[0] // w, input_size[1])
    return np.asarray(np.maximum(np.stack((new_w, new_h), -1), 1))


def to_input(image: NDArray[np.uint8], input_size: tuple[int, int], mode: ResizeMode) -> Floats:
    """Return an image [h, w, 3] uint8 RGB as the network's input [3, H, W], floats 0..1. input_size: (W, H)."""
    size = np.array(image.shape[1::-1])
    new = fitted(size, input_size, mode)
    left, top = (int(v) for v in (np.asarray(input_size) - new) // 2)
    new_w, new_h = (int(v) for v in new)
    framed = np.full((3, input_size[1], input_size[0]), FILL, np.float32)
    inside = framed[:, top : top + new_h, left : left + new_w]
    if antialiases(mode):
        inside[:] = _averaged(image, (new_w, new_h)).transpose(2, 0, 1)
        inside /= np.float32(255)
    else:
        _interpolate(image, inside, mode)
    return framed


def _averaged(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image [h, w, 3] at another (width, height): a triangle of two new pixels' width, or bilinear where it grows.

    One that shrinks to less than half is first averaged in whole blocks, which is faster and looks the same.
    """
    if image.shape[1::-1] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=GAP))


def _interpolate(image: NDArray[np.uint8], inside: Floats, mode: ResizeMode) -> None:
    """Fill [3, new_h, new_w] from an image [h, w, 3] with what lies between two pixels of each axis, as 0..1."""
    height, width = image.shape[:2]
    new_h, new_w = inside.shape[1:]
    if mode == "stretch":
        across, down = _centred(width, new_w), _centred(height, new_h)
    else:
        across, down = _aligned(width, new_w), _aligned(height, new_h)
        across[-1] = width - 1  # Darknet takes the last column as it is, but lets the last row's position round
    columns, rows = _neighbours(across, width), _neighbours(down, height)
    for start in range(0, new_h, STRIP):
        strip = slice(start, start + STRIP)
        lines = _between(image, [each[strip, None, None] for each in rows], 0)  # [STRIP, w, 3]
        planes = np.ascontiguousarray(lines.transpose(2, 0, 1))
        planes /= np.float32(255)
        inside[:, strip] = _between(planes, columns, 2)


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


def geometry(sizes: NDArray[np.integer], input_size: tuple[int, int], mode: ResizeMode) -> NDArray[np.float64]:
    """[..., 4] scale x, scale y, offset x, offset y that take image pixels to input pixels.

    sizes: [..., 2] (width, height) of images; input_size: (W, H).
    Images lie on whole input pixels. So do the boxes of the
    modes that antialias; those of the others are moved by a real half of the border, as Darknet computes it.
    Source: region_layer.c, correct_region_boxes.
    """
    new = fitted(sizes, input_size, mode)
    slack = np.asarray(input_size) - new
    return np.concatenate((new / sizes, slack // 2 if antialiases(mode) else slack / 2), -1)


def boxes_to_input(boxes: Array, size: tuple[int, int], input_size: tuple[int, int], mode: ResizeMode) -> Array:
    """xyxy boxes [..., 4] of image pixels as input pixels. size: (w, h) of the image; input_size: (W, H)."""
    sx, sy, ox, oy = geometry(np.array(size), input_size, mode).tolist()
    found: Array = boxes * like((sx, sy, sx, sy), boxes) + like((ox, oy, ox, oy), boxes)
    return found


def boxes_to_image(boxes: Array, size: tuple[int, int], input_size: tuple[int, int], mode: ResizeMode) -> Array:
    """xyxy boxes [..., 4] of input pixels as image pixels: the inverse of boxes_to_input."""
    sx, sy, ox, oy = geometry(np.array(size), input_size, mode).tolist()
    found: Array = (boxes - like((ox, oy, ox, oy), boxes)) / like((sx, sy, sx, sy), boxes)
    return found
