"""Detection on a video beside detection on its frames as image files: frames/s, and their ratio.

    python benchmarks/video.py [--model lookonce-demo/runs/digits-1] [--side 640] [--rounds 5]

Without a model yolov2_tiny at 416 px with numbers drawn at random. The video is the demo's (moving digits), enlarged;
the files are its decoded frames as JPEG. The files go the way of `lookonce benchmark --images`: decoded ahead, detected
in batches, written as JSON. The video goes the way of `lookonce detect`: without a video, with --track, and with a
video to write. Everything runs once a round, in turn; a ratio is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image
from threads import drawn

from lookonce import Detector
from lookonce.commands.moving import MovingOptions, detect_moving, open_sources
from lookonce.data.moving_digits import make_clip
from lookonce.files import temporary
from lookonce.inference.outputs import write_entry
from lookonce.inference.sources import Sampling, Source
from lookonce.inference.video_file import VideoFile

FRAMES = 256


def write_clip(folder: Path, side: int) -> tuple[Path, list[str]]:
    """Write the video and its decoded frames; return their paths."""
    clip, path = make_clip(0), folder / "clip.mp4"
    file = VideoFile(path, (side, side), 15)
    for number, frame in enumerate(clip.frames()):
        if number < FRAMES:
            file.write(np.asarray(Image.fromarray(frame.pixels).resize((side, side))), frame.time)
    file.close()
    files = []
    for decoded in Source(str(path), Sampling()):
        files.append(str(folder / f"{decoded.index:04d}.jpg"))
        Image.fromarray(decoded.pixels).save(files[-1], quality=92)
    return path, files


def from_files(detector: Detector, files: list[str], folder: Path) -> None:
    with temporary(folder / "detections.json").open("w", encoding="utf-8") as text:
        for path, _, found in detector.detect_files(files):
            write_entry(text, path, found, first=path == files[0])


def from_video(detector: Detector, clip: Path, folder: Path, track: bool, save_video: bool) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as out:
        style = {"hide_labels": False, "hide_scores": False, "line_width": None}
        options = MovingOptions(Sampling(), track, None, False, (), None, save_video, style)
        sources = open_sources([str(clip)], options, wait=False)
        detect_moving(lambda: detector, sources, Path(out), options)


def decode(clip: Path) -> None:
    for _ in Source(str(clip), Sampling()):
        pass


def measure(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Return frames/s of each way in each round, after one round that does not count."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            if number:
                rates[name].append(FRAMES / (time.perf_counter() - start))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--side", type=int, default=640, help="of the square frames, pixels")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        detector = Detector(given.model or drawn(folder), throughput=True)
        clip, files = write_clip(folder, given.side)
        ways = {
            "image files to JSON": lambda: from_files(detector, files, folder),
            "video to lines": lambda: from_video(detector, clip, folder, False, False),
            "video, --track": lambda: from_video(detector, clip, folder, True, False),
            "video, written with boxes": lambda: from_video(detector, clip, folder, False, True),
            "video, decoded alone": lambda: decode(clip),
        }
        rates = measure(ways, given.rounds)
    print(f"{detector.backend.info}, {FRAMES} frames of {given.side} x {given.side} px, {given.rounds} rounds")
    base = rates["image files to JSON"]
    for way, found in rates.items():
        print(f"{way:28}{median(found):8.1f} frames/s{median(a / b for a, b in zip(found, base)):8.2f} x")


if __name__ == "__main__":
    main()
