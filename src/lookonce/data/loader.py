"""From a data set to packed batches. Workers decode and copy; every other step is the device's.

A Batch holds canvases, not network inputs: data.warp makes those.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from lookonce.data.canvas import Canvases
from lookonce.errors import PictureError

log = logging.getLogger("lookonce")

FILL_BYTE = 128
"""What a canvas holds beside its picture: as near to resize.FILL as a byte gets."""


class Batch:
    """B pictures with their N objects. A class of its own, so that it moves to a device as one thing.

    Attributes:
        canvas: [B, 3, S, S] uint8, the picture at the top left; S is even.
        sizes: [B, 2] (width, height) of each picture on its canvas.
        boxes: [N, 4] xyxy canvas px.
        labels: [N].
        image_index: [N] which picture of the batch.
        ignore: [N] bool, objects neither sought nor background.
        index: [B] which picture of the data set.
    """

    def __init__(self, canvas: Tensor, sizes: Tensor, boxes: Tensor, labels: Tensor, image_index: Tensor,
                 ignore: Tensor, index: Tensor) -> None:  # fmt: skip
        self.canvas, self.sizes, self.boxes, self.labels = canvas, sizes, boxes, labels
        self.image_index, self.ignore, self.index = image_index, ignore, index

    def __len__(self) -> int:
        return len(self.index)

    def to(self, *args: object, **kwargs: object) -> Batch:
        """The same on another device."""
        return Batch(**{name: value.to(*args, **kwargs) for name, value in vars(self).items()})

    def pin_memory(self) -> Batch:
        """The same in page-locked memory."""
        return Batch(**{name: value.pin_memory() for name, value in vars(self).items()})


class Sample(NamedTuple):
    """One picture on its way into a batch."""

    picture: int  # index in the data set
    canvas: NDArray[np.uint8]  # [h, w, 3]
    boxes: NDArray[np.float32]  # [n, 4] xyxy canvas px
    labels: NDArray[np.int64]  # [n]
    ignore: NDArray[np.bool_]  # [n]


class Pictures(TorchDataset[Sample | None]):
    """Pictures of a data set by index; None for one that cannot be decoded.

    difficult: what becomes of difficult objects: ignore (neither sought nor background), train, or drop.
    """

    def __init__(self, canvases: Canvases, difficult: str = "ignore") -> None:
        self.canvases, self.difficult = canvases, difficult

    def __len__(self) -> int:
        return len(self.canvases.dataset)

    def __getitem__(self, index: int) -> Sample | None:
        record = self.canvases.dataset.records[index]
        try:
            canvas = self.canvases.read(index)
        except PictureError as error:
            log.debug("skipped %s", error)
            return None
        scale = np.tile(self.canvases.sizes[index] / np.asarray(record.size), 2).astype(np.float32)
        keep = ~record.difficult if self.difficult == "drop" else np.ones(len(record.labels), bool)
        ignore = record.difficult if self.difficult == "ignore" else np.zeros(len(record.labels), bool)
        return Sample(index, canvas, record.boxes[keep] * scale, record.labels[keep], ignore[keep])


def collate(samples: list[Sample | None]) -> Batch:
    """Samples as one Batch; those that failed are left out, so it may be empty."""
    good = [sample for sample in samples if sample is not None]
    side = max((max(sample.canvas.shape[:2]) for sample in good), default=2)
    side += side % 2
    canvas = torch.full((len(good), side, side, 3), FILL_BYTE, dtype=torch.uint8)
    for place, sample in zip(canvas, good, strict=True):
        height, width = sample.canvas.shape[:2]
        place[:height, :width] = torch.from_numpy(sample.canvas)
    counts = torch.tensor([len(sample.labels) for sample in good], dtype=torch.long)
    empty = np.zeros((0, 4), np.float32)
    return Batch(
        canvas=canvas.permute(0, 3, 1, 2),  # [B, 3, S, S], channels last in memory
        sizes=torch.tensor([sample.canvas.shape[1::-1] for sample in good], dtype=torch.long).view(-1, 2),
        boxes=torch.from_numpy(np.concatenate([empty, *(sample.boxes for sample in good)])),
        labels=torch.from_numpy(np.concatenate([empty[:, 0].astype(np.int64), *(sample.labels for sample in good)])),
        image_index=torch.arange(len(good)).repeat_interleave(counts),
        ignore=torch.from_numpy(np.concatenate([empty[:, 0].astype(bool), *(sample.ignore for sample in good)])),
        index=torch.tensor([sample.picture for sample in good], dtype=torch.long),
    )


class Shuffled(Sampler[int]):
    """A new order every epoch that depends on (seed, epoch) alone; its length is that of a whole epoch."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch, self.start = length, seed, 0, 0

    def begin(self, epoch: int, pictures: int) -> None:
        """Go on in an epoch of which so many pictures were given already."""
        self.epoch, self.start = epoch, pictures

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        if epoch != self.epoch:
            self.begin(epoch, 0)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        return iter(np.random.default_rng((self.seed, self.epoch)).permutation(self.length)[self.start :].tolist())
