"""Resize images to the network's input, and convert boxes between image and input.

letterbox keeps the aspect ratio and fills the rest with grey; stretch does not keep it. The modes that end in
_antialias average pixels when they shrink an image, as training does; networks trained here use them.
The other two interpolate between two pixels at any scale: letterbox as Darknet does, stretch as the blog's cv2.resize.
Source of letterbox: darknet/src/image.c, letterbox_image and resize_image; region_layer.c, correct_region_boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookonce.model.boxes import Array, like

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float32]
ResizeMode = Literal["letterbox", "stretch", "letterbox_antialias", "stretch_antialias"]
FILL = 0.5
"""Padding value of the letterbox, 0..1. Source: image.c, fill_image(boxed, .5)."""
GAP = 2.0
"""Pillow's reducing_gap: blocks of whole pixels are averaged first, down to this multiple of the new size."""
STRIP = 1 << 16
"""Numbers computed at a time, in whole rows: they fit into the processor's cache. Fewer at a time would make threads
wait for one another, since each step of numpy is a turn of Python."""


class Framed(NamedTuple):
    """An input in bytes, for a device that makes floats of it: a quarter of the memory to copy."""

    pixels: NDArray[np.uint8]  # [3, H, W]; 0 outside
    inside: tuple[int, int, int, int]
    """left, top, right, bottom of the image in it, pixels. What lies outside is the border."""


def stretches(mode: ResizeMode) -> bool:
    """Return whether a mode fills the whole input and changes the aspect ratio."""
    return mode.startswith("stretch")


def antialiases(mode: ResizeMode) -> bool:
    """Return whether a mode averages pixels when it shrinks an image."""
    return mode.endswith("_antialias")


def fitted(sizes: NDArray[np.integer], input_size: tuple[int, int], mode: ResizeMode) -> NDArray[np.integer]:
    """Return the sizes of images after the resize.

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


def to_input(image: NDArray[np.uint8] | Image.Image, input_size: tuple[int, int], mode: ResizeMode) -> Floats:
    """Return an image as the network's input [3, H, W], floats 0..1.

    image: [h, w, 3] uint8 RGB, or of Pillow in RGB, which takes less time in the modes that antialias.
    input_size: (W, H).
    """
    left, top, right, bottom = _place(image, input_size, mode)
    framed = np.full((3, input_size[1], input_size[0]), FILL, np.float32)
    inside = framed[:, top:bottom, left:right]
    if antialiases(mode):
        for plane, place in zip(_averaged(image, (right - left, bottom - top)).split(), inside, strict=True):
            np.divide(np.asarray(plane), np.float32(255), out=place)
    else:
        _interpolate(np.asarray(image), inside, mode)
    return framed


def to_bytes(image: NDArray[np.uint8] | Image.Image, input_size: tuple[int, int], mode: ResizeMode) -> Framed:
    """Return an image as the network's input in bytes, in a mode that antialiases: `unframed` gives what to_input does.

    Arguments as of to_input.
    """
    left, top, right, bottom = _place(image, input_size, mode)
    pixels = np.zeros((3, input_size[1], input_size[0]), np.uint8)
    small = _averaged(image, (right - left, bottom - top))
    for plane, place in zip(small.split(), pixels[:, top:bottom, left:right], strict=True):
        place[...] = plane
    return Framed(pixels, (left, top, right, bottom))


def unframed(pixels: Tensor, inside: Tensor) -> Tensor:
    """Return inputs [B, 3, H, W] as floats 0..1 on their device.

    pixels: [B, 3, H, W] uint8; inside: [B, 4] left, top, right, bottom of each image; the border around it is FILL.
    """
    import torch

    left, top, right, bottom = inside[:, :, None].unbind(1)  # [B, 1]
    columns, rows = (torch.arange(side, device=pixels.device) for side in (pixels.shape[3], pixels.shape[2]))
    across, down = (columns >= left) & (columns < right), (rows >= top) & (rows < bottom)  # [B, W], [B, H]
    return torch.where((down[:, :, None] & across[:, None])[:, None], pixels.float() / 255, FILL)


def _place(image: NDArray[np.uint8] | Image.Image, input_size: tuple[int, int],
           mode: ResizeMode) -> tuple[int, int, int, int]:  # fmt: skip
    """Return left, top, right, bottom of an image in the input, pixels."""
    new = fitted(np.array(image.size if isinstance(image, Image.Image) else image.shape[1::-1]), input_size, mode)
    left, top = (int(v) for v in (np.asarray(input_size) - new) // 2)
    return left, top, left + int(new[0]), top + int(new[1])


def _averaged(image: NDArray[np.uint8] | Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return an image resized to (width, height): a triangle filter if it shrinks, bilinear if it grows."""
    given = image if isinstance(image, Image.Image) else Image.fromarray(image)
    return given if given.size == size else given.resize(size, Image.Resampling.BILINEAR, reducing_gap=GAP)


