"""Plots with matplotlib, drawn without its global state and readable without colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lookonce.anchors import RECALL_IOU, Anchors
from lookonce.errors import UserError
from lookonce.files import replacing
from lookonce.view.lettering import lettering

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 4000
"""Boxes drawn in a cloud, at most; a seeded choice of more."""


def anchors_figure(
    wh: NDArray[np.floating], curve: Sequence[Anchors], chosen: Anchors, given: Anchors, given_name: str
) -> Figure:
    """Left: fit against the number of anchors. Right: the boxes with the chosen and the given anchors.

    Args:
        wh: [N, 2] shapes of the boxes, cells.
        curve: the anchors found, by growing number.
        chosen: those of the number that was asked for.
        given: anchors to compare with.
        given_name: what the legend calls them.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_curve(left, curve, chosen, given, given_name)
    _draw_shapes(right, wh, chosen, given, given_name)
    return figure


class Bar(NamedTuple):
    """A rate among others."""

    name: str
    images_per_s: float
    note: str
    """Behind the number."""
    ours: bool
    """Whether it is what the others are there to be compared with."""


def rates_figure(panels: Mapping[str, Sequence[Bar]], heading: str) -> Figure:
    """Images/s as bars, a panel for each title: ours full, the others hollow.

    Args:
        panels: title -> bars, from top to bottom.
        heading: over all of them: where it was measured.
    """
    from matplotlib.figure import Figure

    heights = [len(bars) + 1.6 for bars in panels.values()]
    figure = Figure(figsize=(10, 0.34 * sum(heights) + 0.8), dpi=110, layout="constrained")
    figure.suptitle(_letters(heading), fontsize=11, parse_math=False)
    for axes, (title, bars) in zip(
        figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0], panels.items(), strict=True
    ):
        _draw_rates(axes, title, bars)
    figure.align_ylabels()
    return figure


def channels_figure(channels: Sequence[tuple[int, int, int]], heading: str) -> Figure:
    """Channels of each layer as bars: hollow those that were there, full those that stay.

    Args:
        channels: (layer, channels before, after) from top to bottom.
        heading: over it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.34 * len(channels) + 1.4), dpi=110, layout="constrained")
    axes = figure.subplots()
    for place, (_, before, after) in enumerate(channels):
        axes.barh(place, before, height=0.68, color="white", edgecolor="0.55", linewidth=1.2)
        axes.barh(place, after, height=0.68, color="#1f5fa8")
        axes.annotate(f"{after} of {before}", (before, place), (5, 0), va="center", textcoords="offset points",
                      fontsize=9)  # fmt: skip
    axes.set_yticks(range(len(channels)), [f"layer {layer}" for layer, _, _ in channels])
    axes.set_title(_letters(heading), loc="left", fontsize=10, parse_math=False)
    _bars_only(axes, len(channels), max(before for _, before, _ in channels), "channels kept")
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure, whole or not at all; the path's ending chooses the format.

    Raises UserError: an ending that is no picture's, or a place that cannot be written.
    """
    known = figure.canvas.get_supported_filetypes()
    ending = path.suffix[1:].lower()
    if ending not in known:
        raise UserError(f"{path}: ending {ending!r}; expected one of {', '.join(sorted(known))}")
    with replacing(path) as beside:
        figure.savefig(beside, format=ending)


def _letters(name: str) -> str:
    """A name in letters that DejaVu Sans, the font of plots, has."""
    text, _ = lettering(name, own=True)
    return text


def _draw_rates(axes: Axes, title: str, bars: Sequence[Bar]) -> None:
    """One panel: names at the left, numbers behind the bars."""
    for place, bar in enumerate(bars):
        axes.barh(place, bar.images_per_s, height=0.68, color="#1f5fa8" if bar.ours else "white",
                  edgecolor="#1f5fa8" if bar.ours else "0.55", linewidth=1.2)  # fmt: skip
        axes.annotate(f"{bar.images_per_s:.1f}{bar.note}", (bar.images_per_s, place), (5, 0), va="center",
                      textcoords="offset points", fontsize=9)  # fmt: skip
    axes.set_yticks(range(len(bars)), [_letters(bar.name) for bar in bars], parse_math=False)
    axes.set_title(_letters(title), loc="left", fontsize=10, weight="bold", parse_math=False)
    _bars_only(axes, len(bars), max(bar.images_per_s for bar in bars), "images/s")


