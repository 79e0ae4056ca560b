"""detect: images become drawn images and detections.json."""

from __future__ import annotations

import json
import logging
import os
import signal
import unicodedata
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lookonce.console import track
from lookonce.data.images import BATCH, Decoded, load_rgb, usable_cores
from lookonce.data.lookup import find_images
from lookonce.errors import ImageError, Interrupted, UserError
from lookonce.evaluation.evaluate import SCORE_THRESHOLD
from lookonce.files import new_folder, numbered_folder, replacing, sweep
from lookonce.inference.backends.settings import BackendName, Precision
from lookonce.inference.detector import Detector, write_entry
from lookonce.inference.draw import draw
from lookonce.model.detections import Detections
from lookonce.model.postprocess import Selection

log = logging.getLogger("lookonce")
DETECTIONS = Path("detections")
RESULT = "detections.json"
LONGEST = 200
"""Bytes of a drawn image's name before its number and ending; file systems take 255."""
LOOKED_AT = 2 * BATCH
"""Files looked at once more where nothing was found on any, for the scores that did not pass."""


@dataclass
class Summary:
    """What `lookonce detect` did."""

    out: Path
    images: int = 0
    skipped: int = 0
    detections: int = 0
    highest: float = 0.0
    """Where nothing was found: the best score on the first LOOKED_AT files, thresholds aside."""

    def add(self, found: Detections) -> None:
        """Count an image and what was found on it."""
        self.images += 1
        self.detections += len(found)

    def __str__(self) -> str:
        text = f"{self.detections} detections on {self.images} images: {self.out / 'detections.json'}"
        if self.skipped:
            text += f"; {self.skipped} images skipped"
        if not self.detections:
            seen = "" if self.images + self.skipped <= LOOKED_AT else f" on the first {LOOKED_AT} images"
            text += (
                f"; nothing passed the threshold, and the highest score{seen} is {self.highest:.3f} (see --threshold)"
            )
        return text


def detect(
    model: Path,
    images: list[str],
    *,
    out: Path | None = None,
    overwrite: bool = False,
    threshold: float | None = None,
    iou_threshold: float = 0.45,
    save_images: Annotated[bool, Parameter(negative="--no-save-images")] = True,
    backend: BackendName = "auto",
    device: str | None = None,
    precision: Precision = "auto",
) -> Summary:
    """Find objects in images.

    Args:
        model: Model file, run folder, Darknet .cfg with its .weights beside it, or exported .onnx or .xml.
        images: Files, folders or patterns such as "holiday/*.jpg".
        out: New or empty folder for the images with boxes and detections.json (boxes xyxy, in pixels of the upright
            image); none: detections, or detections-2, detections-3, ... if that exists.
        overwrite: Write into a folder that holds files. Only what an earlier detect wrote there is replaced.
        threshold: Lowest score of a detection; none: the model's own threshold of each class, from validation.
        iou_threshold: Non-maximum suppression: of two boxes of a class with a higher IoU than this, keep the better.
        save_images: Write each image with its boxes.
        backend: Library that runs the network; auto: the fastest that is installed.
        device: cpu, cuda, or tensorrt (onnxruntime only); none: the backend's default.
        precision: fp32 or bf16 (boxes within 1 px of fp32); auto: bf16 if the processor supports it.
    Returns:
        A summary. An image that cannot be read is reported, skipped and counted.
    Raises:
        UserError: no image found or none that can be read, a model that cannot be read, an output folder that holds
            files.
        Interrupted: Ctrl-C; the detections so far are written.
    """
    place = numbered_folder(DETECTIONS, start=2) if out is None else new_folder(Path(out).expanduser(), overwrite)
    with place as folder:
        detector = Detector(model, backend, device=device, precision=precision, throughput=True, threshold=threshold,
                            iou_threshold=iou_threshold)  # fmt: skip
        files = [file for pattern in images for file in find_images(pattern)]
        if overwrite:
            _remove_earlier(folder, files)
        return _write_all(detector, str(model), files, Summary(folder), save_images)


