"""The images of a data set in the memory of a GPU: after the first epoch nothing but labels comes from the host."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from lookonce.data.loader import Batch

log = logging.getLogger("lookonce")
MEMORY_RATIO = 0.3
"""Part of a GPU's free memory that images may take: training needs the rest."""


class DeviceStore:
    """Reduced images as bytes on a device, each kept when its first batch arrives.

    Args:
        sizes: [M, 2] (width, height) of the reduced images of a data set.
        device: where they are kept.
    """

    def __init__(self, sizes: NDArray[np.int64], device: torch.device) -> None:
        self.first = np.concatenate(([0], sizes.prod(-1).cumsum() * 3))
        self.bytes = torch.empty(int(self.first[-1]), dtype=torch.uint8, device=device)
        self.held = np.zeros(len(sizes), np.bool_)
        """[M] which images are kept: of these a batch needs no pixels."""

    def __deepcopy__(self, memo: dict[int, object]) -> DeviceStore:
        """Return the store itself: the moving average copies a module, and one copy of the images is enough."""
        return self

    def supply(self, batch: Batch) -> Batch:
        """Keep the images of a batch on the device; a batch without pixels gets those that were kept."""
        places = list(zip(batch.index.tolist(), batch.sizes.tolist(), strict=True))
        if batch.images.numel() or not places:
            pixels = batch.images.permute(0, 2, 3, 1)  # [B, S, S, 3]
            for own, (index, (width, height)) in zip(pixels, places, strict=True):
                self._image(index, width, height).copy_(own[:height, :width])
                self.held[index] = True
            return batch
        side = int(batch.sizes.max())
        pixels = torch.empty((len(places), side, side, 3), dtype=torch.uint8, device=self.bytes.device)
        for own, (index, (width, height)) in zip(pixels, places, strict=True):
            own[:height, :width] = self._image(index, width, height)
        return replace(batch, images=pixels.permute(0, 3, 1, 2))

    def _image(self, index: int, width: int, height: int) -> torch.Tensor:
        """Return the place [h, w, 3] of an image."""
        return self.bytes[int(self.first[index]) : int(self.first[index + 1])].view(height, width, 3)


def open_store(sizes: NDArray[np.int64], device: str) -> DeviceStore | None:
    """Return a store for a data set on a GPU; None elsewhere, or if MEMORY_RATIO of its free memory is too little.

    sizes: [M, 2] (width, height) of the reduced images.
    """
    if not device.startswith("cuda"):
        return None
    need, (free, _) = int(sizes.prod(-1).sum()) * 3, torch.cuda.mem_get_info(device)
    if need > free * MEMORY_RATIO:
        log.info("images take %.1f GB and the GPU has %.1f GB free, so they are copied to it in every epoch",
                 need / 1e9, free / 1e9)  # fmt: skip
        return None
    log.info("images are kept on the GPU after their first use: %.1f GB", need / 1e9)
    return DeviceStore(sizes, torch.device(device))
