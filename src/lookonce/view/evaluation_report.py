"""The page of an evaluation: scores, curves, confusion, calibration, errors by kind and cost, hits and misses.

One self-contained HTML file that opens offline.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lookonce.analysis import Analysis
from lookonce.coco_metrics import NAMES, CocoMetrics
from lookonce.confusion import Confusion
from lookonce.data.record import Dataset
from lookonce.view.evaluation_figures import calibration_figure, cost_figure, curve_points
from lookonce.view.examples import Example, choose_examples
from lookonce.view.page import data_uri, write_page

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
        "evaluation_report.html",
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
