"""Curves of runs as small charts: lines over epochs, drawn by the page's own template (chart.html).

A chart is a dictionary of numbers and texts in the units of its viewBox; lines differ by dashes as well as by colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lookonce.training.history import Curves

WIDTH, HEIGHT = 440, 206  # of the viewBox
LEFT, RIGHT, TOP, BOTTOM = 46, 432, 8, 184  # edges of the plot in it
COLOURS = ("accent", "warm", "green", "pink", "orange", "sky", "ink")
DASHES = ("", "6 3", "2 3", "9 3 2 3", "12 4", "4 2 1 2", "1 4")
MOST_POINTS = 400  # of a line: every k-th of more
TERMS = ("xy", "wh", "ciou", "box", "objectness", "background", "class", "prior", "distillation")
Points = Sequence[tuple[float, float]]


def curve_cards(curves: Curves) -> list[dict[str, Any]]:
    """Return the charts of a run: validation mAP, losses, loss terms, learning rate, images/s; without empty ones."""
    charts = [
        chart("Validation mAP@0.5", {"": curves.get("val/mAP", [])}, top=1.0),
        chart("Loss", {"training (augmented)": curves.get("loss_epoch", []), "validation": curves.get("val/loss", [])},
              log=True),
        chart("Loss terms, mean of an epoch", {term: curves.get(f"{term}_epoch", []) for term in TERMS}, log=True),
        chart("Learning rate", {"": curves.get("rate", [])}),
        chart("Images per second", {"": curves.get("images_per_s", [])}),
    ]  # fmt: skip
    return [one for one in charts if one["lines"]]


def chart(title: str, series: dict[str, Points], *, log: bool = False, top: float | None = None) -> dict[str, Any]:
    """Return a chart.

    Args:
        title: of its card.
        series: name -> (epoch, value) of each line.
        log: a logarithmic scale; values up to 0 are left out.
        top: highest value of the scale; None: of the values.
    """
    known = {name: [(x, y) for x, y in points if y > 0 or not log] for name, points in series.items()}
    known = {name: points for name, points in known.items() if points}
    if not known:
        return {"title": title, "lines": []}
    xs = [x for points in known.values() for x, _ in points]
    ys = [y for points in known.values() for _, y in points]
    x_ticks = nice_ticks(0, max(xs), 6)
    y_ticks = log_ticks(min(ys), max(ys)) if log else nice_ticks(0, max(max(ys), top or 0), 5)
    low, high = y_ticks[0], y_ticks[-1]
    furthest = max(max(xs), 1e-9)

    def at(x: float, y: float) -> tuple[float, float]:
        part = math.log(y / low) / math.log(high / low) if log else (y - low) / (high - low)
        return LEFT + (RIGHT - LEFT) * x / furthest, BOTTOM - (BOTTOM - TOP) * part

    lines = []
    for place, (name, points) in enumerate(known.items()):
        placed = [at(x, y) for x, y in _thinned(points)]
        lines.append({
            "name": name, "last": f"{points[-1][1]:.3g}", "colour": COLOURS[place % len(COLOURS)],
            "dash": DASHES[place % len(DASHES)], "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in placed),
            "end": placed[-1],
        })  # fmt: skip
    return {
        "title": title, "lines": lines, "width": WIDTH, "height": HEIGHT, "edges": (LEFT, RIGHT, TOP, BOTTOM),
        "x_ticks": [(at(x, high)[0], f"{x:,.6g}") for x in x_ticks if x <= furthest],
        "y_ticks": [(at(0, y)[1], f"{y:.6g}") for y in y_ticks],
    }  # fmt: skip


def nice_ticks(low: float, high: float, most: int) -> list[float]:
    """Return round numbers from `low` to at least `high`, in at most `most` steps of 1, 2 or 5 times a power of 10."""
    span = high - low if high > low else 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * m for m in (1, 2, 5, 10) if power * m * most >= span * (1 - 1e-9))
    count = math.ceil(span / step - 1e-9)
    return [low + step * k for k in range(count + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers (1, 2, 5 times powers of 10; of a wide range powers alone) from below low to above high."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 2 else (1,)
    every = max(1, -(-(last - first) // 6)) if len(steps) == 1 else 1
    ticks = [m * 10.0**power for power in range(first, last + every, every) for m in steps]
    start = max(k for k, tick in enumerate(ticks) if tick <= low * (1 + 1e-9))
    end = next((k for k, tick in enumerate(ticks) if tick >= high * (1 - 1e-9) and k > start), len(ticks) - 1)
    return ticks[start : end + 1]


def _thinned(points: Points) -> Points:
    step = -(-len(points) // MOST_POINTS)
    return [*points[:-1:step], points[-1]]
