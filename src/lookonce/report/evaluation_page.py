"""The page of an evaluation: scores, curves, errors, confusion, calibration, and examples cut from their images.

Each example shows the ground truth on the left and the detections on the right. One HTML file that opens offline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lookonce.data.dataset import Dataset
from lookonce.data.images import load_rgb
from lookonce.errors import ImageError
from lookonce.evaluation.coco import NAMES, CocoMetrics
from lookonce.evaluation.confusion import Confusion
from lookonce.evaluation.errors import KINDS
from lookonce.evaluation.evaluate import Analysis
from lookonce.inference.draw import draw
from lookonce.report.figures import calibration_figure, cost_figure, curve_points
from lookonce.report.page import data_uri, write_page

SHOWN = 8  # examples in each gallery
SIDE = 280  # longest side of an example on the page, px
MARGIN = 2.2  # side of an example, relative to the longest side of its box ...
LEAST = 0.4  # ... but at least this fraction of the image's shorter side
MOST_CELLS = 25  # classes up to which the whole confusion matrix is shown
MOST_PAIRS = 20  # confused pairs of classes in the list shown instead
MEANINGS = {
    "class": "matches an object of another class",
    "location": "overlaps an object of its class",
    "both": "overlaps an object of another class",
    "duplicate": "matches an object that a better detection matches",
    "background": "overlaps no object",
    "missed": "objects that no detection matches",
}


def write_evaluation_report(path: Path, dataset: Dataset, analysis: Analysis, coco: CocoMetrics | None,
                            facts: Sequence[tuple[str, str]]) -> Path:  # fmt: skip
    """Write the page. facts: protocol, data, command, versions, as (name, value)."""
    return write_page(
        path,
        "evaluation_page.html",
        name=dataset.name,
        facts=facts,
        found=sections(dataset, analysis),
        coco=coco,
        coco_names=list(zip(NAMES[:6], NAMES[6:], strict=True)),
        coco_of={name: (ap, ap50) for name, ap, ap50 in coco.classes} if coco else {},
    )


def sections(dataset: Dataset, analysis: Analysis) -> dict[str, Any]:
    """Return the values of evaluation_sections.html, which is part of this page and of a run's."""
    examples = choose_examples(dataset, analysis)
    metrics, confusion, calibration = analysis.metrics, analysis.confusion, analysis.calibration
    return {
        "metrics": metrics,
        "curves": [_curve(c) for c in metrics.classes if c.ap is not None],
        "errors": [(kind, MEANINGS[kind.name]) for kind in analysis.errors.kinds],
        "costs": cost_figure(analysis.errors.kinds),
        "sizes": analysis.sizes,
        "confusion": confusion,
        "cells": _cells(confusion) if confusion and len(confusion.names) <= MOST_CELLS else [],
        "pairs": _pairs(confusion) if confusion else [],
        "calibration": calibration,
        "bins": _bins(calibration),
        "calibrated": calibration_figure(calibration) if calibration else "",
        "threshold": examples.threshold,
        "galleries": [
            (
                "False positives",
                "Those with the highest scores, and the kind of error.",
                _shown(examples.false_positives),
            ),
            ("Missed objects", "The largest ones.", _shown(examples.missed)),
            ("True positives", "Those with the highest scores.", _shown(examples.true_positives)),
        ],
    }


def _curve(one: Any) -> dict[str, Any]:
    """Return the curve of a class in a square of side 100, recall to the right, precision up."""
    points = " ".join(f"{100 * r:.1f},{100 - 100 * p:.1f}" for r, p in curve_points(one.curve))
    best = (100 * one.best.recall, 100 - 100 * one.best.precision) if one.best else None
    return {"name": one.name, "ap": one.ap, "points": points, "best": best}


