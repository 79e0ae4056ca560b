"""What detect does with videos, cameras and streams: an annotated video, a line a frame, tracking and counting.

Files are read one after the other, then all cameras and streams at the same time. A thread for each source decodes
ahead, the network runs here on the frames that wait together, and one thread draws, writes and shows the video.
"""

from __future__ import annotations

import csv
import json
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TextIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookonce.choices import choose
from lookonce.console import track
from lookonce.data.images import BATCH, Decoded
from lookonce.errors import Interrupted, UserError, plural
from lookonce.files import alike, write_text
from lookonce.inference.counting import COLUMNS as EVENT_COLUMNS
from lookonce.inference.counting import Event, ZoneCounter
from lookonce.inference.detector import Detector
from lookonce.inference.draw import draw
from lookonce.inference.draw_zones import draw_zones
from lookonce.inference.frame_lines import FrameLines, Line
from lookonce.inference.outputs import FOLDERS, ImageResult, write_crops, yolo_lines
from lookonce.inference.sources import Frame, Sampling, Source, frames_together
from lookonce.inference.tracking import Tracker
from lookonce.inference.video_file import VideoFile
from lookonce.inference.zones import Zones, read_zones
from lookonce.model.detections import COLUMNS, Detections
from lookonce.model.resize import antialiases, fitted

RESULT = "videos.json"
MovingFormat = Literal["yolo", "csv", "crops"]
"""What detect writes of a video besides its lines."""
FORMATS: tuple[MovingFormat, ...] = ("yolo", "csv", "crops")
Show = Literal["window", "page"]
PATIENCE = 0.05
"""Seconds without a frame after which a window is served, and Ctrl-C on Windows."""


class View(Protocol):
    """Shows the newest drawn frames."""

    def begin(self, names: list[str]) -> None:
        """Show these sources in place of those before."""

    def put(self, name: str, pixels: NDArray[np.uint8]) -> None:
        """Show a frame [h, w, 3] RGB of a source. Called from another thread than the rest."""

    def update(self) -> None:
        """Serve the view. Raises KeyboardInterrupt if the user closed it."""

    def close(self) -> None:
        """End the view."""


def open_view(show: Show) -> View:
    """Return a window, or a page in the browser. Raises UserError if there is no display."""
    if show == "window":
        from lookonce.inference.live_window import LiveWindow

        return LiveWindow()
    from lookonce.server.live_page import LivePage

    return LivePage()


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
    show: Show | None = None

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

    @property
    def line(self) -> str:
        """All of it in one line, for a message."""
        return "; ".join(str(self).splitlines())


def open_sources(names: list[str], options: MovingOptions, wait: bool) -> list[Source]:
    """Return the sources, files first, which were opened once. wait: other work comes before them.

    Raises UserError for one that cannot be opened, that cannot be continued, or that the zones do not fit.
    """
    zones = Zones() if options.zones is None else read_zones(options.zones)
    sources = sorted((Source(name, options.sampling) for name in names), key=lambda source: source.live)
    for source in sources:
        if source.live and options.resume:
            raise UserError(f"{source.name}: is live, so it cannot be continued; leave out --resume")
        if wait or not sources[0].live:
            source.rest()
        zones.check(source.size, source.name)
    return sources


def detect_moving(opened: Callable[[], Detector], sources: list[Source], folder: Path,
                  options: MovingOptions) -> MovingSummary:  # fmt: skip
    """Detect on each file in turn, then on all live sources together, and write into a folder.

    What is found before a stop is kept. A source that fails does not end the others.

    opened: opens the detector, which takes seconds.

    Raises:
        UserError: a source that has no frames, or stopped and did not come back.
        Interrupted: Ctrl-C, or the window was closed; the files are complete up to the last frame.
    """
    zones = None if options.zones is None else read_zones(options.zones)
    live = [source for source in sources if source.live]
    groups = [*([source] for source in sources if not source.live), *([live] if live else [])]
    summary = MovingSummary(folder)
    taken = {alike(path.stem) for path in folder.iterdir()} if not options.resume else set()
    stopped = False
    with ExitStack() as stack:
        view = None if options.show is None else stack.enter_context(closing(open_view(options.show)))
        detector = opened()
        if options.labels is not None:
            options = replace(options, labels=[choose(name, detector.labels, "labels") for name in options.labels])
        for group in groups:
            works = [_Work(detector, s, _Files(folder, _free(s.name, taken), options), zones) for s in group]
            summary.sources += [work.summary for work in works]
            try:
                _detect_together(detector, works, view)
            except KeyboardInterrupt:
                stopped = True
            _write_result(detector, summary, options)
            if stopped:
                raise Interrupted(f"stopped: {summary.line}", signal.SIGINT)
    if any(one.failed for one in summary.sources):
        raise UserError(summary.line)
    return summary


