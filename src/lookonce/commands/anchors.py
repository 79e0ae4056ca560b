"""anchors: cluster anchor boxes on a data set, measure how well they fit, and plot them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from lookonce.choices import choose
from lookonce.commands.arguments import AnyPath, expanded, several
from lookonce.console import cell, cells, rendered
from lookonce.data.anchors import shapes_in_cells
from lookonce.data.read import read_dataset
from lookonce.errors import UserError, printable
from lookonce.files import check_output, free_name
from lookonce.model import zoo
from lookonce.model.anchors import RECALL_IOU, Anchors, Centre, cluster, distinct_shapes, measure
from lookonce.model.resize import ResizeMode
from lookonce.model.zoo import STRIDE
from lookonce.report.figures import anchors_figure, save_figure

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

log = logging.getLogger("lookonce")
PLOT = Path("anchors.png")
MAX_K = 10
"""The table and the plot show every number of anchors up to this one."""


@dataclass(frozen=True)
class AnchorsReport:
    """Anchors clustered on a data set, the fit of other numbers of them, and anchors to compare with. Units: cells."""

    source: str
    """The boxes, their resize to the input, and the kind of clusters."""
    size: int
    """Side of the network's input, px."""
    curve: tuple[Anchors, ...]
    """The anchors of 1, 2, 3, ... clusters."""
    chosen: Anchors
    """The anchors of the requested number of clusters."""
    compared: Anchors
    """Anchors to compare with."""
    compared_name: str
    plot: Path | None
    """File of the plot; None: there is none."""

    @property
    def cfg_line(self) -> str:
        """Return the chosen anchors as a line of a Darknet cfg, with four digits."""
        return "anchors = " + ", ".join(f"{w:.4g},{h:.4g}" for w, h in self.chosen.wh)

    def __rich__(self) -> Group:
        from rich.console import Group

        lines = [self._verdict(), self.cfg_line, *([f"plot: {self.plot}"] if self.plot else [])]
        return Group(cell(self.source), self._fit_table(), self._shape_table(), cells(lines))

    def __str__(self) -> str:
        return rendered(self, max(120, len(self.cfg_line), 2 * len(printable(self.source))), blank_lines=False)

    def _verdict(self) -> str:
        gain = self.chosen.mean_iou - self.compared.mean_iou
        found = "the new anchor fits" if len(self.chosen.wh) == 1 else f"the {len(self.chosen.wh)} new anchors fit"
        if gain > 0:
            return f"{found} these boxes better than {self.compared_name}: mean best IoU +{gain:.3f}"
        return f"{found} these boxes no better than {self.compared_name} ({gain:+.3f}): keep those, or try a larger --k"

    def _fit_table(self) -> Table:
        table = _table(None, ("anchors", "mean best IoU", f"recall at {RECALL_IOU}"))
        rows = {len(found.wh): (str(len(found.wh)), found) for found in (*self.curve, self.chosen)}
        for number, (name, found) in sorted(rows.items()):
            mark = "  <- k" if number == len(self.chosen.wh) else ""
            table.add_row(name + mark, f"{found.mean_iou:.4f}", f"{found.recall:.4f}")
        table.add_row(self.compared_name, f"{self.compared.mean_iou:.4f}", f"{self.compared.recall:.4f}")
        return table

    def _shape_table(self) -> Table:
        title = f"the {len(self.chosen.wh)} new anchors, width x height"
        table = _table(title, ("no.", "cells", f"px at {self.size}", "fraction of the input", "boxes"))
        for number, ((w, h), count) in enumerate(zip(self.chosen.wh, self.chosen.counts, strict=True), 1):
            px, part = (STRIDE * w, STRIDE * h), (STRIDE * w / self.size, STRIDE * h / self.size)
            table.add_row(str(number), f"{w:.4f} x {h:.4f}", f"{px[0]:.1f} x {px[1]:.1f}",
                          f"{part[0]:.4f} x {part[1]:.4f}", str(count))  # fmt: skip
        return table


