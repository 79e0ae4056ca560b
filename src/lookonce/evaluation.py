"""evaluate: a detector and labelled pictures give a Report."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lookonce.data.catalog import read_dataset
from lookonce.data.record import Dataset
from lookonce.detections import Detections
from lookonce.detector import Detector
from lookonce.errors import PictureError
from lookonce.metrics import ApProtocol, Metrics, Rules, score
from lookonce.postprocess import Selection

if TYPE_CHECKING:
    from rich.table import Table

log = logging.getLogger("lookonce")

SCORE_THRESHOLD = 0.005
"""Lowest score that counts when mAP is measured. Source: darknet/examples/detector.c, validate, thresh=.005."""
SCORED = Selection(SCORE_THRESHOLD)
"""What is detected where mAP is measured."""


@dataclass(frozen=True)
class Report:
    """What a detector scored, and on what."""

    metrics: Metrics
    model: str
    data: str
    split: str | None
    skipped: int
    """Pictures that could not be decoded: their objects count as missed."""

    @property
    def mean_ap(self) -> float | None:
        """mAP at the protocol's IoU threshold, 0..1; None: no objects."""
        return self.metrics.mean_ap

    def __rich__(self) -> Table:
        return self.metrics.__rich__()

    def __str__(self) -> str:
        return f"{self.model} on {self.data} ({self.split or 'all'})\n{self.metrics}"


def evaluate(
    model: Path,
    data: Path,
    *,
    split: str = "test",
    labels: tuple[str, ...] | None = None,
    protocol: ApProtocol = "voc2010",
    iou_threshold: float = 0.5,
    difficult: Literal["ignore", "count"] = "ignore",
    bootstrap: int = 1000,
) -> Report:
    """Score a detector on labelled pictures.

    Args:
        model: a model file, the folder of a run, or a Darknet .cfg beside its .weights.
        data: a data set; its format is found, not asked.
        split: which pictures; all: every picture there is.
        labels: score these classes only, by name; none: those that the model knows.
        protocol: how precision becomes AP: voc2007 (11 points) or voc2010 (the area).
        iou_threshold: a detection is right from this IoU with an object on.
        difficult: ignore: difficult objects neither help nor harm; count: they are objects like others.
        bootstrap: resamples of the pictures for the interval around mAP; 0: none.
    Returns:
        Report: AP of each class, their mean with its 95 % interval, the rules by name.
    Raises:
        UserError: a model or data set that cannot be read; a class that the model does not know.
    """
    detector = Detector(model)
    dataset = read_dataset(data, None if split == "all" else split, labels or detector.labels)
    detections, skipped = detect_all(detector, dataset)
    detections = [one.of_classes(dataset.labels) for one in detections]
    rules = Rules(protocol, iou_threshold, difficult, SCORE_THRESHOLD)
    metrics = score(dataset, detections, rules, bootstrap=bootstrap)
    return Report(metrics, str(model), str(data), split, skipped)


def detect_all(detector: Detector, dataset: Dataset,
               selection: Selection = SCORED) -> tuple[list[Detections], int]:  # fmt: skip
    """Detections on every picture of a data set, and how many could not be decoded."""
    found: list[Detections] = []
    skipped = 0
    paths = (record.path for record in dataset.records)
    for _, picture, detections in detector.detect_files(paths, selection):
        if isinstance(picture, PictureError):
            log.warning("skipped %s", picture)
            skipped += 1
        found.append(detections)
    return found, skipped
