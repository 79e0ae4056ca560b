"""What tiles are worth: AP by size and time an image, of whole images alone and with their tiles."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from lookonce.console import rendered
from lookonce.data.anchors import SIZES
from lookonce.data.dataset import Dataset
from lookonce.data.tiles import Tiling
from lookonce.evaluation.average_precision import Rules
from lookonce.evaluation.coco import score_coco
from lookonce.evaluation.evaluate import analyse, detect_all
from lookonce.evaluation.hierarchy import in_use
from lookonce.inference.detector import Detector
from lookonce.model.boxes import area
from lookonce.model.detections import Detections

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Seen:
    """The score and the time of one way to look at images."""

    ap: float | None
    """Mean over classes by the evaluation's protocol; None: no objects."""
    by_size: dict[str, float | None]
    """The same of small, medium and large objects, by their side in image pixels: SIZES."""
    milliseconds: float
    """Time an image, decoding included."""


@dataclass(frozen=True)
class TilingScore:
    """Whole images alone, and with tiles."""

    tiling: Tiling
    parts: float
    """Tiles an image on average, the whole image among them."""
    objects: dict[str, int]
    """Objects of each size."""
    whole: Seen
    tiled: Seen

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        ways = {name: vars(way) for name, way in (("whole", self.whole), ("tiled", self.tiled))}
        return {**self.tiling.to_json(), "parts": round(self.parts, 2), "objects": self.objects, **ways}

    def __rich__(self) -> Table:
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
        for heading in ("", "AP", *(f"{size} ({self.objects[size]:,})" for size in self.objects), "ms an image"):
            table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
        for name, way in (("whole images", self.whole), ("and tiles", self.tiled)):
            table.add_row(name, *map(_score, (way.ap, *way.by_size.values())), f"{way.milliseconds:.1f}")
        return table

    @property
    def line(self) -> str:
        """The setting in one line."""
        return f"{self.tiling}; {self.parts:.1f} parts an image, the whole among them"

    @property
    def sentence(self) -> str:
        """All of it in one line, for a page."""
        ways = []
        for name, way in (("whole images", self.whole), ("and tiles", self.tiled)):
            sizes = ", ".join(f"{size} {_score(value)}" for size, value in way.by_size.items())
            ways.append(f"{name}: AP {_score(way.ap)} ({sizes}), {way.milliseconds:.1f} ms an image")
        return "; ".join((self.line, *ways))

    def __str__(self) -> str:
        return f"{self.line}\n{rendered(self, blank_lines=False)}"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def timed(detector: Detector, dataset: Dataset) -> tuple[list[Detections], int, float]:
    """Return what detect_all returns, and the seconds that it took; the first image is looked at before."""
    for _ in detector.detect_files([record.path for record in islice(dataset.records, 1)]):
        pass
    start = time.perf_counter()
    return *detect_all(detector, dataset), time.perf_counter() - start


def score_tiling(detector: Detector, dataset: Dataset, tiled: tuple[Sequence[Detections], float], rules: Rules,
                 coco: bool) -> TilingScore:  # fmt: skip
    """Detect on whole images alone, and compare that with tiles.

    Args:
        detector: that looks at tiles.
        dataset: the images.
        tiled: what it found on them, and in how many seconds.
        rules: of the scores.
        coco: score by COCO's rules in place of these.
    """
    assert detector.tiling is not None
    found, _, seconds = timed(Detector(detector.backend), dataset)
    parts = [len(detector.tiling.of((width, height))) for width, height in dataset.sizes.tolist()]
    sides = np.sqrt(area(dataset.boxes.astype(np.float64)))
    objects = {size: int(((sides >= low) & (sides < high)).sum()) for size, low, high in SIZES}
    ways = []
    for detections, taken in ((found, seconds), tiled):
        known = [one.of_classes(dataset.labels) for one in detections]
        ways.append(_seen(*in_use(dataset, known, detector.about.tree), taken, rules, coco))
    return TilingScore(detector.tiling, sum(parts) / max(len(parts), 1), objects, *ways)


def _seen(dataset: Dataset, detections: Sequence[Detections], seconds: float, rules: Rules, coco: bool) -> Seen:
    """Return the score of detections that took so many seconds. coco: by COCO's rules."""
    each = 1000 * seconds / max(len(dataset), 1)
    if coco:
        numbers = score_coco(dataset, detections).numbers
        return Seen(numbers["AP"], {size: numbers[f"AP {size}"] for size, *_ in SIZES}, each)
    found = analyse(dataset, detections, rules, bootstrap=0)
    return Seen(found.metrics.mean_ap, {one.size: one.mean_ap for one in found.sizes}, each)