def _cells(confusion: Confusion) -> list[dict[str, Any]]:
    """Return the rows of the matrix; percent: of the row's objects."""
    names, sums, many = (*confusion.names, "background"), confusion.counts.sum(1).tolist(), len(confusion.names)
    rows = []
    for there, name in enumerate(names):
        cells: list[dict[str, Any] | None] = []
        for found, count in enumerate(confusion.counts[there].tolist()):
            percent = round(100 * count / max(sums[there], 1)) if there < many else 0
            cells.append({"count": count, "percent": percent, "correct": there == found, "tint": round(0.45 * percent)})
        rows.append({"name": name, "cells": cells, "total": sums[there]})
    rows[-1]["cells"][-1] = None  # background that is not detected cannot be counted
    return rows


def _pairs(confusion: Confusion) -> list[tuple[str, str, int, float]]:
    """Return (true class, detected class, count, fraction of the true class) of confused classes, the most first."""
    many = len(confusion.names)
    sums = confusion.counts.sum(1)
    wrong = confusion.counts[:many, :many] * ~np.eye(many, dtype=bool)
    order = [k for k in np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS].tolist() if wrong.flat[k]]
    return [(confusion.names[k // many], confusion.names[k % many], int(wrong.flat[k]),
             float(wrong.flat[k] / sums[k // many])) for k in order]  # fmt: skip


def _bins(found: Any) -> list[tuple[float, float, int, float, float]]:
    """Return (from, to, detections, mean score, precision) of the bins that have detections."""
    if found is None:
        return []
    rows = zip(found.edges[:-1], found.edges[1:], found.counts.tolist(), found.score, found.precision, strict=True)
    return [row for row in rows if row[2]]


def _shown(examples: list[Example]) -> list[tuple[str, str, str]]:
    return [(one.caption, data_uri(one.truth), data_uri(one.detections)) for one in examples]


@dataclass(frozen=True)
class Example:
    """A part of an image, with its ground truth and with its detections."""

    caption: str
    truth: Image.Image
    detections: Image.Image


@dataclass(frozen=True)
class Examples:
    """Examples at one score threshold."""

    threshold: float
    true_positives: list[Example]
    missed: list[Example]
    false_positives: list[Example]


def choose_examples(dataset: Dataset, analysis: Analysis) -> Examples:
    """Choose true and false positives of the highest scores and the largest missed objects, the classes in turn.

    Images that cannot be opened are left out.
    """
    found, errors = analysis.found, analysis.errors
    threshold = analysis.confusion.at.threshold if analysis.confusion else 0.0
    shown = found.score > threshold
    correct, wrong = (
        np.flatnonzero(shown & found.true_positive),
        np.flatnonzero(shown & ~found.true_positive & ~found.ignored),
    )
    unmatched = ~analysis.ignore
    unmatched[found.object[correct]] = False
    area = np.prod(dataset.boxes[:, 2:] - dataset.boxes[:, :2], axis=1)
    missed = np.argsort(-area, kind="stable")
    missed = missed[unmatched[missed]]
    cut = _Cut(dataset, analysis, threshold)

    def name(row: int) -> str:
        return f"{dataset.labels[found.label[row]]} {found.score[row]:.2f}"

    def error(row: int) -> str:
        about = int(errors.about[row])
        true = dataset.classes[about] if about >= 0 else found.label[row]
        what = "" if true == found.label[row] else f" (true class: {dataset.labels[true]})"
        return f"{name(row)}: {KINDS[errors.kind[row]]}{what}"

    return Examples(
        threshold,
        list(cut.some(correct, found.image, found.label, found.boxes, name)),
        list(cut.some(missed, dataset.image_of_box, dataset.classes, dataset.boxes, cut.missed)),
        list(cut.some(wrong, found.image, found.label, found.boxes, error)),
    )


class _Cut:
    """Cuts examples out of the images of a data set."""

    def __init__(self, dataset: Dataset, analysis: Analysis, threshold: float) -> None:
        self.dataset, self.analysis, self.threshold = dataset, analysis, threshold

    def missed(self, n: int) -> str:
        """Return the caption of a missed object."""
        wide, high = self.dataset.boxes[n, 2:] - self.dataset.boxes[n, :2]
        return f"{self.dataset.labels[self.dataset.classes[n]]}, {wide:.0f} x {high:.0f} px"

    def some(self, rows: NDArray[np.int64], image: NDArray[np.int64], label: NDArray[np.int64],
             boxes: NDArray[np.floating], caption: Callable[[int], str]) -> Iterator[Example]:  # fmt: skip
        """Examples of rows, the first of each class, then the second, ... caption: row -> text."""
        turn = np.zeros(len(rows), np.int64)
        for one in np.unique(label[rows]):
            mine = np.flatnonzero(label[rows] == one)
            turn[mine] = np.arange(len(mine))
        shown = 0
        for row in rows[np.argsort(turn, kind="stable")].tolist():
            n = int(image[row])
            try:
                pixels = load_rgb(self.dataset.records[n].path, pixel_range=self.dataset.pixel_range)
            except ImageError:
                continue
            truth, detections = self.cuttings(pixels, n, boxes[row].astype(float))
            yield Example(f"{caption(row)}, {self.dataset.records[n].path.name}", truth, detections)
            shown += 1
            if shown == SHOWN:
                return

    def cuttings(self, image: NDArray[np.uint8], n: int, box: NDArray[np.floating]) -> tuple[Image.Image, Image.Image]:
        """Return image n around a box, with its ground truth and with its detections."""
        left, top, right, bottom = window(box, (image.shape[1], image.shape[0]))
        scale = SIDE / max(right - left, bottom - top)
        size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
        small = Image.fromarray(image[top:bottom, left:right]).resize(size, Image.Resampling.BILINEAR)
        corner, record, found = np.array([left, top, left, top]), self.dataset.records[n], self.analysis.found
        _frame(small, (box - corner) * scale)
        part = np.asarray(small)
        rows = np.flatnonzero((found.image == n) & (found.score > self.threshold))
        labels = self.dataset.labels
        inside = [k for k in range(len(record.boxes)) if _within(record.boxes[k], (left, top, right, bottom))]
        objects = (record.boxes[inside] - corner) * scale, [labels[record.labels[k]] for k in inside]
        rows = rows[[_within(found.boxes[k], (left, top, right, bottom)) for k in rows]] if len(rows) else rows
        seen = (found.boxes[rows] - corner) * scale, [labels[k] for k in found.label[rows]], found.score[rows].tolist()
        return draw(part, (np.zeros((0, 4)), [], []), objects), draw(part, seen)


def window(box: NDArray[np.floating], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the part of an image (left, top, right, bottom) around a box, px. size: (width, height)."""
    side = max(MARGIN * float((box[2:] - box[:2]).max()), LEAST * min(size))
    corners = []
    for axis in range(2):
        long = min(round(side), size[axis])
        start = int(np.clip(round((box[axis] + box[axis + 2] - long) / 2), 0, size[axis] - long))
        corners.append((start, start + max(long, 1)))
    (left, right), (top, bottom) = corners
    return left, top, right, bottom


def _frame(image: Image.Image, box: NDArray[np.floating]) -> None:
    """Draw a white frame with black edges a few pixels outside a box."""
    pen = ImageDraw.Draw(image)
    for away, width, colour in ((8, 4, "black"), (7, 2, "white")):
        pen.rectangle((*(box[:2] - away), *(box[2:] + away)), outline=colour, width=width)


def _within(box: NDArray[np.floating], frame: tuple[int, int, int, int]) -> bool:
    """Return whether at least a quarter of the box lies in the frame."""
    inner = np.minimum(box[2:], frame[2:]) - np.maximum(box[:2], frame[:2])
    return bool((inner > 0).all() and inner.prod() >= (box[2:] - box[:2]).prod() / 4)
