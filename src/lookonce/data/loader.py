"""From a data set to packed batches: worker processes decode and copy images; every other step runs on the device.

Images are reduced once, antialiased, and kept as uint8 in one file that all workers share (the image cache). Tiles are
cut from the decoded image each time and never written. A Batch holds these images, not network inputs: data.augment
makes those.
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
from lookonce.data.tiles import MOST_KEPT, Tile, TileReader
from lookonce.errors import ImageError

log = logging.getLogger("lookonce")
READY, FAILED = 1, 2
DISK_RATIO = 0.5
"""Part of the free disk that the image cache may take: checkpoints need room, too."""
MOSAIC = 4
"""Images of a mosaic."""
MOST_FILES = 64
"""Most files whose tiles are shuffled together."""
FILL_BYTE = 128
"""Pixel value of a batch beside its images: as near to resize.FILL as a byte gets."""


def reduced_sizes(sizes: NDArray[np.integer], side: int) -> NDArray[np.int64]:
    """Return the sizes [M, 2] of images reduced so that no side exceeds `side`; smaller ones keep theirs."""
    shrink = np.minimum(1.0, side / sizes.max(-1, keepdims=True))
    return np.asarray(np.maximum(np.rint(sizes * shrink), 1), np.int64)


class ImageCache:
    """The images of a data set, reduced and kept in one file. An image is decoded when it is first read, a tile is not
    kept.

    Args:
        dataset: the images.
        side: longest side of a reduced image, pixels.
        folder: folder of the file; None: every image is decoded each time it is read.
        name: of the file.
        share: use the file that another process made, if it is there.
    """

    def __init__(self, dataset: Dataset, side: int, folder: Path | None, name: str = "images",
                 share: bool = False) -> None:  # fmt: skip
        self.dataset, self.side = dataset, side
        self.sizes = reduced_sizes(dataset.sizes, side)
        none = np.zeros(len(dataset), bool)
        self.is_tile = none if dataset.corners is None else dataset.corners[:, 0] >= 0
        self.tiles = TileReader(dataset.pixel_range)
        bytes_each = np.where(self.is_tile, 0, self.sizes.prod(-1) * 3)
        self.first = np.concatenate(([0], bytes_each.cumsum()))
        self.file = None if folder is None else folder / f"{name}.u8"
        self.state_file = None if folder is None else folder / f"{name}.state"
        self._is_own = not share
        if share and not (self.file is not None and self.file.is_file()):
            self.file = self.state_file = None
        elif self.file is not None and not share:
            self._create()

    def _create(self) -> None:
        assert self.file is not None
        assert self.state_file is not None
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            for old in ("canvas.u8", "canvas.state"):  # left by a killed run of version 0.1
                (self.file.parent / old).unlink(missing_ok=True)
            free = shutil.disk_usage(self.file.parent).free
            if self.first[-1] > free * DISK_RATIO:
                raise OSError(errno.ENOSPC, f"needs {self.first[-1] / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")
            for file, size in ((self.file, int(self.first[-1])), (self.state_file, len(self.sizes))):
                with file.open("wb") as handle:
                    handle.truncate(max(size, 1))
        except OSError as error:
            log.warning("%s: %s; images are decoded again in every epoch", self.file, error.strerror)
            self.file = self.state_file = None

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return an image [h, w, 3], reduced. Raises ImageError if it cannot be decoded, each time."""
        if self.file is None or self.state_file is None or self.is_tile[index]:
            return self._decode(index)
        width, height = self.sizes[index]
        with self.state_file.open("r+b", buffering=0) as state, self.file.open("r+b", buffering=0) as file:
            state.seek(index)
            known = state.read(1)[0]
            file.seek(int(self.first[index]))
            if known == READY:
                return np.fromfile(file, np.uint8, height * width * 3).reshape(height, width, 3)
            try:
                image = self._decode(index)
            except ImageError:
                state.seek(index)
                state.write(bytes([FAILED]))
                raise
            try:
                if file.write(image.tobytes()) == image.size:
                    state.seek(index)
                    state.write(bytes([READY]))
            except OSError:
                pass  # a full disk only costs speed: the image is decoded again next time
            return image

    def failed(self) -> list[int]:
        """Return the images that could not be decoded so far."""
        if self.state_file is None:
            return []
        return np.flatnonzero(np.fromfile(self.state_file, np.uint8) == FAILED).tolist()

    def close(self) -> None:
        """Delete the files."""
        for file in (self.file, self.state_file):
            if file is not None and self._is_own:
                file.unlink(missing_ok=True)

    def _decode(self, index: int) -> NDArray[np.uint8]:
        record = self.dataset.records[index]
        if record.corner is None:
            image = load_rgb(record.path, self.side, self.dataset.pixel_range)
        else:
            image = load_rgb(self.tiles.read(record.path, Tile(*record.corner, *record.size)), self.side)
        width, height = (int(v) for v in self.sizes[index])
        if image.shape[:2] == (height, width):
            return image
        return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


