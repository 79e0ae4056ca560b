"""What detect does with videos, cameras and streams: an annotated video, a line a frame, tracking and counting.

The reading thread decodes ahead, the network runs here, and one thread draws and writes the video.
"""

from __future__ import annotations

import csv
import json
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
from PIL import Image

from lookonce.choices import choose
from lookonce.console import track
from lookonce.data.images import BATCH
from lookonce.errors import Interrupted, UserError, plural
from lookonce.files import alike, write_text
from lookonce.inference.counting import COLUMNS as EVENT_COLUMNS
from lookonce.inference.counting import Event, ZoneCounter
from lookonce.inference.detector import Detector
from lookonce.inference.draw import draw
from lookonce.inference.draw_zones import draw_zones
from lookonce.inference.frame_lines import FrameLines, Line
from lookonce.inference.outputs import FOLDERS, ImageResult, write_crops, yolo_lines
from lookonce.inference.sources import Frame, Sampling, Source
from lookonce.inference.tracking import Tracker
from lookonce.inference.video_file import VideoFile
from lookonce.inference.zones import Zones, read_zones
from lookonce.model.detections import COLUMNS, Detections

RESULT = "videos.json"
MovingFormat = Literal["yolo", "csv", "crops"]
"""What detect writes of a video besides its lines."""
FORMATS: tuple[MovingFormat, ...] = ("yolo", "csv", "crops")


@dataclass(frozen=True)
class MovingOptions:
    """What one `detect` does with moving images."""

    sampling: Sampling
    track: bool
    zones: Path | None
    resume: bool
    formats: tuple[str, ...]
    labels: list[str] | None
    save_video: bool
    style: dict[str, Any]
    """Options of draw."""

    def __post_init__(self) -> None:
        if wrong := [name for name in self.formats if name not in FORMATS]:
            raise UserError(f"save: {wrong[0]} is for images; of videos, {', '.join(FORMATS)} are written")


@dataclass
class SourceSummary:
    """What was found in one source."""

    source: str
    lines: str
    """Name of the file of lines."""
    video: str | None = None
    detections: int = 0
    objects: int | None = None
    """Numbers given; None: objects are not tracked."""
    age: float | None = None
    """Live: the highest age of a frame when its detections were written, seconds."""
    frames: dict[str, Any] = field(default_factory=dict)
    """What became of the frames: Tally.to_json."""
    text: str = ""
    """The same in words."""
    zones: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failed: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are known."""
        known = {"source": self.source, "lines": self.lines, "video": self.video, "frames": self.frames,
                 "detections": self.detections, "objects": self.objects,
                 "highest_age": self.age and round(self.age, 4), "warnings": self.warnings}  # fmt: skip
        return {name: value for name, value in known.items() if value not in (None, [])} | self.zones

    def __str__(self) -> str:
        objects = "" if self.objects is None else f", {plural(self.objects, 'object')}"
        text = f"{self.source}: {plural(self.detections, 'detection')}{objects} in {self.text}"
        for name, directions in self.zones.get("counts", {}).items():
            totals = (f"{direction} {sum(classes.values())}" for direction, classes in directions.items())
            text += f"; {name}: {', '.join(totals) or 'nothing'}"
        return "; ".join((text, *self.warnings))


@dataclass
class MovingSummary:
    """The result of `lookonce detect` on moving images."""

    out: Path
    sources: list[SourceSummary] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return what videos.json says about each source, and the folder."""
        return {"out": str(self.out), "sources": [one.to_json() for one in self.sources]}

    def __str__(self) -> str:
        names = sorted({Path(name).suffix[1:] for one in self.sources for name in (one.lines, one.video) if name})
        return "\n".join((*map(str, self.sources), f"-> {self.out} ({', '.join((RESULT, *names))})"))


def detect_moving(opened: Callable[[], Detector], names: list[str], folder: Path,
                  options: MovingOptions) -> MovingSummary:  # fmt: skip
    """Detect on each source in turn and write into a folder. What is found before a stop is kept.

    opened: opens the detector, which takes seconds; the sources are opened first.

    Raises:
        UserError: a source that cannot be read; more than one camera or live stream, as the first would never end.
        Interrupted: Ctrl-C; the files are complete up to the last frame.
    """
    zones = None if options.zones is None else read_zones(options.zones)
    sources = [Source(name, options.sampling) for name in names]
    live = [source.name for source in sources if source.live]
    if live and len(sources) > 1:
        raise UserError(f"{live[0]}: never ends, so nothing after it would be read; give it alone")
    for source in sources if zones else ():
        zones.check(source.size, source.name)  # type: ignore[union-attr]
    detector = opened()
    if options.labels is not None:
        options = replace(options, labels=[choose(name, detector.labels, "labels") for name in options.labels])
    summary = MovingSummary(folder)
    taken = {alike(path.stem) for path in folder.iterdir()} if not options.resume else set()
    stopped = False
    for source in sources:
        work = _Work(detector, source, _Files(folder, _free(source.name, taken), options), zones)
        summary.sources.append(work.summary)
        try:
            work.run()
        except KeyboardInterrupt:
            stopped = True
        _write_result(detector, summary, options)
        if stopped:
            raise Interrupted(f"stopped: {summary}", signal.SIGINT)
    if any(one.failed for one in summary.sources):
        raise UserError(str(summary))
    return summary


