"""Augmentation of training images: crop, scale, aspect, flip and resize as one affine map an image, then colour.

Applied once to a whole batch: the maps and the boxes on the host, the pixels on the device (resample.py).
Reduced images [B, 3, S, S] uint8 become inputs [B, 3, H, W] of 0..1; boxes go from pixels of the reduced images to
input pixels.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lookonce.data.augmentation import Augmentation
from lookonce.data.loader import Batch
from lookonce.data.resample import DeviceImages, HostImages
from lookonce.model.boxes import area, clip
from lookonce.model.device import to_device
from lookonce.model.resize import ResizeMode, fitted, geometry

Source = HostImages | DeviceImages

PARAMETERS = 10
"""Uniform random numbers that determine how one image is augmented."""
GOLDEN = (5**0.5 - 1) / 2
"""Uniform numbers shifted by it, modulo 1, are uniform again and unlike the first ones."""


class InputBatch(NamedTuple):
    """The network's input for a batch, and its N objects, which stay on the host."""

    images: Tensor  # [B, 3, H, W] 0..1; [0] if outputs replace them
    boxes: Tensor  # [N, 4] xyxy input px, each side at least 1 px
    labels: Tensor  # [N]
    image_index: Tensor  # [N]
    ignore: Tensor  # [N] bool
    outputs: tuple[Tensor, ...] = ()  # of a frozen backbone, each [B, C, H', W']
    image_labels: Tensor | None = None  # [B] class of an image that is labelled as a whole, else -1; None: all -1

    def first(self, count: int) -> InputBatch:
        """Return the first images with their objects."""
        own = self.image_index < count
        labels = None if self.image_labels is None else self.image_labels[:count]
        return InputBatch(self.images[:count], self.boxes[own], self.labels[own], self.image_index[own],
                          self.ignore[own], tuple(output[:count] for output in self.outputs), labels)  # fmt: skip

    def to(self, device: torch.device | str) -> InputBatch:
        """Return the batch with its images on another device."""
        outputs = tuple(output.to(device, non_blocking=True) for output in self.outputs)
        return self._replace(images=self.images.to(device, non_blocking=True), outputs=outputs)


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
    return _transform(batch, None if batch.outputs else _source(batch), input_size, mode, augment, u)


def mosaic(batch: Batch, input_size: tuple[int, int], mode: ResizeMode, augment: Augmentation,
           u: NDArray[np.float64]) -> InputBatch:  # fmt: skip
    """Like augment_batch, but each input shows parts of four images of the batch, one a quarter, at their usual scale.

    Every image is in four inputs, each time with other parameters. Source of the idea: YOLOv4, section 3.3.
    Images that are labelled as a whole stay alone: in a mosaic, their objects without boxes would be background.
    """
    boxed = (batch.image_labels < 0).nonzero()[:, 0]  # [D] images of the batch that become mosaics
    place = batch.image_labels.new_zeros(len(batch)).index_put_((boxed,), torch.arange(len(boxed)))  # [B] inverse
    every = len(boxed) == len(batch)
    rows = slice(None) if every else boxed
    half = (input_size[0] // 2, input_size[1] // 2)
    usual = replace(augment, zoom=(2 * augment.zoom[0], 2 * augment.zoom[1]))  # of half the input
    source = _source(batch)
    parts = [_transform(batch, source, half, mode, usual, (u + quarter * GOLDEN) % 1) for quarter in range(4)]
    places = [(0, 0), (half[0], 0), (0, half[1]), half]
    shape, first = (len(batch), 3, input_size[1], input_size[0]), parts[0].images
    joined = torch.empty(shape, dtype=first.dtype, device=first.device, memory_format=torch.channels_last)
    for quarter, (x, y) in enumerate(places):
        joined[rows, :, y : y + half[1], x : x + half[0]] = parts[quarter].images[rows].roll(-quarter, 0)
    if not every:
        alone = batch.image_labels >= 0
        joined[alone] = _transform(batch, source, input_size, mode, augment, u).images[alone]
    corners = torch.tensor(places).repeat(1, 2)  # [4, 4]
    return InputBatch(
        images=joined,
        boxes=torch.cat([part.boxes + corner for part, corner in zip(parts, corners, strict=True)]),
        labels=torch.cat([part.labels for part in parts]),
        image_index=torch.cat(
            [boxed[(place[part.image_index] - quarter) % max(len(boxed), 1)] for quarter, part in enumerate(parts)]
        ),
        ignore=torch.cat([part.ignore for part in parts]),
        image_labels=batch.image_labels,
    )


def _transform(batch: Batch, source: Source | None, input_size: tuple[int, int], mode: ResizeMode,
               augment: Augmentation, u: NDArray[np.float64]) -> InputBatch:  # fmt: skip
    """Augment a batch. source: its images, or None if a frozen backbone's outputs replace them."""
    maps = affine(batch.sizes.numpy(), input_size, mode, augment, u)  # [B, 4]
    seen = batch.images.new_zeros(0)
    if source is not None:
        seen = _coloured(source.resample(maps, input_size), augment, u)
    return InputBatch(seen, *_place(batch, maps, input_size, augment.keep), batch.outputs, batch.image_labels)


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


def _source(batch: Batch) -> Source:
    """Return the images of a batch, ready to be resampled."""
    kind = HostImages if batch.images.device.type == "cpu" else DeviceImages
    return kind(batch.images, batch.sizes, batch.reduced)


def _coloured(images: Tensor, augment: Augmentation, u: NDArray[np.float64]) -> Tensor:
    """Return images [B, 3, H, W] of 0..1 with their colours changed."""
    if not (augment.hue or augment.saturation > 1 or augment.exposure > 1):
        return images
    matrix = to_device(torch.from_numpy(colour(augment, u)).to(images.dtype), images.device)
    return torch.einsum("bij,bjhw->bihw", matrix, images).clamp_(0, 1)