def _interpolate(image: NDArray[np.uint8], inside: Floats, mode: ResizeMode) -> None:
    """Fill [3, new_h, new_w] with an image [h, w, 3], interpolated linearly on each axis, as 0..1."""
    height, width = image.shape[:2]
    new_h, new_w = inside.shape[1:]
    columns, rows = _columns(width, new_w, mode), _rows(height, new_h, mode)
    lines_of_image = image.reshape(height, 3 * width)  # channels side by side: a strip has all three
    height_of_strip = max(1, STRIP // (3 * width))
    for start in range(0, new_h, height_of_strip):
        strip = slice(start, start + height_of_strip)
        lines = _between(lines_of_image, [each[strip, None] for each in rows], 0)  # [rows of the strip, 3 * w]
        lines /= np.float32(255)
        found = _between(lines, columns, 1).reshape(len(lines), 3, new_w)
        inside[:, strip] = found.transpose(1, 0, 2)


@lru_cache(maxsize=256)
def _rows(old: int, new: int, mode: ResizeMode) -> tuple[NDArray[Any], ...]:
    """Return the neighbours of the new rows among the old, as _neighbours does."""
    return _neighbours(_centred(old, new) if mode == "stretch" else _aligned(old, new), old)


@lru_cache(maxsize=256)
def _columns(old: int, new: int, mode: ResizeMode) -> tuple[NDArray[Any], ...]:
    """Return the neighbours of the new columns: four times [3 * new], channel by channel, in lines of whole pixels."""
    at = _centred(old, new) if mode == "stretch" else _aligned(old, new)
    if mode != "stretch":
        at[-1] = old - 1  # Darknet uses the last column exactly, but the rounded position of the last row
    low, high, low_weight, high_weight = _neighbours(at, old)
    channel = np.arange(3)[:, None]
    return (3 * low + channel).ravel(), (3 * high + channel).ravel(), np.tile(low_weight, 3), np.tile(high_weight, 3)


def _aligned(old: int, new: int) -> Floats:
    """Return the positions [new] of new pixels among the old with corners aligned, float32 as in resize_image."""
    return np.arange(new, dtype=np.float32) * np.float32((old - 1) / max(new - 1, 1))


def _centred(old: int, new: int) -> Floats:
    """Return the positions [new] of the centres of new pixels among those of the old."""
    at = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * np.float32(old / new) - np.float32(0.5)
    found: Floats = np.clip(at, 0, old - 1)
    return found


def _neighbours(at: Floats, old: int) -> tuple[NDArray[Any], ...]:
    """Return the pixels below and above each position and their weights: four times [new]. Beyond the last: 0."""
    low = np.minimum(at.astype(np.int64), old - 1)
    part = at - low.astype(np.float32)
    return low, np.minimum(low + 1, old - 1), 1 - part, part * (low + 1 < old)


def _between(image: NDArray[np.uint8] | Floats, neighbours: Sequence[NDArray[Any]], axis: int) -> Floats:
    """Interpolate lines along one axis. neighbours: as from _neighbours, shaped to be multiplied."""
    low, high, low_weight, high_weight = neighbours
    below, above = (image.take(i.ravel(), axis, mode="clip").astype(np.float32, copy=False) for i in (low, high))
    below *= low_weight
    above *= high_weight
    below += above
    return below


def geometry(sizes: NDArray[np.integer], input_size: tuple[int, int], mode: ResizeMode) -> NDArray[np.float64]:
    """Return [..., 4] scale x, scale y, offset x, offset y from image pixels to input pixels.

    sizes: [..., 2] (width, height) of images; input_size: (W, H).
    Images start at whole input pixels. So do boxes in the modes that antialias; in the others the offset is exactly
    half the border, as in Darknet. Source: region_layer.c, correct_region_boxes.
    """
    new = fitted(sizes, input_size, mode)
    slack = np.asarray(input_size) - new
    return np.concatenate((new / sizes, slack // 2 if antialiases(mode) else slack / 2), -1)


def boxes_to_input(boxes: Array, size: tuple[int, int], input_size: tuple[int, int], mode: ResizeMode) -> Array:
    """Convert xyxy boxes [..., 4] from image pixels to input pixels. size: (w, h) of the image; input_size: (W, H)."""
    sx, sy, ox, oy = geometry(np.array(size), input_size, mode).tolist()
    found: Array = boxes * like((sx, sy, sx, sy), boxes) + like((ox, oy, ox, oy), boxes)
    return found


def boxes_to_image(boxes: Array, size: tuple[int, int], input_size: tuple[int, int], mode: ResizeMode) -> Array:
    """Convert xyxy boxes [..., 4] from input pixels to image pixels: the inverse of boxes_to_input."""
    sx, sy, ox, oy = geometry(np.array(size), input_size, mode).tolist()
    found: Array = (boxes - like((ox, oy, ox, oy), boxes)) / like((sx, sy, sx, sy), boxes)
    return found
