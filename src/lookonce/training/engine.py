"""Lightning's Trainer as this project drives it: callbacks, logs, checkpoints, quiet."""

from __future__ import annotations

import ctypes
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from lookonce.data.canvas import Canvases
from lookonce.data.loader import Pictures, Shuffled, collate
from lookonce.errors import UserError
from lookonce.training.callbacks import BestCheckpoint, Patience, Progress, averaging
from lookonce.training.history import History
from lookonce.training.module import Training, choose_device, choose_precision
from lookonce.training.plan import Plan
from lookonce.training.saving import LastCheckpoint, Stopped, WholeFiles, ignore_interrupts
from lookonce.training.trunk import Trunk
from lookonce.training.validation import Inputs, Validation, together
from lookonce.training.watch import Watch

log = logging.getLogger("lookonce")

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
        plan: its settings fitted to the training set.
        folder: the run's folder.
        canvases: the training pictures.
        watch: writes the run's page; its validation set and detections are the run's.
        checkpoint: to go on from; None: from the start.
        keep: called with each new best checkpoint; without validation, with that of each epoch.
    """

    def __init__(self, plan: Plan, folder: Path, canvases: Canvases, watch: Watch, checkpoint: Path | None,
                 keep: Callable[[Path], None]) -> None:  # fmt: skip
        self.plan, self.folder, self.canvases, self.watch, self.checkpoint = plan, folder, canvases, watch, checkpoint
        self.keep = keep
        self.sampler = Shuffled(len(canvases.dataset), plan.seed, max(1, plan.settings.variants))
        self.progress = Progress()
        self._held = ExitStack()
        self.history = History(folder / "metrics.csv")
        self.last = LastCheckpoint(folder / "checkpoints" / "last.ckpt", self.sampler, plan.settings.batch_size,
                                   plan.checkpoint_minutes, self.history,
                                   keep if watch.validation is None else None)  # fmt: skip

    def fit(self, module: Training) -> None:
        """Train to the end.

        Raises Stopped where a signal ended it, OSError or UserError where a file could not be written, UserError for a
        checkpoint that does not fit.
        """
        plan, how, val = self.plan, self.plan.settings, self.watch.validation
        device = choose_device(plan.device)
        precision, why = choose_precision(device)
        if plan.precision != "auto":
            precision, why = ("32-true" if plan.precision == "fp32" else "bf16-mixed"), f"{plan.precision} as asked"
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
                deterministic=plan.deterministic,
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
        """Training and validation pictures; with features, what the frozen trunk makes of them."""
        how, workers = self.plan.settings, self.plan.workers
        own = torch.Generator()  # loaders draw a number each time; the global state is the network's (dropout)
        pictures: Any = Pictures(self.canvases, how.difficult)
        inputs: Any = None if val is None else Inputs(val.dataset, val.frame, val.mode)
        if how.features != "none":
            trunk = Trunk(module, self.plan)
            self._held.callback(trunk.close)
            pictures, inputs = trunk.training(pictures), None if inputs is None else trunk.validation(inputs)
        training = DataLoader(
            pictures, how.batch_size, sampler=self.sampler, collate_fn=collate, num_workers=workers,
            persistent_workers=workers > 0, pin_memory=device == "cuda", worker_init_fn=ignore_interrupts,
            generator=own,
        )  # fmt: skip
        if inputs is None:
            return training, None
        return training, DataLoader(inputs, batch_size=8, collate_fn=together, generator=own)

    def _callbacks(self) -> list[Callback]:
        how, folder = self.plan.settings, self.folder / "checkpoints"
        found: list[Callback] = [self.progress]
        if how.ema:
            found.append(averaging(how.ema))
        if self.watch.validation is not None:
            found.append(self.watch.validation)
            found.append(BestCheckpoint(folder, self.keep))
            if how.patience:
                found.append(Patience("val/mAP", how.min_delta, how.patience, mode="max",
                                      check_on_train_epoch_end=False))  # fmt: skip
        return [*found, self.watch, self.last]


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
