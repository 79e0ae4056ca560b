"""The page of a run: how far it is, curves, advice, validation images, and the sections of an evaluation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lookonce.data.anchors import SIZES, input_scale
from lookonce.data.dataset import Dataset
from lookonce.data.images import load_rgb
from lookonce.errors import ImageError
from lookonce.evaluation.average_precision import score_sizes
from lookonce.evaluation.evaluate import Analysis, analyse
from lookonce.model.layers import PlacedHead
from lookonce.report.curves import curve_cards
from lookonce.report.evaluation_page import by_f1, first_threshold, overview, sections, whole_images
from lookonce.report.figures import results_figure, save_figure
from lookonce.report.filmstrip import add_frame, read_frames
from lookonce.report.overlay import View
from lookonce.report.page import data_uri, write_page
from lookonce.training.history import RunReport, RunState, read_curves, read_rows
from lookonce.training.start import read_start

SHOWN = 6  # images in each gallery
MOST_NAMED = 12  # classes whose objects are counted in the table
BATCH = "train_batch.jpg"  # in the run folder: the first augmented batch
BATCH_SIDE = 960  # longest side of that image on the page, px
RELOAD_SECONDS = 30  # until the page of an unfinished run loads itself again


@dataclass(frozen=True)
class SizeRow:
    """Objects of one size at the input: their number, how well anchors fit them, and their AP."""

    size: str
    objects: int  # of the training set
    anchor_recall: float | None  # fraction with an anchor of shape IoU >= .5
    collisions: float | None  # fraction in an anchor collision
    ap: float | None  # mean AP on the scored images


@dataclass(frozen=True)
class Page:
    """The content of a run's page."""

    run: Path
    """The run folder, for its name, its metrics.csv, its first batch and its filmstrip."""
    split: str
    facts: Sequence[tuple[str, str]]
    state: RunState = RunState(finished=True)  # noqa: RUF009 - frozen
    advice: Sequence[str] = ()
    sizes: Sequence[SizeRow] = ()
    found: Mapping[str, Any] | None = None
    """Values of evaluation_page.sections for the split; None: nothing was scored."""
    whole: bool = True
    """Show all sections of the evaluation; otherwise only images and classes."""
    images: Sequence[View] = ()
    images_note: str = ""


def write_report(path: Path, page: Page) -> Path:
    """Write the page of a run, whole or not at all."""
    file = page.run / "metrics.csv"
    state = page.state
    return write_page(
        path,
        "run_page.html",
        page=page,
        found=page.found,
        metrics=page.found["metrics"] if page.found else None,
        images=page.images,
        images_note=page.images_note,
        curves=curve_cards(read_curves(file)) if file.exists() else [],
        batch=_first_batch(page.run),
        film=read_frames(page.run),
        reload=RELOAD_SECONDS if state.epochs is not None and not (state.finished or state.stopped) else None,
        left=None if state.seconds_left is None else duration(state.seconds_left),
        now=time.strftime("%Y-%m-%d %H:%M"),
    )


def duration(seconds: float) -> str:
    """Return a time in the two units that matter: 42 s, 12 min, 3 h 20 min, 2 d 4 h."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def _first_batch(run: Path) -> str | None:
    """Return the first augmented batch as a data: address; None: there is none."""
    file = run / BATCH
    if not file.is_file():
        return None
    try:
        return data_uri(Image.fromarray(load_rgb(file, BATCH_SIDE)))
    except ImageError:
        return None


def facts(recipe: Mapping[str, Any], data: str, images: int, heads: Sequence[PlacedHead]) -> list[tuple[str, str]]:
    """Return the rows of the page's table. recipe: settings by name; data, images: the training set."""
    anchors = (", ".join(f"{w:.0f} x {h:.0f}" for w, h in head.anchors_px) for head in heads)
    size, batch = recipe.get("size"), recipe.get("batch_size")
    return [
        ("network", f"{recipe.get('network')}, input {size} x {size}, {recipe.get('resize')}"),
        ("trained on", f"{images} images of {data}, {recipe.get('epochs')} epochs of batches of {batch}"),
        ("loss", str(recipe.get("loss"))),
        ("optimizer", f"{recipe.get('optimizer')}, rate {recipe.get('learning_rate')}, {recipe.get('schedule')}"),
        ("anchors (input pixels)", "; ".join(anchors)),
    ]


