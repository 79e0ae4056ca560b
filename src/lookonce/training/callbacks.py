"""What happens around the steps: the choice of the best, patience, the average of weights, the progress."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar, WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from lookonce.progress import is_shown
from lookonce.training.module import Training

log = logging.getLogger("lookonce")


class BestCheckpoint(ModelCheckpoint):
    """The checkpoint of best val/mAP, never one from the warm-up.

    Args:
        folder: where it is kept, as best.ckpt.
        keep: called with each new one.
    """

    def __init__(self, folder: Path, keep: Callable[[Path], None]) -> None:
        # right after the validation, not at the epoch's end: LastCheckpoint saves there, and keeps what is known here
        super().__init__(
            folder, "best", monitor="val/mAP", mode="max", enable_version_counter=False, save_on_train_epoch_end=False
        )
        self.keep = keep

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Judge this round, unless predictors are still drawn to their anchors."""
        if isinstance(pl_module, Training) and pl_module.warming_up:
            return
        before = self.best_model_score
        super().on_validation_end(trainer, pl_module)
        if self.best_model_score is not before:
            self.keep(Path(self.best_model_path))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The best so far, where it lies now: a run folder may have moved, or be the copy of another."""
        score, own = state_dict["best_model_score"], str(Path(self.dirpath or "", "best.ckpt"))
        best = {"best_model_path": own, "best_k_models": {own: score}, "kth_best_model_path": own, "kth_value": score}
        moved = {} if score is None else best
        super().load_state_dict({**state_dict, "dirpath": self.dirpath, "last_model_path": "", **moved})


class Patience(EarlyStopping):
    """Stops a run that no longer gains; warm-up does not try its patience."""

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Judge this round, unless predictors are still drawn to their anchors."""
        if not (isinstance(pl_module, Training) and pl_module.warming_up):
            super().on_validation_end(trainer, pl_module)


def averaging(decay: float) -> WeightAveraging:
    """Moving average of weights and statistics, young at first: decay min(d, (1 + n) / (10 + n)) at update n."""

    def average(averaged: Any, current: Any, updates: Tensor | int) -> None:
        """All tensors of one type at once; counts are taken as they are."""
        n = int(updates)
        kept = min(decay, (1 + n) / (10 + n)) if averaged[0].is_floating_point() else 0.0
        get_ema_multi_avg_fn(kept)(averaged, current, updates)  # type: ignore[no-untyped-call]

    return WeightAveraging(multi_avg_fn=average)


class Progress(TQDMProgressBar):
    """How far the run is: a bar on a terminal, elsewhere a line an epoch; and how long the run waited for images.

    The bar shows each loss term, recall, val/mAP, images/s and the time left.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=1 if is_shown() else 0)
        self._scored = False
        self.working, self.waiting, self.pictures, self.steps = 0.0, 0.0, 0, 0
        self._epoch = (0.0, 0.0, 0)
        self._mark = 0.0

    @property
    def loader_share(self) -> float:
        """Share of the training time, validation and checkpoints left out, in which steps waited for pictures."""
        return self.waiting / max(self.waiting + self.working, 1e-9)

    def on_train_epoch_start(self, trainer: lightning.Trainer, *args: Any) -> None:
        """Start the clock of the epoch."""
        self._epoch = (self.working, self.waiting, self.pictures)
        self._mark = time.perf_counter()
        super().on_train_epoch_start(trainer, *args)

    def on_train_batch_start(self, *args: Any) -> None:
        """The pictures are there: waiting ends."""
        self.waiting += self._lap()
        super().on_train_batch_start(*args)

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
                           outputs: Any, batch: Any, batch_idx: int) -> None:  # fmt: skip
        """The step is done: count its pictures."""
        self.working += self._lap()
        self.pictures += len(batch)
        self.steps += 1
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._mark = time.perf_counter()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Note that there is a new score."""
        self._scored = True
        super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Log the epoch's images/s, and its line."""
        pl_module.log_dict({"images_per_s": self._rate(), "waiting": self.loader_share})
        super().on_train_epoch_end(trainer, pl_module)
        if self.is_disabled:
            log.info("%s", self._line(trainer, pl_module))
        self._scored = False

    def _line(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> str:
        """One epoch in one line."""
        means = pl_module.means.values() if isinstance(pl_module, Training) else {}
        said = [f"{name} {means[name].item():.4g}" for name in ("loss",) if name in means]
        if self._scored:
            said.append(f"val mAP {float(trainer.callback_metrics.get('val/mAP', 0.0)):.3f}")
        said += [f"{self._rate():.1f} images/s", f"{self._left(trainer)} left"]
        return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: {', '.join(said)}"

    def get_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        """What stands right of the bar."""
        shown = super().get_metrics(trainer, pl_module)
        if isinstance(pl_module, Training):
            shown |= {name: value.item() for name, value in pl_module.means.last.items()}
        kept = {name: f"{value:.3g}" if isinstance(value, float) else value
                for name, value in shown.items() if name != "v_num" and not name.endswith("_epoch")}  # fmt: skip
        return {**kept, "images/s": f"{self._rate():.1f}", "left": self._left(trainer)}

    def _left(self, trainer: lightning.Trainer) -> str:
        """How long the training will still take at the pace so far, validation and checkpoints left out."""
        total = (trainer.max_epochs or 0) * int(trainer.num_training_batches)
        total = min(total, trainer.max_steps) if trainer.max_steps >= 0 else total
        steps = max(0, total - trainer.fit_loop.epoch_loop.total_batch_idx - 1)
        minutes = steps * (self.working + self.waiting) / max(self.steps, 1) / 60
        return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"

    def _lap(self) -> float:
        """Seconds since the last mark, which moves to now."""
        before, self._mark = self._mark, time.perf_counter()
        return self._mark - before if before else 0.0

    @property
    def rate(self) -> float:
        """Images/s over the whole run, validation and checkpoints left out."""
        return self.pictures / max(self.working + self.waiting, 1e-9)

    def _rate(self) -> float:
        working, waiting, pictures = self._epoch
        return (self.pictures - pictures) / max(self.working - working + self.waiting - waiting, 1e-9)
