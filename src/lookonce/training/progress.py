"""What a run shows while it trains: a bar in a terminal, one line an epoch, the time left, and its first batch."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
from lightning.pytorch.callbacks import Callback
from PIL import Image

from lookonce.console import is_shown
from lookonce.data.augment import InputBatch
from lookonce.data.loader import Batch
from lookonce.files import optional_output, replacing
from lookonce.inference.draw import draw_labels
from lookonce.training.history import Means, RunReport, RunState
from lookonce.training.step import Training

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

log = logging.getLogger("lookonce")
FIRST_ESTIMATE = 10
"""Steps after which the time of the run is estimated."""
MOST_SHOWN = 16
"""Images of the first batch that are drawn."""
SHOWN_SIDE = 400
"""Approximate side of a drawn image, in pixels; small inputs are enlarged."""
WIDE = 90
"""Columns of a terminal from which the bar also shows the best mAP."""


class Progress(Callback):
    """Measures the speed of a run and shows how far it is.

    Args:
        report: of the run; its state is kept up to date.
        steps: optimizer steps of the run; None: all steps of its epochs.
    """

    def __init__(self, report: RunReport, steps: int | None = None) -> None:
        self.report, self.step_limit = report, steps
        self.working, self.waiting, self.images, self.steps = 0.0, 0.0, 0, 0
        self._epoch = (0.0, 0.0, 0)
        self._mark = 0.0
        self._scored = False
        self._best: float | None = None  # the highest mAP or, if that is monitored, the lowest loss times -1
        self._bar: Bar | None = None

    @property
    def rate(self) -> float:
        """Images per second over the whole run, without validation and checkpoints."""
        return self.images / max(self.working + self.waiting, 1e-9)

    @property
    def loading_fraction(self) -> float:
        """Data loading as a fraction of training time, without validation and checkpoints."""
        return self.waiting / max(self.waiting + self.working, 1e-9)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show the bar."""
        if is_shown():
            self._bar = _bar()
            self._bar.start()
            self._bar.add_task("", total=int(trainer.num_training_batches), text="")

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock of the epoch."""
        self._note(epoch=trainer.current_epoch)
        self._epoch = (self.working, self.waiting, self.images)
        self._mark = time.perf_counter()

    def on_train_batch_start(self, *args: Any) -> None:
        """Count the time of data loading."""
        self.waiting += self._lap()

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any,
                           batch: Any, batch_idx: int) -> None:  # fmt: skip
        """Count the images and the time of the step."""
        self.working += self._lap()
        self.images += len(batch)
        self.steps += 1
        if self.steps == FIRST_ESTIMATE:
            log.info("about %s for the rest of the run, at %.1f images/s", duration(self._left(trainer)), self.rate)
        self._show(trainer, pl_module, batch_idx + 1)
        self._mark = time.perf_counter()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Note the new score, and whether it is the best; under the prior loss none counts, as for BestCheckpoint."""
        self._scored = True
        if isinstance(pl_module, Training) and pl_module.uses_prior_loss:
            return
        by_loss = isinstance(pl_module, Training) and pl_module.settings.monitor == "loss"
        score = -float(trainer.callback_metrics["val/loss"]) if by_loss else self._score(trainer)
        if self._best is None or score > self._best:
            self._best = score
            self._note(best_map=self._score(trainer), best_epoch=trainer.current_epoch + 1)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Log the line of the epoch."""
        if isinstance(pl_module, Training):
            pl_module.read_steps()
        pl_module.log_dict({"images_per_s": self._rate(), "waiting": self.loading_fraction})
        self._note(epoch=trainer.current_epoch + 1, epochs=trainer.max_epochs, images_per_s=self._rate(),
                   seconds_left=self._left(trainer))  # fmt: skip
        log.info("%s", self._line(trainer, pl_module))
        if isinstance(pl_module, Training) and pl_module.settings.print_terms:
            log.info("    %s", terms_line(pl_module.means))
        self._scored = False

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Remove the bar, also after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to name the best epoch."""
        return {"best_map": self.state.best_map, "best_epoch": self.state.best_epoch, "best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best epoch of the run before it was resumed."""
        self._best = state_dict.pop("best", state_dict["best_map"])
        self._note(**state_dict)

    @property
    def state(self) -> RunState:
        """How far the run is."""
        return self.report.state

    def _note(self, **changes: Any) -> None:
        self.report.state = replace(self.report.state, **changes)

    def _score(self, trainer: lightning.Trainer) -> float:
        return float(trainer.callback_metrics.get("val/mAP", 0.0))

    def _line(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> str:
        """Return the line of an epoch."""
        means = pl_module.means.values() if isinstance(pl_module, Training) else {}
        parts = [f"loss {means['loss']:.4g}"] if "loss" in means else []
        if self._scored:
            best = "" if self.state.best_map is None else f" (best {self.state.best_map:.3f})"
            parts.append(f"val mAP {self._score(trainer):.3f}{best}")
        parts += [f"{self._rate():.1f} images/s", f"{duration(self._left(trainer))} left"]
        return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: {', '.join(parts)}"

    def _show(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, step: int) -> None:
        """Update the bar."""
        if self._bar is None:
            return
        parts = [f"{step}/{trainer.num_training_batches}"]
        if isinstance(pl_module, Training) and "loss" in pl_module.means.last:
            parts.append(f"loss {pl_module.means.last['loss']:.3g}")
        if self.state.best_map is not None:
            best = f" (best {self.state.best_map:.3f})" if self._bar.console.width >= WIDE else ""
            parts.append(f"mAP {self._score(trainer):.3f}{best}")
        parts += [f"{self._rate():.1f} img/s", f"{duration(self._left(trainer))} left"]
        self._bar.update(self._bar.task_ids[0], completed=step, text="  ".join(parts),
                         description=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")  # fmt: skip

    def _left(self, trainer: lightning.Trainer) -> float:
        """Return the seconds of training left at the speed so far, without validation and checkpoints."""
        total = (trainer.max_epochs or 0) * int(trainer.num_training_batches)
        steps = max(0, min(total, self.step_limit or total) - trainer.fit_loop.epoch_loop.total_batch_idx - 1)
        return steps * (self.working + self.waiting) / max(self.steps, 1)

    def _lap(self) -> float:
        """Return the seconds since the last call."""
        before, self._mark = self._mark, time.perf_counter()
        return self._mark - before if before else 0.0

    def _rate(self) -> float:
        """Return the images per second of this epoch."""
        working, waiting, images = self._epoch
        return (self.images - images) / max(self.working - working + self.waiting - waiting, 1e-9)


class FirstBatch(Callback):
    """Draws the first augmented batch of a run with its boxes, before the first step.

    Args:
        file: the image to write (.jpg).
        labels: class names.
    """

    def __init__(self, file: Path, labels: tuple[str, ...]) -> None:
        self.file, self.labels = file, labels

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Batch,
                             batch_idx: int) -> None:  # fmt: skip
        """Draw the batch of the first step."""
        if trainer.global_step or not len(batch) or not isinstance(pl_module, Training):
            return
        inputs = pl_module.inputs(batch, batch_idx)
        if not inputs.outputs:  # a cached backbone gives outputs in place of images
            with optional_output(), replacing(self.file) as temporary:
                batch_sheet(inputs, self.labels).save(temporary, "JPEG", quality=87)


def batch_sheet(inputs: InputBatch, labels: tuple[str, ...]) -> Image.Image:
    """Return up to MOST_SHOWN input images in a grid, each with its boxes and class names."""
    pixels = inputs.images[:MOST_SHOWN].float().cpu()  # [B, 3, H, W]
    scale = max(1, round(SHOWN_SIDE / max(pixels.shape[2:])))
    pixels = pixels.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    images = (pixels * 255).round().byte().permute(0, 2, 3, 1).numpy()  # [B, H, W, 3]
    boxes = inputs.boxes.cpu().numpy() * scale  # [N, 4]
    count, height, width = images.shape[:3]
    columns = math.ceil(math.sqrt(count))
    sheet = Image.new("RGB", (columns * width, math.ceil(count / columns) * height))
    owner, classes = inputs.image_index.cpu().numpy(), inputs.labels.cpu().numpy()
    for place, image in enumerate(images):
        on = owner == place
        drawn = draw_labels(image, boxes[on], [labels[c] for c in classes[on]], labels)
        sheet.paste(drawn, (place % columns * width, place // columns * height))
    return sheet


def terms_line(means: Means) -> str:
    """Return the means of the loss's terms over an epoch, the recall of its last step, and the mean over the run."""
    hidden = ("loss", "recall", "average_recall")
    terms = [f"{name} {value:.4g}" for name, value in means.values().items() if name not in hidden]
    recalls = [f"{name.replace('_', ' ')} {means.last[name]:.3f}" for name in hidden[1:] if name in means.last]
    return ", ".join([*terms, *recalls])


def duration(seconds: float) -> str:
    """Return a time for people: 45 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _bar() -> Bar:
    """Return the bar, on stderr: the epoch, eight columns of bar, and the numbers."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    text = TextColumn("{task.fields[text]}", markup=False)
    return Progress(TextColumn("{task.description}", markup=False), BarColumn(bar_width=8), text,
                    console=Console(stderr=True), transient=True, refresh_per_second=4)  # fmt: skip
