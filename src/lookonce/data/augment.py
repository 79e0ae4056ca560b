"""Augmentation of training images: crop, scale, aspect, flip and resize as one affine map an image, then colour.

Applied once to a whole batch, on the device. An image that shrinks is averaged with the same triangle as in detection
(resize.py), so that both see the same pixels where nothing is augmented. Reduced images [B, 3, S, S] uint8 become
inputs [B, 3, H, W] of 0..1; boxes go from pixels of the reduced images to input pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lookonce.data.augmentation import Augmentation
from lookonce.data.loader import Batch
from lookonce.model.boxes import area, clip
from lookonce.model.resize import FILL, ResizeMode, fitted, geometry

PARAMETERS = 10
"""Uniform random numbers that determine how one image is augmented."""
AVERAGED = 0.5
"""What reducing an image to the cache takes off the squared half-width of the triangle, pixels². Variances add, so in
theory 1; with .5 the noise of large images has the energy that it has in detection (.99 of it; with 1: 1.08)."""
GOLDEN = (5**0.5 - 1) / 2
"""Uniform numbers shifted by it, modulo 1, are uniform again and unlike the first ones."""


class InputBatch(NamedTuple):
    """The network's input for a batch, and its N objects."""

    images: Tensor  # [B, 3, H, W] 0..1; [0] if outputs replace them
    boxes: Tensor  # [N, 4] xyxy input px, each side at least 1 px
    labels: Tensor  # [N]
    image_index: Tensor  # [N]
    ignore: Tensor  # [N] bool
    outputs: tuple[Tensor, ...] = ()  # of a frozen backbone, each [B, C, H', W']


