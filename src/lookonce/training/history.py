"""A run's numbers: means of an epoch's steps, and metrics.csv, which a resumed run cuts where its checkpoint stands."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from torch import Tensor

from lookonce.errors import UserError
from lookonce.files import write_text

STEP_NUMBERS = ("xy", "wh", "ciou", "objectness", "background", "class", "prior", "loss", "recall")
COLUMNS = (
    "epoch", "step", "seen", "rate", "images_per_s", "waiting", "val/mAP", "val/loss",
    *(f"{name}_step" for name in STEP_NUMBERS), *(f"{name}_epoch" for name in STEP_NUMBERS),
)  # fmt: skip
"""Every number that a run may report; a row fills some."""


class History(Logger):
    """Appends to a run's metrics.csv, a row at a time, so that a kill loses no row before it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    @property
    def name(self) -> str:
        """Of the kind of log."""
        return "history"

    @property
    def version(self) -> str:
        """There is one for each run."""
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml holds them."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row."""
        known = {name: f"{value:.8g}" for name, value in metrics.items() if name in COLUMNS}
        fresh = not self.file.exists()
        with self.file.open("a", newline="", encoding="utf-8") as text:
            rows = csv.DictWriter(text, COLUMNS, lineterminator="\n")
            if fresh:
                rows.writeheader()
            rows.writerow({**known, "step": step})

    def cut(self, step: int) -> None:
        """Forget rows from a step on: the run goes on from there. Rows that are damaged or cut short go too.

        What an earlier version of the program wrote, with fewer columns, gets today's.
        """
        if not self.file.exists():
            return
        kept = StringIO()
        table = csv.DictWriter(kept, COLUMNS, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        rows = [row for row in read_rows(self.file) if row["step"] < step]
        table.writerows({name: f"{value:.8g}" for name, value in row.items()} for row in rows)
        write_text(self.file, kept.getvalue())


class Means:
    """Numbers of steps: those of the last one, and their means over an epoch's images.

    A number that is not finite (the recall of a step without objects) counts for nothing.
    """

    def __init__(self) -> None:
        self.last: dict[str, Tensor] = {}
        self._sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, numbers: dict[str, Tensor], images: int) -> None:
        """Take a step's numbers, scalars by name, with the number of its images as their weight."""
        self.last = {name: value for name, value in numbers.items() if value.isfinite()}
        for name, value in self.last.items():
            total, weight = self._sums.get(name, (value.new_zeros(()), 0))
            self._sums[name] = total + value * images, weight + images

    def values(self) -> dict[str, Tensor]:
        """The means so far."""
        return {name: total / weight for name, (total, weight) in self._sums.items()}

    def take(self) -> dict[str, Tensor]:
        """The means so far; the next ones start anew."""
        found = self.values()
        self._sums = {}
        return found


GREATEST = 1e30
"""Numbers of a run beyond it are damage: a figure could not show them either."""
Curves = dict[str, list[tuple[float, float]]]


def read_rows(file: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv as numbers by column.

    A row that is damaged or cut short is left out, and so is a value that is not a finite number.
    Raises UserError where the file cannot be opened.
    """
    try:
        text = file.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from None
    first, *lines = text.rpartition("\n")[0].split("\n")  # what follows the last line end was cut short
    columns = first.rstrip("\r").replace("warm_up_", "prior_").split(",")  # their name in version 0.1
    found = []
    for line in lines:
        cells = line.rstrip("\r").split(",")
        if len(cells) != len(columns):
            continue
        row = {name: number for name, cell in zip(columns, cells, strict=True) if (number := _number(cell)) is not None}
        if all(row.get(name, -1.0) >= 0 for name in ("epoch", "step")):
            found.append(row)
    return found


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if abs(number) < GREATEST else None


def read_curves(file: Path) -> Curves:
    """metrics.csv as name -> [(epochs done, value)]; of another file nothing. Raises UserError where it is absent."""
    found: Curves = {}
    rows = read_rows(file)
    whole = [row for row in rows if "loss_epoch" in row]
    steps = (whole[0]["step"] + 1) / (whole[0]["epoch"] + 1) if whole else 1.0  # of an epoch
    for row in rows:
        for name, value in row.items():
            if name not in ("epoch", "step"):
                found.setdefault(name, []).append(((row["step"] + 1) / steps, value))
    return found
