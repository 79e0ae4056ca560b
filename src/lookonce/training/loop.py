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
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, TQDMProgressBar, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from lookonce.console import is_shown
from lookonce.data.loader import ImageCache, Shuffled, TrainingImages, collate
from lookonce.errors import UserError
from lookonce.training.advice import RunReport
from lookonce.training.checkpoints import LastCheckpoint, Stopped, WholeFiles, ignore_interrupts
from lookonce.training.config import RunConfig
from lookonce.training.feature_cache import FrozenBackbone
from lookonce.training.history import History
from lookonce.training.step import Training, choose_device, choose_precision
from lookonce.training.validation import Inputs, Validation, together

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
        self.working, self.waiting, self.images, self.steps = 0.0, 0.0, 0, 0
        self._epoch = (0.0, 0.0, 0)
        self._mark = 0.0

    @property
    def loader_share(self) -> float:
        """Share of the training time, validation and checkpoints left out, in which steps waited for images."""
        return self.waiting / max(self.waiting + self.working, 1e-9)

    def on_train_epoch_start(self, trainer: lightning.Trainer, *args: Any) -> None:
        """Start the clock of the epoch."""
        self._epoch = (self.working, self.waiting, self.images)
        self._mark = time.perf_counter()
        super().on_train_epoch_start(trainer, *args)

    def on_train_batch_start(self, *args: Any) -> None:
        """The images are there: waiting ends."""
        self.waiting += self._lap()
        super().on_train_batch_start(*args)

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
                           outputs: Any, batch: Any, batch_idx: int) -> None:  # fmt: skip
        """The step is done: count its images."""
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
        return self.images / max(self.working + self.waiting, 1e-9)

    def _rate(self) -> float:
        working, waiting, images = self._epoch
        return (self.images - images) / max(self.working - working + self.waiting - waiting, 1e-9)


VALIDATIONS = 20
"""About so many times a run is validated; each epoch at most once."""
ADVERTISEMENTS = (
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*isinstance.treespec.*",
    ".*exists and is not empty.*",
    ".*lr_scheduler.step.*",
    ".*but have no `val_dataloader`.*",
    ".*in eval mode at the start of training.*",  # frozen layers are, on purpose
    ".*dataloader is not resumable.*",  # the sampler is: it begins where the checkpoint says
)


class Engine:
    """One fit of one run.

    Args:
        config: its settings fitted to the training set.
        folder: the run's folder.
        cache: the training images.
        report: writes the run's page; its validation set and detections are the run's.
        checkpoint: to go on from; None: from the start.
        keep: called with each new best checkpoint; without validation, with that of each epoch.
    """

    def __init__(self, config: RunConfig, folder: Path, cache: ImageCache, report: RunReport, checkpoint: Path | None,
                 keep: Callable[[Path], None]) -> None:  # fmt: skip
        self.config, self.folder, self.cache, self.report, self.checkpoint = config, folder, cache, report, checkpoint
        self.keep = keep
        self.sampler = Shuffled(len(cache.dataset), config.seed, max(1, config.settings.variants))
        self.progress = Progress()
        self._held = ExitStack()
        self.history = History(folder / "metrics.csv")
        self.last = LastCheckpoint(folder / "checkpoints" / "last.ckpt", self.sampler, config.settings.batch_size,
                                   config.checkpoint_minutes, self.history,
                                   keep if report.validation is None else None)  # fmt: skip

    def fit(self, module: Training) -> None:
        """Train to the end.

        Raises Stopped where a signal ended it, OSError or UserError where a file could not be written, UserError for a
        checkpoint that does not fit.
        """
        config, how, val = self.config, self.config.settings, self.report.validation
        device = choose_device(config.device)
        precision, why = choose_precision(device)
        if config.precision != "auto":
            precision, why = ("32-true" if config.precision == "fp32" else "bf16-mixed"), f"{config.precision} as asked"
        length = f"{how.steps} steps" if how.steps else f"{how.epochs} epochs"
        log.info("%d images, %s of %d a batch%s; training and validation in %s", len(self.sampler), length,
                 how.batch_size, ", in mosaics" if how.augment.mosaic else "", why)  # fmt: skip
        keep_freed_memory()
        with quiet():
            trainer = lightning.Trainer(
                accelerator="gpu" if device == "cuda" else "cpu",
                devices=1,
                precision=cast(Any, precision),
                max_epochs=how.epochs,
                max_steps=how.steps or -1,
                min_epochs=0,  # an end by steps may lie in the first
                callbacks=self._callbacks(),
                logger=[self.history, TensorBoardLogger(self.folder, name="", version="tensorboard")],
                plugins=[WholeFiles()],
                check_val_every_n_epoch=validate_every(cast(int, how.epochs)),
                num_sanity_val_steps=0,
                log_every_n_steps=10,
                enable_model_summary=False,
                enable_checkpointing=val is not None,  # without it Lightning keeps its own in the working folder
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
                said = " ".join(str(error).split())[:160]
                raise UserError(f"{self.checkpoint}: does not fit this run ({said or type(error).__name__}); its "
                                "network.cfg or checkpoint is that of another run, or damaged") from error  # fmt: skip
            ended = trainer.current_epoch >= cast(int, how.epochs) or 0 <= trainer.max_steps <= trainer.global_step
            if self.last.asked and not ended:
                raise Stopped(self.last.asked)

    def _loaders(self, module: Training, device: str, val: Validation | None) -> tuple[DataLoader[Any], Any]:
        """Training and validation images; with features, what the frozen backbone makes of them."""
        how, workers = self.config.settings, self.config.workers
        own = torch.Generator()  # loaders draw a number each time; the global state is the network's (dropout)
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
        return training, DataLoader(inputs, batch_size=8, collate_fn=together, generator=own)

    def _callbacks(self) -> list[Callback]:
        how, folder = self.config.settings, self.folder / "checkpoints"
        found: list[Callback] = [self.progress]
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
    """Tell glibc to keep freed memory for the next step. On Linux without it: nothing.

    A step's maps are some 100 MB each; handed back and asked for anew, the kernel clears their pages in
    every step, which cost a third of the time of yolov2_tiny on two cores (docs/results.md).
    Source: mallopt(3), M_MMAP_MAX = -4 and M_TRIM_THRESHOLD = -1.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-4, 0)
        mallopt(-1, -1)


def validate_every(epochs: int) -> int:
    """Epochs from one validation to the next: some VALIDATIONS in a run, and always one after the last epoch."""
    return max(n for n in range(1, max(1, epochs // VALIDATIONS) + 1) if epochs % n == 0)


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning without its advertisements: hardware lists, tips, hints about workers."""
    engine = logging.getLogger("lightning.pytorch")
    level = engine.level
    engine.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for text in ADVERTISEMENTS:
            warnings.filterwarnings("ignore", text)
        try:
            yield
        finally:
            engine.setLevel(level)
