"""The page of a run while it trains: what it learns, where points are lost, what to do about it."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import lightning
import numpy as np
from PIL import Image

from lookonce.analysis import Analysis, analyse
from lookonce.coverage import SIZES, coverage, input_scale
from lookonce.data.pictures import load_rgb
from lookonce.data.record import Dataset
from lookonce.errors import PictureError
from lookonce.matching import match, picture_f1
from lookonce.metrics import Metrics, best_thresholds, score_sizes
from lookonce.training.advice import about_curves, about_data
from lookonce.training.plan import Plan
from lookonce.training.validation import Validation
from lookonce.view.evaluation_report import sections
from lookonce.view.report import Gallery, Page, SizeRow, compared, facts, read_curves, write_report

SECONDS = 60.0
"""Shortest time between two pages: a page takes a second or two."""
SHOWN = 6
"""Pictures in each gallery."""


class Watch(lightning.Callback):
    """Writes report.html after validations, once a minute at most, and at the end.

    Args:
        folder: the run's.
        train_set: what is learnt.
        validation: scores the run; None: the page has curves alone.
        plan: of the run, its settings fitted.
        anchors: (w, h) in cells.
        stride: input pixels a cell.
    """

    def __init__(self, folder: Path, train_set: Dataset, validation: Validation | None, plan: Plan,
                 anchors: tuple[tuple[float, float], ...], stride: int = 32) -> None:  # fmt: skip
        self.folder, self.train_set, self.validation, self.plan = folder, train_set, validation, plan
        how = plan.settings
        self.covered = coverage(train_set, anchors, (how.size, how.size), how.resize, stride)
        self.data_advice = about_data(train_set, self.covered)
        self.anchors = anchors
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
        return [*self.data_advice, *about_curves(curves, self.plan.settings.epochs or 1)]

    def write(self, whole: bool = True) -> Path:
        """Write the page of what is known now. whole: with curves, errors, confusion and calibration: some seconds."""
        val = self.validation
        metrics = None if val is None else val.metrics
        analysis = analyse(val.dataset, val.detections, metrics.rules, bootstrap=0) if val and metrics else None
        told = facts(asdict(self.plan.settings), self.train_set.name, len(self.train_set), self.anchors)
        if val is not None and val.computed_by:
            told.append(("validation", val.computed_by))
        page = Page(
            self.folder,
            metrics,
            self.plan.val_split,
            told,
            self.advice(),
            self._sizes(analysis),
            self._galleries(metrics),
            {**sections(val.dataset, analysis), "sizes": ()} if whole and val and analysis else None,
        )
        return write_report(self.folder / "report.html", page)

    def _sizes(self, analysis: Analysis | None) -> list[SizeRow]:
        found: dict[str, float | None] = {}
        if analysis is not None and self.validation is not None:
            val = self.validation
            scale = input_scale(val.dataset, val.frame, val.mode)
            found["all"] = analysis.metrics.mean_ap
            for size, low, high in SIZES:
                found[size] = score_sizes(val.dataset, analysis.found, low, high, scale).mean_ap
        return [SizeRow(c.size, c.objects, c.fit, c.lost, found.get(c.size)) for c in self.covered]

    def _galleries(self, metrics: Metrics | None) -> list[Gallery]:
        """The validation pictures that come out worst and best at the thresholds of best F1."""
        val = self.validation
        if val is None or metrics is None:
            return []
        thresholds = best_thresholds(metrics)
        found = [one.above(thresholds) for one in val.detections]
        skip = val.dataset.difficult
        f1 = picture_f1(val.dataset, match(val.dataset, found, skip, metrics.rules.iou_threshold), skip)
        order = np.argsort(f1, kind="stable")
        told = "F1 of the picture at each class's best threshold. Solid: found. Dashed: what is there."
        galleries = []
        for heading, chosen in (("Worst validation pictures", order[:SHOWN]), ("Best", order[::-1][:SHOWN])):
            pictures: list[tuple[str, Image.Image]] = []
            for index in chosen:
                record = val.dataset.records[int(index)]
                try:
                    picture = Image.fromarray(load_rgb(record.path, pixel_range=val.dataset.pixel_range))
                except PictureError:
                    continue
                caption = f"{record.path.name}: F1 {f1[index]:.2f}"
                pictures.append((caption, compared(picture, found[index], record, val.dataset.labels)))
            galleries.append(Gallery(heading, told, pictures))
        return galleries