def anchors(
    data: AnyPath,
    *,
    split: str = "train",
    labels: Sequence[str] | None = None,
    k: int = 5,
    size: int = 416,
    resize: ResizeMode = "letterbox_antialias",
    centre: Centre = "mean",
    compare: Sequence[float] | None = None,
    plot: AnyPath | None = PLOT,
    overwrite: bool = False,
    seed: int = 0,
) -> AnchorsReport:
    """Cluster anchor boxes on a data set: k-means with the distance 1 - IoU, of the boxes as the network sees them.

    Args:
        data: Data set: its folder, or its COCO .json, data.yaml or obj.data.
        split: Split to use; all: every image. Difficult objects count, too.
        labels: Use these classes only.
        k: Number of anchors. There are fewer if the boxes have fewer distinct shapes.
        size: Side of the network's square input in pixels, a multiple of 32.
        resize: How images are resized to the input, as in training.
        centre: Centre of a cluster: mean, as in the paper, or median.
        compare: Anchors to compare with: width height width height ..., in cells of 32 px; none: those of
            yolov2-voc.cfg.
        plot: File for a plot of the fit and the boxes; anchors-2.png and so on if anchors.png exists; none: no plot.
        overwrite: Replace the plot if it exists, or write it into the data set's folder.
        seed: Seed of the clusters' initial guesses.
    Returns:
        AnchorsReport: the fit of 1 to 10 anchors and of those to compare with; the k new anchors in cells, in pixels
            and as a cfg line.
    Raises:
        UserError: the data set cannot be read or has no boxes; anchors to compare with that are not pairs, or in
            another unit.
    """
    data, plot = expanded(data), None if plot is None else expanded(plot)
    labels = None if labels is None else several(labels)
    resize, centre = choose(resize, get_args(ResizeMode), "resize"), choose(centre, get_args(Centre), "centre")
    if plot == PLOT and not overwrite:
        plot = free_name(PLOT)
    if plot is not None:
        check_output(plot, overwrite, data)
    dataset = read_dataset(data, None if split == "all" else split, labels)
    wh = shapes_in_cells(dataset, size, resize)
    chosen = cluster(wh, k, centre, seed=seed)
    k = len(chosen.wh)
    others = zoo.VOC_ANCHORS if compare is None else read_anchors(tuple(compare), wh, size)
    curve = []
    for number in range(1, min(MAX_K, distinct_shapes(wh)) + 1):
        curve.append(chosen if number == k else cluster(wh, number, centre, seed=seed))
    name = f"yolov2-voc.cfg ({len(others)})" if compare is None else f"--compare ({len(others)})"
    report = AnchorsReport(
        f"{dataset.name}, {split}: {len(wh)} boxes on {len(dataset)} images; {size} px, {resize}, {centre}",
        size, tuple(curve), chosen, measure(wh, np.array(others)), name, plot,
    )  # fmt: skip
    if plot is not None:
        save_figure(anchors_figure(wh, report.curve, chosen, report.compared, name), plot)
    return report


def read_anchors(numbers: tuple[float, ...], wh: NDArray[np.floating], size: int) -> zoo.AnchorSizes:
    """Return numbers w h w h ... as anchors in cells; raise UserError for numbers in another unit.

    Numbers that are all below 1 may be fractions of the input, and numbers larger than the grid may be pixels. They are
    refused if they fit the boxes better in that unit: small objects, and anchors of a larger input, are valid.

    Args:
        numbers: pairs of width and height.
        wh: [N, 2] boxes, cells.
        size: side of the network's input, px.
    """
    shapes = np.array(numbers, np.float64)
    text = " ".join(f"{v:g}" for v in numbers) or "nothing"
    if not len(numbers) or len(numbers) % 2 or not (np.isfinite(shapes) & (shapes > 0)).all():
        raise UserError(f"compare: {text}; expected pairs of width and height, all above 0, in cells")
    cells = shapes.reshape(-1, 2)
    grid = size / STRIDE
    readings = {"fractions of the input": cells * grid} if (cells < 1).all() else {}
    if (cells > grid).any():
        readings["pixels"] = cells / STRIDE
    for unit, converted in readings.items():
        as_given, as_unit = measure(wh, cells).mean_iou, measure(wh, converted).mean_iou
        if as_unit > as_given:
            better = " ".join(f"{v:.4g}" for v in converted.ravel())
            raise UserError(
                f"compare: {text} look like {unit} (mean best IoU {as_unit:.2f}, as cells {as_given:.2f}); "
                f"expected cells of {STRIDE} px, at most {grid:g}: give {better}"
            )
    return tuple((float(w), float(h)) for w, h in cells)


def _table(title: str | None, headings: tuple[str, ...]) -> Table:
    """Return an empty table: first column left, numbers right."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    return table