def sample_parameters(seed: int, epoch: int, index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return uniform numbers [B, PARAMETERS] that depend only on (seed, epoch, image): a resumed run gets the same."""
    return np.array([np.random.default_rng((seed, epoch, int(i))).random(PARAMETERS) for i in index]).reshape(
        -1, PARAMETERS
    )


def affine(sizes: NDArray[np.int64], input_size: tuple[int, int], mode: ResizeMode,
           augment: Augmentation, u: NDArray[np.float64]) -> NDArray[np.float64]:  # fmt: skip
    """Return the maps from pixels of the reduced images to input pixels: x' = sx * x + ox, y' = sy * y + oy.

    Args:
        sizes: [B, 2] (width, height) of the reduced images.
        input_size: (W, H) of the input.
        mode: how the image is resized without augmentation, as in resize.to_input.
        augment: ranges of the parameters.
        u: [B, PARAMETERS] in [0, 1), from sample_parameters().
    Returns:
        [B, 4] (sx, sy, ox, oy); sx is negative in a mirrored image.
    Source of aspect and place: darknet/src/data.c, load_data_detection.
    """
    stretch = (1 + augment.aspect * (2 * u[:, 0] - 1)) / (1 + augment.aspect * (2 * u[:, 1] - 1))  # [B]
    low, high = np.log(augment.zoom)
    zoom = np.exp(low + (high - low) * u[:, 2])
    shape = np.stack((np.minimum(stretch, 1), np.minimum(1 / stretch, 1)), -1) * zoom[:, None]  # [B, 2]
    new = fitted(sizes, input_size, mode) * shape  # [B, 2] input px
    slack = np.asarray(input_size) - new
    moved = (augment.zoom != (1.0, 1.0)) or augment.aspect > 0
    offset = slack * u[:, 3:5] if moved else geometry(sizes, input_size, mode)[:, 2:]
    scale = new / sizes
    flipped = u[:, 5] < augment.flip
    scale[flipped, 0] *= -1
    offset[flipped, 0] = input_size[0] - offset[flipped, 0]
    return np.concatenate((scale, offset), -1)


def colour(augment: Augmentation, u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return RGB matrices [B, 3, 3]: exposure times saturation (about the luma) times hue (rotation about grey)."""
    angle = 2 * math.pi * augment.hue * (2 * u[:, 6] - 1)
    saturation = augment.saturation ** (2 * u[:, 7] - 1)
    exposure = augment.exposure ** (2 * u[:, 8] - 1)
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    third, cross = np.full((3, 3), 1 / 3), np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    turn = cos * np.eye(3) + (1 - cos) * third + sin * cross  # Rodrigues, about (1, 1, 1)
    luma = np.tile(np.array([0.299, 0.587, 0.114]), (3, 1))
    vivid = luma + saturation[:, None, None] * (np.eye(3) - luma)
    return np.asarray(exposure[:, None, None] * (vivid @ turn))


def augment_batch(batch: Batch, input_size: tuple[int, int], mode: ResizeMode, augment: Augmentation,
                  u: NDArray[np.float64]) -> InputBatch:  # fmt: skip
    """Return the network's input for a batch; outputs in place of images are passed on.

    u: [B, PARAMETERS] from sample_parameters().
    """
    return _transform(batch, () if batch.outputs else _images(batch), input_size, mode, augment, u)


def mosaic(batch: Batch, input_size: tuple[int, int], mode: ResizeMode, augment: Augmentation,
           u: NDArray[np.float64]) -> InputBatch:  # fmt: skip
    """Like augment_batch, but each input shows parts of four images of the batch, one a quarter, at their usual scale.

    Every image is in four inputs, each time with other parameters. Source of the idea: YOLOv4, section 3.3.
    """
    half, images = (input_size[0] // 2, input_size[1] // 2), _images(batch)
    usual = replace(augment, zoom=(2 * augment.zoom[0], 2 * augment.zoom[1]))  # of half the input
    parts = [_transform(batch, images, half, mode, usual, (u + quarter * GOLDEN) % 1) for quarter in range(4)]
    places = [(0, 0), (half[0], 0), (0, half[1]), half]
    shape, kind = (len(batch), 3, input_size[1], input_size[0]), parts[0].images
    joined = torch.empty(shape, dtype=kind.dtype, device=kind.device, memory_format=torch.channels_last)
    for quarter, (x, y) in enumerate(places):
        for n, image in enumerate(parts[quarter].images):  # [3, H/2, W/2]
            joined[(n - quarter) % len(batch), :, y : y + half[1], x : x + half[0]] = image
    corners = torch.tensor(places, device=batch.boxes.device).repeat(1, 2)  # [4, 4]
    return InputBatch(
        images=joined,
        boxes=torch.cat([part.boxes + corner for part, corner in zip(parts, corners, strict=True)]),
        labels=torch.cat([part.labels for part in parts]),
        image_index=torch.cat([(part.image_index - quarter) % len(batch) for quarter, part in enumerate(parts)]),
        ignore=torch.cat([part.ignore for part in parts]),
    )


def _transform(batch: Batch, images: Sequence[Tensor], input_size: tuple[int, int], mode: ResizeMode,
               augment: Augmentation, u: NDArray[np.float64]) -> InputBatch:  # fmt: skip
    """Augment a batch. images: its _images, or none if a frozen backbone's outputs replace them."""
    sizes, reduced = batch.sizes.cpu().numpy(), batch.reduced.cpu().numpy()
    maps = affine(sizes, input_size, mode, augment, u)  # [B, 4]
    seen = batch.images.new_zeros(0)
    if images:
        shape = (len(batch), 3, input_size[1], input_size[0])
        seen = torch.full(shape, FILL, device=batch.images.device).contiguous(memory_format=torch.channels_last)
        for n, image in enumerate(images):
            _sample(image, maps[n], bool(reduced[n]), seen[n])
        seen = _coloured(seen, augment, u)
    return InputBatch(seen, *_place(batch, maps, input_size, augment.keep), batch.outputs)


def _place(batch: Batch, maps: NDArray[np.float64], input_size: tuple[int, int],
          keep: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return boxes [N, 4] in input pixels, labels, image_index and ignore of the objects that stay in view.

    maps: [B, 4] from affine(); keep: ratio in view below which an object is ignored.
    """
    of_box = torch.from_numpy(maps).to(batch.boxes)[batch.image_index]  # [N, 4]
    moved = batch.boxes * of_box[:, [0, 1, 0, 1]] + of_box[:, [2, 3, 2, 3]]
    low, high = torch.minimum(moved[:, :2], moved[:, 2:]), torch.maximum(moved[:, :2], moved[:, 2:])
    whole = torch.cat((low, high), -1)
    seen = clip(whole, *input_size)
    real = (seen[:, 2:] - seen[:, :2]).amin(-1) >= 1 if len(seen) else torch.zeros(0, dtype=torch.bool)
    hidden = area(seen) < keep * area(whole)
    return seen[real], batch.labels[real], batch.image_index[real], (batch.ignore | hidden)[real]


def _images(batch: Batch) -> list[Tensor]:
    """Return the images as floats of 0..255, row by row: [h, 3, w]."""
    pairs = zip(batch.images, batch.sizes.tolist(), strict=True)
    parts = (image[:, :h, :w].transpose(0, 1) for image, (w, h) in pairs)
    return [part.to(torch.float32, memory_format=torch.contiguous_format) for part in parts]


def _coloured(images: Tensor, augment: Augmentation, u: NDArray[np.float64]) -> Tensor:
    """Return images [B, 3, H, W] of 0..1 with their colours changed."""
    if not (augment.hue or augment.saturation > 1 or augment.exposure > 1):
        return images
    matrix = torch.from_numpy(colour(augment, u)).to(images)
    return torch.einsum("bij,bjhw->bihw", matrix, images).clamp_(0, 1)


def _sample(image: Tensor, scales: NDArray[np.float64], reduced: bool, seen: Tensor) -> None:
    """Resample an image [h, 3, w] into an input [3, H, W] of FILL by its map (sx, sy, ox, oy).

    The map is separable: each pixel is a weighted sum of a few rows, then of a few columns.
    """
    sx, sy, ox, oy = scales
    top, rows, of_rows = _taps(image.shape[0], sy, oy, seen.shape[1], reduced)  # [h', K]
    left, columns, of_columns = _taps(image.shape[2], sx, ox, seen.shape[2], reduced)  # [w', K]
    if not (len(rows) and len(columns)):
        return
    first, last = int(columns.min()), int(columns.max()) + 1
    part = image[rows.min() : rows.max() + 1, :, first:last].flatten(1)  # [h, 3 * columns]
    lines = _weighted(part, rows - rows.min(), of_rows).view(-1, last - first)  # [h' * 3, columns]
    found = _weighted(lines.T.contiguous(), columns - first, of_columns).T  # [h' * 3, w']
    place = seen[:, top : top + len(rows), left : left + len(columns)]
    torch.div(found.reshape(len(rows), 3, -1).transpose(0, 1), 255, out=place)


def _taps(size: int, scale: float, offset: float, length: int,
          reduced: bool) -> tuple[int, NDArray[np.int64], NDArray[np.float32]]:  # fmt: skip
    """Return (first input pixel inside the image, pixels that each averages [L, K], their weights [L, K]) of one axis.

    The filter is a triangle, two input pixels wide where the image shrinks and two image pixels where it grows, as in
    Pillow. It is narrower for an image that was reduced, which averaged its pixels already. The image ends as in
    detection: with the last input pixel whose centre is inside.

    Args:
        size: size of the reduced image, px.
        scale, offset: of the map.
        length: size of the input, px.
        reduced: whether the image was reduced.
    """
    half = max(1.0, math.sqrt(max(scale**-2 - AVERAGED * reduced, 0)))  # image px
    centres = (np.arange(length) + 0.5 - offset) / scale  # [length] image px
    inside = np.flatnonzero((centres > 0) & (centres < size))
    centres = centres[inside, None]
    taps = np.ceil(centres - half - 0.5) + np.arange(math.ceil(2 * half))  # [L, K]
    weights = np.maximum(1 - np.abs(taps + 0.5 - centres) / half, 0)
    weights *= (taps >= 0) & (taps < size)
    weights /= weights.sum(1, keepdims=True)
    start = int(inside[0]) if len(inside) else 0
    return start, np.clip(taps, 0, size - 1).astype(np.int64), weights.astype(np.float32)


def _weighted(table: Tensor, taps: NDArray[np.int64], weights: NDArray[np.float32]) -> Tensor:
    """Return weighted sums of rows of a table [n, D]: [L, D]."""
    index, weight = torch.from_numpy(taps).to(table.device), torch.from_numpy(weights).to(table.device)
    return F.embedding_bag(index, table, per_sample_weights=weight, mode="sum")
