"""metrics.csv: one row whenever the run reports numbers. A resumed run goes on where its checkpoint stands."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from lookonce.files import write_text

TERMS = ("xy", "wh", "ciou", "objectness", "background", "class", "warm_up", "loss")
COLUMNS = (
    "epoch", "step", "seen", "rate", "images_per_s", "waiting", "val/mAP", "val/loss",
    *TERMS, *(f"{term}_step" for term in TERMS), *(f"{term}_epoch" for term in TERMS), "recall_step", "recall_epoch",
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
        """Forget rows from a step on: the run goes on from there. A row that a kill cut short goes too.

        What an earlier version of the program wrote, with fewer columns, gets today's.
        """
        if not self.file.exists():
            return
        whole = self.file.read_text(encoding="utf-8").rpartition("\n")[0]
        rows = [row for row in csv.DictReader(whole.splitlines()) if None not in (*row, *row.values())]
        kept = StringIO()
        table = csv.DictWriter(kept, COLUMNS, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(row for row in rows if int(row["step"]) < step)
        write_text(self.file, kept.getvalue())
