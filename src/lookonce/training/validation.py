"""Validation: mAP and loss on pictures that training never sees, as detection sees them."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from lookonce.data.augment import Warped
from lookonce.data.dataset import Dataset
from lookonce.data.images import load_for
from lookonce.errors import PictureError
from lookonce.evaluation.average_precision import Metrics, score
from lookonce.evaluation.evaluate import RULES, SCORED
from lookonce.inference.backends.settings import Backend
from lookonce.model.detections import Detections
from lookonce.model.heads.region import Predictions
from lookonce.model.postprocess import postprocess
from lookonce.model.resize import ResizeMode, boxes_to_input, to_input

KEPT = 2000
"""Inputs that stay in memory, so that validation decodes a picture once."""


class Inputs(TorchDataset[Warped]):
    """Pictures of a data set as network inputs with their objects, resized as detection does.

    A picture that cannot be decoded gives a grey input: its objects then count as missed.
    """

    def __init__(self, dataset: Dataset, frame: tuple[int, int], mode: ResizeMode) -> None:
        self.dataset, self.frame, self.mode = dataset, frame, mode
        self.kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Warped:
        return self.objects(index)._replace(images=self.image(index)[None])

    def objects(self, index: int) -> Warped:
        """What is there, without the picture."""
        record = self.dataset.records[index]
        boxes = boxes_to_input(torch.from_numpy(record.boxes), record.size, self.frame, self.mode)
        labels = torch.from_numpy(record.labels)
        return Warped(torch.zeros(0), boxes, labels, torch.zeros_like(labels), torch.from_numpy(record.difficult))

    def image(self, index: int) -> Tensor:
        """The input [3, H, W], floats 0..1."""
        if index not in self.kept:
            try:
                pixels = load_for(self.dataset.records[index].path, self.frame, self.dataset.pixel_range).pixels
                image = torch.from_numpy(to_input(pixels, self.frame, self.mode))
            except PictureError:
                image = torch.full((3, self.frame[1], self.frame[0]), 0.5)
            if len(self.kept) >= KEPT:
                return image
            self.kept[index] = (image * 255).round().to(torch.uint8)
        return self.kept[index].float() / 255


def together(samples: list[Warped]) -> Warped:
    """Inputs of one picture each as one batch."""
    places = torch.arange(len(samples)).repeat_interleave(torch.tensor([len(s.labels) for s in samples]))
    parts = [torch.cat([getattr(s, name) for s in samples]) for name in ("images", "boxes", "labels", "ignore")]
    images, boxes, labels, ignore = parts
    outputs = tuple(torch.cat(each) for each in zip(*(s.outputs for s in samples), strict=True))
    if not outputs:
        images = images.contiguous(memory_format=torch.channels_last)
    return Warped(images, boxes, labels, places, ignore, outputs)


class Validation(lightning.Callback):
    """mAP@0.5 on the validation pictures, as `val/mAP`; keeps the detections and scores of the last round."""

    def __init__(self, dataset: Dataset, frame: tuple[int, int], mode: ResizeMode) -> None:
        self.dataset, self.frame, self.mode = dataset, frame, mode
        self.detections: list[Detections] = []
        self.metrics: Metrics | None = None
        self.computed_by = ""
        """What ran the last round, for people to read."""

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Forget the round before."""
        self.detections = []
        precision = "bf16" if trainer.precision == "bf16-mixed" else "fp32"
        self.computed_by = str(Backend("torch", torch.__version__, precision, str(pl_module.device)))

    def on_validation_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
                                outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:  # fmt: skip
        """Predictions of a batch to detections in image pixels."""
        assert isinstance(outputs, Predictions)
        start = len(self.detections)
        sizes = [(int(w), int(h)) for w, h in self.dataset.sizes[start : start + len(outputs.boxes)]]
        self.detections += postprocess(outputs, sizes, self.frame, self.mode, self.dataset.labels, SCORED)

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Score the round."""
        self.metrics = score(self.dataset, self.detections, RULES, bootstrap=0)
        pl_module.log("val/mAP", self.metrics.mean_ap or 0.0, prog_bar=True, batch_size=len(self.dataset))
