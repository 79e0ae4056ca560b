"""Validation: mAP and loss on images that are not trained on, prepared and scored as in detection."""

from __future__ import annotations

from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from lookonce.data.augment import InputBatch
from lookonce.data.dataset import Dataset
from lookonce.data.images import load_for
from lookonce.data.tiles import Tile, TileReader, Tiling, in_tiles
from lookonce.errors import ImageError
from lookonce.evaluation.average_precision import Metrics, score
from lookonce.evaluation.evaluate import RULES, SCORED
from lookonce.evaluation.hierarchy import in_use
from lookonce.inference.backends.settings import BackendInfo
from lookonce.inference.tiles import merged
from lookonce.model.detections import Detections, Predictions
from lookonce.model.postprocess import postprocess
from lookonce.model.resize import ResizeMode, boxes_to_input, to_input
from lookonce.model.tree import Tree
from lookonce.training.ranks import ALONE, Ranks

BATCH = 8
"""Images that are validated at once."""
MAX_IN_MEMORY = 2000
"""Inputs to keep in memory, so that each image is decoded once."""


class Inputs(TorchDataset[InputBatch]):
    """Images of a data set as network inputs with their objects, resized as detection does.

    An image that cannot be decoded becomes a grey input: its objects count as missed.
    """

    def __init__(self, dataset: Dataset, input_size: tuple[int, int], mode: ResizeMode) -> None:
        self.dataset, self.input_size, self.mode = dataset, input_size, mode
        self.in_memory: dict[int, Tensor] = {}
        self.tiles = TileReader(dataset.pixel_range)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> InputBatch:
        return self.objects(index)._replace(images=self.image(index)[None])

    def objects(self, index: int) -> InputBatch:
        """Return the objects without the image."""
        record = self.dataset.records[index]
        boxes = boxes_to_input(torch.from_numpy(record.boxes), record.size, self.input_size, self.mode)
        labels = torch.from_numpy(record.labels)
        return InputBatch(torch.zeros(0), boxes, labels, torch.zeros_like(labels), torch.from_numpy(record.difficult))

    def image(self, index: int) -> Tensor:
        """Return the input [3, H, W], floats 0..1."""
        if index not in self.in_memory:
            try:
                image = torch.from_numpy(to_input(self._pixels(index), self.input_size, self.mode))
            except ImageError:
                image = torch.full((3, self.input_size[1], self.input_size[0]), 0.5)
            if len(self.in_memory) >= MAX_IN_MEMORY:
                return image
            self.in_memory[index] = (image * 255).round().to(torch.uint8)
        return self.in_memory[index].float() / 255

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        record = self.dataset.records[index]
        if record.corner is not None:
            return self.tiles.read(record.path, Tile(*record.corner, *record.size))
        if self.dataset.corners is not None:  # the whole image beside its tiles, which detection decodes in full, too
            return self.tiles.read(record.path, Tile(0, 0, *record.size))
        return load_for(record.path, self.input_size, self.dataset.pixel_range).pixels


def collate_inputs(samples: list[InputBatch]) -> InputBatch:
    """Join inputs of one image each to a batch."""
    image_index = torch.arange(len(samples)).repeat_interleave(torch.tensor([len(s.labels) for s in samples]))
    parts = [torch.cat([getattr(s, name) for s in samples]) for name in ("images", "boxes", "labels", "ignore")]
    images, boxes, labels, ignore = parts
    outputs = tuple(torch.cat(each) for each in zip(*(s.outputs for s in samples), strict=True))
    if not outputs:
        images = images.contiguous(memory_format=torch.channels_last)
    return InputBatch(images, boxes, labels, image_index, ignore, outputs)


class Validation(lightning.Callback):
    """mAP@0.5 and loss on the validation images, as `val/mAP` and `val/loss`.

    Keeps the detections and metrics of the last validation. Several processes compute whole batches in turn, each image
    once; rank 0 scores them.

    tiling: detect on tiles as well, and merge what they show; None: on whole images alone.
    """

    def __init__(self, dataset: Dataset, input_size: tuple[int, int], mode: ResizeMode,
                 tiling: Tiling | None = None, ranks: Ranks = ALONE) -> None:  # fmt: skip
        self.dataset, self.input_size, self.mode = dataset, input_size, mode
        self.tiling, self.ranks = tiling, ranks
        self.seen = in_tiles(dataset, tiling)
        """The images that the network sees."""
        self.detections: list[Detections] = []
        self.metrics: Metrics | None = None
        self.computed_by = ""
        """Backend, precision and device of the last validation."""
        self._batches: list[tuple[int, list[Detections], Tensor]] = []
        """Of this process: index of the first image, detections, loss."""

    def batches(self) -> list[list[int]]:
        """Return the images of each batch of this process; one that is not counted if it has none."""
        starts = range(self.ranks.rank * BATCH, len(self.seen), self.ranks.size * BATCH)
        return [list(range(start, min(start + BATCH, len(self.seen)))) for start in starts] or [[0]]

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Forget the previous validation; take over the statistics of batch norm of rank 0."""
        self._batches = []
        precision = "bf16" if trainer.precision == "bf16-mixed" else "fp32"
        self.computed_by = str(BackendInfo("torch", torch.__version__, precision, str(pl_module.device)))
        if self.ranks.size > 1:
            for buffer in pl_module.buffers():
                torch.distributed.broadcast(buffer, 0)

    def on_validation_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
                                outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:  # fmt: skip
        """Turn the predictions of a batch into detections in image pixels."""
        predictions, loss = outputs
        assert isinstance(predictions, Predictions)
        start = (batch_idx * self.ranks.size + self.ranks.rank) * BATCH
        if start >= len(self.seen):
            return
        sizes = [(int(w), int(h)) for w, h in self.seen.sizes[start : start + len(predictions.boxes)]]
        found = postprocess(predictions, sizes, self.input_size, self.mode, self.dataset.labels, SCORED)
        self._batches.append((start, found, loss))

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Merge tiles; compute and log mAP and the loss."""
        own = [(start, found, float(loss)) for start, found, loss in self._batches]
        batches = sorted((each for some in self.ranks.gathered(own) for each in some), key=lambda batch: batch[0])
        self.detections = [each for _, found, _ in batches for each in found]
        values: dict[str, float] = {}
        if self.ranks.is_first:
            losses = sum(loss * len(found) for _, found, loss in batches) / max(len(self.detections), 1)
            if self.tiling is not None:
                parts = iter(self.detections)
                self.detections = [
                    merged((w, h), tiles := self.tiling.of((w, h)), [next(parts) for _ in tiles], SCORED)
                    for w, h in self.dataset.sizes.tolist()
                ]
            assert isinstance(pl_module.tree, Tree | None)
            self.metrics = score(*in_use(self.dataset, self.detections, pl_module.tree), RULES, bootstrap=0)
            values = {"val/loss": losses, "val/mAP": self.metrics.mean_ap or 0.0}
        pl_module.log_dict(self.ranks.from_first(values), prog_bar=True, batch_size=len(self.dataset))
