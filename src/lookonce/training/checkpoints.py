"""Checkpoints survive crashes: one every few minutes, at a signal and at the end, each written atomically.

A checkpoint is some four times as large as the model, so one after each epoch would wear a disk out: 15 GB in a default
run of 28 minutes. The time between two of them follows from their size instead (minutes_between). The best model is
kept in memory and written with them.
"""

from __future__ import annotations

import io
import logging
import math
import os
import time
import zipfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Literal, cast

import lightning
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from lookonce.data.loader import Shuffled
from lookonce.errors import UserError
from lookonce.files import replacing
from lookonce.model.model_file import Model, load_model, save_model
from lookonce.training.config import reason
from lookonce.training.history import History
from lookonce.training.ranks import ALONE, Ranks
from lookonce.training.recipes import Monitor
from lookonce.training.signals import Stopped, handling_signals
from lookonce.training.step import Training

log = logging.getLogger("lookonce")
NEEDED = {"epoch": int, "seen": int, "place": dict, "sigmas": list, "state_dict": dict}
"""Entries of a checkpoint that this package adds or reads itself."""
BYTES_AN_HOUR = 1e9
"""Most that checkpoints write, unless the longest time between two of them asks for more."""
SHORTEST, LONGEST = 1.0, 30.0
"""Limits of the minutes between two checkpoints."""
DIRECTION: dict[Monitor, Literal["min", "max"]] = {"mAP": "max", "loss": "min"}
State = dict[str, Any]
"""Of a checkpoint, what a model is made of: state_dict, sigmas, epoch, seen."""


def minutes_between(size: int) -> float:
    """Return the minutes between checkpoints of a size in bytes: they write 1 GB an hour, within limits."""
    return min(max(60 * size / BYTES_AN_HOUR, SHORTEST), LONGEST)


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


class BestModel(lightning.Callback):
    """Keeps the model of the best validation, but none from the time of the prior loss; without validation the last.

    The first one is written at once, so that a run that still trains can be used. Later ones stay in memory until the
    next checkpoint. It must come after the callback that validates with other weights than those that train.

    Args:
        file: the model file.
        make: makes the model of a state.
        monitor: what is best: the highest mAP or the lowest loss; None: there is no validation.
        ranks: the processes that train together; rank 0 keeps the model.
    """

    def __init__(self, file: Path, make: Callable[[State], Model], monitor: Monitor | None = "mAP",
                 ranks: Ranks = ALONE) -> None:  # fmt: skip
        self.file, self.make, self.monitor, self.ranks = file, make, monitor, ranks
        self.score: float | None = None
        """Of the best validation; None: there was none yet."""
        self._state: State = {}
        self._model: Model | None = None
        self._written = True

    @property
    def state_key(self) -> str:
        """Return the name in checkpoints, also in those of version 0.2."""
        told = {"monitor": f"val/{self.monitor}", "mode": DIRECTION[self.monitor or "mAP"], "every_n_train_steps": 0,
                "every_n_epochs": 1, "train_time_interval": None}  # fmt: skip
        return f"BestCheckpoint{told!r}"

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: Training) -> None:  # type: ignore[override]
        """Copy the weights that are validated."""
        if not self.ranks.is_first:
            return
        weights = {name: value.detach().cpu().clone() for name, value in pl_module.state_dict().items()}
        self._state = self._of(weights, trainer, pl_module)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Training) -> None:  # type: ignore[override]
        """Compare this validation, unless the prior loss is still on."""
        score, sign = float(trainer.callback_metrics[f"val/{self.monitor}"]), 1 if self.monitor == "mAP" else -1
        score = -sign * math.inf if math.isnan(score) else score
        if pl_module.uses_prior_loss or (self.score is not None and sign * score <= sign * self.score):
            return
        pl_module.read_steps()  # raises NonFiniteLossError
        if self.ranks.is_first:
            self._model, self._written = self.make(self._state), False
        if self.score is None:
            self.write()
        self.score = score

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: Training,  # type: ignore[override]
                           checkpoint: dict[str, Any]) -> None:  # fmt: skip
        """Write the model before the checkpoint that knows its score."""
        if self.monitor is None:
            pl_module.read_steps()
            if self.ranks.is_first:
                self._model = self.make(self._of(checkpoint["state_dict"], trainer, pl_module))
                self._written = False
        self.write()

    def write(self) -> None:
        """Write the best model if it is not in its file yet."""
        if self._model is not None and not self._written:
            save_model(self._model, self.file)
            self._written = True

    def model(self) -> Model | None:
        """Return the best model or, without validation, the last; None: no validation counted."""
        if self._model is not None:
            return self._model
        return None if self.score is None else load_model(self.file)

    def _of(self, weights: dict[str, Any], trainer: lightning.Trainer, module: Training) -> State:
        return {"state_dict": weights, "sigmas": list(module.network.sigmas), "epoch": trainer.current_epoch,
                "seen": module.seen}  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Return the best score; the model is in its own file."""
        return {"best_model_score": self.score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score, if its model is still there."""
        score = state_dict["best_model_score"]
        with suppress(UserError):
            load_model(self.file)
            self.score = None if score is None else float(score)


