"""demo: train a detector on embedded data, from labelled images to a report of its detections."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookonce.commands.arguments import AnyPath, expanded
from lookonce.commands.detect import detect
from lookonce.commands.evaluate import evaluate
from lookonce.commands.train import train
from lookonce.data.augmentation import Augmentation
from lookonce.data.dataset import Record, pack
from lookonce.data.digits import write_digits
from lookonce.data.moving_digits import LINE, SIDE, Clip, make_clip
from lookonce.data.read import read_dataset
from lookonce.errors import UserError
from lookonce.evaluation.average_precision import score as score_frames
from lookonce.evaluation.evaluate import RULES, SCORED
from lookonce.evaluation.tracking import TrackingScores
from lookonce.evaluation.tracking import score as score_tracks
from lookonce.files import write_text
from lookonce.inference.detector import Detector
from lookonce.inference.frame_lines import read_lines
from lookonce.inference.sources import Sampling, Source
from lookonce.inference.video_file import VideoFile
from lookonce.model.detections import Detections
from lookonce.report.evaluation_page import first_threshold, sections, whole_images
from lookonce.report.run_page import Page, facts, write_report

log = logging.getLogger("lookonce")
SHOWN = 24
"""Number of test pages in the report."""


ZONES = f"""lines:
  middle: {{points: [[{LINE:g}, 0], [{LINE:g}, {SIDE}]], directions: [left, right]}}
