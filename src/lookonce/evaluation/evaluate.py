"""Run a detector on a data set and analyse its detections, all from one matching."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lookonce.data.anchors import SIZES
from lookonce.data.dataset import Dataset
from lookonce.errors import ImageError
from lookonce.evaluation.average_precision import Metrics, Rules, ignored_objects, score_matched, score_sizes
from lookonce.evaluation.confusion import Calibration, Confusion, calibrate, confuse
from lookonce.evaluation.errors import Errors, find_errors
from lookonce.evaluation.matching import Matched, match
from lookonce.inference.detector import Detector
from lookonce.model.detections import Detections
from lookonce.model.postprocess import Selection

log = logging.getLogger("lookonce")


@dataclass(frozen=True)
class SizeScore:
    """The score of objects of one size; the side of an object is the square root of its box's area."""

    size: str
    low: float  # px, smallest side
    high: float  # px, upper limit
    objects: int
    mean_ap: float | None  # None: no objects


@dataclass(frozen=True, eq=False)
class Analysis:
    """AP, errors by kind, confusion matrix, calibration and sizes, by one set of rules."""

    metrics: Metrics
    errors: Errors
    confusion: Confusion | None  # None: no objects, or no true positives
    calibration: Calibration | None  # None: no detections, or scores outside 0..1
    sizes: tuple[SizeScore, ...]
    found: Matched
    ignore: NDArray[np.bool_]  # [N] ignored objects


def analyse(dataset: Dataset, detections: Sequence[Detections], rules: Rules, bootstrap: int = 1000) -> Analysis:
    """Score detections and analyse their errors. Arguments and errors as average_precision.score."""
    ignore = ignored_objects(dataset, rules)
    found = match(dataset, detections, ignore, rules.iou_threshold)
    unit = np.ones(len(dataset))
    sizes = []
    for size, low, high in SIZES:
        part = score_sizes(dataset, found, low, high, unit, rules)
        sizes.append(SizeScore(size, low, high, sum(c.objects for c in part.classes), part.mean_ap))
    return Analysis(
        score_matched(dataset, found, rules, bootstrap=bootstrap),
        find_errors(dataset, found, ignore, rules),
        confuse(dataset, found, ignore, rules.iou_threshold, rules.score_threshold or 0.0),
        calibrate(found.score[~found.ignored], found.true_positive[~found.ignored]),
        tuple(sizes), found, ignore,
    )  # fmt: skip


Protocol = Literal["voc2007", "voc2010", "coco"]
Difficult = Literal["ignore", "count"]
SCORE_THRESHOLD = 0.005
"""Lowest score of detections when mAP is measured. Source: darknet/examples/detector.c, validate, thresh=.005."""
SCORED = Selection(SCORE_THRESHOLD)
"""Which detections are kept when mAP is measured."""
RULES = Rules(score_threshold=SCORE_THRESHOLD)
"""The rules of training, pruning and quantization."""


def detect_all(detector: Detector, dataset: Dataset,
               selection: Selection = SCORED) -> tuple[list[Detections], int]:  # fmt: skip
    """Return the detections on every image of a data set, and the number of images that could not be decoded."""
    found: list[Detections] = []
    skipped = 0
    paths = (record.path for record in dataset.records)
    for _, image, detections in detector.detect_files(paths, selection):
        if isinstance(image, ImageError):
            log.warning("skipped %s", image)
            skipped += 1
        found.append(detections)
    return found, skipped
