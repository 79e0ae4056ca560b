"""From picture files to detections as JSON, beside the network alone and decoding alone, slice by slice."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import numpy as np

from lookonce.data.pictures import BATCH, load_for, picture_size
from lookonce.detect import write_entry
from lookonce.detector import Detector
from lookonce.errors import PictureError, UserError
from lookonce.runtimes.opening import open_runtime
from lookonce.runtimes.settings import Settings
from lookonce.speed.result import FilesSpeed
from lookonce.speed.rounds import Rounds, Spent, interleave, ratio, timed

log = logging.getLogger("lookonce")

WARM_UP = 1
"""Slices before those that count."""


def readable(files: Sequence[str]) -> list[str]:
    """Those that begin as a picture does; the others are told. Raises UserError where none does."""
    found = []
    for file in files:
        try:
            picture_size(file)
            found.append(file)
        except PictureError as error:
            log.warning("skipped %s", error)
    if not found:
        raise UserError(f"none of the {len(files)} pictures could be read; the first: {files[0]}")
    return found


def measure_files(
    model: Path, files: Sequence[str], rounds: int, threads: int, each: Callable[[int], None]
) -> tuple[FilesSpeed | None, bool]:
    """Detect a slice of the pictures in each round, as `lookonce detect` does but without drawing.

    Args:
        model: as a user gives it: it runs in the runtime and precision that a Detector takes.
        files: pictures; all rounds together go through them once, or again from the start where there are few.
        rounds: slices that count.
        threads: of the network; pictures are decoded ahead in threads beside.
        each: called with 0, 1 or 2 before each run.
    Returns:
        (what was measured, None where not one round was; whether Ctrl-C came).
    """
    detector = Detector(open_runtime(model, Settings(throughput=True, threads=threads)))
    size = BATCH * math.ceil(len(files) / rounds / BATCH)
    work = Work(detector, files, size)
    runs = [timed(run) for run in (work.decode, work.detect, work.network)]
    found = interleave(runs, rounds, WARM_UP, each)
    if not found.found:
        return None, found.stopped
    return files_speed(str(model), str(detector.runtime.backend), (len(files), size), found), found.stopped


class Work:
    """What is done with a slice of the pictures. size: pictures in it, a multiple of BATCH."""

    def __init__(self, detector: Detector, files: Sequence[str], size: int) -> None:
        self.detector, self.size = detector, size
        self.ahead: Iterator[str] = cycle(files)
        self.part: list[str] = []
        width, height = detector.about.frame
        self.images = np.random.default_rng(0).random((BATCH, 3, height, width), np.float32)

    def decode(self) -> None:
        """Read the next slice's files into pixels; they lie in memory for what follows."""
        self.part = list(islice(self.ahead, self.size))
        for file in self.part:
            try:
                load_for(file, self.detector.about.frame, self.detector.about.pixel_range)
            except PictureError:
                pass  # a cut one; told by those who look at their data

    def detect(self) -> None:
        """Find objects on the slice and write them as JSON."""
        with tempfile.TemporaryFile("w", encoding="utf-8") as text:
            for file, picture, found in self.detector.detect_files(self.part):
                if not isinstance(picture, PictureError):
                    write_entry(text, file, found, first=file == self.part[0])

    def network(self) -> None:
        """Run the network on as many inputs."""
        for _ in range(self.size // BATCH):
            self.detector.runtime(self.images)


def files_speed(model: str, runtime: str, pictures: tuple[int, int], found: Rounds[Spent]) -> FilesSpeed:
    """What the rounds of (decode, detect, network) tell. pictures: (in all, in a slice)."""
    decoding, files, bare = found.of(0), found.of(1), found.of(2)
    in_all, size = pictures
    return FilesSpeed(
        model, runtime, in_all,
        images_per_s=size / median(spent.seconds for spent in files),
        bare_images_per_s=size / median(spent.seconds for spent in bare),
        share_of_bare=ratio([spent.seconds for spent in bare], [spent.seconds for spent in files]),
        network_ms=median(spent.processor for spent in bare) / size * 1e3,
        decode_ms=median(spent.processor for spent in decoding) / size * 1e3,
        share_of_possible=ratio(
            [a.processor + b.processor for a, b in zip(bare, decoding, strict=True)],
            [spent.processor for spent in files],
        ),
    )  # fmt: skip
