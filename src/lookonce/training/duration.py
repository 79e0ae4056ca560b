"""How long a run is: a number of steps, or a time to which the number of steps is fitted while it trains."""

from __future__ import annotations

import importlib.util
import math
import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from lookonce.inference.backends.processor import has_int8
from lookonce.training.config import FEW_TO_VALIDATE, RunConfig
from lookonce.training.progress import Progress
from lookonce.training.ranks import ALONE, Ranks
from lookonce.training.step import Training, choose_device

VALIDATIONS = 20
"""Approximate number of validations of a run; at most one per epoch."""
VALIDATING = 0.1
"""Largest part of a limited time that validations take, beside the last one."""
SLOW_STEPS = 2
"""First steps, which are slower: memory is taken and kernels are made."""
FIRST_FIT = 6
"""Step after which the number of steps is first fitted."""
FINISH = 5.0
"""Seconds for the files and the page of a finished run, beside scoring."""
INT8_SECONDS, INT8_VALIDATIONS = 8.0, 5.0
"""Time of the int8 form at the end: for its packages, and as validations, for calibration and two scores."""
INT8_MINUTES = 3.0
"""A run of fewer minutes has no time for it."""


def int8_obstacle(config: RunConfig, images: int) -> str | None:
    """Return why a training does not end with an int8 form of its model; None: it does. Empty: it gains nothing here.

    images: for validation.
    """
    minutes = config.settings.minutes
    if choose_device(config.device) != "cpu" or not has_int8():
        return ""
    if images < FEW_TO_VALIDATE:
        return f"not made: {images} validation images are too few to judge it by; {FEW_TO_VALIDATE} would do"
    if any(importlib.util.find_spec(package) is None for package in ("openvino", "nncf")):
        return "not made: this processor runs int8 faster, which needs: pip install 'lookonce[int8]'"
    if minutes is not None and minutes < INT8_MINUTES:
        return f"not made: a run of under {INT8_MINUTES:g} minutes has no time for it"
    return None


def validate_every(epochs: int) -> int:
    """Return the epochs between validations: about VALIDATIONS in a run, always one after the last epoch."""
    return max(n for n in range(1, max(1, epochs // VALIDATIONS) + 1) if epochs % n == 0)


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


class TimeLimit(Callback):
    """Ends a run at about a given time. After each step the number of steps is fitted to the time that is left.

    The learning rate and the end of mosaics follow, since they depend on this number. Validations get VALIDATING of the
    time, and the last one and the files of the run are allowed for.

    Args:
        minutes: of the whole run, from the start of the command; a resumed run has what is left.
        began: time.monotonic() at that start.
        most: the run ends after this many steps at the latest; None: no limit.
        progress: which estimates the time left.
        int8: whether the int8 form of the model is made within the time.
        ranks: the processes that train together; the clock is that of rank 0.
    """

    def __init__(self, minutes: float, began: float, most: int | None, progress: Progress, int8: bool = False,
                 ranks: Ranks = ALONE) -> None:  # fmt: skip
        self.end, self.began, self.most, self.progress = began + 60 * minutes, began, most, progress
        self.int8, self.ranks = int8, ranks
        self.validating: float | None = None
        """Seconds of a validation; None: there was none yet."""
        self._steps = 0
        self._mark = self._validation_began = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Training) -> None:  # type: ignore[override]
        """Go on with the number of steps of a run that resumes; end it if its time is over."""
        pl_module.planned_steps = self.progress.step_limit
        over = self.ranks.from_first(time.monotonic() >= self.end)
        trainer.should_stop = trainer.should_stop or (trainer.global_step > 0 and over)

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Training, *args: Any) -> None:  # type: ignore[override]
        """Fit the number of steps; end the run after the last one."""
        fitted = self.ranks.from_first(self._fitted(trainer))
        if fitted is None:
            return
        steps, step, validating = fitted
        self._plan(trainer, pl_module, min(steps, self.most or steps), validating / step)
        if trainer.global_step >= pl_module.total_steps:
            trainer.check_val_every_n_epoch = 1
            trainer.should_stop = True

    def _fitted(self, trainer: lightning.Trainer) -> tuple[int, float, float] | None:
        """Return the steps of the run, and the seconds of a step and of a validation; None: it is too early to tell."""
        now = time.monotonic()
        self._steps += 1
        if self._steps <= SLOW_STEPS:
            self._mark = now
        if now < self.end and self._steps < FIRST_FIT:
            return None
        step = max(1e-6, now - self._mark) / max(1, self._steps - SLOW_STEPS)
        validating = self._validating(trainer, step)
        left = self.end - now - FINISH - 2.5 * validating  # the last one, and scoring as in detection
        left -= self.int8 * (INT8_SECONDS + INT8_VALIDATIONS * validating)
        return trainer.global_step + max(0, int(left / step)), step, validating

    def _validating(self, trainer: lightning.Trainer, step: float) -> float:
        """Return the seconds of a validation; before the first one, an estimate from those of a step."""
        if self.validating is not None:
            return self.validating
        batches = trainer.num_val_batches
        count = sum(int(n) for n in batches) if isinstance(batches, list) else int(batches)
        return 0.4 * step * count

    def _plan(self, trainer: lightning.Trainer, module: Training, steps: int, validation: float) -> None:
        """Let the run end after this many steps. validation: as many steps take as long as one."""
        per_epoch = int(trainer.num_training_batches)
        epochs = max(trainer.current_epoch + 1, math.ceil(steps / per_epoch))
        module.planned_steps = self.progress.step_limit = steps
        trainer.fit_loop.max_epochs = epochs
        share = validation / (VALIDATING * per_epoch)
        trainer.check_val_every_n_epoch = max(1, math.ceil(epochs / VALIDATIONS), math.ceil(share))

    def on_validation_start(self, *args: Any) -> None:
        """Start the clock of a validation."""
        self._validation_began = time.monotonic()

    def on_validation_end(self, *args: Any) -> None:
        """Keep its time."""
        self.validating = time.monotonic() - self._validation_began

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds spent, for a run that resumes, and its steps."""
        return {"spent": time.monotonic() - self.began, "steps": self.progress.step_limit}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count the time before the stop, but not the time since."""
        self.end -= state_dict["spent"]
        self.began -= state_dict["spent"]
        self.progress.step_limit = state_dict["steps"]
