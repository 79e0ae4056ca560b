"""Resample the images of a batch into network inputs, each by its own affine map.

An image that shrinks is averaged with the same triangle as in detection (resize.py), so that both see the same pixels
where nothing is augmented. The map is separable: each input pixel is a weighted sum of a few rows, then of a few
columns. On the host, sums over those few pixels take the fewest operations; a GPU multiplies with whole matrices, in
half precision (within .3 of 255 levels), one call for the batch.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lookonce.model.device import to_device
from lookonce.model.resize import FILL

AVERAGED = 0.5
"""What reducing an image to the cache takes off the squared half-width of the triangle, pixels². Variances add, so in
theory 1; with .5 the noise of large images has the energy that it has in detection (.99 of it; with 1: 1.08)."""


class HostImages:
    """The images of a batch in the memory of the host.

    Args:
        images: [B, 3, S, S] uint8, each reduced image at the top left.
        sizes: [B, 2] (width, height) of the reduced images.
        reduced: [B] bool, whether an image is smaller than its file, whose pixels it then averages.
    """

    def __init__(self, images: Tensor, sizes: Tensor, reduced: Tensor) -> None:
        pairs = zip(images, sizes.tolist(), strict=True)
        parts = (image[:, :h, :w].transpose(0, 1) for image, (w, h) in pairs)  # row by row: [h, 3, w]
        self.parts = [part.to(torch.float32, memory_format=torch.contiguous_format) for part in parts]
        self.reduced = reduced.tolist()

    def resample(self, maps: NDArray[np.float64], input_size: tuple[int, int]) -> Tensor:
        """Return the inputs [B, 3, H, W] of 0..1, FILL outside the images. maps: [B, 4] from augment.affine."""
        width, height = input_size
        seen = torch.full((len(self.parts), 3, height, width), FILL).contiguous(memory_format=torch.channels_last)
        for part, scales, reduced, own in zip(self.parts, maps, self.reduced, seen, strict=True):
            _sample(part, scales, reduced, own)
        return seen


class DeviceImages:
    """The images of a batch on a device. Arguments as for HostImages; sizes and reduced are on the host."""

    def __init__(self, images: Tensor, sizes: Tensor, reduced: Tensor) -> None:
        self.images = images.permute(0, 2, 3, 1).flatten(2).half()  # [B, S, S * 3]; bytes are exact in half precision
        self.sizes, self.reduced = sizes, reduced

    def resample(self, maps: NDArray[np.float64], input_size: tuple[int, int]) -> Tensor:
        """Return the inputs [B, 3, H, W] of 0..1, FILL outside the images. maps: [B, 4] from augment.affine."""
        batch, side, _ = self.images.shape
        about = torch.cat((torch.from_numpy(maps), self.sizes, self.reduced[:, None]), 1).float()  # [B, 7]
        sx, sy, ox, oy, width, height, reduced = to_device(about, self.images.device).T
        across, inside_x = _matrix(sx, ox, width, reduced, side, input_size[0])  # [B, W, S]
        down, inside_y = _matrix(sy, oy, height, reduced, side, input_size[1])  # [B, H, S]
        lines = (down @ self.images).view(batch, -1, side, 3).transpose(2, 3)  # [B, H, 3, S]
        found = lines.flatten(1, 2) @ across.transpose(1, 2)  # [B, H * 3, W]
        outside = ~(inside_y[:, :, None] & inside_x[:, None])  # [B, H, W]
        inputs = (found.view(batch, -1, 3, input_size[0]).float() / 255).transpose(1, 2) + FILL * outside[:, None]
        return inputs.contiguous(memory_format=torch.channels_last)


def _matrix(scale: Tensor, offset: Tensor, size: Tensor, reduced: Tensor, side: int,
            length: int) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the weights [B, length, side] of one axis of a batch, and whether a pixel is inside [B, length].

    The same filter as _taps gives, as a matrix. scale, offset, size, reduced: [B]; side: columns of the matrix.
    """
    half = (scale**-2 - AVERAGED * reduced).clamp(min=1).sqrt()[:, None, None]  # image px
    steps = torch.arange(max(side, length), device=scale.device) + 0.5
    centres = (steps[:length] - offset[:, None]) / scale[:, None]  # [B, length] image px
    pixels = steps[:side]
    weights = (1 - (pixels - centres[..., None]).abs() / half).clamp(min=0) * (pixels < size[:, None, None])
    inside = (centres > 0) & (centres < size[:, None])
    total = weights.sum(-1, keepdim=True)
    return (weights / total.clamp(min=1e-6) * inside[..., None]).half(), inside


def _sample(image: Tensor, scales: NDArray[np.float64], reduced: bool, seen: Tensor) -> None:
    """Resample an image [h, 3, w] into an input [3, H, W] of FILL by its map (sx, sy, ox, oy)."""
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
