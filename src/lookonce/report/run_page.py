"""The page of a run: curves, scores, advice and drawn images in one HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogFormatter, MaxNLocator
from PIL import Image

from lookonce.data.anchors import SIZES, input_scale
from lookonce.data.dataset import Record
from lookonce.data.images import load_rgb
from lookonce.errors import ImageError
from lookonce.evaluation.average_precision import Metrics, best_thresholds, score_sizes
from lookonce.evaluation.evaluate import Analysis, analyse
from lookonce.evaluation.matching import image_f1, match
from lookonce.inference.draw import draw
from lookonce.model.detections import Detections
from lookonce.model.layers import PlacedHead
from lookonce.report.evaluation_page import sections
from lookonce.report.page import WARM, data_uri, styled_figure, to_svg, write_page
from lookonce.training.history import Curves, RunReport, read_curves

LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (5, 3)))  # told apart without colour too
TERMS = ("xy", "wh", "ciou", "objectness", "background", "class", "prior")
SHOWN_SIDE = 560  # longest side of an image on the page, px
SHOWN = 6  # images in each gallery


@dataclass(frozen=True)
class SizeRow:
    """Objects of one size at the input: their number, how well anchors fit them, and their AP."""

    size: str
    objects: int  # of the training set
    anchor_recall: float | None  # fraction with an anchor of shape IoU >= .5
    collisions: float | None  # fraction in an anchor collision
    ap: float | None  # mean AP on the scored images


@dataclass(frozen=True)
class Gallery:
    """Drawn images under one heading."""

    heading: str
    note: str
    images: Sequence[tuple[str, Image.Image]]  # (caption, image)


@dataclass(frozen=True)
class Page:
    """The content of a run's page."""

    run: Path
    """The run folder, for its name and its metrics.csv."""
    metrics: Metrics | None
    """None: nothing was scored."""
    split: str
    facts: Sequence[tuple[str, str]]
    advice: Sequence[str] = ()
    sizes: Sequence[SizeRow] = ()
    galleries: Sequence[Gallery] = ()
    found: Mapping[str, Any] | None = None
    """Values of evaluation_page.sections for the split; None: leave these sections out."""


def write_report(path: Path, page: Page) -> Path:
    """Write the page of a run, whole or not at all."""
    file = page.run / "metrics.csv"
    curves = read_curves(file) if file.exists() else {}
    return write_page(
        path,
        "run_page.html",
        page=page,
        metrics=page.metrics,
        curves=curves_figure(curves) if curves else "",
        galleries=[(g, [(caption, data_uri(image)) for caption, image in g.images]) for g in page.galleries],
    )


def compared(image: Image.Image, found: Detections, record: Record, labels: Sequence[str]) -> Image.Image:
    """Return an image, enlarged, with its detections and its ground truth."""
    scale = SHOWN_SIDE / max(image.size)
    large = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    boxes = Detections(found.boxes * scale, found.scores, found.labels, found.class_names)
    truth = (record.boxes * scale, tuple(labels[label] for label in record.labels))
    return draw(np.asarray(large.convert("RGB")), boxes, truth)


def facts(recipe: Mapping[str, Any], data: str, images: int, heads: Sequence[PlacedHead]) -> list[tuple[str, str]]:
    """Return the rows of the page's table. recipe: settings by name; data, images: the training set."""
    anchors = (", ".join(f"{w:.2f} x {h:.2f}" for w, h in head.layer.anchors) for head in heads)
    size, batch = recipe.get("size"), recipe.get("batch_size")
    return [
        ("network", f"{recipe.get('network')}, input {size} x {size}, {recipe.get('resize')}"),
        ("trained on", f"{images} images of {data}, {recipe.get('epochs')} epochs of batches of {batch}"),
        ("loss", str(recipe.get("loss"))),
        ("optimizer", f"{recipe.get('optimizer')}, rate {recipe.get('learning_rate')}, {recipe.get('schedule')}"),
        ("anchors (cells)", "; ".join(anchors)),
    ]


