"""Hits, misses and false alarms cut from their images: what is there on the left, what was found on the right.

The page of an evaluation: scores, curves, confusion, calibration, errors by kind and cost, hits and misses.

One self-contained HTML file that opens offline.
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

SHOWN = 8
"""Of each sort."""


SIDE = 280
"""Longest side of a cutting on the page, px."""


ROOM = 2.2
"""Side of a cutting, of the longest side of its box; of an image at least LEAST of its shorter side."""


LEAST = 0.4


@dataclass(frozen=True)
class Example:
    """One cutting, twice."""

    caption: str
    there: Image.Image
    found: Image.Image


@dataclass(frozen=True)
class Examples:
    """Some of each sort, at one threshold."""

    threshold: float
    hits: list[Example]
    misses: list[Example]
    alarms: list[Example]


def choose_examples(dataset: Dataset, analysis: Analysis) -> Examples:
    """The surest hits and false alarms and the largest misses, the classes in turn, on images that open."""
    found, errors = analysis.found, analysis.errors
    threshold = analysis.confusion.at.threshold if analysis.confusion else 0.0
    shown = found.score > threshold
    hits = np.flatnonzero(shown & found.true_positive)
    alarms = np.flatnonzero(shown & ~found.true_positive & ~found.ignored)
    unfound = ~analysis.ignore
    unfound[found.object[hits]] = False
    area = np.prod(dataset.boxes[:, 2:] - dataset.boxes[:, :2], axis=1)
    misses = np.argsort(-area, kind="stable")
    misses = misses[unfound[misses]]
    cut = _Cut(dataset, analysis, threshold)

    def name(row: int) -> str:
        return f"{dataset.labels[found.label[row]]} {found.score[row]:.2f}"

    def alarm(row: int) -> str:
        about = int(errors.about[row])
        what = "" if about < 0 else f" (a {dataset.labels[dataset.classes[about]]} is there)"
        return f"{name(row)}: {KINDS[errors.kind[row]]}{what}"

    return Examples(
        threshold,
        list(cut.some(hits, found.image, found.label, found.boxes, name)),
        list(cut.some(misses, dataset.image_of_box, dataset.classes, dataset.boxes, cut.missed)),
        list(cut.some(alarms, found.image, found.label, found.boxes, alarm)),
    )


class _Cut:
    """Cuts examples from the images of a data set."""

    def __init__(self, dataset: Dataset, analysis: Analysis, threshold: float) -> None:
        self.dataset, self.analysis, self.threshold = dataset, analysis, threshold

    def missed(self, n: int) -> str:
        """What to say of a missed object."""
        wide, high = self.dataset.boxes[n, 2:] - self.dataset.boxes[n, :2]
        return f"{self.dataset.labels[self.dataset.classes[n]]}, {wide:.0f} x {high:.0f} px"

    def some(self, rows: NDArray[np.int64], image: NDArray[np.int64], label: NDArray[np.int64],
             boxes: NDArray[np.floating], caption: Callable[[int], str]) -> Iterator[Example]:  # fmt: skip
        """Examples of rows, the first of each class, then the second, ... caption: row -> text."""
        turn = np.zeros(len(rows), np.int64)
        for one in np.unique(label[rows]):
            mine = np.flatnonzero(label[rows] == one)
            turn[mine] = np.arange(len(mine))
        given = 0
        for row in rows[np.argsort(turn, kind="stable")].tolist():
            n = int(image[row])
            try:
                pixels = load_rgb(self.dataset.records[n].path, pixel_range=self.dataset.pixel_range)
            except ImageError:
                continue
            there, found = self.cuttings(pixels, n, boxes[row].astype(float))
            yield Example(f"{caption(row)}, {self.dataset.records[n].path.name}", there, found)
            given += 1
            if given == SHOWN:
                return

    def cuttings(self, image: NDArray[np.uint8], n: int, box: NDArray[np.floating]) -> tuple[Image.Image, Image.Image]:
        """Image n around a box, with its objects and with what was found."""
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
    """The part of an image (left, top, right, bottom) around a box, with room about it, px. size: (width, height)."""
    side = max(ROOM * float((box[2:] - box[:2]).max()), LEAST * min(size))
    corners = []
    for axis in range(2):
        long = min(round(side), size[axis])
        start = int(np.clip(round((box[axis] + box[axis + 2] - long) / 2), 0, size[axis] - long))
        corners.append((start, start + max(long, 1)))
    (left, right), (top, bottom) = corners
    return left, top, right, bottom


def _frame(image: Image.Image, box: NDArray[np.floating]) -> None:
    """A white frame with black edges around a box, clear of it."""
    pen = ImageDraw.Draw(image)
    for away, width, colour in ((8, 4, "black"), (7, 2, "white")):
        pen.rectangle((*(box[:2] - away), *(box[2:] + away)), outline=colour, width=width)


def _within(box: NDArray[np.floating], frame: tuple[int, int, int, int]) -> bool:
    """Whether at least a quarter of the box lies in the frame."""
    inner = np.minimum(box[2:], frame[2:]) - np.maximum(box[:2], frame[:2])
    return bool((inner > 0).all() and inner.prod() >= (box[2:] - box[:2]).prod() / 4)


MOST_CELLS = 25
"""Classes of which the whole matrix is shown."""


MOST_PAIRS = 20
"""Confusions in the list."""


MEANINGS = {
    "class": "on an object of another class",
    "location": "beside an object of its class",
    "both": "beside an object of another class",
    "duplicate": "on an object that a better one found",
    "background": "on nothing",
    "missed": "objects that nothing found",
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
    """What evaluation_sections.html shows: a part of this page, and of a run's."""
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
            ("False alarms", "The surest that are wrong, with their kind.", _shown(examples.alarms)),
            ("Misses", "The largest objects that nothing found.", _shown(examples.misses)),
            ("Hits", "The surest that are right.", _shown(examples.hits)),
        ],
    }


