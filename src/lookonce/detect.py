"""detect: pictures become drawn pictures and detections.json."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from lookonce.data.pictures import find_pictures, load_rgb
from lookonce.detections import Detections
from lookonce.detector import Detector
from lookonce.errors import PictureError, UserError
from lookonce.evaluation import SCORE_THRESHOLD
from lookonce.files import replacing
from lookonce.postprocess import Selection
from lookonce.view.draw import draw

log = logging.getLogger("lookonce")


@dataclass
class Summary:
    """What `lookonce detect` did."""

    out: Path
    pictures: int = 0
    skipped: int = 0
    detections: int = 0
    highest: float = 0.0
    """Best score seen, thresholds aside."""

    def __str__(self) -> str:
        said = f"{self.detections} detections on {self.pictures} pictures: {self.out / 'detections.json'}"
        if self.skipped:
            said += f"; {self.skipped} pictures skipped"
        if not self.detections:
            said += (
                f"; nothing passed the threshold, and the highest score seen is {self.highest:.3f} (see --threshold)"
            )
        return said


def detect(
    model: Path,
    pictures: list[str],
    *,
    out: Path = Path("detections"),
    threshold: float | None = None,
    iou_threshold: float = 0.45,
    drawn: bool = True,
) -> Summary:
    """Find objects on pictures.

    Args:
        model: a model file, the folder of a run, or a Darknet .cfg beside its .weights.
        pictures: files, folders or patterns such as "holiday/*.jpg".
        out: folder for the drawn pictures and detections.json (boxes xyxy, pixels of the picture as seen).
        threshold: lowest score of a detection; none: the model's own, for each class, from validation.
        iou_threshold: of two boxes of one class that overlap more than this, the better stays.
        drawn: also write each picture with its detections drawn.
    Returns:
        A summary. A picture that cannot be read is reported, skipped and counted.
    Raises:
        UserError: no pictures found, a model that cannot be read, no picture that could be read.
    """
    detector = Detector(model, threshold=threshold, iou_threshold=iou_threshold)
    files = [file for pattern in pictures for file in find_pictures(pattern)]
    summary = Summary(Path(out))
    with replacing(summary.out / "detections.json") as beside, beside.open("w", encoding="utf-8", newline="\n") as text:
        text.write(json.dumps({"model": str(model), "labels": detector.labels})[:-1] + ', "pictures": [')
        for file, found in _found(detector, files, summary, drawn):
            _write(text, file, found, first=summary.pictures == 1)
        text.write("\n]}\n")
        if not summary.pictures:
            raise UserError(f"none of the {summary.skipped} pictures could be read; the first: {files[0]}")
    return summary


def _found(detector: Detector, files: list[Path], summary: Summary, drawn: bool) -> Iterator[tuple[Path, Detections]]:
    """Detections file by file, in order; each drawn as it comes, so that memory holds one batch."""
    names: set[str] = set()
    for file in files:
        try:
            picture = load_rgb(file)
        except PictureError as error:
            log.warning("skipped %s", error)
            summary.skipped += 1
            continue
        everything = detector.detect([picture], Selection(SCORE_THRESHOLD, detector.selection.iou_threshold))[0]
        found = everything.above(detector.thresholds)
        summary.pictures += 1
        summary.detections += len(found)
        summary.highest = max(summary.highest, float(everything.scores.max(initial=0)))
        if drawn:
            with replacing(summary.out / _free_name(file.stem, names)) as beside:
                draw(picture, found).save(beside, quality=90)
        yield file, found


def _free_name(stem: str, taken: set[str]) -> str:
    """A file name that no picture before has taken."""
    name, number = f"{stem}.jpg", 2
    while name.lower() in taken:
        name, number = f"{stem}-{number}.jpg", number + 1
    taken.add(name.lower())
    return name


def _write(text: TextIO, file: Path, found: Detections, first: bool) -> None:
    entry = {"file": str(file), "detections": found.to_json()}
    text.write(("" if first else ",") + "\n" + json.dumps(entry))
