"""The history of a run: metrics.csv, the means of an epoch, advice from both, and the page while the run trains."""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import lightning
import numpy as np
from lightning.pytorch.loggers import Logger

from lookonce.data.anchors import Coverage, coverage
from lookonce.data.dataset import Dataset
from lookonce.data.tiles import in_tiles
from lookonce.errors import UserError
from lookonce.files import optional_output, write_text
from lookonce.model.layers import PlacedHead
from lookonce.training.config import RunConfig
from lookonce.training.validation import Validation

STEP_NUMBERS = ("xy", "wh", "ciou", "box", "objectness", "background", "class", "prior", "distillation", "loss",
                "recall", "average_recall")  # fmt: skip
COLUMNS = (
    "epoch", "step", "seen", "rate", "images_per_s", "waiting", "val/mAP", "val/loss",
    *(f"{name}_step" for name in STEP_NUMBERS), *(f"{name}_epoch" for name in STEP_NUMBERS),
)  # fmt: skip
"""The columns of metrics.csv; a row fills some."""
MAX_VALUE = 1e30
"""Values beyond it are damage; a figure could not show them."""
FEW_OBJECTS = 30
"""Training objects below which a class has too few. Our choice: a tenth of what VOC has of its rarest class."""
COLLISIONS = 0.02
"""Fraction of objects lost to anchor collisions above which there is advice."""
NO_ANCHOR_FITS = 0.05
"""Fraction of objects that no anchor fits above which there is advice."""
OVERFIT = 1.1
"""Validation loss, relative to its lowest, above which a run overfits."""
PAGE_SECONDS = 60.0
"""Shortest time between two pages; writing one takes a second or two."""
log = logging.getLogger("lookonce")
Curves = dict[str, list[tuple[float, float]]]
"""For each column its points (epochs done, value), in order."""


class History(Logger):
    """Writes metrics.csv row by row, so that a killed run loses no row."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self._unwritten: list[dict[str, Any]] = []
        """Rows for which the file could not be opened: another program, such as Excel on Windows, holds it."""

    @property
    def name(self) -> str:
        """Return the kind of log."""
        return "history"

    @property
    def version(self) -> str:
        """Return nothing: a run has one history."""
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml holds the settings."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row, after those that could not be written before."""
        known = {name: f"{value:.8g}" for name, value in metrics.items() if name in COLUMNS}
        self._unwritten.append({**known, "step": step})
        fresh = not self.file.exists()
        try:
            with self.file.open("a", newline="", encoding="utf-8") as text:
                rows = csv.DictWriter(text, COLUMNS, lineterminator="\n")
                if fresh:
                    rows.writeheader()
                rows.writerows(self._unwritten)
        except OSError as error:
            if len(self._unwritten) == 1:
                log.warning("%s: cannot be written: %s; its rows wait until it can", self.file, error.strerror)
        else:
            self._unwritten = []

    def truncate(self, step: int) -> None:
        """Remove the rows from a step on, where the run resumes, and damaged rows. Columns become those of today."""
        if not self.file.exists():
            return
        text = StringIO()
        table = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        rows = [row for row in read_rows(self.file) if row["step"] < step]
        table.writerows({name: f"{value:.8g}" for name, value in row.items()} for row in rows)
        write_text(self.file, text.getvalue())


class Means:
    """Values of the last step, and their means over the images of an epoch.

    Values that are not finite, such as the recall of a step without objects, are left out.
    """

    def __init__(self) -> None:
        self.last: dict[str, float] = {}
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, values: Mapping[str, float], images: int) -> None:
        """Add the values of a step by name, weighted by its number of images."""
        self.last = {name: value for name, value in values.items() if math.isfinite(value)}
        for name, value in self.last.items():
            total, weight = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + value * images, weight + images

    def values(self) -> dict[str, float]:
        """Return the means so far."""
        return {name: total / weight for name, (total, weight) in self._sums.items()}

    def reset(self) -> dict[str, float]:
        """Return the means so far and start over."""
        means = self.values()
        self._sums = {}
        return means


def read_rows(file: Path) -> list[dict[str, float]]:
    """Return the rows of metrics.csv as numbers by column, without damaged rows and values that are not finite.

    Raises UserError if the file cannot be read.
    """
    try:
        text = file.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from None
    first, *lines = text.rpartition("\n")[0].split("\n")  # a killed run may leave half a row
    columns = first.rstrip("\r").replace("warm_up_", "prior_").split(",")  # as in version 0.1
    found = []
    for line in lines:
        cells = line.rstrip("\r").split(",")
        if len(cells) != len(columns):
            continue
        row = {name: number for name, cell in zip(columns, cells, strict=True) if (number := _number(cell)) is not None}
        if all(row.get(name, -1.0) >= 0 for name in ("epoch", "step")):
            found.append(row)
    return found


def write_results(folder: Path) -> Path:
    """Write results.csv of a run folder: one row an epoch with the last value of each column of metrics.csv."""
    epochs: dict[int, dict[str, float]] = {}
    for row in read_rows(folder / "metrics.csv"):
        epochs.setdefault(int(row["epoch"]) + 1, {}).update(row)
    columns = [column for column in COLUMNS if any(column in row for row in epochs.values())
               and not column.endswith("_step") and column not in ("epoch", "step")]  # fmt: skip
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["epoch", *(column.removesuffix("_epoch").replace("val/", "val_") for column in columns)])
    for epoch, row in epochs.items():
        table.writerow([epoch, *(f"{row[column]:.6g}" if column in row else "" for column in columns)])
    write_text(folder / "results.csv", text.getvalue())
    return folder / "results.csv"


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if abs(number) < MAX_VALUE else None