def _bars_only(axes: Axes, bars: int, longest: float, unit: str) -> None:
    """What stands around bars: the first on top, room for a number behind each, no frame."""
    axes.set(ylim=(bars - 0.5, -0.5), xlim=(0, 1.18 * longest), xlabel=unit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)


def _draw_curve(axes: Axes, curve: Sequence[Anchors], chosen: Anchors, given: Anchors, given_name: str) -> None:
    """Mean best IoU and recall against k, with the given anchors as hollow marks."""
    ks = [len(found.wh) for found in curve]
    axes.plot(ks, [found.recall for found in curve], "s--", color="0.55", markersize=5, label=f"recall at {RECALL_IOU}")
    axes.plot(ks, [found.mean_iou for found in curve], "o-", color="#1f5fa8", label="mean best IoU")
    axes.plot([len(chosen.wh)], [chosen.mean_iou], "o", color="#1f5fa8", markersize=13, fillstyle="none")
    axes.annotate(f"{chosen.mean_iou:.3f}", (len(chosen.wh), chosen.mean_iou), (0, 12), textcoords="offset points",
                  ha="center", weight="bold")  # fmt: skip
    for value, marker, label in ((given.recall, "s", "recall"), (given.mean_iou, "D", "mean best IoU")):
        axes.plot([len(given.wh)], [value], marker, color="#b3401c", fillstyle="none", markersize=8, linestyle="none",
                  label=f"{given_name}: {label} {value:.3f}")  # fmt: skip
    axes.set(xlabel="number of anchors", title=f"fit of {sum(chosen.counts):,} boxes", xticks=ks)
    axes.grid(color="0.9")
    _legend_below(axes)


def _draw_shapes(axes: Axes, wh: NDArray[np.floating], chosen: Anchors, given: Anchors, given_name: str) -> None:
    """The cloud of box shapes; chosen anchors as numbered marks with their outlines, given ones as crosses."""
    from matplotlib.patches import Rectangle

    shown = wh if len(wh) <= SHOWN else wh[np.random.default_rng(0).choice(len(wh), SHOWN, replace=False)]
    some = f"{len(shown):,} of {len(wh):,} boxes" if len(shown) < len(wh) else f"{len(wh):,} boxes"
    axes.scatter(shown[:, 0], shown[:, 1], s=5, color="0.7", linewidths=0, label=some)
    for number, (w, h) in enumerate(chosen.wh, 1):
        axes.add_patch(Rectangle((0, 0), w, h, fill=False, color="#1f5fa8", linewidth=0.8, alpha=0.6))
        axes.plot([w], [h], "o", color="white", markeredgecolor="#1f5fa8", markersize=14, zorder=4,
                  label="found, from smallest to largest" if number == 1 else None)  # fmt: skip
        axes.annotate(str(number), (w, h), ha="center", va="center", fontsize=9, weight="bold", zorder=5)
    limit = np.concatenate((shown, chosen.wh)).max(0) * 1.1
    beyond = sum(bool((np.array(wh) > limit).any()) for wh in given.wh)
    name = given_name + (f", {beyond} beyond the plot" if beyond else "")
    axes.plot(*np.array(given.wh).T, "x", color="#b3401c", markersize=9, markeredgewidth=2, zorder=3, label=name)
    axes.set(xlabel="width, cells", ylabel="height, cells", xlim=(0, limit[0]), ylim=(0, limit[1]),
             aspect="equal", title=f"{len(chosen.wh)} anchors among the boxes")  # fmt: skip
    _legend_below(axes)


def _legend_below(axes: Axes) -> None:
    """A legend that covers nothing."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncol=2, fontsize=9, frameon=False)
