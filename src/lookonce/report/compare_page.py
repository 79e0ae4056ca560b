"""The page of two runs compared: verdict, images where they differ most, classes, curves, settings that differ."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lookonce.data.dataset import Dataset
from lookonce.errors import UserError
from lookonce.evaluation.compare import Change
from lookonce.evaluation.evaluate import Analysis
from lookonce.evaluation.matching import image_f1
from lookonce.report.curves import chart
from lookonce.report.evaluation_page import above, first_threshold
from lookonce.report.overlay import Overlay, View
from lookonce.report.page import write_page
from lookonce.text import read_yaml
from lookonce.training.history import Curves, read_curves

SHOWN = 6  # images on which one run is better, and as many for the other
CURVES = (
    ("Validation mAP@0.5", "val/mAP", False),
    ("Training loss", "loss_epoch", True),
    ("Validation loss", "val/loss", True),
)


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    name: str
    analysis: Analysis
    curves: Curves
    """Empty: not a run folder."""
    settings: dict[str, Any]
    """Of its config.yaml; empty: not a run folder."""

    @staticmethod
    def of(run: Path, analysis: Analysis) -> Side:
        """Return a run with its curves and settings, as far as its folder has them."""
        metrics, config = run / "metrics.csv", run / "config.yaml"
        settings: Any = {}
        if config.is_file():
            with suppress(UserError):  # the page leaves them out
                settings = read_yaml(config, "the settings of a run")
        curves = read_curves(metrics) if metrics.is_file() else {}
        return Side(run.name, analysis, curves, settings if isinstance(settings, dict) else {})


def write_compare_page(path: Path, dataset: Dataset, sides: tuple[Side, ...], changes: Sequence[Change],
                       verdict: str) -> Path:  # fmt: skip
    """Write the page. sides: A and B; changes: of compare.changes, the mean first."""
    a, b = sides
    reach = max((abs(v) for c in changes if c.interval for v in (*c.interval, c.difference or 0)), default=1.0) or 1.0
    return write_page(
        path,
        "compare_page.html",
        a=a,
        b=b,
        data=f"{len(dataset):,} images of {dataset.name}",
        verdict=verdict,
        mean=changes[0],
        rows=[(c, _interval_bar(c, reach)) for c in changes],
        reach=reach,
        galleries=differing_images(dataset, a.analysis, b.analysis),
        curves=curve_pairs(a, b),
        settings=differing_settings(a.settings, b.settings),
    )


def _interval_bar(change: Change, reach: float) -> dict[str, float] | None:
    """Return the interval in a box of width 200 with 0 in its middle: low, high, and the difference."""
    if change.interval is None or change.difference is None:
        return None
    low, high, at = (100 + 100 * v / reach for v in (*change.interval, change.difference))
    return {"low": low, "wide": max(high - low, 0.5), "at": at}


def differing_images(dataset: Dataset, a: Analysis, b: Analysis) -> list[tuple[str, list[tuple[View, View]]]]:
    """Return (heading, pairs of views) of the images whose F1 differs most, first those on which B is better.

    Each run is shown at its own first threshold.
    """
    sides = [(analysis, first_threshold(analysis)) for analysis in (a, b)]
    f1 = [image_f1(dataset, above(*side), side[0].ignore) for side in sides]
    overlays = [Overlay(dataset, *side) for side in sides]
    gain = f1[1] - f1[0]
    found = []
    for heading, sign in (("B is better", 1), ("A is better", -1)):
        pairs: list[tuple[View, View]] = []
        for n in np.argsort(-sign * gain, kind="stable").tolist():
            if sign * gain[n] <= 1e-6 or len(pairs) == SHOWN:
                break
            name = dataset.records[n].path.name
            views = [overlay.whole(n, f"{letter}: F1 {score[n]:.2f}, {name}")
                     for letter, overlay, score in zip("AB", overlays, f1, strict=True)]  # fmt: skip
            if views[0] is not None and views[1] is not None:
                pairs.append((views[0], views[1]))
        if pairs:
            found.append((heading, pairs))
    return found


def curve_pairs(a: Side, b: Side) -> list[dict[str, Any]]:
    """Return a chart of each curve that one of the runs has, with a line for each."""
    charts = [
        chart(title, {f"A {a.name}": a.curves.get(name, []), f"B {b.name}": b.curves.get(name, [])}, log=log)
        for title, name, log in CURVES
    ]
    return [one for one in charts if one["lines"]]


def differing_settings(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return (setting, value in A, value in B) of the settings that differ; nothing if one of the two has none."""
    if not a or not b:
        return []
    return [(str(name).replace("_", "-"), _text(a.get(name)), _text(b.get(name)))
            for name in dict.fromkeys((*a, *b)) if a.get(name) != b.get(name)]  # fmt: skip


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)