def write_run_page(run: RunReport, whole: bool) -> Path:
    """Write the page of a run so far. whole: with errors, confusion, calibration and results.png, which take time."""
    val = run.validation
    metrics = None if val is None else val.metrics
    analysis = analyse(val.dataset, val.detections, metrics.rules, bootstrap=0) if val and metrics else None
    rows = facts(asdict(run.config.settings), run.train_set.name, len(run.train_set), run.heads)
    rows.insert(2, ("objects", _objects(run.train_set)))
    start = read_start(run.folder)
    rows.insert(1, ("starts from", f"{start['name']}, sha256 {start['sha256']}" if start else "random numbers"))
    if val is not None and val.computed_by:
        rows.append(("validation", val.computed_by))
    found, images = None, []
    if val is not None and analysis is not None:
        values = sections if whole else overview
        found = {**values(val.dataset, analysis, val.input_size), "sizes": ()}
        add_frame(run.folder, _epochs_done(run), val.dataset, analysis)
        images = worst_and_best(val.dataset, analysis)
    page = Page(
        run.folder,
        run.config.val_split,
        rows,
        run.state,
        run.advice(),
        _sizes(run, analysis),
        found,
        whole,
        images,
        f"Images of the split {run.config.val_split}: first the worst by F1, then the best.",
    )
    metrics_file = run.folder / "metrics.csv"
    if whole and metrics_file.is_file():
        save_figure(results_figure(read_curves(metrics_file), run.folder.name), run.folder / "results.png")
    return write_report(run.folder / "report.html", page)


def _objects(train_set: Dataset) -> str:
    """Return the objects of each class that the run is trained on, the most first."""
    counts = np.bincount(train_set.classes, minlength=len(train_set.labels))
    order = np.argsort(-counts, kind="stable")
    named = ", ".join(f"{train_set.labels[n]} {counts[n]:,}" for n in order[:MOST_NAMED])
    more = f" and {len(order) - MOST_NAMED} more classes" if len(order) > MOST_NAMED else ""
    return f"{counts.sum():,}: {named}{more}"


def worst_and_best(dataset: Dataset, analysis: Analysis) -> list[View]:
    """Return the images of lowest F1, the worst first, then those of highest F1, the best first."""
    threshold = first_threshold(analysis)
    order = by_f1(dataset, analysis, threshold).tolist()
    worst = whole_images(dataset, analysis, threshold, order[: (len(order) + 1) // 2], SHOWN)
    return worst + whole_images(dataset, analysis, threshold, order[: (len(order) - 1) // 2 : -1], SHOWN)


def _epochs_done(run: RunReport) -> int:
    """Return the epochs done so far, from the state, else from metrics.csv."""
    file = run.folder / "metrics.csv"
    if run.state.epoch or not file.exists():
        return run.state.epoch
    return max((round(row["epoch"]) + 1 for row in read_rows(file) if "val/mAP" in row), default=0)


def _sizes(run: RunReport, analysis: Analysis | None) -> list[SizeRow]:
    found: dict[str, float | None] = {}
    if analysis is not None and run.validation is not None:
        val = run.validation
        scale = input_scale(val.dataset, val.input_size, val.mode)
        found["all"] = analysis.metrics.mean_ap
        for size, low, high in SIZES:
            found[size] = score_sizes(val.dataset, analysis.found, low, high, scale).mean_ap
    return [SizeRow(c.size, c.objects, c.recall, c.collisions, found.get(c.size)) for c in run.covered]
