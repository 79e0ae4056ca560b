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
    """mAP@0.5 on the validation images, as `val/mAP`; keeps the detections and metrics of the last validation.

    tiling: detect on tiles as well, and merge what they show; None: on whole images alone.
    """

    def __init__(self, dataset: Dataset, input_size: tuple[int, int], mode: ResizeMode,
                 tiling: Tiling | None = None) -> None:  # fmt: skip
        self.dataset, self.input_size, self.mode, self.tiling = dataset, input_size, mode, tiling
        self.seen = in_tiles(dataset, tiling)
        """The images that the network sees."""
        self.detections: list[Detections] = []
        self.metrics: Metrics | None = None
        self.computed_by = ""
        """Backend, precision and device of the last validation."""

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Forget the previous validation."""
        self.detections = []
        precision = "bf16" if trainer.precision == "bf16-mixed" else "fp32"
        self.computed_by = str(BackendInfo("torch", torch.__version__, precision, str(pl_module.device)))

    def on_validation_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
                                outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:  # fmt: skip
        """Turn the predictions of a batch into detections in image pixels."""
        assert isinstance(outputs, Predictions)
        start = len(self.detections)
        sizes = [(int(w), int(h)) for w, h in self.seen.sizes[start : start + len(outputs.boxes)]]
        self.detections += postprocess(outputs, sizes, self.input_size, self.mode, self.dataset.labels, SCORED)

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Merge tiles, compute and log mAP."""
        if self.tiling is not None:
            parts = iter(self.detections)
            self.detections = [
                merged((w, h), tiles := self.tiling.of((w, h)), [next(parts) for _ in tiles], SCORED)
                for w, h in self.dataset.sizes.tolist()
            ]
        assert isinstance(pl_module.tree, Tree | None)
        self.metrics = score(*in_use(self.dataset, self.detections, pl_module.tree), RULES, bootstrap=0)
        pl_module.log("val/mAP", self.metrics.mean_ap or 0.0, prog_bar=True, batch_size=len(self.dataset))
