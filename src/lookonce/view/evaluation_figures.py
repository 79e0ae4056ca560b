"""Figures of a detector's scores for its page, as SVG that takes the page's colours, light or dark."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lookonce.confusion import Calibration
from lookonce.error_kinds import Kind
from lookonce.view.page import ACCENT, INK, SOFT, WARM, Drawing

POINTS = 80
"""Of a curve on the page, at most."""


def curve_points(curve: NDArray[np.float64]) -> list[tuple[float, float]]:
    """(recall, best precision from there on) of a class, from recall 0 to the last. curve: ClassScore.curve."""
    recall, precision = curve[:, 1], curve[:, 2]
    if not len(curve):
        return []
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.unique(np.searchsorted(recall, np.linspace(0, recall[-1], POINTS)))
    points = [(0.0, float(best[0]))]
    points += [(float(recall[k]), float(best[k])) for k in places if recall[k] > 0]
    return points if recall[-1] > 0 else []


def calibration_figure(found: Calibration) -> str:
    """Precision of each bin of scores beside what it should be; below, how many detections it has. <svg>"""
    from matplotlib.ticker import LogLocator, NullLocator

    with Drawing(6.2, 4.6) as drawing:
        above, below = drawing.figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
        middle, width = (found.edges[:-1] + found.edges[1:]) / 2, np.diff(found.edges)
        have = found.counts > 0
        above.bar(middle[have], found.precision[have], width[have] * 0.86, color=ACCENT, label="share that is right")
        above.plot([0, 1], [0, 1], "--", color=WARM, linewidth=1.2, label="as it should be")
        above.plot(found.score[have], found.score[have], "D", color=WARM, markersize=5, label="mean score of the bin")
        above.set(ylabel="share that is right", ylim=(0, 1.02), xlim=(0, 1))
        above.legend(frameon=False, fontsize=9, loc="upper left")
        below.bar(middle[have], found.counts[have], width[have] * 0.86, color=SOFT)
        below.set(ylabel="detections", xlabel="score", yscale="log", ylim=(0.7, 2.0 * found.counts.max()))
        below.yaxis.set_major_locator(LogLocator(numticks=4))
        below.yaxis.set_major_formatter("{x:,.0f}")
        below.yaxis.set_minor_locator(NullLocator())
        for axes in (above, below):
            axes.grid(axis="y", color=SOFT, alpha=0.3, linewidth=0.6)
        return drawing.svg()


def cost_figure(kinds: tuple[Kind, ...]) -> str:
    """How much mean AP each kind of error costs. <svg>"""
    costs = [kind.cost or 0.0 for kind in kinds]
    with Drawing(6.2, 3) as drawing:
        axes = drawing.figure.subplots()
        bars = axes.barh(range(len(kinds)), costs, color=ACCENT, height=0.66)
        axes.bar_label(bars, ["-" if kind.cost is None else f"{kind.cost:+.3f}" for kind in kinds], padding=4)
        axes.set_yticks(range(len(kinds)), [kind.name for kind in kinds])
        low, high = min(0.0, *costs), max(0.01, *costs)
        axes.set(ylim=(len(kinds) - 0.4, -0.6), xlim=(1.2 * low, high * 1.2), xlabel="mAP regained without this kind")
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.grid(axis="x", color=SOFT, alpha=0.3, linewidth=0.6)
        return drawing.svg()