@dataclass(eq=False)
class Batch:
    """B images with their N objects."""

    images: Tensor  # [B, 3, S, S] uint8, each reduced image at the top left; S is even, 0 for labels without pixels
    sizes: Tensor  # [B, 2] (width, height) of each reduced image
    boxes: Tensor  # [N, 4] xyxy, pixels of the reduced images
    labels: Tensor  # [N]
    image_index: Tensor  # [N] which image of the batch
    ignore: Tensor  # [N] bool, objects that count neither as ground truth nor as background
    index: Tensor  # [B] which image of the data set
    reduced: Tensor  # [B] bool, whether the image is smaller than its file, whose pixels it then averages
    image_labels: Tensor  # [B] class of an image that is labelled as a whole and has no boxes, else -1
    outputs: tuple[Tensor, ...] = ()  # of a frozen backbone, each [B, C, H, W], in place of images

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its images on another device; its objects stay where targets are made, on the host."""
        return self._seen(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Return the batch with its images in page-locked memory."""
        return self._seen(Tensor.pin_memory)

    def only(self, images: NDArray[np.int64]) -> Batch:
        """Return the images at the start of the batch that are among these of the data set."""
        count = int(np.isin(self.index.numpy(), images).sum())
        own = self.image_index < count
        objects = {name: getattr(self, name)[own] for name in ("boxes", "labels", "image_index", "ignore")}
        rows = {name: getattr(self, name)[:count] for name in ("images", "sizes", "index", "reduced", "image_labels")}
        return replace(self, **objects, **rows, outputs=tuple(output[:count] for output in self.outputs))

    def with_outputs(self, outputs: tuple[Tensor, ...]) -> Batch:
        """Return the batch with a frozen backbone's outputs in place of its images."""
        return replace(self, outputs=outputs)

    def _seen(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with a change to what the network sees."""
        return replace(self, images=change(self.images), outputs=tuple(change(output) for output in self.outputs))


class Sample(NamedTuple):
    """One image on its way into a batch."""

    image: int  # index in the data set
    pixels: NDArray[np.uint8]  # [h, w, 3], reduced; [0, 0, 3] if outputs replace it
    size: tuple[int, int]  # (width, height) of the reduced image
    boxes: NDArray[np.float32]  # [n, 4] xyxy, pixels of the reduced image
    labels: NDArray[np.int64]  # [n]
    ignore: NDArray[np.bool_]  # [n]
    reduced: bool = False  # the image is smaller than its file
    image_label: int = -1  # class of an image that is labelled as a whole; -1: none
    outputs: tuple[Tensor, ...] = ()  # of a frozen backbone, each [C, H, W]


NO_PIXELS = np.zeros((0, 0, 3), np.uint8)


class TrainingImages(TorchDataset[Sample | None]):
    """Images of a data set by index; None for one that cannot be decoded. ~index gives the labels without pixels.

    difficult: how to handle difficult objects: ignore (neither ground truth nor background), train, or drop.
    """

    def __init__(self, cache: ImageCache, difficult: str = "ignore") -> None:
        self.cache, self.difficult = cache, difficult

    def __len__(self) -> int:
        return len(self.cache.dataset)

    def __getitem__(self, index: int) -> Sample | None:
        if index < 0:
            return self.labelled(~index, NO_PIXELS)
        try:
            return self.labelled(index, self.cache.read(index))
        except ImageError as error:
            log.debug("ignored %s", error)
            return None

    def labelled(self, index: int, pixels: NDArray[np.uint8]) -> Sample:
        """Return these pixels of an image with its objects."""
        record = self.cache.dataset.records[index]
        width, height = (int(v) for v in self.cache.sizes[index])
        scale = np.tile(self.cache.sizes[index] / np.asarray(record.size), 2).astype(np.float32)
        keep = ~record.difficult if self.difficult == "drop" else np.ones(len(record.labels), bool)
        ignore = record.difficult if self.difficult == "ignore" else np.zeros(len(record.labels), bool)
        boxes = record.boxes[keep] * scale
        reduced = (width, height) != record.size
        return Sample(index, pixels, (width, height), boxes, record.labels[keep], ignore[keep], reduced,
                      record.image_label)  # fmt: skip


def collate(samples: list[Sample | None]) -> Batch:
    """Pack samples into one Batch; those that failed are left out, so it may be empty."""
    good = [sample for sample in samples if sample is not None]
    side = max((max(sample.pixels.shape[:2]) for sample in good), default=0)
    side += side % 2
    images = torch.full((len(good), side, side, 3), FILL_BYTE, dtype=torch.uint8)
    for place, sample in zip(images, good, strict=True):
        height, width = sample.pixels.shape[:2]
        place[:height, :width] = torch.from_numpy(sample.pixels)
    counts = torch.tensor([len(sample.labels) for sample in good], dtype=torch.long)
    empty = np.zeros((0, 4), np.float32)
    batch = Batch(
        images=images.permute(0, 3, 1, 2),  # [B, 3, S, S], channels last in memory
        sizes=torch.tensor([sample.size for sample in good], dtype=torch.long).view(-1, 2),
        boxes=torch.from_numpy(np.concatenate([empty, *(sample.boxes for sample in good)])),
        labels=torch.from_numpy(np.concatenate([empty[:, 0].astype(np.int64), *(sample.labels for sample in good)])),
        image_index=torch.arange(len(good)).repeat_interleave(counts),
        ignore=torch.from_numpy(np.concatenate([empty[:, 0].astype(bool), *(sample.ignore for sample in good)])),
        index=torch.tensor([sample.image for sample in good], dtype=torch.long),
        reduced=torch.tensor([sample.reduced for sample in good], dtype=torch.bool),
        image_labels=torch.tensor([sample.image_label for sample in good], dtype=torch.long),
    )
    return batch.with_outputs(tuple(torch.stack(each) for each in zip(*(s.outputs for s in good), strict=True)))


class Blocks(NamedTuple):
    """Which tiles an epoch shuffles together."""

    file: NDArray[np.int64]  # [M] number of the file of each image
    files: int  # so many files, in a new order each epoch, are a block: their tiles are shuffled, and decoded once


def tile_blocks(dataset: Dataset) -> Blocks | None:
    """Return blocks of so many files as stay decoded in memory, 2 to MOST_FILES; None: no image is a tile."""
    if dataset.corners is None or not (dataset.corners >= 0).any():
        return None
    _, file = np.unique(dataset.paths, return_inverse=True)
    bytes_each = dataset.sizes[dataset.corners[:, 0] < 0].prod(-1, dtype=np.int64).mean() * 3
    return Blocks(file, int(np.clip(MOST_KEPT // bytes_each, 2, MOST_FILES)))


class Shuffled(Sampler[int]):
    """A new order every epoch that depends only on (seed, epoch); its length is that of a whole epoch.

    Args:
        length: number of images.
        seed: of the run.
        variants: number of variants of each image; an epoch uses one of them, as image + variant * length.
        blocks: of images that are tiles, see tile_blocks; None: they are not.
    """

    def __init__(self, length: int, seed: int, variants: int = 1, blocks: Blocks | None = None) -> None:
        self.length, self.seed, self.variants, self.epoch, self.start = length, seed, variants, 0, 0
        self.blocks = blocks
        self.held: NDArray[np.bool_] | None = None
        """[length] images that the device has: their pixels are not read. None: no images."""

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the images [length] of an epoch in their order."""
        draw = np.random.default_rng((self.seed, epoch))
        order = draw.permutation(self.length)
        if self.blocks is not None:
            place = draw.permutation(int(self.blocks.file.max(initial=0)) + 1) // self.blocks.files
            order = order[np.argsort(place[self.blocks.file[order]], kind="stable")]
        return order

    def begin(self, epoch: int, images: int) -> None:
        """Continue an epoch after so many images."""
        self.epoch, self.start = epoch, images

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        if epoch != self.epoch:
            self.begin(epoch, 0)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        return iter(self.places(self.order(self.epoch)[self.start :]))

    def places(self, images: NDArray[np.int64]) -> list[int]:
        """Return where a data set of images or variants has these images of the epoch."""
        if self.held is not None:
            return [*map(int, np.where(self.held[images], ~images, images))]
        return [*map(int, images + self.epoch % self.variants * self.length)]


class Share(Sampler[list[int]]):
    """The part of each batch that one of several processes computes, so that together they compute what one would.

    Behind its own images come those that its mosaics take parts of: the next ones of the batch.

    Args:
        sampler: order of all images; Lightning tells it the epoch.
        batch: images of a batch, over all processes.
        rank: number of this process, from 0.
        size: number of processes.
        alone: [M] bool, images that are in no mosaic; None: there are no mosaics.
    """

    def __init__(self, sampler: Shuffled, batch: int, rank: int, size: int,
                 alone: NDArray[np.bool_] | None) -> None:  # fmt: skip
        self.sampler, self.batch, self.rank, self.size, self.alone = sampler, batch, rank, size, alone
        self._epoch, self._images = -1, np.zeros(0, np.int64)

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch)

    def __iter__(self) -> Iterator[list[int]]:
        first = self.sampler.start // self.batch
        return (self.sampler.places(self.read(self.sampler.epoch, step)) for step in range(first, len(self)))

    def part(self, count: int) -> slice:
        """Return this process's part of so many images: all of them if there are fewer than processes."""
        if count < self.size:
            return slice(0, count)
        each, more = divmod(count, self.size)
        start = self.rank * each + min(self.rank, more)
        return slice(start, start + each + (self.rank < more))

    def whole(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Return the images of a batch of all processes."""
        if epoch != self._epoch:
            self._epoch, self._images = epoch, self.sampler.order(epoch)
        return self._images[step * self.batch : (step + 1) * self.batch]

    def copies(self, epoch: int, step: int) -> int:
        """Return how many processes compute each image of a batch."""
        return self.size if len(self.whole(epoch, step)) < self.size else 1

    def own(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Return this process's images of a batch."""
        images = self.whole(epoch, step)
        return images[self.part(len(images))]

    def read(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Return the images that this process reads for a batch: its own, and those for its mosaics."""
        images = self.whole(epoch, step)
        own = self.part(len(images))
        if self.alone is None:
            return images[own]
        boxed = np.flatnonzero(~self.alone[images])  # places of the batch that become mosaics
        inside = (boxed >= own.start) & (boxed < own.stop)
        if not inside.any():
            return images[own]
        after = np.arange(MOSAIC - 1) + np.flatnonzero(inside)[-1] + 1
        more = boxed[after % len(boxed)]
        more = more[(more < own.start) | (more >= own.stop)]
        return np.concatenate((images[own], images[more[np.sort(np.unique(more, return_index=True)[1])]]))
