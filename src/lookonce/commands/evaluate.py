"""evaluate: a detector, or its detections in files, and labelled images give a Report."""

from __future__ import annotations

import html
import logging
import platform
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from lookonce import __version__
from lookonce.choices import choose
from lookonce.commands.arguments import AnyPath, check_order, expanded, several
from lookonce.data.class_tree import read_for
from lookonce.data.dataset import Dataset
from lookonce.data.read import read_whole, settle
from lookonce.data.remote import as_address, is_there
from lookonce.data.tiles import OVERLAP, check_overlap, read_tile
from lookonce.errors import ConfigError, UserError, plural, printable
from lookonce.evaluation.average_precision import Metrics, Rules
from lookonce.evaluation.coco import TITLE, CocoMetrics, score_coco
from lookonce.evaluation.evaluate import SCORE_THRESHOLD, Analysis, Difficult, Protocol, analyse
from lookonce.evaluation.hierarchy import HierarchyScore, in_use, score_hierarchy
from lookonce.evaluation.result_files import holds_detections, read_detections
from lookonce.evaluation.tiling import TilingScore, score_tiling, timed
from lookonce.files import check_output
from lookonce.inference.backends.settings import BackendInfo, BackendName, Precision
from lookonce.inference.detector import Detector
from lookonce.model.detections import Detections
from lookonce.training.config import RunConfig

if TYPE_CHECKING:
    from rich.console import RenderableType


log = logging.getLogger("lookonce")


@dataclass(frozen=True, repr=False)
class Report:
    """What a detector scored, and on what."""

    metrics: Metrics
    """By VOC's rules; under protocol coco AP50 as VOC 2010 has it, with difficult objects counted."""
    model: str
    """Name of a published model, or path."""
    data: str
    split: str | None
    skipped: int
    """Images that could not be decoded: their objects count as missed."""
    analysis: Analysis
    """Errors by kind, confusion, calibration, sizes."""
    coco: CocoMetrics | None = None
    """COCO's numbers, where that is the protocol."""
    page: Path | None = None
    backend: BackendInfo | None = None
    """What ran the model; None: the detections were read from files."""
    model_digest: str | None = None
    """"sha256:..." of the model's files; of a published model of its weights."""
    hierarchy: HierarchyScore | None = None
    """Scores along the tree of the model's classes; None: it has none."""
    tiling: TilingScore | None = None
    """What tiles changed, and their cost; None: there are none."""

    @property
    def versions(self) -> dict[str, str]:
        """Of all that had a part in the score."""
        found = {"lookonce": __version__, "python": platform.python_version(), "numpy": version("numpy")}
        if self.backend is not None:
            found[self.backend.name] = self.backend.version
        if self.coco is not None:
            found["faster-coco-eval"] = version("faster-coco-eval")
        return found

    @property
    def computed_by(self) -> str:
        """Backend, precision and device, in words."""
        return "detections read from files" if self.backend is None else str(self.backend)

    def __repr__(self) -> str:
        """Return one line; `print` shows the tables."""
        score = "unknown: no objects" if self.mean_ap is None else f"{self.mean_ap:.3f}"
        images, objects = self.metrics.images, sum(c.objects for c in self.metrics.classes)
        name = "AP" if self.coco else f"mAP@{self.metrics.rules.iou_threshold:g}"
        return (
            f"Report({name} {score}, {plural(images, 'image')}, {plural(objects, 'object')}, {printable(self.model)})"
        )

    def _repr_html_(self) -> str:
        """Return the tables for notebooks."""
        return f"<pre>{html.escape(str(self))}</pre>"

    def to_json(self) -> dict[str, Any]:
        """The scores as plain values, with what computed them."""
        classes = [{"name": c.name, "ap": c.ap, "objects": c.objects, "detections": c.detections, "recall": c.recall}
                   for c in self.metrics.classes]  # fmt: skip
        return {
            "model": self.model, "model_digest": self.model_digest, "data": self.data, "split": self.split,
            "images": self.metrics.images, "skipped": self.skipped, "rules": str(self.metrics.rules),
            "mean_ap": self.mean_ap, "interval": self.metrics.interval, "classes": classes,
            "coco": self.coco and self.coco.numbers,
            "sizes": {one.size: {"ap": one.mean_ap, "objects": one.objects} for one in self.analysis.sizes},
            **({} if self.hierarchy is None else {"hierarchy": asdict(self.hierarchy)}),
            **({} if self.tiling is None else {"tiling": self.tiling.to_json()}),
            "backend": None if self.backend is None else self.backend.to_json(), "versions": self.versions,
            "page": None if self.page is None else str(self.page),
        }  # fmt: skip

    @property
    def mean_ap(self) -> float | None:
        """The protocol's mAP, 0..1; None: no objects."""
        return self.coco.numbers["AP"] if self.coco else self.metrics.mean_ap

    def __rich__(self) -> RenderableType:
        return (self.coco or self.metrics).__rich__()

    def __str__(self) -> str:
        lines = [f"{self.model} on {self.data} ({self.split or 'all'}); {self.computed_by}"]
        lines += [str(self.coco)] if self.coco else []
        kinds = (
            f"{k.name} {'' if k.cost is None else f'{k.cost:.3f} '}({k.count:,})" for k in self.analysis.errors.dearest
        )
        lines += [
            str(self.metrics),
            f"mAP@{self.metrics.rules.iou_threshold:g} lost to each kind of error: {', '.join(kinds)}",
        ]
        lines += [str(each) for each in (self.hierarchy, self.tiling) if each]
        return "\n".join([*lines, *([f"page: {self.page}"] if self.page else [])])


