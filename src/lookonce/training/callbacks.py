"""What happens around the steps: validation by mAP, the choice of the best, the average of weights, the bar."""

from __future__ import annotations

import time
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar, WeightAveraging
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from lookonce.data.pictures import load_rgb
from lookonce.data.record import Dataset
from lookonce.detections import Detections
from lookonce.detector import to_input
from lookonce.errors import PictureError
from lookonce.evaluation import SCORE_THRESHOLD
from lookonce.metrics import score
from lookonce.postprocess import Selection, postprocess
from lookonce.region import Predictions
from lookonce.resize import ResizeMode
from lookonce.training.module import Training


class Inputs(TorchDataset[Tensor]):
    """Pictures of a data set as network inputs [3, H, W] uint8, resized as detection does.

    A picture that cannot be decoded gives a grey input: its objects then count as missed.
    """

    def __init__(self, dataset: Dataset, frame: tuple[int, int], mode: ResizeMode) -> None:
        self.dataset, self.frame, self.mode = dataset, frame, mode
        self.kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tensor:
        if index not in self.kept:
            try:
                image = to_input(load_rgb(self.dataset.records[index].path), self.frame, self.mode)
            except PictureError:
                image = torch.full((3, self.frame[1], self.frame[0]), 0.5)
            if len(self.kept) >= 2000:
                return image
            self.kept[index] = (image * 255).round().to(torch.uint8)  # validated again and again: decode once
        return self.kept[index].float() / 255


class Validation(lightning.Callback):
    """mAP@0.5 on the validation pictures, as `val/mAP`; keeps the detections of the last round."""

    def __init__(self, dataset: Dataset, frame: tuple[int, int], mode: ResizeMode) -> None:
        self.dataset, self.frame, self.mode = dataset, frame, mode
        self.detections: list[Detections] = []

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Forget the round before."""
        self.detections = []

    def on_validation_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
                                outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:  # fmt: skip
        """Predictions of a batch to detections in image pixels."""
        assert isinstance(outputs, Predictions)
        start = len(self.detections)
        sizes = [(int(w), int(h)) for w, h in self.dataset.sizes[start : start + len(outputs.boxes)]]
        self.detections += postprocess(
            outputs, sizes, self.frame, self.mode, self.dataset.labels, Selection(SCORE_THRESHOLD)
        )

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Score the round."""
        metrics = score(self.dataset, self.detections, bootstrap=0)
        pl_module.log("val/mAP", metrics.mean_ap or 0.0, prog_bar=True, batch_size=len(self.dataset))


class BestCheckpoint(ModelCheckpoint):
    """The checkpoint of best val/mAP, never one from the warm-up."""

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Judge this round, unless predictors are still drawn to their anchors."""
        if not (isinstance(pl_module, Training) and pl_module.warming_up):
            super().on_validation_end(trainer, pl_module)


class Patience(EarlyStopping):
    """Stops a run that no longer gains; warm-up does not try its patience."""

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Judge this round, unless predictors are still drawn to their anchors."""
        if not (isinstance(pl_module, Training) and pl_module.warming_up):
            super().on_validation_end(trainer, pl_module)


def averaging(decay: float) -> WeightAveraging:
    """Moving average of weights and statistics, young at first: decay min(d, (1 + n) / (10 + n)) at update n."""

    def average(averaged: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
        if not averaged.is_floating_point():
            return current
        n = int(updates)
        return torch.lerp(current, averaged, min(decay, (1 + n) / (10 + n)))

    return WeightAveraging(avg_fn=average)


class Progress(TQDMProgressBar):
    """The bar: each loss term, recall, val/mAP and images/s."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=1)
        self._began = 0.0
        self._pictures = 0

    def on_train_epoch_start(self, trainer: lightning.Trainer, *args: Any) -> None:
        """Start the clock of the epoch."""
        self._began, self._pictures = time.perf_counter(), 0
        super().on_train_epoch_start(trainer, *args)

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
                           outputs: Any, batch: Any, batch_idx: int) -> None:  # fmt: skip
        """Count pictures."""
        self._pictures += len(batch)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Log the epoch's images/s."""
        pl_module.log("images_per_s", self._rate())
        super().on_train_epoch_end(trainer, pl_module)

    def get_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        """What stands right of the bar."""
        shown = super().get_metrics(trainer, pl_module)
        kept = {name.removesuffix("_step"): f"{value:.3g}" if isinstance(value, float) else value
                for name, value in shown.items() if name not in ("v_num",) and not name.endswith("_epoch")}  # fmt: skip
        return {**kept, "images/s": f"{self._rate():.1f}"}

    def _rate(self) -> float:
        return self._pictures / max(time.perf_counter() - self._began, 1e-9)