def _free(name: str, taken: set[str]) -> str:
    """Return an unused stem for the files of a source, and mark it as used."""
    parts = name.rstrip("/").replace("\\", "/").split("?")[0]
    stem = Path(parts).stem if not name.isdecimal() else f"camera-{name}"
    short = stem = "".join(letter if letter.isalnum() or letter in "-_. " else "_" for letter in stem)[:100] or "video"
    number = 2
    while alike(stem) in taken:
        stem, number = f"{short}-{number}", number + 1
    taken.add(alike(stem))
    return stem


def _write_result(detector: Detector, summary: MovingSummary, options: MovingOptions) -> None:
    thresholds = (round(value, 6) for value in detector.thresholds.tolist())
    about = {
        "model": detector.name,
        "model_digest": detector.digest,
        "labels": detector.labels,
        "thresholds": dict(zip(detector.labels, thresholds, strict=True)),
        **({} if detector.tiling is None else detector.tiling.to_json()),
        "only": options.labels,
        **summary.to_json(),
    }
    write_text(summary.out / RESULT, json.dumps(about, indent=1) + "\n")


class _Files:
    """The files of one source."""

    def __init__(self, folder: Path, stem: str, options: MovingOptions) -> None:
        self.folder, self.stem, self.options = folder, stem, options
        self.lines = FrameLines(folder / f"{stem}.jsonl", options.resume)
        self.video: VideoFile | None = None
        self.stack = ExitStack()
        self.rows = self._table(".csv", ("time", "frame", "id", *COLUMNS)) if "csv" in options.formats else None
        self.events = self._table("-events.csv", EVENT_COLUMNS) if options.zones is not None else None

    def _table(self, ending: str, columns: Iterable[str]) -> TextIO:
        path = self.folder / f"{self.stem}{ending}"
        try:
            file = self.stack.enter_context(path.open("w", encoding="utf-8", newline="\n"))
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None
        csv.writer(file, lineterminator="\n").writerow(columns)
        return file

    def add_rows(self, index: int, moment: float, found: Detections, events: list[Event] | None) -> None:
        """Write the tables of a frame."""
        if self.rows is not None:
            csv.writer(self.rows, lineterminator="\n").writerows(
                (
                    f"{moment:.6f}",
                    index,
                    one.id,
                    one.name,
                    one.label,
                    f"{one.score:.6f}",
                    *(f"{v:.2f}" for v in one.box),
                )
                for one in found
            )
        if self.events is not None:
            csv.writer(self.events, lineterminator="\n").writerows(event.to_json().values() for event in events or ())
            self.events.flush()

    def open_video(self, size: tuple[int, int], fps: float) -> str:
        """Begin the annotated video under a free name, and return the name."""
        path, number = self.folder / f"{self.stem}.mp4", 2
        while path.exists():
            path, number = self.folder / f"{self.stem}-{number}.mp4", number + 1
        self.video = VideoFile(path, size, fps)
        return path.name

    def draw(self, frame: Frame, found: Detections, zones: Zones | None, counts: Any) -> None:
        """Write what shows the pixels: the annotated frame, its crops, its YOLO labels."""
        result = ImageResult(frame.source, f"{self.stem}-{frame.index:06d}", frame.pixels.shape[1::-1], found)
        if "yolo" in self.options.formats:
            write_text(self.folder / FOLDERS["yolo"] / f"{result.stem}.txt", yolo_lines(result))
        if "crops" in self.options.formats:
            write_crops(self.folder, result, frame.pixels)
        if self.video is not None:
            image: Image.Image = draw(frame.pixels, found, **self.options.style)
            if zones is not None:
                draw_zones(image, zones, counts)
            self.video.write(np.asarray(image), frame.time)

    def close(self) -> None:
        """Complete all files."""
        try:
            if self.video is not None:
                self.video.close()
        finally:
            self.lines.close()
            self.stack.close()


