"""What a person should know about a run: each finding one sentence that says what was seen and what to do.

The page of a run while it trains: what it learns, where points are lost, what to do about it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import lightning
import numpy as np

from lookonce.data.anchors import Coverage, coverage
from lookonce.data.dataset import Dataset
from lookonce.model.layers import PlacedHead
from lookonce.training.config import RunConfig
from lookonce.training.history import read_curves
from lookonce.training.validation import Validation

FEW_OBJECTS = 30
"""Training objects below which a class is called small. Our choice: a tenth of what VOC has of its rarest class."""
LOST = 0.02
"""Share of objects lost to a shared cell and anchor that is worth a word."""
UNFIT = 0.05
"""Share of objects that no anchor fits that is worth a word."""
PARTED = 1.1
"""Validation loss, of its lowest, from which on training and validation part."""
Curve = Sequence[tuple[float, float]]
"""(epoch, value), in order."""


def about_data(train_set: Dataset, covered: Sequence[Coverage]) -> list[str]:
    """Findings before the first step. covered: from coverage(), of all objects first."""
    found = []
    counts = np.bincount(train_set.classes, minlength=len(train_set.labels))
    few = [f"{name} ({n})" for name, n in zip(train_set.labels, counts, strict=True) if n < FEW_OBJECTS]
    if few:
        found.append(
            f"too few examples of these classes: {', '.join(few)}; label at least {FEW_OBJECTS} objects of each, "
            "or leave a class out with --labels"
        )
    whole = covered[0]
    if whole.collisions is not None and whole.collisions > LOST:
        found.append(
            f"{whole.collisions:.1%} of the training objects are lost to anchor collisions (two objects share a cell "
            "and an anchor): use a larger --size or more --anchors"
        )
    if whole.recall is not None and 1 - whole.recall > UNFIT:
        found.append(
            f"no anchor fits {1 - whole.recall:.1%} of the training objects (shape IoU below .5): use more --anchors"
        )
    return found


def about_curves(curves: Mapping[str, Curve], epochs: int) -> list[str]:
    """Findings from metrics.csv so far: of a run that parts from its validation, or that ends while it still gains."""
    found = []
    loss, best = curves.get("val/loss", ()), curves.get("val/mAP", ())
    if len(loss) >= 4:
        values = np.array([value for _, value in loss])
        lowest, last = int(values.argmin()), float(np.median(values[-3:]))
        train = [value for epoch, value in curves.get("loss_epoch", ()) if epoch >= loss[lowest][0]]
        if last > PARTED * values[lowest] and lowest < len(values) - 3 and len(train) > 1 and train[-1] < train[0]:
            found.append(
                f"overfitting: the validation loss was lowest ({values[lowest]:.3g}) in epoch "
                f"{loss[lowest][0]:g} and is {last:.3g} now, while the training loss falls; the best model is kept: "
                "more images or stronger --augment help, more epochs do not"
            )
    if len(best) >= 4 and best[-1][0] >= epochs:
        gain = best[-1][1] - max(value for _, value in best[: len(best) * 3 // 4])
        if gain > 0.02:
            found.append(
                f"validation mAP still rose by {gain:.3f} in the last quarter of the run: train longer with --steps"
            )
    return found


SECONDS = 60.0
"""Shortest time between two pages: a page takes a second or two."""


class RunReport(lightning.Callback):
    """Writes report.html after validations, once a minute at most, and at the end.

    Args:
        folder: the run's.
        train_set: what is learnt.
        validation: scores the run; None: the page has curves alone.
        config: of the run, its settings fitted.
        heads: of the network.
        write_page: writes the page of a run, whole or without what takes seconds; None: no page.
    """

    def __init__(self, folder: Path, train_set: Dataset, validation: Validation | None, config: RunConfig,
                 heads: tuple[PlacedHead, ...], write_page: WritePage | None = None) -> None:  # fmt: skip
        self.folder, self.train_set, self.validation, self.config = folder, train_set, validation, config
        how = config.settings
        self.covered = coverage(train_set, heads, (how.size, how.size), how.resize)
        self.data_advice = about_data(train_set, self.covered)
        self.heads = heads
        self.write_page = write_page
        self._written = 0.0

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show how the run stands."""
        if time.monotonic() - self._written >= SECONDS:
            self.write(whole=False)
            self._written = time.monotonic()

    def advice(self) -> list[str]:
        """Everything worth a word so far."""
        file = self.folder / "metrics.csv"
        curves = read_curves(file) if file.exists() else {}
        return [*self.data_advice, *about_curves(curves, self.config.settings.epochs or 1)]

    def write(self, whole: bool = True) -> Path | None:
        """Write the page of what is known now. whole: with curves, errors, confusion and calibration: some seconds."""
        return None if self.write_page is None else self.write_page(self, whole)


WritePage = Callable[[RunReport, bool], Path]
"""Writes the page of a run: all of it, or without the parts that take seconds."""
