"""The training loop: Lightning's Trainer with its callbacks, loggers and data loaders."""

from __future__ import annotations

import ctypes
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, TQDMProgressBar, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from lookonce.console import is_shown
from lookonce.data.loader import ImageCache, Shuffled, TrainingImages, collate
from lookonce.errors import UserError
from lookonce.training.checkpoints import LastCheckpoint, Stopped, WholeFiles, ignore_interrupts
from lookonce.training.config import RunConfig, reason
from lookonce.training.feature_cache import FrozenBackbone
from lookonce.training.history import History, RunReport
from lookonce.training.step import Training, choose_device, choose_precision
from lookonce.training.validation import Inputs, Validation, collate_inputs

log = logging.getLogger("lookonce")


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoint of best val/mAP, but none from the time of the prior loss.

    Args:
        folder: where best.ckpt is written.
        keep: called with each new best checkpoint.
    """

    def __init__(self, folder: Path, keep: Callable[[Path], None]) -> None:
        # save after the validation, before LastCheckpoint saves this callback's state at the end of the epoch
        super().__init__(
            folder, "best", monitor="val/mAP", mode="max", enable_version_counter=False, save_on_train_epoch_end=False
        )
        self.keep = keep

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Set up without the warning that the folder is not empty: a resumed run has its checkpoints there."""
        self.save_top_k = 0
        super().setup(trainer, pl_module, stage)
        self.save_top_k = 1

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Compare this validation, unless the prior loss is still on."""
        if isinstance(pl_module, Training) and pl_module.uses_prior_loss:
            return
        before = self.best_model_score
        super().on_validation_end(trainer, pl_module)
        if self.best_model_score is not before:
            self.keep(Path(self.best_model_path))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score with the path of today: a run folder may have been moved or copied."""
        score, own = state_dict["best_model_score"], str(Path(self.dirpath or "", "best.ckpt"))
        best = {"best_model_path": own, "best_k_models": {own: score}, "kth_best_model_path": own, "kth_value": score}
        best = {} if score is None else best
        super().load_state_dict({**state_dict, "dirpath": self.dirpath, "last_model_path": "", **best})


class Patience(EarlyStopping):
    """Stops a run that no longer improves; validations under the prior loss do not count."""

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Compare this validation, unless the prior loss is still on."""
        if not (isinstance(pl_module, Training) and pl_module.uses_prior_loss):
            super().on_validation_end(trainer, pl_module)


def averaging(decay: float) -> WeightAveraging:
    """Return a moving average of weights and statistics; its decay at update n is min(decay, (1 + n) / (10 + n))."""

    def average(averaged: Any, current: Any, updates: Tensor | int) -> None:
        """Average all tensors of one type at once; counts are copied."""
        n = int(updates)
        current_decay = min(decay, (1 + n) / (10 + n)) if averaged[0].is_floating_point() else 0.0
        get_ema_multi_avg_fn(current_decay)(averaged, current, updates)  # type: ignore[no-untyped-call]

    return WeightAveraging(multi_avg_fn=average)


class StepLimit(Callback):
    """Ends a run after a number of steps, also within an epoch: Lightning then validates.

    Lightning's own max_steps repeats the end of the epoch when a run resumes there, and so loses the last epoch.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """End a run that resumes after its last step."""
        trainer.should_stop = trainer.should_stop or trainer.global_step >= self.steps

    def on_train_batch_end(self, trainer: lightning.Trainer, *args: Any) -> None:
        """End the run after its last step."""
        trainer.should_stop = trainer.should_stop or trainer.global_step >= self.steps


