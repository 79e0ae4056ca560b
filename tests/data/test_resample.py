"""Resampling: both ways to compute it give what a slow loop over pixels gives."""

import numpy as np
import pytest
import torch

from lookonce.data.resample import AVERAGED, DeviceImages, HostImages
from lookonce.model.resize import FILL

SIZES = torch.tensor([[13, 9], [16, 16], [5, 12]])
REDUCED = torch.tensor([False, True, False])
MAPS = np.array([
    (1.7, 0.6, -3.0, 4.0),  # wider than the input, and lower
    (-0.5, 0.5, 12.0, 2.0),  # mirrored, shrunk
    (0.3, 2.2, 40.0, 0.0),  # outside
])  # fmt: skip


def axis(values, scale, offset, length, reduced):
    """Weighted means of values [n, ...] by the triangle, one input pixel at a time; None outside."""
    half = max(1, max(scale**-2 - AVERAGED * reduced, 0) ** 0.5)
    found = []
    for place in range(length):
        centre = (place + 0.5 - offset) / scale
        weights = [max(0, 1 - abs(n + 0.5 - centre) / half) for n in range(len(values))]
        inside = 0 < centre < len(values)
        found.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights) if inside else None)
    return found


def slow(image, scales, input_size, reduced):
    """An image [h, w, 3] as the input [H, W, 3], pixel by pixel."""
    sx, sy, ox, oy = scales
    inputs = np.full((input_size[1], input_size[0], 3), FILL)
    for y, line in enumerate(axis(list(image.astype(float)), sy, oy, input_size[1], reduced)):
        for x, pixel in enumerate([] if line is None else axis(list(line), sx, ox, input_size[0], reduced)):
            if pixel is not None:
                inputs[y, x] = pixel / 255
    return inputs


@pytest.mark.parametrize("kind, atol", [(HostImages, 1e-6), (DeviceImages, 0.3 / 255)])
def test_a_batch_is_resampled_as_by_a_loop_over_pixels(kind, atol):
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    made = kind(torch.from_numpy(images).permute(0, 3, 1, 2), SIZES, REDUCED).resample(MAPS, (20, 14))
    assert made.is_contiguous(memory_format=torch.channels_last)
    for n, (width, height) in enumerate(SIZES.tolist()):
        expected = slow(images[n, :height, :width], MAPS[n], (20, 14), bool(REDUCED[n]))
        np.testing.assert_allclose(made[n].permute(1, 2, 0).numpy(), expected, atol=atol)
    assert (made[2] == FILL).all()  # nothing of it is in view
