"""Plots of runs, anchors, speed and pruning for image files; figures of data for its page, as <svg>.

All are drawn in the style and palette of page.py, without matplotlib's global state, and can be read without colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lookonce.errors import UserError, printable
from lookonce.files import replacing
from lookonce.inference.draw import lettering
from lookonce.model.anchors import RECALL_IOU, Anchors
from lookonce.model.boxes import shape_iou
from lookonce.model.zoo import STRIDE
from lookonce.report.page import ACCENT, CARD, MUTED, SERIES, WARM, styled_figure, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARGINS = (0.82, 0.12, 0.5, 0.28)  # of figures on the page, inches: numbers up to 100,000 fit beside the axes
SHOWN = 4000  # boxes drawn in a cloud, at most: a seeded sample of more
MOST_CLASSES = 60  # classes that get a bar; the rest share one
BINS = 26  # cells of the map of centres along each side
POINTS = 80  # of a precision-recall curve, at most


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
    with styled_figure(12, 6) as figure:
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
    heights = [len(bars) + 1.6 for bars in panels.values()]
    with styled_figure(10, 0.34 * sum(heights) + 0.8) as figure:
        figure.suptitle(_drawable(heading), fontsize=11)
        rows = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
        for axes, (title, bars) in zip(rows, panels.items(), strict=True):
            for place, bar in enumerate(bars):
                axes.barh(place, bar.images_per_s, height=0.68, color=ACCENT if bar.ours else CARD,
                          edgecolor=ACCENT if bar.ours else MUTED, linewidth=1.2)  # fmt: skip
                _annotate_bar(axes, bar.images_per_s, place, f"{bar.images_per_s:.1f}{bar.note}")
            axes.set_yticks(range(len(bars)), [_drawable(bar.name) for bar in bars])
            axes.set_title(_drawable(title), weight="bold")
            _finish_bars(axes, len(bars), max(bar.images_per_s for bar in bars), "images/s")
        figure.align_ylabels()
        return figure


def channels_figure(channels: Sequence[tuple[int, int, int]], heading: str) -> Figure:
    """Channels of each layer as bars: hollow those that were there, full those that stay.

    Args:
        channels: (layer, channels before, after) from top to bottom.
        heading: over it.
    """
    with styled_figure(9, 0.34 * len(channels) + 1.4) as figure:
        axes = figure.subplots()
        for place, (_, before, after) in enumerate(channels):
            axes.barh(place, before, height=0.68, color=CARD, edgecolor=MUTED, linewidth=1.2)
            axes.barh(place, after, height=0.68, color=ACCENT)
            _annotate_bar(axes, before, place, f"{after} of {before}")
        axes.set_yticks(range(len(channels)), [f"layer {layer}" for layer, _, _ in channels])
        axes.set_title(_drawable(heading))
        _finish_bars(axes, len(channels), max(before for _, before, _ in channels), "channels kept")
        return figure


def results_figure(curves: Mapping[str, Sequence[tuple[float, float]]], title: str) -> Figure:
    """Draw a run for slides: losses, mAP, learning rate and recall against epochs.

    Args:
        curves: points (epochs done, value) by column of metrics.csv.
        title: over all of them.
    """
    panels = {
        "loss": {"loss_epoch": "training (augmented)", "val/loss": "validation"},
        "validation mAP@0.5": {"val/mAP": ""},
        "learning rate": {"rate": ""},
        "training recall": {"recall_epoch": ""},
    }
    with styled_figure(10, 6) as figure:
        figure.suptitle(_drawable(title), fontsize=11)
        for axes, (name, lines) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
            for (column, label), line in zip(lines.items(), ("-", "--")):
                if points := curves.get(column):
                    axes.plot(*zip(*points, strict=True), line, label=label)
            axes.set(title=name, xlabel="epoch", ylim=(0, None))
            axes.grid()
            if all(lines.values()) and axes.lines:
                axes.legend()
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
        figure.savefig(beside, format=ending, facecolor=CARD)


def _drawable(name: str) -> str:
    """Return a name in letters that DejaVu Sans, the font of plots, has."""
    text, _ = lettering(name, own=True)
    return text


def _annotate_bar(axes: Axes, length: float, place: int, text: str) -> None:
    axes.annotate(text, (length, place), (5, 0), va="center", textcoords="offset points", fontsize=9)


def _finish_bars(axes: Axes, bars: int, longest: float, unit: str) -> None:
    """Put the first bar on top and leave room for a number behind each."""
    axes.set(ylim=(bars - 0.4, -0.6), xlim=(0, 1.18 * longest), xlabel=unit)
    axes.grid(axis="x")


def _draw_curve(axes: Axes, curve: Sequence[Anchors], chosen: Anchors, given: Anchors, given_name: str) -> None:
    """Mean best IoU and recall against k, with the given anchors as hollow marks."""
    ks = [len(found.wh) for found in curve]
    axes.plot(ks, [found.recall for found in curve], "s--", color=MUTED, markersize=5, label=f"recall at {RECALL_IOU}")
    axes.plot(ks, [found.mean_iou for found in curve], "o-", color=ACCENT, label="mean best IoU")
    axes.plot([len(chosen.wh)], [chosen.mean_iou], "o", color=ACCENT, markersize=13, fillstyle="none")
    axes.annotate(f"{chosen.mean_iou:.3f}", (len(chosen.wh), chosen.mean_iou), (0, 12), textcoords="offset points",
                  ha="center", weight="bold")  # fmt: skip
    for value, marker, label in ((given.recall, "s", "recall"), (given.mean_iou, "D", "mean best IoU")):
        axes.plot([len(given.wh)], [value], marker, color=WARM, fillstyle="none", markersize=8, linestyle="none",
                  label=f"{given_name}: {label} {value:.3f}")  # fmt: skip
    axes.set(xlabel="number of anchors", title=f"Fit of {sum(chosen.counts):,} boxes", xticks=ks)
    axes.grid()
    _legend_below(axes)


def _draw_shapes(axes: Axes, wh: NDArray[np.floating], chosen: Anchors, given: Anchors, given_name: str) -> None:
    """The cloud of box shapes; chosen anchors as numbered marks with their outlines, given ones as crosses."""
    from matplotlib.patches import Rectangle

    shown = _sample(wh)
    axes.scatter(shown[:, 0], shown[:, 1], s=5, color=MUTED, alpha=0.5, linewidths=0, label=_sample_note(shown, wh))
    for number, (w, h) in enumerate(chosen.wh, 1):
        axes.add_patch(Rectangle((0, 0), w, h, fill=False, color=ACCENT, linewidth=0.8, alpha=0.6))
        axes.plot([w], [h], "o", color=CARD, markeredgecolor=ACCENT, markersize=14, zorder=4,
                  label="clustered anchors, smallest first" if number == 1 else None)  # fmt: skip
        axes.annotate(str(number), (w, h), ha="center", va="center", fontsize=9, weight="bold", zorder=5)
    limit = np.concatenate((shown, chosen.wh)).max(0) * 1.1
    beyond = sum(bool((np.array(wh) > limit).any()) for wh in given.wh)
    name = given_name + (f", {beyond} outside the plot" if beyond else "")
    axes.plot(*np.array(given.wh).T, "x", color=WARM, markersize=9, markeredgewidth=2, zorder=3, label=name)
    axes.set(xlabel="width, cells", ylabel="height, cells", xlim=(0, limit[0]), ylim=(0, limit[1]),
             aspect="equal", title=f"{len(chosen.wh)} anchors and the boxes")  # fmt: skip
    _legend_below(axes)


def _legend_below(axes: Axes) -> None:
    """A legend that covers nothing."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncol=2)


