"""A run cannot be lost: checkpoints at every epoch, every few minutes and at a signal, each whole or not there."""

from __future__ import annotations

import io
import logging
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from lookonce.data.loader import Shuffled
from lookonce.files import replacing
from lookonce.training.history import History

log = logging.getLogger("lookonce")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What asks a run to stop: Ctrl-C, and the end of a session, a job or a container."""


class Stopped(BaseException):
    """A signal ended the training. Not a KeyboardInterrupt, which Lightning would turn into an exit."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it: a kill or a full disk leaves the one before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write it. Raises UserError where the disk is full or writing is not allowed."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with replacing(Path(path)) as beside, beside.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())  # a disk that is full says so here at the latest


class LastCheckpoint(lightning.Callback):
    """Saves the run after each epoch, every few minutes and when it is asked to stop; knows where it stands.

    It must come after the callbacks that change weights, so that it saves what they made.

    Args:
        file: the checkpoint.
        sampler: gives the pictures of an epoch; a resumed run takes up its order where it stood.
        batch_size: pictures a step.
        minutes: longest time between two checkpoints.
        history: forgets what came after the checkpoint that a run goes on from.
    """

    def __init__(self, file: Path, sampler: Shuffled, batch_size: int, minutes: float, history: History) -> None:
        self.file, self.sampler, self.batch_size, self.minutes = file, sampler, batch_size, minutes
        self.history = history
        self.asked = 0
        self._saved = time.monotonic()
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Listen for signals; only the main thread can."""
        self.history.cut(trainer.global_step)
        self._saved = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Hand the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
                           outputs: Any, batch: Any, batch_idx: int) -> None:  # fmt: skip
        """Save in the middle of an epoch, where it is time or asked for; its end has a checkpoint after validation."""
        if trainer.fit_loop.epoch_loop.batch_progress.current.ready >= trainer.num_training_batches:
            return
        if self.asked or time.monotonic() - self._saved >= 60 * self.minutes:
            self._save(trainer)
        if self.asked:
            raise Stopped(self.asked)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save after the epoch and its validation; asked to stop, the trainer ends in good order."""
        self._save(trainer)
        trainer.should_stop = trainer.should_stop or bool(self.asked)

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
                           checkpoint: dict[str, Any]) -> None:  # fmt: skip
        """Keep where in its epoch the run stands."""
        batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        epoch = trainer.current_epoch
        if batches >= trainer.num_training_batches:
            epoch, batches = epoch + 1, 0
        checkpoint["place"] = {"epoch": epoch, "pictures": batches * self.batch_size}

    def on_load_checkpoint(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
                           checkpoint: dict[str, Any]) -> None:  # fmt: skip
        """Take up the order of pictures there."""
        self.sampler.begin(**checkpoint["place"])

    def _save(self, trainer: lightning.Trainer) -> None:
        trainer.save_checkpoint(self.file)
        self._saved = time.monotonic()

    def _ask(self, number: int, _: FrameType | None) -> None:
        """First signal: stop after this step, or after the validation that is under way. Second: at once."""
        if self.asked:
            raise Stopped(number)
        self.asked = number
        log.info("stopping after this step, or the validation under way; once more stops at once")


def ignore_interrupts(_: int) -> None:
    """For processes that decode pictures: a Ctrl-C is for the run alone, which then ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