class _Work:
    """Detection on one source."""

    def __init__(self, detector: Detector, source: Source, files: _Files, zones: Zones | None) -> None:
        options = files.options
        self.detector, self.source, self.files, self.zones = detector, source, files, zones
        self.tracker = Tracker(detector.thresholds) if options.track or zones else None
        self.counter = ZoneCounter(zones) if zones else None
        self.selection = (
            replace(detector.selection, score_threshold=self.tracker.weakest) if self.tracker is not None else None
        )
        self.summary = SourceSummary(source.name, files.lines.path.name)

    def run(self) -> None:
        """Detect on all frames. The files are complete at the end, also after an error."""
        options, source = self.files.options, self.source
        self._replay(self.files.lines.earlier)
        if options.save_video:
            self.summary.video = self.files.open_video(source.size, source.fps)
        writing: deque[Future[None]] = deque()
        try:
            with ThreadPoolExecutor(1) as pool:
                for frame, found in self._found():
                    found, events = self._followed(found, frame.index, frame.time)
                    self.files.lines.add(frame, found, events)
                    counts = None if self.counter is None else self.counter.counts.copy()
                    writing.append(pool.submit(self.files.draw, frame, found, self.zones, counts))
                    self._note_age(frame)
                    while len(writing) > BATCH:
                        writing.popleft().result()
                while writing:
                    writing.popleft().result()
        finally:
            self._finish()

    def _found(self) -> Iterator[tuple[Frame, Detections]]:
        """Yield each frame with its detections: several frames at once of a file, one of a camera."""
        frames = iter(track(self.source, self.source.name))
        labels = self.files.options.labels
        while batch := list(islice(frames, 1 if self.source.live else BATCH)):
            found = self.detector.detect([frame.pixels for frame in batch], self.selection)
            yield from zip(batch, (one if labels is None else one.only(labels) for one in found), strict=True)

    def _followed(self, found: Detections, index: int, moment: float) -> tuple[Detections, list[Event] | None]:
        """Return the detections with ids and the events, as far as they are asked for, and count them."""
        events: list[Event] | None = None
        if self.tracker is not None:
            found = self.tracker.update(found, moment)
            self.summary.objects = self.tracker.numbers
        if self.counter is not None and self.tracker is not None:
            events = self.counter.update(found, moment, {one.id for one in self.tracker.tracks})
        self.summary.detections += len(found)
        self.files.add_rows(index, moment, found, events)
        return found, events

    def _replay(self, lines: list[Line]) -> None:
        """Bring tracks, counts and tables to where an earlier call stopped."""
        if lines and lines[0].source != self.source.name:
            raise UserError(f"{self.files.lines.path}: is of {lines[0].source}, not of {self.source.name}; give the "
                            "same sources in the same order to --resume")  # fmt: skip
        for line in lines:
            self._followed(line.found(self.detector.labels), line.frame, line.time)
        if lines:
            self.source.sampling = replace(self.source.sampling, after=lines[-1].frame)

    def _note_age(self, frame: Frame) -> None:
        if self.source.live:
            self.summary.age = max(self.summary.age or 0.0, time.monotonic() - frame.arrived)

    def _finish(self) -> None:
        tally, counter = self.source.tally, self.counter
        if counter is not None:
            self.files.add_rows(0, 0.0, Detections([], [], [], self.detector.labels), counter.finish())  # type: ignore[arg-type]
            self.summary.zones, self.summary.warnings = counter.to_json(), counter.warnings(self.source.size)
        self.files.close()
        self.summary.frames, self.summary.text, self.summary.failed = tally.to_json(), str(tally), tally.failed
        if self.files.video is not None and not self.files.video.times:
            self.summary.video = None


def remove_earlier(folder: Path, inputs: set[Path]) -> None:
    """Remove what an earlier detect of moving images wrote into a folder: its videos.json, and the files it names.

    inputs: files that stay, resolved.
    """
    try:
        sources = json.loads((folder / RESULT).read_bytes())["sources"]
        names = [name for one in sources for name in (one["lines"], one.get("video")) if isinstance(name, str)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return  # none, or not of detect
    stems = {Path(name).stem for name in names if name.endswith(".jsonl")}
    for name in (*names, *(stem + ending for stem in stems for ending in (".csv", "-events.csv"))):
        path = folder / name
        ours = Path(name).name == name and "\\" not in name and path.suffix in (".jsonl", ".mp4", ".csv")
        if ours and path.resolve() not in inputs and path.is_file():
            path.unlink()
