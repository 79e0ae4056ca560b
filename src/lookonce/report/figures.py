"""Plots with matplotlib, drawn without its global state and readable without colour.

Figures of a data set for its page, as SVG that takes the page's colours, light or dark.

Figures of a detector's scores for its page, as SVG that takes the page's colours, light or dark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lookonce.errors import UserError, printable
from lookonce.evaluation.confusion import Calibration
from lookonce.evaluation.errors import Kind
from lookonce.files import replacing
from lookonce.inference.draw import lettering
from lookonce.model.anchors import RECALL_IOU, STRIDE, Anchors
from lookonce.report.page import ACCENT, CARD, INK, SOFT, WARM, Drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
if TYPE_CHECKING:
    from matplotlib.axes import Axes


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

    Raises UserError: an ending that is no image's, or a place that cannot be written.
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
    """What stands around bars: the first on top, room for a number behind each, no input_size."""
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


SHOWN_DATA_FIGURES = 3000
"""Boxes drawn in a cloud, at most; a seeded choice of more."""


MOST_CLASSES = 60
"""Classes that get a bar; the rest share one."""


BINS = 26
"""Cells of the map of centres, a side."""


def class_bars(classes: dict[str, tuple[int, int]]) -> str:
    """Objects of each class as bars, the most first. classes: name -> (objects, images)."""
    from matplotlib.ticker import MaxNLocator

    order = sorted(classes.items(), key=lambda entry: -entry[1][0])
    rows = [(name, objects) for name, (objects, _) in order[:MOST_CLASSES]]
    if len(order) > MOST_CLASSES:
        rows.append((f"{len(order) - MOST_CLASSES} more", sum(objects for _, (objects, _) in order[MOST_CLASSES:])))
    names = [name if len(name) <= 24 else name[:23] + "\u2026" for name in (printable(name) for name, _ in rows)]
    counts = [objects for _, objects in rows]
    with _Chart(6.2, 0.7 + 0.3 * len(rows)) as chart:
        axes = chart.axes
        bars = axes.barh(range(len(rows)), counts, color=ACCENT, height=0.7)
        axes.bar_label(bars, [f"{count:,}" for count in counts], padding=4)
        axes.set_yticks(range(len(rows)), names)
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, 1.15 * max(*counts, 1)), xlabel="objects")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        return chart.done("x")


def objects_histogram(each: NDArray[np.integer]) -> str:
    """How many images have how many objects. each: [M] objects of an image."""
    from matplotlib.ticker import MaxNLocator

    most = int(each.max(initial=0))
    width = max(1, -(-(most + 1) // 40))
    edges = np.arange(0, most + width + 1, width) - 0.5
    with _Chart(6.2, 3) as chart:
        chart.axes.hist(each, edges.tolist(), color=ACCENT, rwidth=0.86)
        chart.axes.set(xlabel="objects on an image", ylabel="images")
        chart.axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return chart.done("y")


def shape_cloud(wh: NDArray[np.floating], anchors: Anchors) -> str:
    """Widths and heights of boxes [N, 2], cells, with the anchors as numbered outlines."""
    from matplotlib.patches import Rectangle

    some = (
        wh
        if len(wh) <= SHOWN_DATA_FIGURES
        else wh[np.random.default_rng(0).choice(len(wh), SHOWN_DATA_FIGURES, replace=False)]
    )
    side = max(float(np.quantile(wh, 0.995)), *(max(shape) for shape in anchors.wh)) * 1.12
    with _Chart(6.2, 5.6) as chart:
        axes = chart.axes
        axes.scatter(some[:, 0], some[:, 1], s=6, color=SOFT, alpha=0.45, linewidths=0, rasterized=True)
        for w, h in anchors.wh:
            axes.add_patch(Rectangle((0, 0), w, h, fill=False, edgecolor=ACCENT, linewidth=1, alpha=0.7))
        for number, (w, h) in enumerate(anchors.wh, 1):
            axes.plot([w], [h], "o", color=ACCENT, markersize=15, zorder=4)
            axes.annotate(str(number), (w, h), ha="center", va="center_baseline", color=CARD, weight="bold", zorder=5)
        axes.set(xlim=(0, side), ylim=(0, side), aspect="equal", xlabel="width, cells", ylabel="height, cells")
        beyond = int((some > side).any(1).sum())
        note = f"{len(some):,} of {len(wh):,} boxes" + (f", {beyond} beyond the edge" if beyond else "")
        axes.set_title(note, fontsize=9, loc="right", color=INK)
        return chart.done("both")


def centre_map(centres: NDArray[np.floating], aspect: float) -> str:
    """Where the centres of boxes lie on the image. centres: [N, 2] as shares of its width and height, 0..1.

    aspect: height over width of the image.
    """
    counts, _, _ = np.histogram2d(centres[:, 1], centres[:, 0], BINS, ((0, 1), (0, 1)))
    with _Chart(6.2, min(8.0, 1 + 4.4 * aspect)) as chart:
        axes = chart.axes
        image = axes.imshow(counts, cmap="cividis", extent=(0, 100, 100, 0), interpolation="nearest", aspect=aspect)
        bar = chart.figure.colorbar(image, ax=axes, shrink=0.9)
        bar.set_label("boxes")
        bar.outline.set_visible(False)
        axes.set(xlabel="% of the width", ylabel="% of the height")
        return chart.done("")


def aspect_histogram(wh: NDArray[np.floating]) -> str:
    """Width over height of boxes [N, 2], on a scale where twice as wide and twice as high lie as far from a square."""
    from matplotlib.ticker import FixedLocator, NullLocator

    aspect = np.log2(wh[:, 0] / wh[:, 1])
    most = max(2, int(np.ceil(np.quantile(np.abs(aspect), 0.999))))
    ticks = np.arange(-most, most + 1)
    words = [f"{2**t:g}" if t >= 0 else f"1/{2**-t:g}" for t in ticks.tolist()]
    with _Chart(6.2, 3) as chart:
        chart.axes.hist(
            np.clip(aspect, -most, most), ((np.arange(-8 * most, 8 * most + 2) - 0.5) / 8).tolist(), color=ACCENT
        )
        chart.axes.xaxis.set_major_locator(FixedLocator(ticks.tolist()))
        chart.axes.xaxis.set_minor_locator(NullLocator())
        chart.axes.set_xticklabels(words)
        chart.axes.axvline(0, color=WARM, linestyle="--", linewidth=1)
        chart.axes.set(xlabel="width over height (dashed: square)", ylabel="boxes")
        return chart.done("y")


def size_histogram(wh: NDArray[np.floating], size: int) -> str:
    """Side of the boxes [N, 2], cells, as the square root of their area in px of an input of `size` px."""
    sides = np.sqrt(wh.prod(1)) * STRIDE
    most = max(2 * STRIDE, float(sides.max()))
    with _Chart(6.2, 3) as chart:
        chart.axes.hist(sides, np.linspace(0, most, 53).tolist(), color=ACCENT)
        chart.axes.axvline(STRIDE, color=WARM, linestyle="--", linewidth=1)
        chart.axes.set(xlim=(0, most), xlabel=f"side, px of {size} (dashed: a cell)", ylabel="boxes")
        return chart.done("y")


class _Chart(Drawing):
    """A drawing of one axes."""

    def __init__(self, width: float, height: float) -> None:
        super().__init__(width, height)
        self.axes: Axes = self.figure.subplots()

    def __enter__(self) -> _Chart:
        return self

    def done(self, grid: str) -> str:
        """The <svg>. grid: "x", "y" (counts), "both" or none."""
        from matplotlib.ticker import MaxNLocator

        if grid == "y":
            self.axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        if grid:
            self.axes.grid(axis=grid, color=SOFT, alpha=0.3, linewidth=0.6)  # type: ignore[arg-type]
        return self.svg()


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
