"""From a data set to packed batches. Workers decode and copy; every other step is the device's.

A Batch holds canvases, not network inputs: data.warp makes those.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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


@dataclass(eq=False)
class Batch:
    """B images with their N objects. A class of its own, so that it moves to a device as one thing."""

    canvas: Tensor  # [B, 3, S, S] uint8, the image at the top left; S is even
    sizes: Tensor  # [B, 2] (width, height) of each image on its canvas
    boxes: Tensor  # [N, 4] xyxy canvas px
    labels: Tensor  # [N]
    image_index: Tensor  # [N] which image of the batch
    ignore: Tensor  # [N] bool, objects neither sought nor background
    index: Tensor  # [B] which image of the data set
    reduced: Tensor  # [B] bool, whether the canvas is smaller than the image, whose pixels it then averages
    outputs: tuple[Tensor, ...] = ()  # of a frozen trunk, each [B, C, H, W], in place of canvases

    def __len__(self) -> int:
        return len(self.index)

    def to(self, *args: object, **kwargs: object) -> Batch:
        """The same on another device."""
        return self._each(lambda tensor: tensor.to(*args, **kwargs))  # type: ignore[call-overload]

    def pin_memory(self) -> Batch:
        """The same in page-locked memory."""
        return self._each(Tensor.pin_memory)

    def with_outputs(self, outputs: tuple[Tensor, ...]) -> Batch:
        """The same pictures with a frozen trunk's outputs in place of their canvases."""
        return replace(self, outputs=outputs)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        own = {name: change(value) for name, value in vars(self).items() if name != "outputs"}
        return Batch(**own, outputs=tuple(change(value) for value in self.outputs))


class Sample(NamedTuple):
    """One picture on its way into a batch."""

    picture: int  # index in the data set
    canvas: NDArray[np.uint8]  # [h, w, 3]; [0, 0, 3] where outputs stand for it
    size: tuple[int, int]  # (width, height) on the canvas
    boxes: NDArray[np.float32]  # [n, 4] xyxy canvas px
    labels: NDArray[np.int64]  # [n]
    ignore: NDArray[np.bool_]  # [n]
    reduced: bool = False  # the canvas is smaller than the image
    outputs: tuple[Tensor, ...] = ()  # of a frozen trunk, each [C, H, W]


class Pictures(TorchDataset[Sample | None]):
    """Pictures of a data set by index; None for one that cannot be decoded.

    difficult: what becomes of difficult objects: ignore (neither sought nor background), train, or drop.
    """

    def __init__(self, canvases: Canvases, difficult: str = "ignore") -> None:
        self.canvases, self.difficult = canvases, difficult

    def __len__(self) -> int:
        return len(self.canvases.dataset)

    def __getitem__(self, index: int) -> Sample | None:
        try:
            return self.labelled(index, self.canvases.read(index))
        except PictureError as error:
            log.debug("skipped %s", error)
            return None

    def labelled(self, index: int, canvas: NDArray[np.uint8]) -> Sample:
        """The sample of a picture whose canvas is this one."""
        record = self.canvases.dataset.records[index]
        width, height = (int(v) for v in self.canvases.sizes[index])
        scale = np.tile(self.canvases.sizes[index] / np.asarray(record.size), 2).astype(np.float32)
        keep = ~record.difficult if self.difficult == "drop" else np.ones(len(record.labels), bool)
        ignore = record.difficult if self.difficult == "ignore" else np.zeros(len(record.labels), bool)
        boxes = record.boxes[keep] * scale
        reduced = (width, height) != record.size
        return Sample(index, canvas, (width, height), boxes, record.labels[keep], ignore[keep], reduced)


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
    batch = Batch(
        canvas=canvas.permute(0, 3, 1, 2),  # [B, 3, S, S], channels last in memory
        sizes=torch.tensor([sample.size for sample in good], dtype=torch.long).view(-1, 2),
        boxes=torch.from_numpy(np.concatenate([empty, *(sample.boxes for sample in good)])),
        labels=torch.from_numpy(np.concatenate([empty[:, 0].astype(np.int64), *(sample.labels for sample in good)])),
        image_index=torch.arange(len(good)).repeat_interleave(counts),
        ignore=torch.from_numpy(np.concatenate([empty[:, 0].astype(bool), *(sample.ignore for sample in good)])),
        index=torch.tensor([sample.picture for sample in good], dtype=torch.long),
        reduced=torch.tensor([sample.reduced for sample in good], dtype=torch.bool),
    )
    return batch.with_outputs(tuple(torch.stack(each) for each in zip(*(s.outputs for s in good), strict=True)))


class Shuffled(Sampler[int]):
    """A new order every epoch that depends on (seed, epoch) alone; its length is that of a whole epoch.

    variants: of each picture; an epoch gives one of them, as picture + variant * length.
    """

    def __init__(self, length: int, seed: int, variants: int = 1) -> None:
        self.length, self.seed, self.variants, self.epoch, self.start = length, seed, variants, 0, 0

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
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        return iter((order[self.start :] + self.epoch % self.variants * self.length).tolist())