def _write_all(detector: Detector, model: str, files: list[str], summary: Summary, save_images: bool) -> Summary:
    """Detect on every file; what is found before a stop is kept."""
    stopped = False
    with replacing(summary.out / RESULT) as beside, beside.open("w", encoding="utf-8", newline="\n") as text:
        text.write(json.dumps({"model": model, "labels": detector.labels})[:-1] + ', "images": [')
        try:
            for file, found, name in _found(detector, files, summary, save_images):
                write_entry(text, file, found, first=summary.images == 0, drawn=name)
                summary.add(found)
        except KeyboardInterrupt:
            stopped = True
        text.write("\n]}\n")
        if not summary.images:
            raise _nothing_done(stopped, summary.skipped, files[0])
    summary.highest = 0.0 if summary.detections else _highest_score(detector, files)
    if stopped:
        raise Interrupted(f"stopped: {summary}, of {len(files)}", signal.SIGINT)
    return summary


def _remove_earlier(folder: Path, files: list[str]) -> None:
    """Remove what an earlier detect wrote into a folder: its detections.json and the drawn images that this names."""
    sweep(folder)
    result = folder / RESULT
    try:
        earlier = json.loads(result.read_bytes())
        entries = earlier["images"] if "images" in earlier else earlier["pictures"]  # "pictures": version 0.1
        names = [entry.get("drawn") for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return  # none, or not ours: its place alone is taken
    inputs = {Path(file).resolve() for file in files}
    for name in names:
        if isinstance(name, str) and name.endswith(".jpg") and Path(name).name == name and "\\" not in name:
            path = folder / name
            if path.resolve() not in inputs and path.is_file():
                path.unlink()


def _nothing_done(stopped: bool, skipped: int, first: str) -> Interrupted | UserError:
    if stopped:
        return Interrupted("stopped before the first image", signal.SIGINT)
    return UserError(f"none of the {skipped} images could be read; the first: {first}")


Found = tuple[str, Detections, str | None]
"""A file, what was found on it, and the name of the drawn image."""


def _found(detector: Detector, files: list[str], summary: Summary, save_images: bool) -> Iterator[Found]:
    """Detections file by file, in order; drawn behind, in threads, while the network runs."""
    taken = {_alike(path.name) for path in summary.out.iterdir()}  # an image of the user's is never replaced
    paths = track(files, "detecting")
    with ThreadPoolExecutor(usable_cores()) as pool:
        drawings: deque[Future[None]] = deque()
        for file, image, found in detector.detect_files(paths):
            if isinstance(image, ImageError):
                log.warning("skipped %s", image)
                summary.skipped += 1
                continue
            name = _free_name(Path(file).stem, taken) if save_images else None
            if name is not None:
                drawings.append(pool.submit(_draw, file, image, found, summary.out / name))
            if len(drawings) > BATCH:
                drawings.popleft().result()
            yield file, found, name
        while drawings:
            drawings.popleft().result()


def _highest_score(detector: Detector, files: list[str]) -> float:
    """The best score on the first LOOKED_AT files, thresholds aside."""
    everything = detector.detect_files(files[:LOOKED_AT], Selection(SCORE_THRESHOLD))
    return max(float(found.scores.max(initial=0)) for _, _, found in everything)


def _draw(file: str, image: Decoded, found: Detections, place: Path) -> None:
    whole = load_rgb(file) if image.reduced else image.pixels
    with replacing(place) as beside:
        draw(whole, found).save(beside, quality=90)


def _free_name(stem: str, taken: set[str]) -> str:
    """A file name that nothing before has taken; it is taken from now on."""
    while len(os.fsencode(stem)) > LONGEST:
        stem = stem[:-1]
    name, number = f"{stem}.jpg", 2
    while _alike(name) in taken:
        name, number = f"{stem}-{number}.jpg", number + 1
    taken.add(_alike(name))
    return name


def _alike(name: str) -> str:
    """What two names share that are one file on some systems: case and the form of accents do not count there."""
    return unicodedata.normalize("NFC", name).casefold()