def evaluate(
    model: AnyPath,
    data: AnyPath | None = None,
    *,
    split: str = "test",
    labels: Sequence[str] | None = None,
    protocol: Protocol = "voc2010",
    iou_threshold: float = 0.5,
    difficult: Difficult | None = None,
    bootstrap: int = 1000,
    backend: BackendName = "auto",
    device: str | None = None,
    precision: Precision = "fp32",
    tile: str | None = None,
    overlap: float = OVERLAP,
    flip: bool = False,
    report: AnyPath | None = None,
    overwrite: bool = False,
) -> Report:
    """Score a detector on labelled images.

    Args:
        model: Name of a published model (see lookonce models), model file, run folder, Darknet .cfg with its .weights
            beside it, or exported .onnx or .xml. Or existing detections: what detect wrote, a COCO result .json, or a
            folder of IMAGE.txt files with lines "class score xmin ymin xmax ymax" or YOLO's "class cx cy w h score".
        data: Data set: its folder, or its COCO .json, data.yaml or obj.data; none: the one that the run was trained on.
        split: Split to score; all: every image.
        labels: Score these classes only; none: the classes that the model knows, or all of the data set.
        protocol: How AP is computed: voc2007 (11 points), voc2010 (area under the curve) or coco (12 metrics).
        iou_threshold: IoU from which a detection is a true positive. COCO's own metrics do not change with it.
        difficult: ignore: difficult objects do not count for or against; count: they count like others; none: ignore
            for VOC, count for COCO.
        bootstrap: Resamples of the images for the interval of mAP; 0: no interval.
        backend: Library that runs the network; auto: the fastest that is installed.
        device: cpu or cuda; none: the backend's default.
        precision: fp32, so that two machines agree; bf16; int8; or auto, as detect has it. An int8 file stays int8.
        tile: Look at tiles of the images, too, and compare AP by size and time with whole images alone: a size such as
            640x480 image pixels, or auto, as in detect; none: no tiles.
        overlap: Smallest part of a tile that its neighbour shows too, 0 to below 1.
        flip: Also look at the mirror image and average both: more accurate, at twice the time.
        report: Write an .html page: curves, confusion matrix, calibration, errors by kind, examples.
        overwrite: Replace the page if it exists, or write it into the data set's folder.
    Returns:
        Report: AP of each class, mAP with its interval, the rules, the errors by kind, and what computed it.
    Raises:
        UserError: a model or data set that cannot be read; classes that only one of the two knows.
    """
    model, report = expanded(model), None if report is None else expanded(report)
    data = _data_of(model) if data is None else expanded(data)
    check_order(model, data, "lookonce evaluate MODEL DATA")
    labels = None if labels is None else several(labels)
    protocol = choose(protocol, get_args(Protocol), "protocol")
    if difficult is not None:
        difficult = choose(difficult, get_args(Difficult), "difficult")
    rules = _rules(protocol, iou_threshold, difficult)
    if report is not None and report.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"report: {report}; expected a name that ends in .html")
    if report is not None:
        check_output(report, overwrite, data)
    check_overlap(overlap)
    tile_size = None if tile is None else read_tile(tile)
    chosen = None if split == "all" else split
    detector = tiling = None
    if holds_detections(model):
        if tile is not None:
            raise ConfigError(f"tile: the detections are read from {model}; leave it out, or give the model")
        dataset, detections = _from_files(model, data, chosen, labels)
        info: BackendInfo | None
        size: tuple[int, int] | None
        digest: str | None
        rules, skipped, info, size = replace(rules, score_threshold=None), 0, None, None
        name, digest = str(model), None
    else:
        detector = Detector(model, backend, device=device, precision=precision, throughput=True, tile=tile_size,
                            overlap=overlap, flip=flip)  # fmt: skip
        [dataset] = read_for(detector.labels, detector.about.tree, data, [chosen], labels)
        detections, skipped, seconds = timed(detector, dataset)
        if detector.tiling is not None:
            tiling = score_tiling(detector, dataset, (detections, seconds), rules, protocol == "coco")
        detections = [one.of_classes(dataset.labels) for one in detections]
        info, size = detector.backend.info, detector.about.input_size
        name, digest = detector.name, detector.digest
    tree = None if detector is None else detector.about.tree
    hierarchy = None if tree is None else score_hierarchy(dataset, detections, tree, rules)
    dataset, detections = in_use(dataset, detections, tree)
    analysis = analyse(dataset, detections, rules, bootstrap)
    coco = score_coco(dataset, detections) if protocol == "coco" else None
    result = Report(analysis.metrics, name, as_address(data), split, skipped, analysis, coco, report, info, digest,
                    hierarchy, tiling)  # fmt: skip
    if report is not None:
        _write_page(result, dataset, size, {
            "split": split, "labels": labels, "protocol": protocol, "iou-threshold": iou_threshold,
            "difficult": difficult, "bootstrap": bootstrap, "backend": backend, "device": device,
            "precision": precision, "tile": tile, "overlap": None if tile is None else overlap, "flip": flip,
            "report": report,
        })  # fmt: skip
    return result


