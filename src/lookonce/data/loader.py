"""Canvases: images reduced once, antialiased, and kept as uint8 in one file that all workers share.

Reading is a copy out of the page cache; decoding happens once an image, when it is first asked for.

From a data set to packed batches. Workers decode and copy; every other step is the device's.

A Batch holds canvases, not network inputs: data.warp makes those.
"""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from lookonce.data.dataset import Dataset
from lookonce.data.images import load_rgb
from lookonce.errors import ImageError

log = logging.getLogger("lookonce")


READY, FAILED = 1, 2


DISK_SHARE = 0.5
"""Of the free disk, what canvases may take: checkpoints need room too."""


def canvas_sizes(sizes: NDArray[np.integer], side: int) -> NDArray[np.int64]:
    """[M, 2] sizes of images reduced so that no side exceeds `side`; smaller ones stay as they are."""
    shrink = np.minimum(1.0, side / sizes.max(-1, keepdims=True))
    return np.asarray(np.maximum(np.rint(sizes * shrink), 1), np.int64)


class Canvases:
    """The canvases of a data set.

    Args:
        dataset: the images.
        side: longest side of a canvas, pixels.
        folder: where the file is kept; None: every image is decoded each time it is read.
    """

    def __init__(self, dataset: Dataset, side: int, folder: Path | None) -> None:
        self.dataset, self.side = dataset, side
        self.sizes = canvas_sizes(dataset.sizes, side)
        bytes_each = self.sizes.prod(-1) * 3
        self.first = np.concatenate(([0], bytes_each.cumsum()))
        self.file = None if folder is None else folder / "canvas.u8"
        self.state_file = None if folder is None else folder / "canvas.state"
        if self.file is not None:
            self._create()

    def _create(self) -> None:
        assert self.file is not None
        assert self.state_file is not None
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.file.parent).free
            if self.first[-1] > free * DISK_SHARE:
                raise OSError(errno.ENOSPC, f"canvases of {self.first[-1] / 1e9:.1f} GB, {free / 1e9:.1f} GB free")
            for file, size in ((self.file, int(self.first[-1])), (self.state_file, len(self.sizes))):
                with file.open("wb") as handle:
                    handle.truncate(max(size, 1))
        except OSError as error:
            log.warning("%s: %s; images are decoded in every epoch", self.file, error.strerror)
            self.file = self.state_file = None

    def read(self, index: int) -> NDArray[np.uint8]:
        """Canvas [h, w, 3] of an image. Raises ImageError for one that cannot be decoded, each time."""
        if self.file is None or self.state_file is None:
            return self._decode(index)
        width, height = self.sizes[index]
        with self.state_file.open("r+b", buffering=0) as state, self.file.open("r+b", buffering=0) as file:
            state.seek(index)
            known = state.read(1)[0]
            file.seek(int(self.first[index]))
            if known == READY:
                canvas = np.fromfile(file, np.uint8, height * width * 3)
                return canvas.reshape(height, width, 3)
            try:
                canvas = self._decode(index)
            except ImageError:
                state.seek(index)
                state.write(bytes([FAILED]))
                raise
            try:
                if file.write(canvas.tobytes()) == canvas.size:
                    state.seek(index)
                    state.write(bytes([READY]))
            except OSError:
                pass  # a full disk costs speed, not the run: the image is decoded again next time
            return canvas

    def failed(self) -> list[int]:
        """Images that could not be decoded so far."""
        if self.state_file is None:
            return []
        return np.flatnonzero(np.fromfile(self.state_file, np.uint8) == FAILED).tolist()

    def close(self) -> None:
        """Delete the file."""
        for file in (self.file, self.state_file):
            if file is not None:
                file.unlink(missing_ok=True)

    def _decode(self, index: int) -> NDArray[np.uint8]:
        image = load_rgb(self.dataset.records[index].path, self.side, self.dataset.pixel_range)
        width, height = (int(v) for v in self.sizes[index])
        if image.shape[:2] == (height, width):
            return image
        return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


FILL_BYTE = 128
"""What a canvas holds beside its image: as near to resize.FILL as a byte gets."""


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
        """The same images with a frozen trunk's outputs in place of their canvases."""
        return replace(self, outputs=outputs)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        own = {name: change(value) for name, value in vars(self).items() if name != "outputs"}
        return Batch(**own, outputs=tuple(change(value) for value in self.outputs))


class Sample(NamedTuple):
    """One image on its way into a batch."""

    image: int  # index in the data set
    canvas: NDArray[np.uint8]  # [h, w, 3]; [0, 0, 3] where outputs stand for it
    size: tuple[int, int]  # (width, height) on the canvas
    boxes: NDArray[np.float32]  # [n, 4] xyxy canvas px
    labels: NDArray[np.int64]  # [n]
    ignore: NDArray[np.bool_]  # [n]
    reduced: bool = False  # the canvas is smaller than the image
    outputs: tuple[Tensor, ...] = ()  # of a frozen trunk, each [C, H, W]


class TrainingImages(TorchDataset[Sample | None]):
    """Images of a data set by index; None for one that cannot be decoded.

    difficult: what becomes of difficult objects: ignore (neither sought nor background), train, or drop.
    """

    def __init__(self, canvases: Canvases, difficult: str = "ignore") -> None:
        self.canvases, self.difficult = canvases, difficult

    def __len__(self) -> int:
        return len(self.canvases.dataset)

    def __getitem__(self, index: int) -> Sample | None:
        try:
            return self.labelled(index, self.canvases.read(index))
        except ImageError as error:
            log.debug("skipped %s", error)
            return None

    def labelled(self, index: int, canvas: NDArray[np.uint8]) -> Sample:
        """The sample of an image whose canvas is this one."""
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
        index=torch.tensor([sample.image for sample in good], dtype=torch.long),
        reduced=torch.tensor([sample.reduced for sample in good], dtype=torch.bool),
    )
    return batch.with_outputs(tuple(torch.stack(each) for each in zip(*(s.outputs for s in good), strict=True)))


class Shuffled(Sampler[int]):
    """A new order every epoch that depends on (seed, epoch) alone; its length is that of a whole epoch.

    variants: of each image; an epoch gives one of them, as image + variant * length.
    """

    def __init__(self, length: int, seed: int, variants: int = 1) -> None:
        self.length, self.seed, self.variants, self.epoch, self.start = length, seed, variants, 0, 0

    def begin(self, epoch: int, images: int) -> None:
        """Go on in an epoch of which so many images were given already."""
        self.epoch, self.start = epoch, images

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        if epoch != self.epoch:
            self.begin(epoch, 0)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        return iter((order[self.start :] + self.epoch % self.variants * self.length).tolist())
