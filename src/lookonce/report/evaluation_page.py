"""The page of an evaluation: a verdict, images with their boxes, scores, curves, errors, confusion, calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookonce.data.dataset import Dataset
from lookonce.evaluation.coco import NAMES, CocoMetrics
from lookonce.evaluation.confusion import Confusion
from lookonce.evaluation.errors import CLASS, KINDS
from lookonce.evaluation.evaluate import Analysis
from lookonce.evaluation.matching import Matched, image_f1
from lookonce.model.postprocess import LOWEST_THRESHOLD
from lookonce.report.figures import curve_points
from lookonce.report.overlay import Overlay, View, hex_colour
from lookonce.report.page import write_page
from lookonce.report.verdict import verdict

SHOWN = 8  # examples in each gallery
WHOLE = 6  # whole images at the top
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
                            facts: Sequence[tuple[str, str]],
                            input_size: tuple[int, int] | None = None) -> Path:  # fmt: skip
    """Write the page.

    facts: protocol, data, command, versions, as (name, value). input_size: of the network, px; None: unknown.
    """
    threshold = first_threshold(analysis)
    order = by_f1(dataset, analysis, threshold)[::-1]
    spread = order[np.linspace(0, len(order) - 1, min(WHOLE, len(order))).round().astype(int)] if len(order) else order
    images = whole_images(dataset, analysis, threshold, spread.tolist(), WHOLE)
    return write_page(
        path,
        "evaluation_page.html",
        name=dataset.name,
        facts=facts,
        images=images,
        images_note="From the image of the highest F1 to that of the lowest, in even steps.",
        found=sections(dataset, analysis, input_size),
        coco=coco,
        coco_names=list(zip(NAMES[:6], NAMES[6:], strict=True)),
        coco_of={name: (ap, ap50) for name, ap, ap50 in coco.classes} if coco else {},
    )


def overview(dataset: Dataset, analysis: Analysis, input_size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Return the values of evaluation_images.html and class_table.html, which take no time."""
    threshold = first_threshold(analysis)
    return {
        "metrics": analysis.metrics, "threshold": threshold, "verdict": verdict(dataset, analysis, input_size),
        "panel": score_panel(dataset, analysis, threshold),
    }  # fmt: skip