def _data_of(model: Path) -> Path:
    """Return the data set that a run was trained on. Raises ConfigError if the model is not in a run folder."""
    file = (model if model.is_dir() else model.parent) / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"evaluate: DATA is missing, and {model} is not a run that knows its data; usage: lookonce "
                          "evaluate MODEL DATA [OPTIONS]")  # fmt: skip
    data = Path(RunConfig.from_yaml(file.read_bytes(), file).data)
    if not is_there(data):
        raise ConfigError(f"{data}: the data of {file.parent} is not there; give its new path: lookonce evaluate "
                          f"{file.parent} DATA")  # fmt: skip
    return data


def _rules(protocol: Protocol, iou_threshold: float, difficult: Difficult | None) -> Rules:
    if protocol != "coco":
        return Rules(protocol, iou_threshold, difficult or "ignore", SCORE_THRESHOLD)
    if difficult == "ignore":
        raise ConfigError(
            "difficult: 'ignore' under protocol coco, which ignores crowds alone; expected count, or none"
        )
    return Rules("voc2010", iou_threshold, "count", SCORE_THRESHOLD)


def _from_files(path: Path, data: Path, split: str | None, labels: tuple[str, ...] | None
                ) -> tuple[Dataset, list[Detections]]:  # fmt: skip
    """The images of a split, there or not, and what the files say was found on them."""
    whole = read_whole(data, labels, images_optional=True)
    dataset = whole.dataset.select(whole.members(split))
    if not len(dataset):
        raise UserError(f"{data}: split {split!r} has no images; expected some to score detections on")
    settle(whole.problems_of(split), "drop", str(data))
    found = read_detections(path, whole, split)
    return dataset, [one.of_classes(dataset.labels) for one in found]


def _write_page(report: Report, dataset: Dataset, size: tuple[int, int] | None, options: dict[str, object]) -> None:
    from lookonce.report.evaluation_page import write_evaluation_report

    assert report.page is not None
    facts = _facts(report, dataset, options)
    write_evaluation_report(report.page, dataset, report.analysis, report.coco, facts, size)


def _facts(report: Report, dataset: Dataset, options: dict[str, object]) -> list[tuple[str, str]]:
    """What stands in the page's table, so that the numbers can be had again."""
    words = ["lookonce", "evaluate", report.model, report.data]
    for name, value in options.items():
        if value is not None:
            words += [f"--{name}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    objects = f"{len(dataset)} images, {len(dataset.boxes)} objects, {len(dataset.labels)} classes"
    unread = f", {report.skipped} that could not be decoded" if report.skipped else ""
    return [
        ("protocol", f"{TITLE}; all else: {report.metrics.rules}" if report.coco else str(report.metrics.rules)),
        ("data", f"{report.data}, split {report.split}: {objects}{unread}"),
        ("detector", ", ".join(filter(None, (report.model, report.model_digest)))),
        *([] if report.tiling is None else [("tiles", report.tiling.sentence)]),
        ("command", shlex.join(words)),
        ("computed by", report.computed_by),
        ("versions", ", ".join(f"{name} {number}" for name, number in report.versions.items())),
    ]