def read_curves(file: Path) -> Curves:
    """Return the columns of metrics.csv as curves. Raises UserError if it cannot be read."""
    found: Curves = {}
    rows = read_rows(file)
    ends = [row for row in rows if "loss_epoch" in row]
    steps = (ends[0]["step"] + 1) / (ends[0]["epoch"] + 1) if ends else 1.0  # per epoch
    for row in rows:
        for name, value in row.items():
            if name not in ("epoch", "step"):
                found.setdefault(name, []).append(((row["step"] + 1) / steps, value))
    return found


def about_data(train_set: Dataset, covered: Sequence[Coverage]) -> list[str]:
    """Return advice before the first step. covered: from coverage(), all objects first."""
    advice = []
    counts = np.bincount(train_set.classes, minlength=len(train_set.labels))
    few = [f"{name} ({n})" for name, n in zip(train_set.labels, counts, strict=True) if n < FEW_OBJECTS]
    if few:
        advice.append(
            f"too few examples of these classes: {', '.join(few)}; label at least {FEW_OBJECTS} objects of each, "
            "or leave a class out with --labels"
        )
    objects = covered[0]
    if objects.collisions is not None and objects.collisions > COLLISIONS:
        advice.append(
            f"{objects.collisions:.1%} of the training objects are lost to anchor collisions (two objects share a cell "
            "and an anchor): use a larger --size or more --anchors"
        )
    if objects.recall is not None and 1 - objects.recall > NO_ANCHOR_FITS:
        advice.append(
            f"no anchor fits {1 - objects.recall:.1%} of the training objects (shape IoU below .5): use more --anchors"
        )
    return advice


def about_curves(curves: Mapping[str, Sequence[tuple[float, float]]], epochs: int) -> list[str]:
    """Return advice on a run that overfits, or that ends while it still improves."""
    advice = []
    loss, mean_ap = curves.get("val/loss", ()), curves.get("val/mAP", ())
    if len(loss) >= 4:
        values = np.array([value for _, value in loss])
        lowest, last = int(values.argmin()), float(np.median(values[-3:]))
        train = [value for epoch, value in curves.get("loss_epoch", ()) if epoch >= loss[lowest][0]]
        if last > OVERFIT * values[lowest] and lowest < len(values) - 3 and len(train) > 1 and train[-1] < train[0]:
            advice.append(
                f"overfitting: the validation loss was lowest ({values[lowest]:.3g}) in epoch "
                f"{loss[lowest][0]:g} and is {last:.3g} now, while the training loss falls; the best model is kept: "
                "more images or stronger --augment help, more epochs do not"
            )
    if len(mean_ap) >= 4 and mean_ap[-1][0] >= epochs:
        gain = mean_ap[-1][1] - max(value for _, value in mean_ap[: len(mean_ap) * 3 // 4])
        if gain > 0.02:
            advice.append(
                f"validation mAP still rose by {gain:.3f} in the last quarter of the run: train longer with --steps"
            )
    return advice


@dataclass(frozen=True)
class RunState:
    """How far a run is."""

    epoch: int = 0
    """Epochs done."""
    epochs: int | None = None
    """Epochs of the run; None: unknown."""
    images_per_s: float | None = None
    seconds_left: float | None = None
    best_map: float | None = None
    best_epoch: int | None = None
    finished: bool = False
    stopped: bool = False
    """Whether it ended before its last step: by Ctrl-C, or by an error."""
    parameters: int | None = None
    """Weights of the network; None: unknown."""
    gflop: float | None = None
    """Operations for one image, 1e9; None: unknown."""
    device: str = ""
    precision: str = ""


class RunReport(lightning.Callback):
    """Writes report.html after validations, once a minute at most, and at the end.

    Args:
        folder: the run folder.
        train_set: the training images.
        validation: of the run; None: the page shows curves only.
        config: of the run, with fitted settings.
        heads: heads of the network.
        write_page: writes the page; None: no page.
    """

    def __init__(self, folder: Path, train_set: Dataset, validation: Validation | None, config: RunConfig,
                 heads: tuple[PlacedHead, ...], write_page: WritePage | None = None) -> None:  # fmt: skip
        self.folder, self.train_set, self.validation, self.config = folder, train_set, validation, config
        how = config.settings
        self.covered = coverage(in_tiles(train_set, how.tiling), heads, (how.size, how.size), how.resize)
        self.data_advice = about_data(train_set, self.covered)
        self.heads = heads
        self.write_page = write_page
        self.state = RunState()
        self._written = 0.0
        self._begun = False

    def on_train_batch_start(self, *args: Any) -> None:
        """Write the page before the first step: the data, the settings, and the first batch, which is drawn by now."""
        if not self._begun:
            self._begun = True
            self.write(whole=False)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the epochs so far as results.csv."""
        if trainer.current_epoch:
            with optional_output():
                write_results(self.folder)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the page if the last one is old enough."""
        if time.monotonic() - self._written >= PAGE_SECONDS:
            self.write(whole=False)
            self._written = time.monotonic()

    def advice(self) -> list[str]:
        """Return all advice so far."""
        file = self.folder / "metrics.csv"
        curves = read_curves(file) if file.exists() else {}
        return [*self.data_advice, *about_curves(curves, self.config.settings.epochs or 1)]

    def write(self, whole: bool = True) -> Path | None:
        """Write the page. whole: with error analysis, confusion and calibration, which take some seconds."""
        with optional_output():
            return None if self.write_page is None else self.write_page(self, whole)
        return None


WritePage = Callable[[RunReport, bool], Path]
"""Writes the page of a run, whole or without the parts that take seconds, and returns its path."""