def _detect_together(detector: Detector, works: list[_Work], view: View | None) -> None:
    """Detect on sources that are read at the same time. All files are complete at the end, also after an error."""
    by_source = {work.source: work for work in works}
    selection, writing = works[0].selection, deque[Future[None]]()
    with ExitStack() as stack:
        for work in works:
            stack.callback(work.finish)
        pool = stack.enter_context(ThreadPoolExecutor(1))
        for work in works:
            work.source.scale_to = _scale_to(detector, work.source.size)
            work.begin(view)
        if view is not None:
            view.begin([work.files.stem for work in works])
        batches = frames_together([*by_source], BATCH if view is None else 1, PATIENCE)
        stack.enter_context(closing(batches))  # type: ignore[type-var]
        for batch in track(batches, ", ".join(source.name for source in by_source)):
            images = [Decoded(frame.pixels if frame.scaled is None else frame.scaled, frame.pixels.shape[1::-1])
                      for _, frame in batch]  # fmt: skip
            found = detector.detect(images, selection) if batch else []
            for (source, frame), one in zip(batch, found, strict=True):
                writing.append(pool.submit(by_source[source].add(frame, one)))
            while len(writing) > BATCH:
                writing.popleft().result()
            if view is not None:
                view.update()
        while writing:
            writing.popleft().result()


def _scale_to(detector: Detector, size: tuple[int, int]) -> tuple[int, int] | None:
    """Return the size to which the detector reduces frames; None: it needs them whole."""
    about = detector.about
    width, height = (int(side) for side in fitted(np.array(size), about.input_size, about.resize))
    is_reduced = antialiases(about.resize) and 2 * width <= size[0] and 2 * height <= size[1]
    return (width, height) if is_reduced and getattr(detector, "tiling", None) is None else None


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
        self.view: View | None = None
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
        """Write and show what has the pixels: the annotated frame, its crops, its YOLO labels."""
        result = ImageResult(frame.source, f"{self.stem}-{frame.index:06d}", frame.pixels.shape[1::-1], found)
        if "yolo" in self.options.formats:
            write_text(self.folder / FOLDERS["yolo"] / f"{result.stem}.txt", yolo_lines(result))
        if "crops" in self.options.formats:
            write_crops(self.folder, result, frame.pixels)
        if self.video is None and self.view is None:
            return
        image: Image.Image = draw(frame.pixels, found, **self.options.style)
        if zones is not None:
            draw_zones(image, zones, counts)
        pixels = np.asarray(image)
        if self.view is not None:
            self.view.put(self.stem, pixels)
        if self.video is not None:
            self.video.write(pixels, frame.time)

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

    def begin(self, view: View | None) -> None:
        """Go on after what an earlier call found, and open the video."""
        self.files.view = view
        self._replay(self.files.lines.earlier)
        if self.files.options.save_video:
            self.summary.video = self.files.open_video(self.source.size, self.source.fps)

    def add(self, frame: Frame, found: Detections) -> Callable[[], None]:
        """Write what was found on a frame. Return what draws it, which is called in order in another thread."""
        labels = self.files.options.labels
        wanted = found if labels is None else found.only(labels)
        shown, events = self._followed(wanted, frame.index, frame.time)
        self.files.lines.add(frame, shown, events)
        counts = None if self.counter is None else self.counter.counts.copy()
        if self.source.live:
            self.summary.age = max(self.summary.age or 0.0, time.monotonic() - frame.arrived)
        return partial(self.files.draw, frame, shown, self.zones, counts)

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

    def finish(self) -> None:
        """Complete the files and the summary."""
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
