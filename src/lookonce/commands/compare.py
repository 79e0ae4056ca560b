"""compare: two runs on the same images: which is better, in which classes, and on which images they differ."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookonce.commands.arguments import AnyPath, expanded, several
from lookonce.console import cell, rendered
from lookonce.data.dataset import Dataset
from lookonce.data.read import read_dataset
from lookonce.data.remote import is_there
from lookonce.errors import ConfigError, UserError, printable
from lookonce.evaluation.compare import Change, changes
from lookonce.evaluation.evaluate import RULES, Analysis, analyse, detect_all
from lookonce.files import check_output, free_name
from lookonce.inference.backends.settings import BackendName, Precision
from lookonce.inference.detector import Detector
from lookonce.inference.pretrained_models import model_path
from lookonce.training.config import RunConfig

if TYPE_CHECKING:
    from rich.table import Table

log = logging.getLogger("lookonce")
MOST_CLASSES = 20
"""Classes in the printed table; the page has all."""
WIDTH = 80
NAME_WIDTH = 28


@dataclass(frozen=True)
class RunComparison:
    """Scores of two runs, A and B, on the same images."""

    run_a: str
    run_b: str
    data: str
    split: str
    images: int
    changes: tuple[Change, ...]
    """The mean, then each class; `before` is A, `after` is B."""
    page: Path
    computed_by: str
    """Backend, precision and device of both."""

    @property
    def verdict(self) -> str:
        """Which run is better, in one sentence."""
        mean = self.changes[0]
        if mean.difference is None or mean.interval is None:
            return "No objects, so the runs cannot be compared"
        low, high = mean.interval
        numbers = f"mAP {mean.before:.3f} -> {mean.after:.3f} ({mean.difference:+.3f}, 95 % {low:+.3f} to {high:+.3f})"
        if not mean.clear:
            return f"No clear difference: {numbers}"
        return f"{'B' if mean.difference > 0 else 'A'} is better: {numbers}"

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        rows = [{"name": c.name, "a": c.before, "b": c.after, "difference": c.difference, "interval": c.interval}
                for c in self.changes]  # fmt: skip
        return {"a": self.run_a, "b": self.run_b, "data": self.data, "split": self.split, "images": self.images,
                "mean": rows[0], "classes": rows[1:], "computed_by": self.computed_by,
                "page": str(self.page)}  # fmt: skip

    def __rich__(self) -> Table:
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE)
        table.add_column("class", max_width=NAME_WIDTH, overflow="ellipsis", no_wrap=True)
        for heading in ("A", "B", "B - A", "95 % interval", ""):
            table.add_column(heading, justify="right", no_wrap=True)
        mean, *classes = self.changes
        shown = sorted(classes, key=lambda c: -abs(c.difference or 0))[:MOST_CLASSES]
        for c in (*shown, mean):
            ap = ("-" if value is None else f"{value:.3f}" for value in (c.before, c.after))
            apart = "-" if c.difference is None else f"{c.difference:+.3f}"
            interval = "-" if c.interval is None else f"{c.interval[0]:+.3f} to {c.interval[1]:+.3f}"
            table.add_row(cell(c.name), *ap, apart, interval, "*" if c.clear else "")
        if len(classes) > len(shown):
            table.caption = f"and {len(classes) - len(shown)} classes that differ less"
        return table

    def __str__(self) -> str:
        lines = [
            f"A: {printable(self.run_a)}",
            f"B: {printable(self.run_b)}",
            f"on {self.images:,} images of {printable(self.data)} ({self.split}), {self.computed_by}",
            rendered(self, WIDTH, blank_lines=False),
            "*: the interval excludes 0",
            self.verdict,
            f"page: {self.page}",
        ]
        return "\n".join(lines)


def compare(
    run_a: AnyPath,
    run_b: AnyPath,
    data: AnyPath | None = None,
    *,
    split: str = "test",
    labels: Sequence[str] | None = None,
    bootstrap: int = 1000,
    backend: BackendName = "auto",
    device: str | None = None,
    precision: Precision = "fp32",
    report: AnyPath | None = None,
    overwrite: bool = False,
) -> RunComparison:
    """Compare two runs on the same images, and write a page: curves, classes, images where they differ, settings.

    Args:
        run_a: Folder of a run, or a model file.
        run_b: Folder of another run, or a model file.
        data: Data set to compare on; none: the one that both runs were trained on.
        split: Split to score; all: every image.
        labels: Compare these classes only; none: the classes that both know.
        bootstrap: Resamples of the images for the intervals.
        backend: Library that runs both networks; auto: the fastest that is installed.
        device: cpu or cuda; none: the backend's default.
        precision: fp32, so that two machines agree; bf16; int8; or auto, as detect has it.
        report: Name of the page, which ends in .html; none: compare-A-B.html, numbered if it exists.
        overwrite: Replace the page if it exists, or write it into the data set's folder.
    Returns:
        RunComparison: AP of each class with both, differences with their intervals, and the page.
    Raises:
        UserError: a model or data set that cannot be read; runs of different data, without DATA; no common class.
    """
    report = None if report is None else expanded(report)
    if report is not None and report.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"report: {report}; expected a name that ends in .html")
    if bootstrap < 1:
        raise ConfigError(f"bootstrap: {bootstrap}; expected at least 1: a comparison needs intervals")
    runs = model_path(run_a), model_path(run_b)
    place = expanded(data) if data is not None else common_data(*runs)
    page = free_name(Path(f"compare-{runs[0].stem}-{runs[1].stem}.html")) if report is None else report
    check_output(page, overwrite, place)
    detectors = [Detector(run, backend, device=device, precision=precision, throughput=True) for run in runs]
    of_trees = any(detector.about.tree is not None for detector in detectors)  # the data has some of a tree's classes
    names = several(labels) if labels else None if of_trees else common_labels(runs, detectors)
    dataset = read_dataset(place, None if split == "all" else split, names)
    analyses = tuple(_analysis(detector, dataset, bootstrap) for detector in detectors)
    info = {str(detector.backend.info) for detector in detectors}
    result = RunComparison(
        str(run_a), str(run_b), str(place), split, len(dataset),
        changes(*(analysis.metrics for analysis in analyses)), page, ", ".join(sorted(info)),
    )  # fmt: skip
    from lookonce.report.compare_page import Side, write_compare_page

    sides = tuple(map(Side.of, runs, analyses))
    write_compare_page(page, dataset, sides, result.changes, result.verdict)
    return result


def _analysis(detector: Detector, dataset: Dataset, bootstrap: int) -> Analysis:
    found, _ = detect_all(detector, dataset)
    return analyse(dataset, [one.of_classes(dataset.labels) for one in found], RULES, bootstrap)


def common_data(run_a: Path, run_b: Path) -> Path:
    """Return the data set that both runs were trained on. Raises UserError if they differ or do not say."""
    again = f"name the images to compare on: lookonce compare {run_a} {run_b} DATA"
    places = []
    for run in (run_a, run_b):
        file = run / "config.yaml"
        if not run.exists():
            raise UserError(f"{run}: no such run; expected a run folder or a model file")
        if not file.is_file():
            raise UserError(f"{run}: has no config.yaml that says what data it was trained on; {again}")
        places.append(RunConfig.from_yaml(file.read_bytes(), file).data)
    if places[0] != places[1]:
        raise UserError(f"{run_a} was trained on {places[0]}, {run_b} on {places[1]}; {again}")
    if not is_there(places[0]):
        raise UserError(f"{places[0]}: the data of both runs is not there; if it has moved, {again}")
    return Path(places[0])


def common_labels(runs: tuple[Path, Path], detectors: list[Detector]) -> tuple[str, ...]:
    """Return the classes that both detectors know, in the order of the first; a log line names the others."""
    first, second = (detector.labels for detector in detectors)
    shared = {*first} & {*second}
    both = tuple(name for name in first if name in shared)
    if not both:
        raise UserError(f"{runs[0]} and {runs[1]} have no class in common: the first knows {', '.join(first[:5])}, "
                        f"the second {', '.join(second[:5])}")  # fmt: skip
    others = [name for name in (*first, *second) if name not in shared]
    if others:
        log.warning("only one of the two knows %s; compared on the other %d", ", ".join(others[:10]), len(both))
    return both