def class_bars(classes: dict[str, tuple[int, int]]) -> str:
    """Draw the objects of each class as bars, the most first. classes: name -> (objects, images)."""
    from matplotlib.ticker import MaxNLocator

    order = sorted(classes.items(), key=lambda entry: -entry[1][0])
    rows = [(name, objects) for name, (objects, _) in order[:MOST_CLASSES]]
    if len(order) > MOST_CLASSES:
        rows.append((f"{len(order) - MOST_CLASSES} more", sum(objects for _, (objects, _) in order[MOST_CLASSES:])))
    names = [name if len(name) <= 24 else name[:23] + "\u2026" for name in (printable(name) for name, _ in rows)]
    counts = [objects for _, objects in rows]
    with styled_figure(6.2, max(1.6, 0.7 + 0.3 * len(rows))) as figure:
        axes = figure.subplots()
        bars = axes.barh(range(len(rows)), counts, height=0.7)
        axes.bar_label(bars, [f"{count:,}" for count in counts], padding=4)
        axes.set_yticks(range(len(rows)), names)
        _finish_bars(axes, len(rows), max(*counts, 1), "objects")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        return to_svg(figure)


def objects_histogram(counts: NDArray[np.integer]) -> str:
    """Draw how many images have how many objects. counts: [M] objects in each image."""
    from matplotlib.ticker import MaxNLocator

    most = int(counts.max(initial=0))
    width = max(1, -(-(most + 1) // 40))
    with styled_figure(6.2, 3, MARGINS) as figure:
        axes = _histogram(figure, counts, np.arange(0, most + width + 1, width) - 0.5, "images")
        axes.set_xlabel("objects in an image")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return to_svg(figure)


def shape_cloud(wh: NDArray[np.floating], anchors: Anchors | None) -> str:
    """Draw widths and heights of boxes [N, 2], cells, with the anchors, if there are any, as numbered outlines."""
    from matplotlib.patches import Rectangle

    shown, outlines = _sample(wh), anchors.wh if anchors else ()
    side = max([float(np.quantile(wh, 0.995)), *(max(shape) for shape in outlines)]) * 1.12
    with styled_figure(6.2, 5.6, MARGINS) as figure:
        axes = figure.subplots()
        axes.scatter(shown[:, 0], shown[:, 1], s=6, color=MUTED, alpha=0.45, linewidths=0, rasterized=True)
        for number, (w, h) in enumerate(outlines, 1):
            axes.add_patch(Rectangle((0, 0), w, h, fill=False, edgecolor=ACCENT, linewidth=1, alpha=0.7))
            axes.plot([w], [h], "o", color=ACCENT, markersize=15, zorder=4)
            axes.annotate(str(number), (w, h), ha="center", va="center_baseline", color=CARD, weight="bold", zorder=5)
        axes.set(xlim=(0, side), ylim=(0, side), aspect="equal", xlabel="width, cells", ylabel="height, cells")
        axes.grid()
        beyond = int((shown > side).any(1).sum())
        note = _sample_note(shown, wh) + (f", {beyond} outside the plot" if beyond else "")
        axes.set_title(note, fontsize=9, loc="right")
        return to_svg(figure)


def cluster_cloud(wh: NDArray[np.floating], anchors: Anchors) -> str:
    """Draw widths and heights of boxes [N, 2], cells: a colour and a mark for the boxes of each anchor."""
    members = shape_iou(np.asarray(wh)[:, None], np.array(anchors.wh)).argmax(1)
    side = max(float(np.quantile(wh, 0.995)), *(max(shape) for shape in anchors.wh)) * 1.12
    with styled_figure(6.2, 5.6, MARGINS) as figure:
        axes = figure.subplots()
        for number, (w, h) in enumerate(anchors.wh):
            own, colour = _sample(np.asarray(wh)[members == number]), SERIES[number % len(SERIES)]
            axes.scatter(own[:, 0], own[:, 1], s=9, color=colour, alpha=0.5, linewidths=0, rasterized=True,
                         marker="os^vD"[number % 5])  # fmt: skip
            axes.plot([w], [h], "o", color=CARD, markeredgecolor=colour, markeredgewidth=2, markersize=15, zorder=4)
            axes.annotate(str(number + 1), (w, h), ha="center", va="center_baseline", weight="bold", zorder=5)
        axes.set(xlim=(0, side), ylim=(0, side), aspect="equal", xlabel="width, cells", ylabel="height, cells")
        axes.grid()
        return to_svg(figure)


def fit_curve(curve: Sequence[Anchors], chosen: int) -> str:
    """Draw mean best IoU and recall against the number of anchors; a ring marks the chosen number."""
    ks = [len(found.wh) for found in curve]
    with styled_figure(6.2, 3, MARGINS) as figure:
        axes = figure.subplots()
        recall, fit = [found.recall for found in curve], [found.mean_iou for found in curve]
        axes.plot(ks, recall, "s--", color=MUTED, markersize=5, label=f"recall at {RECALL_IOU}")
        axes.plot(ks, fit, "o-", color=ACCENT, markersize=5, label="mean best IoU")
        axes.plot([chosen], [fit[ks.index(chosen)]], "o", color=WARM, markersize=12, fillstyle="none")
        axes.set(xlabel="number of anchors", xticks=ks, ylim=(0, 1.04))
        axes.grid()
        axes.legend(loc="lower right")
        return to_svg(figure)


def precision_recall(recall: NDArray[np.floating], precision: NDArray[np.floating]) -> str:
    """Draw precision against recall after each detection, and the area whose size is the AP of VOC 2010."""
    best = np.maximum.accumulate(precision[::-1])[::-1]
    with styled_figure(6.2, 3, MARGINS) as figure:
        axes = figure.subplots()
        axes.fill_between(np.append(0, recall), np.append(best[:1], best), step="pre", color=ACCENT, alpha=0.2,
                          label="area: AP")  # fmt: skip
        axes.plot(recall, precision, color=ACCENT, marker=".", label="after each detection")
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.04))
        axes.grid()
        axes.legend(loc="lower left")
        return to_svg(figure)