class LastCheckpoint(lightning.Callback):
    """Saves the run after the first epoch, every few minutes from then on, at a signal and at the end.

    It must come after the callbacks that change weights, so that it saves their result.

    Args:
        file: the checkpoint.
        sampler: order of the images; a resumed run continues it.
        batch_size: images per step.
        minutes: longest time between two checkpoints; None: by their size.
        history: truncated to the checkpoint when a run resumes.
        model: the model file, which is written with it.
        ranks: the processes that train together: all save and stop at the same step, and rank 0 writes.
    """

    def __init__(self, file: Path, sampler: Shuffled, batch_size: int, minutes: float | None, history: History,
                 model: Path, ranks: Ranks = ALONE) -> None:  # fmt: skip
        self.file, self.sampler, self.batch_size, self.minutes = file, sampler, batch_size, minutes
        self.history, self.model, self.ranks = history, model, ranks
        self.stop_signal = 0
        self.began = False
        self._between: float | None = None
        """Minutes to the next checkpoint; None: there is none yet."""
        self._random: dict[str, Any] | None = None
        self._seen = 0
        """Images seen before the step that runs."""
        self._saved = time.monotonic()
        self._handling = ExitStack()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Truncate the history to the checkpoint and handle signals."""
        self.began = True
        if self.ranks.is_first:
            self.history.truncate(trainer.global_step)
        self._saved = time.monotonic()
        self._handling.enter_context(handling_signals(self._on_signal))

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Restore the signal handlers."""
        self._handling.close()

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Training,  # type: ignore[override]
                             batch: Any, batch_idx: int) -> None:  # fmt: skip
        """Restore the random state at the first batch: setting up a run uses random numbers too."""
        self._seen = pl_module.seen
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
        due = self._is_due()
        if self.stop_signal or due:
            self._save(trainer)
        if self.stop_signal:
            raise Stopped(self.stop_signal)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save after the first epoch, when it is time, and at the end; after a signal, end the training."""
        due = self._is_due()
        trainer.should_stop = trainer.should_stop or bool(self.stop_signal)
        ends = trainer.should_stop or trainer.current_epoch + 1 >= (trainer.max_epochs or 0)
        if ends or self._between is None or due:
            self._save(trainer)

    def on_exception(self, trainer: lightning.Trainer, pl_module: Training, exception: BaseException) -> None:  # type: ignore[override]
        """Restore the signal handlers; if another process was lost, save the state after the last whole step."""
        self._handling.close()
        if self.ranks.size == 1 or not self.ranks.is_first or not isinstance(exception, RuntimeError) or not self.began:
            return
        pl_module.leave_unread()
        progress = trainer.fit_loop.epoch_loop.batch_progress
        if _batches(trainer) < progress.current.ready:  # the step did not end
            pl_module.seen = self._seen
            for each in cast(Any, (progress.total, progress.current)):
                each.ready = each.started = each.processed
        with suppress(Exception):  # the others no longer wait at the end of saving
            self._save(trainer)

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
                           checkpoint: dict[str, Any]) -> None:  # fmt: skip
        """Save the position within the epoch and the random state."""
        batches = _batches(trainer)
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

    def _is_due(self) -> bool:
        """Return whether it is time by the clock of rank 0; take over a signal that another process got."""
        minutes = self.minutes or self._between or SHORTEST
        own = self.ranks.is_first and time.monotonic() - self._saved >= 60 * minutes
        due, stop = self.ranks.highest((own, self.stop_signal))
        self.stop_signal = self.stop_signal or int(stop)
        return bool(due)

    def _save(self, trainer: lightning.Trainer) -> None:
        trainer.save_checkpoint(self.file)
        self._saved, first = time.monotonic(), self._between is None
        self._between = self._between or SHORTEST
        if not self.ranks.is_first:
            return
        size = self.file.stat().st_size + (self.model.stat().st_size if self.model.exists() else 0)
        self._between = minutes_between(size)
        if first:
            log.info("checkpoints: %.0f MB, at most %.2g min apart, all that a kill can lose (--checkpoint-minutes)",
                     size / 1e6, self.minutes or self._between)  # fmt: skip

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        """Stop after the current step or validation; at once at the second signal."""
        if self.stop_signal:
            raise Stopped(number)
        self.stop_signal = number
        log.info("stopping after the current step or validation; interrupt again to stop at once")


def _batches(trainer: lightning.Trainer) -> int:
    """Return the batches of the epoch whose step is complete."""
    return cast(Any, trainer.fit_loop.epoch_loop.batch_progress.current).processed  # type: ignore[no-any-return]
