"""The page of a run: curves, scores and drawn pictures in one HTML file that opens offline."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from pathlib import Path

import jinja2
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from lookonce import __version__
from lookonce.errors import UserError
from lookonce.evaluation import Report
from lookonce.files import write_text
from lookonce.model_file import Model

LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
"""Line styles, so that curves part without colour too."""
TERMS = ("xy", "wh", "objectness", "background", "class", "warm_up")


def write_report(
    path: Path, run: Path, model: Model, report: Report, pictures: Sequence[tuple[str, Image.Image]]
) -> Path:
    """Write the page of a finished run.

    Args:
        path: the page.
        run: the run folder, for its metrics.csv.
        model: the run's model.
        report: what it scored on pictures that training never saw.
        pictures: (caption, drawn picture).
    """
    environment = jinja2.Environment(loader=jinja2.PackageLoader("lookonce", "view"), autoescape=True)
    page = environment.get_template("report.html").render(
        name=run.name,
        report=report,
        rules=str(report.metrics.rules),
        classes=report.metrics.classes,
        interval=report.metrics.interval,
        curves=svg(curves_figure(read_curves(run / "metrics.csv"))),
        pictures=[(caption, data_uri(picture)) for caption, picture in pictures],
        facts=facts(model),
        version=__version__,
    )
    write_text(path, page)
    return path


def facts(model: Model) -> list[tuple[str, str]]:
    """What stands in the page's table about the model."""
    how = model.training.get("recipe", {})
    anchors = "  ".join(f"{w:.2f} x {h:.2f}" for w, h in model.region.anchors)
    return [
        ("network", f"{how.get('network', '')}, input {model.frame[0]} x {model.frame[1]}, {model.resize}"),
        ("trained on", f"{model.training.get('pictures', '?')} pictures of {model.training.get('data', '?')}, "
                       f"{model.seen} seen in all"),
        ("loss, optimiser", f"{how.get('loss')}, {how.get('optimizer')}, rate {how.get('learning_rate')}, "
                            f"{how.get('schedule')}"),
        ("anchors (cells)", anchors),
    ]  # fmt: skip


def read_curves(file: Path) -> dict[str, list[tuple[float, float]]]:
    """metrics.csv as name -> [(epoch, value)]. Raises UserError where it is absent or not such a file."""
    found: dict[str, list[tuple[float, float]]] = {}
    try:
        with file.open(newline="", encoding="utf-8") as text:
            for row in csv.DictReader(text):
                for name, value in row.items():
                    if value and name not in ("epoch", "step"):
                        found.setdefault(name, []).append((float(row["epoch"]) + 1, float(value)))
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{file}: not the curves of a run ({error})") from None
    return found


def curves_figure(curves: dict[str, list[tuple[float, float]]]) -> Figure:
    """Loss terms on the left, validation mAP on the right, both against epochs."""
    figure = Figure(figsize=(9.5, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for term, line in zip(TERMS, LINES, strict=True):
        if points := curves.get(f"{term}_epoch"):
            left.plot(*zip(*points, strict=True), linestyle=line, label=term)
    left.set(xlabel="epoch", ylabel="loss term, mean of an epoch", yscale="log")
    if left.lines:
        left.legend(fontsize="small", ncols=2)
    if points := curves.get("val/mAP"):
        right.plot(*zip(*points, strict=True), marker="o", markersize=3, color="black")
    right.set(xlabel="epoch", ylabel="validation mAP@0.5", ylim=(0, 1))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def svg(figure: Figure) -> str:
    """A figure as an <svg> element."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def data_uri(picture: Image.Image) -> str:
    """A picture as a data: address, so that the page needs no other file."""
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