class Progress(TQDMProgressBar):
    """Shows progress, as a bar on a terminal and a line per epoch elsewhere; measures images/s and data loading.

    The bar shows each loss term, recall, val/mAP, images/s and the time left.
    """

    def __init__(self, step_limit: int | None = None) -> None:
        super().__init__(refresh_rate=1 if is_shown() else 0)
        self.step_limit = step_limit
        self._scored = False
        self.working, self.waiting, self.images, self.steps = 0.0, 0.0, 0, 0
        self._epoch = (0.0, 0.0, 0)
        self._mark = 0.0

    @property
    def rate(self) -> float:
        """Images per second over the whole run, without validation and checkpoints."""
        return self.images / max(self.working + self.waiting, 1e-9)

    @property
    def loading_fraction(self) -> float:
        """Data loading as a fraction of training time, without validation and checkpoints."""
        return self.waiting / max(self.waiting + self.working, 1e-9)

    def on_train_epoch_start(self, trainer: lightning.Trainer, *args: Any) -> None:
        """Start the clock of the epoch."""
        self._epoch = (self.working, self.waiting, self.images)
        self._mark = time.perf_counter()
        super().on_train_epoch_start(trainer, *args)

    def on_train_batch_start(self, *args: Any) -> None:
        """Count the time of data loading."""
        self.waiting += self._lap()
        super().on_train_batch_start(*args)

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
                           outputs: Any, batch: Any, batch_idx: int) -> None:  # fmt: skip
        """Count the images and the time of the step."""
        self.working += self._lap()
        self.images += len(batch)
        self.steps += 1
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._mark = time.perf_counter()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Note that there is a new score."""
        self._scored = True
        super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Log the speed of the epoch and its line."""
        pl_module.log_dict({"images_per_s": self._rate(), "waiting": self.loading_fraction})
        super().on_train_epoch_end(trainer, pl_module)
        if self.is_disabled:
            log.info("%s", self._line(trainer, pl_module))
        self._scored = False

    def _line(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> str:
        """Return the line of an epoch."""
        means = pl_module.means.values() if isinstance(pl_module, Training) else {}
        parts = [f"loss {means['loss'].item():.4g}"] if "loss" in means else []
        if self._scored:
            parts.append(f"val mAP {float(trainer.callback_metrics.get('val/mAP', 0.0)):.3f}")
        parts += [f"{self._rate():.1f} images/s", f"{self._left(trainer)} left"]
        return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: {', '.join(parts)}"

    def get_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        """Return the numbers right of the bar."""
        shown = super().get_metrics(trainer, pl_module)
        if isinstance(pl_module, Training):
            shown |= {name: value.item() for name, value in pl_module.means.last.items()}
        values = {name: f"{value:.3g}" if isinstance(value, float) else value
                  for name, value in shown.items() if name != "v_num" and not name.endswith("_epoch")}  # fmt: skip
        return {**values, "images/s": f"{self._rate():.1f}", "left": self._left(trainer)}

    def _left(self, trainer: lightning.Trainer) -> str:
        """Return the training time left at the speed so far, without validation and checkpoints."""
        total = (trainer.max_epochs or 0) * int(trainer.num_training_batches)
        steps = max(0, min(total, self.step_limit or total) - trainer.fit_loop.epoch_loop.total_batch_idx - 1)
        minutes = steps * (self.working + self.waiting) / max(self.steps, 1) / 60
        return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"

    def _lap(self) -> float:
        """Return the seconds since the last call."""
        before, self._mark = self._mark, time.perf_counter()
        return self._mark - before if before else 0.0

    def _rate(self) -> float:
        """Return the images per second of this epoch."""
        working, waiting, images = self._epoch
        return (self.images - images) / max(self.working - working + self.waiting - waiting, 1e-9)


VALIDATIONS = 20
"""Approximate number of validations of a run; at most one per epoch."""


class Engine:
    """The training loop of one run.

    Args:
        config: of the run, with settings fitted to the training set.
        folder: the run folder.
        cache: the training images.
        report: writes the page of the run; holds its validation.
        checkpoint: where to resume; None: start from the beginning.
        keep: called with each new best checkpoint or, without validation, with that of each epoch.
    """

    def __init__(self, config: RunConfig, folder: Path, cache: ImageCache, report: RunReport, checkpoint: Path | None,
                 keep: Callable[[Path], None]) -> None:  # fmt: skip
        self.config, self.folder, self.cache, self.report, self.checkpoint = config, folder, cache, report, checkpoint
        self.keep = keep
        self.sampler = Shuffled(len(cache.dataset), config.seed, max(1, config.settings.variants))
        self.progress = Progress(config.settings.steps)
        self._held = ExitStack()
        self.history = History(folder / "metrics.csv")
        self.last = LastCheckpoint(folder / "checkpoints" / "last.ckpt", self.sampler, config.settings.batch_size,
                                   config.checkpoint_minutes, self.history,
                                   keep if report.validation is None else None)  # fmt: skip

    def fit(self, module: Training) -> None:
        """Train to the end.

        Raises Stopped after a signal, OSError or UserError if a file cannot be written, UserError for a checkpoint that
        does not fit.
        """
        config, how, val = self.config, self.config.settings, self.report.validation
        device = choose_device(config.device)
        precision, why = choose_precision(device)
        if config.precision != "auto":
            precision, why = (
                ("32-true" if config.precision == "fp32" else "bf16-mixed"),
                f"{config.precision} (--precision)",
            )
        length = f"{how.steps} steps" if how.steps else f"{how.epochs} epochs"
        log.info("%d training images, %s, batch size %d%s; precision %s", len(self.sampler), length, how.batch_size,
                 ", mosaics" if how.augment.mosaic else "", why)  # fmt: skip
        keep_freed_memory()
        with quiet():
            trainer = lightning.Trainer(
                accelerator="gpu" if device == "cuda" else "cpu",
                devices=1,
                precision=cast(Any, precision),
                max_epochs=how.epochs,
                min_epochs=0,  # StepLimit may end the first epoch
                callbacks=self._callbacks(),
                logger=[self.history, TensorBoardLogger(self.folder, name="", version="tensorboard")],
                plugins=[WholeFiles()],
                check_val_every_n_epoch=validate_every(cast(int, how.epochs)),
                num_sanity_val_steps=0,
                log_every_n_steps=10,
                enable_model_summary=False,
                enable_checkpointing=val is not None,  # without validation Lightning would add its own
                use_distributed_sampler=False,
                deterministic=config.deterministic,
            )
            module.to(memory_format=torch.channels_last)
            try:
                with self._held:
                    loaders = self._loaders(module, device, val)
                    trainer.fit(module, *loaders, ckpt_path=self.checkpoint, weights_only=True)
            except (UserError, OSError):
                raise
            except Exception as error:
                if self.checkpoint is None or self.last.began:
                    raise
                raise UserError(f"{self.checkpoint}: does not fit this run ({reason(error)}); its network.cfg or "
                                "checkpoint belongs to another run, or is damaged") from error  # fmt: skip
            ended = trainer.current_epoch >= cast(int, how.epochs) or 0 < (how.steps or 0) <= trainer.global_step
            if self.last.stop_signal and not ended:
                raise Stopped(self.last.stop_signal)

    def _loaders(self, module: Training, device: str, val: Validation | None) -> tuple[DataLoader[Any], Any]:
        """Return the loaders of training and validation: of images, or of the frozen backbone's outputs."""
        how, workers = self.config.settings, self.config.workers
        own = torch.Generator()  # for the loaders; the global generator belongs to the network (dropout)
        images: Any = TrainingImages(self.cache, how.difficult)
        inputs: Any = None if val is None else Inputs(val.dataset, val.input_size, val.mode)
        if how.features != "none":
            backbone = FrozenBackbone(module, self.config)
            self._held.callback(backbone.close)
            images, inputs = backbone.training(images), None if inputs is None else backbone.validation(inputs)
        training = DataLoader(
            images, how.batch_size, sampler=self.sampler, collate_fn=collate, num_workers=workers,
            persistent_workers=workers > 0, pin_memory=device == "cuda", worker_init_fn=ignore_interrupts,
            generator=own,
        )  # fmt: skip
        if inputs is None:
            return training, None
        return training, DataLoader(inputs, batch_size=8, collate_fn=collate_inputs, generator=own)

    def _callbacks(self) -> list[Callback]:
        how, folder = self.config.settings, self.folder / "checkpoints"
        found: list[Callback] = [self.progress]
        if how.steps:
            found.append(StepLimit(how.steps))
        if how.ema:
            found.append(averaging(how.ema))
        if self.report.validation is not None:
            found.append(self.report.validation)
            found.append(BestCheckpoint(folder, self.keep))
            if how.patience:
                found.append(Patience("val/mAP", how.min_delta, how.patience, mode="max",
                                      check_on_train_epoch_end=False))  # fmt: skip
        return [*found, self.report, self.last]


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next step; without glibc do nothing.

    Feature maps take some 100 MB each. If they are returned to the kernel, it clears their pages again in every step,
    which took a third of the time of yolov2_tiny on two cores (docs/results.md).
    Source: mallopt(3), M_MMAP_MAX = -4 and M_TRIM_THRESHOLD = -1.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-4, 0)
        mallopt(-1, -1)


def validate_every(epochs: int) -> int:
    """Return the epochs between validations: about VALIDATIONS in a run, always one after the last epoch."""
    return max(n for n in range(1, max(1, epochs // VALIDATIONS) + 1) if epochs % n == 0)


@contextmanager
def quiet() -> Iterator[None]:
    """Run Lightning without its hardware lists and its hints, which are not about what a user of lookonce did."""
    engine = logging.getLogger("lightning.pytorch")
    level = engine.level
    engine.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)  # few workers, frozen layers, a run without validation
        warnings.simplefilter("ignore", FutureWarning)  # Lightning's own use of torch.utils._pytree
        try:
            yield
        finally:
            engine.setLevel(level)