def _curve(one: Any) -> dict[str, Any]:
    """A class's curve in a square of 100, recall to the right, precision up."""
    points = " ".join(f"{100 * r:.1f},{100 - 100 * p:.1f}" for r, p in curve_points(one.curve))
    best = (100 * one.best.recall, 100 - 100 * one.best.precision) if one.best else None
    return {"name": one.name, "ap": one.ap, "points": points, "best": best}


def _cells(confusion: Confusion) -> list[dict[str, Any]]:
    """The rows of the matrix; share: % of the row's objects."""
    names, sums, many = (*confusion.names, "nothing there"), confusion.counts.sum(1).tolist(), len(confusion.names)
    rows = []
    for there, name in enumerate(names):
        cells: list[dict[str, Any] | None] = []
        for found, count in enumerate(confusion.counts[there].tolist()):
            share = round(100 * count / max(sums[there], 1)) if there < many else 0
            cells.append({"count": count, "share": share, "right": there == found, "tint": round(0.45 * share)})
        rows.append({"name": name, "cells": cells, "total": sums[there]})
    rows[-1]["cells"][-1] = None  # nothing found where nothing is cannot be counted
    return rows


def _pairs(confusion: Confusion) -> list[tuple[str, str, int, float]]:
    """(what is there, what was found, times, share of the objects) of classes taken for each other, the most first."""
    many = len(confusion.names)
    sums = confusion.counts.sum(1)
    wrong = confusion.counts[:many, :many] * ~np.eye(many, dtype=bool)
    order = [k for k in np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS].tolist() if wrong.flat[k]]
    return [(confusion.names[k // many], confusion.names[k % many], int(wrong.flat[k]),
             float(wrong.flat[k] / sums[k // many])) for k in order]  # fmt: skip


def _bins(found: Any) -> list[tuple[float, float, int, float, float]]:
    """(from, to, detections, mean score, share that is right) of the bins that have any."""
    if found is None:
        return []
    rows = zip(found.edges[:-1], found.edges[1:], found.counts.tolist(), found.score, found.precision, strict=True)
    return [row for row in rows if row[2]]


def _shown(examples: list[Example]) -> list[tuple[str, str, str]]:
    return [(one.caption, data_uri(one.there), data_uri(one.found)) for one in examples]
