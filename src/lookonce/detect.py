"""detect: pictures become drawn pictures and detections.json."""

from __future__ import annotations

import json
import logging
import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import track

from lookonce.cores import usable_cores
from lookonce.data.pictures import BATCH, Decoded, find_pictures, load_rgb
from lookonce.detections import Detections
from lookonce.detector import Detector
from lookonce.errors import Interrupted, PictureError, UserError
from lookonce.evaluation import SCORE_THRESHOLD
from lookonce.files import replacing
from lookonce.postprocess import Selection
from lookonce.runtimes.settings import Precision, RuntimeName
from lookonce.view.draw import draw

log = logging.getLogger("lookonce")

LOOKED_AT = 2 * BATCH
"""Files looked at once more where nothing was found on any, for the scores that did not pass."""


@dataclass
class Summary:
    """What `lookonce detect` did."""

    out: Path
    pictures: int = 0
    skipped: int = 0
    detections: int = 0
    highest: float = 0.0
    """Where nothing was found: the best score on the first LOOKED_AT files, thresholds aside."""

    def add(self, found: Detections) -> None:
        """Count a picture and what was found on it."""
        self.pictures += 1
        self.detections += len(found)

    def __str__(self) -> str:
        said = f"{self.detections} detections on {self.pictures} pictures: {self.out / 'detections.json'}"
        if self.skipped:
            said += f"; {self.skipped} pictures skipped"
        if not self.detections:
            seen = "" if self.pictures + self.skipped <= LOOKED_AT else f" on the first {LOOKED_AT} pictures"
            said += (
                f"; nothing passed the threshold, and the highest score{seen} is {self.highest:.3f} (see --threshold)"
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
    runtime: RuntimeName = "auto",
    device: str | None = None,
    precision: Precision = "auto",
) -> Summary:
    """Find objects on pictures.

    Args:
        model: a model file, the folder of a run, a Darknet .cfg beside its .weights, or an exported .onnx or .xml.
        pictures: files, folders or patterns such as "holiday/*.jpg".
        out: folder for the drawn pictures and detections.json (boxes xyxy, pixels of the picture as seen).
        threshold: lowest score of a detection; none: the model's own, for each class, from validation.
        iou_threshold: of two boxes of one class that overlap more than this, the better stays.
        drawn: also write each picture with its detections drawn.
        runtime: what runs the network; auto: the fastest at hand.
        device: where it runs: cpu, cuda, or tensorrt of onnxruntime; none: the runtime's own choice.
        precision: auto: bf16 where the processor has instructions for it (boxes within 1 px), else fp32.
    Returns:
        A summary. A picture that cannot be read is reported, skipped and counted.
    Raises:
        UserError: no pictures found, a model that cannot be read, no picture that could be read.
        Interrupted: Ctrl-C; what was found so far is written.
    """
    detector = Detector(model, runtime, device=device, precision=precision, throughput=True, threshold=threshold,
                        iou_threshold=iou_threshold)  # fmt: skip
    files = [file for pattern in pictures for file in find_pictures(pattern)]
    summary = Summary(Path(out))
    stopped = False
    with replacing(summary.out / "detections.json") as beside, beside.open("w", encoding="utf-8", newline="\n") as text:
        text.write(json.dumps({"model": str(model), "labels": detector.labels})[:-1] + ', "pictures": [')
        try:
            for file, found in _found(detector, files, summary, drawn):
                write_entry(text, file, found, first=summary.pictures == 0)
                summary.add(found)
        except KeyboardInterrupt:
            stopped = True
        text.write("\n]}\n")
        if not summary.pictures:
            raise _nothing_done(stopped, summary.skipped, files[0])
    summary.highest = 0.0 if summary.detections else _highest_score(detector, files)
    if stopped:
        raise Interrupted(f"stopped: {summary}, of {len(files)}", signal.SIGINT)
    return summary


def _nothing_done(stopped: bool, skipped: int, first: str) -> Interrupted | UserError:
    if stopped:
        return Interrupted("stopped before the first picture", signal.SIGINT)
    return UserError(f"none of the {skipped} pictures could be read; the first: {first}")


def _found(detector: Detector, files: list[str], summary: Summary, drawn: bool) -> Iterator[tuple[str, Detections]]:
    """Detections file by file, in order; drawn behind, in threads, while the network runs."""
    names: set[str] = set()
    paths = track(files, "detecting", console=Console(stderr=True), transient=True)
    with ThreadPoolExecutor(usable_cores()) as pool:
        drawings: deque[Future[None]] = deque()
        for file, picture, found in detector.detect_files(paths):
            if isinstance(picture, PictureError):
                log.warning("skipped %s", picture)
                summary.skipped += 1
                continue
            if drawn:
                place = summary.out / _free_name(Path(file).stem, names)
                drawings.append(pool.submit(_draw, file, picture, found, place))
            if len(drawings) > BATCH:
                drawings.popleft().result()
            yield file, found
        while drawings:
            drawings.popleft().result()


def _highest_score(detector: Detector, files: list[str]) -> float:
    """The best score on the first LOOKED_AT files, thresholds aside."""
    everything = detector.detect_files(files[:LOOKED_AT], Selection(SCORE_THRESHOLD))
    return max(float(found.scores.max(initial=0)) for _, _, found in everything)


def _draw(file: str, picture: Decoded, found: Detections, place: Path) -> None:
    whole = load_rgb(file) if picture.reduced else picture.pixels
    with replacing(place) as beside:
        draw(whole, found).save(beside, quality=90)


def _free_name(stem: str, taken: set[str]) -> str:
    """A file name that no picture before has taken."""
    name, number = f"{stem}.jpg", 2
    while name.lower() in taken:
        name, number = f"{stem}-{number}.jpg", number + 1
    taken.add(name.lower())
    return name


def write_entry(text: TextIO, file: str, found: Detections, first: bool) -> None:
    """Write one picture's detections as an element of a JSON list. first: nothing stands before it."""
    entry = {"file": file, "detections": found.to_json()}
    text.write(("" if first else ",") + "\n" + json.dumps(entry))