def sections(dataset: Dataset, analysis: Analysis, input_size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Return the values of all templates of an evaluation, which are part of this page and of a run's."""
    threshold = first_threshold(analysis)
    examples = choose_examples(dataset, analysis, threshold)
    metrics, confusion, calibration = analysis.metrics, analysis.confusion, analysis.calibration
    return {
        **overview(dataset, analysis, input_size),
        "curves": [_curve(c) for c in metrics.classes if c.ap is not None],
        "errors": [(kind, MEANINGS[kind.name]) for kind in analysis.errors.kinds],
        "dearest": max(analysis.errors.dearest[0].cost or 0.0, 0.01),
        "sizes": analysis.sizes,
        "confusion": confusion,
        "cells": _cells(confusion) if confusion and len(confusion.names) <= MOST_CELLS else [],
        "pairs": _pairs(confusion) if confusion else [],
        "calibration": calibration,
        "bins": _bins(calibration),
        "galleries": [
            ("False positives", "Those with the highest scores, and the kind of error.", examples.false_positives),
            ("Missed objects", "The largest ones.", examples.missed),
            ("True positives", "Those with the highest scores.", examples.true_positives),
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


@dataclass(frozen=True)
class Examples:
    """Parts of images at one score threshold."""

    false_positives: list[View]
    missed: list[View]
    true_positives: list[View]


def choose_examples(dataset: Dataset, analysis: Analysis, threshold: float) -> Examples:
    """Choose true and false positives of the highest scores and the largest missed objects, the classes in turn.

    Images that cannot be opened are left out.
    """
    found, errors = analysis.found, analysis.errors
    shown = found.score > threshold
    correct = np.flatnonzero(shown & found.true_positive)
    wrong = np.flatnonzero(shown & ~found.true_positive & ~found.ignored)
    unmatched = ~analysis.ignore
    unmatched[found.object[correct]] = False
    area = np.prod(dataset.boxes[:, 2:] - dataset.boxes[:, :2], axis=1)
    missed = np.argsort(-area, kind="stable")
    missed = missed[unmatched[missed]]
    overlay = Overlay(dataset, analysis, threshold)

    def detection(row: int) -> View | None:
        name, kind = dataset.labels[found.label[row]], int(errors.kind[row])
        about = int(errors.about[row])
        true = dataset.classes[about] if about >= 0 else found.label[row]
        what = "" if kind < 0 else ": wrong class" if kind == CLASS else f": {KINDS[kind]}"
        what += "" if true == found.label[row] else f" (ground truth: {dataset.labels[true]})"
        n = int(found.image[row])
        caption = f"{name} {found.score[row]:.2f}{what}, {dataset.records[n].path.name}"
        return overlay.part(n, found.boxes[row], caption, label=name, kind=KINDS[kind] if kind >= 0 else "")

    def object_missed(k: int) -> View | None:
        name, n = dataset.labels[dataset.classes[k]], int(image_of[k])
        wide, high = dataset.boxes[k, 2:] - dataset.boxes[k, :2]
        caption = f"{name}, {wide:.0f} x {high:.0f} px, {dataset.records[n].path.name}"
        return overlay.part(n, dataset.boxes[k], caption, label=name)

    image_of = dataset.image_of_box
    return Examples(
        _views(_in_turn(wrong, found.label), detection),
        _views(_in_turn(missed, dataset.classes), object_missed),
        _views(_in_turn(correct, found.label), detection),
    )


def _views(rows: Iterable[int], show: Callable[[int], View | None], most: int = SHOWN) -> list[View]:
    """Return the first views, without images that cannot be opened."""
    return list(islice(filter(None, map(show, rows)), most))


def _in_turn(rows: NDArray[np.int64], label: NDArray[np.int64]) -> list[int]:
    """Return the rows as the first of each class, then the second, ..."""
    turn = np.zeros(len(rows), np.int64)
    for one in np.unique(label[rows]):
        mine = np.flatnonzero(label[rows] == one)
        turn[mine] = np.arange(len(mine))
    return [int(row) for row in rows[np.argsort(turn, kind="stable")]]


def whole_images(dataset: Dataset, analysis: Analysis, threshold: float, order: Iterable[int],
                 most: int = SHOWN) -> list[View]:  # fmt: skip
    """Return the first images of an order that can be opened, captioned with their counts at the threshold."""
    overlay, found = Overlay(dataset, analysis, threshold), above(analysis, threshold)
    tp = np.bincount(found.image[found.true_positive], minlength=len(dataset))
    fp = np.bincount(found.image[~found.true_positive & ~found.ignored], minlength=len(dataset))
    objects = np.bincount(dataset.image_of_box[~analysis.ignore], minlength=len(dataset))
    f1 = image_f1(dataset, found, analysis.ignore)

    def show(n: int) -> View | None:
        caption = (f"{dataset.records[n].path.name}: F1 {f1[n]:.2f}, {tp[n]} of {objects[n]} found, "
                   f"{fp[n]} false positive{'s' * int(fp[n] != 1)}")  # fmt: skip
        return overlay.whole(n, caption)

    return _views(order, show, most)


def by_f1(dataset: Dataset, analysis: Analysis, threshold: float) -> NDArray[np.int64]:
    """Return the images, the one of lowest F1 at the threshold first."""
    return np.argsort(image_f1(dataset, above(analysis, threshold), analysis.ignore), kind="stable")


def above(analysis: Analysis, threshold: float) -> Matched:
    """Return the matching without the detections at or below a threshold."""
    found = analysis.found
    shown = found.score > threshold
    return replace(found, true_positive=found.true_positive & shown, ignored=found.ignored | ~shown)


def first_threshold(analysis: Analysis) -> float:
    """Return the score above which a page first shows detections: of best F1, at least LOWEST_THRESHOLD if any is left.

    A weak model has its best F1 at a score so low that the boxes would cover the image.
    """
    found = analysis.found
    best = analysis.confusion.at.threshold if analysis.confusion else 0.0
    weak = not (found.score[found.true_positive] > LOWEST_THRESHOLD).any()
    least = 0.0 if weak else LOWEST_THRESHOLD
    return round(max(best, least), 2)


def score_panel(dataset: Dataset, analysis: Analysis, threshold: float) -> dict[str, Any]:
    """Return what the slider needs: objects, detections and true positives above each hundredth of score.

    The first entry of "groups" is of all classes together; the others are of the classes, if they are not too many.
    """
    found = analysis.found
    grid = np.arange(101) / 100

    def group(name: str, rows: NDArray[np.bool_], objects: int) -> dict[str, Any]:
        def counts(chosen: NDArray[np.bool_]) -> list[int]:
            scores = np.sort(found.score[chosen & rows])
            return [int(count) for count in len(scores) - np.searchsorted(scores, grid, side="right")]

        return {"name": name, "objects": objects, "boxes": counts(~found.ignored), "tp": counts(found.true_positive)}

    objects = np.bincount(dataset.classes[~analysis.ignore], minlength=len(dataset.labels)).tolist()
    every = np.ones(len(found.score), bool)
    groups = [group("all classes", every, sum(objects))]
    if 1 < len(dataset.labels) <= MOST_CELLS:
        groups += [group(name, found.label == n, objects[n]) for n, name in enumerate(dataset.labels)]
    at = round(100 * threshold)
    boxes, tp = groups[0]["boxes"][at], groups[0]["tp"][at]
    return {
        "at": at, "groups": groups, "boxes": boxes, "tp": tp, "objects": sum(objects),
        "precision": tp / boxes if boxes else None, "recall": tp / sum(objects) if sum(objects) else None,
        "f1": 2 * tp / (boxes + sum(objects)) if boxes + sum(objects) else None,
        "colours": {name: hex_colour(name, dataset.labels) for name in dataset.labels[:MOST_CELLS]},
        "more": max(0, len(dataset.labels) - MOST_CELLS),
    }  # fmt: skip
