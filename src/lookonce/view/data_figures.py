"""Figures of a data set for its page, as SVG that takes the page's colours, light or dark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lookonce.anchors import STRIDE, Anchors
from lookonce.errors import printable
from lookonce.view.page import ACCENT, CARD, INK, SOFT, WARM, Drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 3000
"""Boxes drawn in a cloud, at most; a seeded choice of more."""
MOST_CLASSES = 60
"""Classes that get a bar; the rest share one."""
BINS = 26
"""Cells of the map of centres, a side."""


def class_bars(classes: dict[str, tuple[int, int]]) -> str:
    """Objects of each class as bars, the most first. classes: name -> (objects, pictures)."""
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
    """How many pictures have how many objects. each: [M] objects of a picture."""
    from matplotlib.ticker import MaxNLocator

    most = int(each.max(initial=0))
    width = max(1, -(-(most + 1) // 40))
    edges = np.arange(0, most + width + 1, width) - 0.5
    with _Chart(6.2, 3) as chart:
        chart.axes.hist(each, edges.tolist(), color=ACCENT, rwidth=0.86)
        chart.axes.set(xlabel="objects on a picture", ylabel="pictures")
        chart.axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return chart.done("y")


def shape_cloud(wh: NDArray[np.floating], anchors: Anchors) -> str:
    """Widths and heights of boxes [N, 2], cells, with the anchors as numbered outlines."""
    from matplotlib.patches import Rectangle

    some = wh if len(wh) <= SHOWN else wh[np.random.default_rng(0).choice(len(wh), SHOWN, replace=False)]
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
    """Where the centres of boxes lie on the picture. centres: [N, 2] as shares of its width and height, 0..1.

    aspect: height over width of the picture.
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