def centre_map(centres: NDArray[np.floating], aspect: float) -> str:
    """Draw where box centres lie in the image.

    Args:
        centres: [N, 2] (x, y), as fractions of the image's width and height.
        aspect: height over width of the image.
    """
    counts, _, _ = np.histogram2d(centres[:, 1], centres[:, 0], BINS, ((0, 1), (0, 1)))
    with styled_figure(6.2, min(8.0, 1 + 4.4 * aspect)) as figure:
        axes = figure.subplots()
        image = axes.imshow(counts, cmap="cividis", extent=(0, 100, 100, 0), interpolation="nearest", aspect=aspect)
        bar = figure.colorbar(image, ax=axes, shrink=0.9)
        bar.set_label("boxes")
        bar.outline.set_visible(False)
        axes.set(xlabel="x, % of the image width", ylabel="y, % of the image height")
        return to_svg(figure)


def aspect_histogram(wh: NDArray[np.floating]) -> str:
    """Draw width over height of boxes [N, 2] on a log scale: 2 and 1/2 lie equally far from a square."""
    from matplotlib.ticker import FixedLocator, NullLocator

    aspect = np.log2(wh[:, 0] / wh[:, 1])
    most = max(2, int(np.ceil(np.quantile(np.abs(aspect), 0.999))))
    ticks = list(range(-most, most + 1))
    edges = (np.arange(-8 * most, 8 * most + 2) - 0.5) / 8
    with styled_figure(6.2, 3, MARGINS) as figure:
        axes = _histogram(figure, np.clip(aspect, -most, most), edges, "boxes", mark=0)
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([f"{2**t:g}" if t >= 0 else f"1/{2**-t:g}" for t in ticks])
        axes.set_xlabel("width / height (dashed: square)")
        return to_svg(figure)


