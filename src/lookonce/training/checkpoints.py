"""Checkpoints survive crashes: one after every epoch, every few minutes and at a signal, each whole or not there."""

from __future__ import annotations

import io
import logging
import os
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from lookonce.data.loader import Shuffled
from lookonce.errors import Interrupted, UserError
from lookonce.files import replacing
from lookonce.training.history import History

log = logging.getLogger("lookonce")
NEEDED = {"epoch": int, "seen": int, "place": dict, "sigmas": list, "state_dict": dict}
"""What this package adds to a checkpoint of Lightning's, or reads from it itself."""
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


def read_checkpoint(file: Path) -> dict[str, Any]:
    """A checkpoint of a run, on the CPU. Nothing in it is unpickled but tensors and plain values.

    Raises UserError for a file that is not one, or that is damaged.
    """
    advice = f"start a new run from the best model: lookonce train DATA --weights {file.parent.parent}"
    try:
        with zipfile.ZipFile(file) as content:
            damaged = content.testzip()  # torch would read changed numbers without a word
        if damaged is not None:
            raise UserError(f"{file}: the checkpoint is damaged; {advice}")
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        raise UserError(f"{file}: cannot be read as a checkpoint ({_short(error)}); {advice}") from None
    for name, kind in NEEDED.items():
        if not isinstance(state, dict) or not isinstance(state.get(name), kind):
            raise UserError(f"{file}: not a checkpoint of this program (no {name!r} in it); {advice}")
    return state


def _short(error: Exception) -> str:
    """An error's text as part of one line."""
    said = " ".join(str(error).split())[:120] or type(error).__name__
    return "".join(letter if letter.isprintable() else "?" for letter in said)


@contextmanager
def listening() -> Iterator[None]:
    """Let a signal that comes before or after the steps unwind the run, so that nothing half-made stays behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    except Stopped as stopped:
        raise Interrupted("stopped before training began; give the same command again", stopped.number) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def random_state() -> dict[str, Any]:
    """The state of torch's random generators. Every other draw derives from the seed, the epoch and the image."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Go on drawing where random_state() was taken."""
    torch.set_rng_state(state["cpu"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


class LastCheckpoint(lightning.Callback):
    """Saves the run after each epoch, every few minutes and when it is asked to stop; knows where it stands.

    It must come after the callbacks that change weights, so that it saves what they made.

    Args:
        file: the checkpoint.
        sampler: gives the images of an epoch; a resumed run takes up its order where it stood.
        batch_size: images a step.
        minutes: longest time between two checkpoints.
        history: forgets what came after the checkpoint that a run goes on from.
        keep: called with the checkpoint of each epoch; None: nothing is.
    """

    def __init__(self, file: Path, sampler: Shuffled, batch_size: int, minutes: float, history: History,
                 keep: Callable[[Path], None] | None = None) -> None:  # fmt: skip
        self.file, self.sampler, self.batch_size, self.minutes = file, sampler, batch_size, minutes
        self.history, self.keep = history, keep
        self.asked = 0
        self.began = False
        self._random: dict[str, Any] | None = None
        self._saved = time.monotonic()
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Listen for signals; only the main thread can."""
        self.began = True
        self.history.cut(trainer.global_step)
        self._saved = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Hand the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
                             batch: Any, batch_idx: int) -> None:  # fmt: skip
        """Draw on where the checkpoint stood: setting up a run draws as well."""
        if self._random is not None:
            set_random_state(self._random)
            self._random = None

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
                           outputs: Any, batch: Any, batch_idx: int) -> None:  # fmt: skip
        """Save in the middle of an epoch, where it is time or asked for; its end has a checkpoint after validation."""
        if 0 <= trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True  # in the middle of an epoch: Lightning then validates
            return
        if trainer.fit_loop.epoch_loop.batch_progress.current.ready >= trainer.num_training_batches:
            return
        if self.asked or time.monotonic() - self._saved >= 60 * self.minutes:
            self._save(trainer)
        if self.asked:
            raise Stopped(self.asked)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save after the epoch and its validation; asked to stop, the trainer ends in good order."""
        self._save(trainer)
        if self.keep is not None:
            self.keep(self.file)
        trainer.should_stop = trainer.should_stop or bool(self.asked)

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
                           checkpoint: dict[str, Any]) -> None:  # fmt: skip
        """Keep where in its epoch the run stands."""
        batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        epoch = trainer.current_epoch
        if batches >= trainer.num_training_batches:
            epoch, batches = epoch + 1, 0
        checkpoint["place"] = {"epoch": epoch, "images": batches * self.batch_size}
        checkpoint["random"] = random_state()

    def on_load_checkpoint(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
                           checkpoint: dict[str, Any]) -> None:  # fmt: skip
        """Take up the order of images and the random draws there."""
        place = checkpoint["place"]
        self.sampler.begin(place["epoch"], place.get("images", place.get("pictures")))  # the latter before version 0.2
        self._random = checkpoint.get("random")  # a run of an earlier version has none

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
    """For processes that decode images: a Ctrl-C is for the run alone, which then ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
