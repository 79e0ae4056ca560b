"""Checkpoints survive crashes: one after every epoch, every few minutes and at a signal, each written atomically."""

from __future__ import annotations

import io
import logging
import os
import time
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from lookonce.data.loader import Shuffled
from lookonce.errors import UserError
from lookonce.files import replacing
from lookonce.training.config import reason
from lookonce.training.history import History
from lookonce.training.signals import Stopped, handling_signals

log = logging.getLogger("lookonce")
NEEDED = {"epoch": int, "seen": int, "place": dict, "sigmas": list, "state_dict": dict}
"""Entries of a checkpoint that this package adds or reads itself."""


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints atomically: a kill or a full disk leaves the previous one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint. Raises UserError if the disk is full or writing is not allowed."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())  # raises if the disk is full


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; only tensors and plain values are loaded, nothing is unpickled.

    Raises UserError for a damaged file or one that is not a checkpoint.
    """
    advice = f"start a new run from the best model: lookonce train DATA --weights {file.parent.parent}"
    try:
        with zipfile.ZipFile(file) as content:
            damaged = content.testzip()  # torch does not check the CRCs
        if damaged is not None:
            raise UserError(f"{file}: the checkpoint is damaged; {advice}")
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        raise UserError(f"{file}: cannot be read as a checkpoint ({reason(error)}); {advice}") from None
    for name, kind in NEEDED.items():
        if not isinstance(state, dict) or not isinstance(state.get(name), kind):
            raise UserError(f"{file}: not a checkpoint of this program (no {name!r} in it); {advice}")
    return state


def random_state() -> dict[str, Any]:
    """Return the state of torch's generators. All other random numbers depend on the seed, the epoch and the image."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what random_state() returned."""
    torch.set_rng_state(state["cpu"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


class LastCheckpoint(lightning.Callback):
    """Saves the run after each epoch, every few minutes and at a signal.

    It must come after the callbacks that change weights, so that it saves their result.

    Args:
        file: the checkpoint.
        sampler: order of the images; a resumed run continues it.
        batch_size: images per step.
        minutes: longest time between two checkpoints.
        history: truncated to the checkpoint when a run resumes.
        keep: called with the checkpoint of each epoch; None: do nothing.
    """

    def __init__(self, file: Path, sampler: Shuffled, batch_size: int, minutes: float, history: History,
                 keep: Callable[[Path], None] | None = None) -> None:  # fmt: skip
        self.file, self.sampler, self.batch_size, self.minutes = file, sampler, batch_size, minutes
        self.history, self.keep = history, keep
        self.stop_signal = 0
        self.began = False
        self._random: dict[str, Any] | None = None
        self._saved = time.monotonic()
        self._handling = ExitStack()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Truncate the history to the checkpoint and handle signals."""
        self.began = True
        self.history.truncate(trainer.global_step)
        self._saved = time.monotonic()
        self._handling.enter_context(handling_signals(self._on_signal))

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Restore the signal handlers."""
        self._handling.close()

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
                             batch: Any, batch_idx: int) -> None:  # fmt: skip
        """Restore the random state at the first batch: setting up a run uses random numbers too."""
        if self._random is not None:
            set_random_state(self._random)
            self._random = None

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
                           outputs: Any, batch: Any, batch_idx: int) -> None:  # fmt: skip
        """Save within an epoch when it is time or after a signal; the end of an epoch saves after its validation."""
        if trainer.should_stop:
            return  # the epoch ends here
        if trainer.fit_loop.epoch_loop.batch_progress.current.ready >= trainer.num_training_batches:
            return
        if self.stop_signal or time.monotonic() - self._saved >= 60 * self.minutes:
            self._save(trainer)
        if self.stop_signal:
            raise Stopped(self.stop_signal)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save after the epoch and its validation; after a signal, end the training."""
        self._save(trainer)
        if self.keep is not None:
            self.keep(self.file)
        trainer.should_stop = trainer.should_stop or bool(self.stop_signal)

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
                           checkpoint: dict[str, Any]) -> None:  # fmt: skip
        """Save the position within the epoch and the random state."""
        batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        epoch = trainer.current_epoch
        if batches >= trainer.num_training_batches:
            epoch, batches = epoch + 1, 0
        checkpoint["place"] = {"epoch": epoch, "images": batches * self.batch_size}
        checkpoint["random"] = random_state()

    def on_load_checkpoint(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
                           checkpoint: dict[str, Any]) -> None:  # fmt: skip
        """Restore the order of images and the random state."""
        place = checkpoint["place"]
        self.sampler.begin(place["epoch"], place.get("images", place.get("pictures")))  # the latter in version 0.1
        self._random = checkpoint.get("random")  # not in version 0.1

    def _save(self, trainer: lightning.Trainer) -> None:
        trainer.save_checkpoint(self.file)
        self._saved = time.monotonic()

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        """Stop after the current step or validation; at once at the second signal."""
        if self.stop_signal:
            raise Stopped(number)
        self.stop_signal = number
        log.info("stopping after the current step or validation; interrupt again to stop at once")