"""
"""The line of the video. Downwards, "in" is from right to left."""
TRACKED_THRESHOLD = 0.5
"""Lowest score of a digit that begins a track. Scores of one place add up to 1: of two classes only one can pass."""


@dataclass(frozen=True)
class VideoResult:
    """What the demo found in its video, and what is true."""

    frames: int
    mean_ap: float
    """Of the frames as images, at IoU .5."""
    tracks: TrackingScores
    counted: dict[str, int]
    """Digits that went over the line, by direction."""
    truth: dict[str, int]
    path: Path
    """The video with boxes, numbers and counts."""

    def __str__(self) -> str:
        counts = ", ".join(f"{way} {self.counted[way]} (truth {true})" for way, true in self.truth.items())
        return (f"video: {self.frames} frames, mAP@0.5 {self.mean_ap:.4f}\n{self.tracks}\n"
                f"counted at the line: {counts}\n{self.path}")  # fmt: skip


@dataclass(frozen=True)
class DemoResult:
    """Score and report of the demo."""

    mean_ap: float | None
    """None: an earlier demo trained the detector."""
    page: Path
    video: VideoResult | None = None

    def __str__(self) -> str:
        score = "" if self.mean_ap is None else f"mAP@0.5 {self.mean_ap:.4f}\n"
        return f"{score}{self.page}" + ("" if self.video is None else f"\n{self.video}")


def demo(folder: AnyPath = Path("lookonce-demo"), *, seed: int = 0, video: bool = False) -> DemoResult:
    """Train a detector of handwritten digits from scratch and show its detections.

    Args:
        folder: Folder for the data set, the run and the report.
        seed: Seed of the data set, of the training and of the video.
        video: Also track and count digits in a video, and score that against the truth. A detector that an earlier
            demo trained in this folder is used again. Needs: pip install 'lookonce[demo,video]'.
    Returns:
        mAP@0.5 on test pages with digits that training never saw, and the report; with video also the scores of the
        video.
    Raises:
        UserError: scikit-learn, which contains the digits, is not installed, or a package for videos; a folder that
            cannot be written.
    """
    if video and (missing := [name for name in ("cv2", "scipy") if find_spec(name) is None]):
        raise UserError(f"video: needs {missing[0]}, which is not installed; run: pip install 'lookonce[demo,video]'")
    began = time.perf_counter()
    folder = expanded(folder)
    data = write_digits(folder / "digits", seed=seed)
    log.info("1/4 wrote pages of digits, a Pascal VOC data set: %s", data)
    pages = (folder / "runs").glob("digits-*/demo.html") if video else ()
    page = max(pages, key=lambda path: path.stat().st_mtime, default=None)
    if page is None:
        result = _train_and_show(data, folder, seed)
    else:
        log.info("using the detector that is there: %s", page.parent)
        result = DemoResult(None, page.resolve())
    if video:
        result = replace(result, video=_track_and_count(result.page.parent, folder / "video", seed))
    log.info("the demo took %.0f s", time.perf_counter() - began)
    return result


def _train_and_show(data: Path, folder: Path, seed: int) -> DemoResult:
    log.info("2/4 training: lookonce train %s --size %d --epochs %d ...", data, DIGITS["size"], DIGITS["epochs"])
    started = time.perf_counter()
    run = train(data, out=folder / "runs", seed=seed, **DIGITS)
    log.info("    trained in %.0f s", time.perf_counter() - started)
    log.info("3/4 scoring: lookonce evaluate %s %s", run, data)
    report = evaluate(run, data, split="test")
    for line in str(report).splitlines():
        log.info("%s", line)
    test = read_dataset(data, "test")
    shown = [test.records[i] for i in range(min(SHOWN, len(test)))]
    log.info("4/4 detecting: lookonce detect %s ...", run)
    detect(run, [str(record.path) for record in shown], out=folder / "detections", overwrite=True)
    model = Detector(run).about
    details = facts(model.training["recipe"], model.training["data"], model.training["images"], model.heads)
    images = whole_images(test, report.analysis, first_threshold(report.analysis), range(len(test)), SHOWN)
    about = Page(run, "test", details, found=sections(test, report.analysis, model.input_size), images=images,
                 images_note="Pages that training never saw.")  # fmt: skip
    page = write_report(run / "demo.html", about)
    return DemoResult(report.mean_ap or 0.0, page.resolve())


def _track_and_count(run: Path, folder: Path, seed: int) -> VideoResult:
    """Make a video of moving digits, track and count them, and score that."""
    clip, source = make_clip(seed), folder / "moving-digits.mp4"
    truth = _write_clip(clip, source)
    write_text(folder / "line.yaml", ZONES)
    log.info("tracking: lookonce detect %s %s --threshold %g --track --zones %s", run, source, TRACKED_THRESHOLD,
             folder / "line.yaml")  # fmt: skip
    out = folder / "detections"
    summary = detect(run, [str(source)], out=out, overwrite=True, threshold=TRACKED_THRESHOLD, track=True,
                     zones=folder / "line.yaml")  # fmt: skip
    [found] = summary.to_json()["sources"]
    counts = found["counts"]["middle"]
    detector = Detector(run)
    lines = read_lines(out / found["lines"])
    return VideoResult(
        frames=len(lines),
        mean_ap=_mean_ap(detector, source, truth),
        tracks=score_tracks(truth, [line.found(tuple(detector.labels)) for line in lines]),
        counted={way: sum(counts[way].values()) for way in ("left", "right")},
        truth=clip.crossings(),
        path=(out / found["video"]).resolve(),
    )


def _write_clip(clip: Clip, path: Path) -> list[Detections]:
    """Write the video and return the true objects of each frame."""
    names = tuple(str(digit) for digit in range(10))
    file = VideoFile(path, (SIDE, SIDE), len(clip.times) / clip.times[-1])
    truth = []
    try:
        for frame in clip.frames():
            file.write(frame.pixels, frame.time)
            truth.append(
                Detections(frame.boxes, np.ones(len(frame.ids), np.float32), frame.labels, names, ids=frame.ids)
            )
    finally:
        file.close()
    return truth


def _mean_ap(detector: Detector, video: Path, truth: list[Detections]) -> float:
    """Return the mAP@0.5 of a detector on the frames of a video."""
    frames: list[NDArray[np.uint8]] = [frame.pixels for frame in Source(str(video), Sampling())]
    names = truth[0].class_names
    records = (Record(video / str(n), (SIDE, SIDE), one.boxes, one.labels, np.zeros(len(one), np.bool_))
               for n, one in enumerate(truth))  # fmt: skip
    dataset = pack(video.stem, video, names, records)
    return score_frames(dataset, detector.detect(frames, SCORED), RULES, bootstrap=0).mean_ap or 0.0


DIGITS: dict[str, Any] = {
    "weights": "none",
    "recipe": "quick",
    "size": 128,
    "epochs": 5,
    "batch_size": 8,
    "anchors": 3,
    "learning_rate": 3e-3,
    "augment": Augmentation(aspect=0.1, zoom=(0.85, 1.15), flip=0.0, hue=0.02, saturation=1.2, exposure=1.2),
}
"""Settings of the demo beyond the quick recipe: small pages, few shapes; digits are never mirrored."""