def curves_figure(by_epoch: Curves) -> str:
    """Draw loss terms, losses, validation mAP, learning rate and images/s against images seen. <svg>"""
    epochs, seen = by_epoch["seen"][-1] if by_epoch.get("seen") else (1.0, 1.0)
    curves = {name: [(x * seen / epochs, y) for x, y in points] for name, points in by_epoch.items()}
    with styled_figure(9.5, 6.6) as figure:
        terms, losses, score, pace = figure.subplots(2, 2).flat
        for term, line in zip(TERMS, LINES, strict=True):
            _line(terms, curves, f"{term}_epoch", line, term)
        _log_scale(terms, "loss term, mean of an epoch")
        _line(losses, curves, "loss_epoch", "-", "training (augmented)")
        _line(losses, curves, "val/loss", "--", "validation", marker="o")
        _log_scale(losses, "loss")
        _line(score, curves, "val/mAP", "-", "validation mAP@0.5", marker="o")
        score.set(ylabel="validation mAP@0.5", ylim=(0, 1.02))
        _line(pace, curves, "rate", "-", "learning rate")
        pace.set(ylabel="learning rate", ylim=(0, None))
        if curves.get("images_per_s"):
            twin = pace.twinx()
            _line(twin, curves, "images_per_s", ":", "images/s", marker=".", color=WARM)
            twin.set(ylabel="images/s (dotted)", ylim=(0, None))
        for axes in (terms, losses, score, pace):
            axes.set(xlabel="images seen" if by_epoch.get("seen") else "epoch")
            axes.grid()
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.xaxis.set_major_formatter("{x:,.0f}")
            if axes in (terms, losses) and axes.lines:
                axes.legend(ncols=2)
        return to_svg(figure)


def _log_scale(axes: Axes, name: str) -> None:
    """A logarithmic scale with plain numbers: names in figures are never read as formulas, so nor are these."""
    axes.set(ylabel=name, yscale="log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))


def _line(axes: Axes, curves: Curves, name: str, line: object, label: str, marker: str = "",
          color: str | None = None) -> None:  # fmt: skip
    if points := curves.get(name):
        axes.plot(*zip(*points, strict=True), linestyle=line, marker=marker, markersize=4, label=label, color=color)


def write_run_page(run: RunReport, whole: bool) -> Path:
    """Write the page of a run as it stands. whole: with errors, confusion and calibration, which take seconds."""
    val = run.validation
    metrics = None if val is None else val.metrics
    analysis = analyse(val.dataset, val.detections, metrics.rules, bootstrap=0) if val and metrics else None
    rows = facts(asdict(run.config.settings), run.train_set.name, len(run.train_set), run.heads)
    if val is not None and val.computed_by:
        rows.append(("validation", val.computed_by))
    page = Page(
        run.folder,
        metrics,
        run.config.val_split,
        rows,
        run.advice(),
        _sizes(run, analysis),
        _galleries(run, metrics),
        {**sections(val.dataset, analysis), "sizes": ()} if whole and val and analysis else None,
    )
    return write_report(run.folder / "report.html", page)


def _sizes(run: RunReport, analysis: Analysis | None) -> list[SizeRow]:
    found: dict[str, float | None] = {}
    if analysis is not None and run.validation is not None:
        val = run.validation
        scale = input_scale(val.dataset, val.input_size, val.mode)
        found["all"] = analysis.metrics.mean_ap
        for size, low, high in SIZES:
            found[size] = score_sizes(val.dataset, analysis.found, low, high, scale).mean_ap
    return [SizeRow(c.size, c.objects, c.recall, c.collisions, found.get(c.size)) for c in run.covered]


def _galleries(run: RunReport, metrics: Metrics | None) -> list[Gallery]:
    """Return the validation images of lowest and highest F1, each class at its best threshold."""
    val = run.validation
    if val is None or metrics is None:
        return []
    thresholds = best_thresholds(metrics)
    found = [one.above(thresholds) for one in val.detections]
    ignore = val.dataset.difficult
    f1 = image_f1(val.dataset, match(val.dataset, found, ignore, metrics.rules.iou_threshold), ignore)
    order = np.argsort(f1, kind="stable")
    note = "F1 of the image, each class at its best threshold. Solid: detections. Dashed: ground truth."
    galleries = []
    for heading, chosen in (
        ("Worst validation images", order[:SHOWN]),
        ("Best validation images", order[::-1][:SHOWN]),
    ):
        images: list[tuple[str, Image.Image]] = []
        for index in chosen:
            record = val.dataset.records[int(index)]
            try:
                image = Image.fromarray(load_rgb(record.path, pixel_range=val.dataset.pixel_range))
            except ImageError:
                continue
            caption = f"{record.path.name}: F1 {f1[index]:.2f}"
            images.append((caption, compared(image, found[index], record, val.dataset.labels)))
        galleries.append(Gallery(heading, note, images))
    return galleries