def size_histogram(wh: NDArray[np.floating], size: int) -> str:
    """Draw sides of boxes, the square root of their area, in pixels of the input. wh: [N, 2] cells; size: px."""
    sides = np.sqrt(wh.prod(1)) * STRIDE
    most = max(2 * STRIDE, float(sides.max()))
    with styled_figure(6.2, 3, MARGINS) as figure:
        axes = _histogram(figure, sides, np.linspace(0, most, 53), "boxes", mark=STRIDE)
        axes.set(xlim=(0, most), xlabel=f"side in px, at an input of {size} px (dashed: one cell)")
        return to_svg(figure)


def _histogram(figure: Figure, values: NDArray[np.generic], edges: NDArray[np.floating], counted: str,
               mark: float | None = None) -> Axes:  # fmt: skip
    """Draw a histogram, with a dashed line at mark."""
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots()
    axes.hist(values, edges.tolist(), rwidth=0.9)
    if mark is not None:
        axes.axvline(mark, color=WARM, linestyle="--", linewidth=1.4)
    axes.set_ylabel(counted)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="y")
    return axes


def curve_points(curve: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Return (recall, highest precision at that recall or above), rising in recall. curve: ClassScore.curve."""
    recall, precision = curve[:, 1], curve[:, 2]
    if not len(curve) or recall[-1] <= 0:
        return []
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.unique(np.searchsorted(recall, np.linspace(0, recall[-1], POINTS)))
    return [(0.0, float(best[0])), *((float(recall[k]), float(best[k])) for k in places if recall[k] > 0)]


def _sample(wh: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return at most SHOWN of the boxes [N, 2]."""
    return wh if len(wh) <= SHOWN else wh[np.random.default_rng(0).choice(len(wh), SHOWN, replace=False)]


def _sample_note(shown: NDArray[np.floating], wh: NDArray[np.floating]) -> str:
    return f"{len(shown):,} of {len(wh):,} boxes" if len(shown) < len(wh) else f"{len(wh):,} boxes"
