"""Sources of moving images: video files, cameras and streams as frames with their index and exact time.

The time of a frame of a file is its timestamp in the container, in seconds from the start of the video, never its index
over the frame rate: variable frame rates are common. The time of a live frame is when it arrived, from the first one.
A thread decodes ahead. A file waits for the reader; a camera or stream does not: the reader gets the newest frame, and
frames that it had no time for are counted as dropped.
"""

from __future__ import annotations

import glob
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lookonce.data.download import OFFLINE, is_offline
from lookonce.data.lookup import walk_files, walk_images
from lookonce.errors import ConfigError, UserError, plural, printable
from lookonce.inference.captures import TIMEOUT, Capture, load_cv2, open_camera, open_video, place_of
from lookonce.text import read_lines

Kind = Literal["video", "camera", "stream"]
VIDEOS = frozenset({".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts",
                    ".webm", ".wmv"})  # fmt: skip
INDEXED = frozenset({".3gp", ".m4v", ".mov", ".mp4"})
"""Files whose index has the exact number of frames; that of others is an estimate."""
STREAM = re.compile(r"(rtsps?|rtmps?|rtp|udp|tcp|srt)://|https?://[^?#]*\.(m3u8|mjpe?g|sdp|mpd)([?#]|$)", re.IGNORECASE)
WEB_VIDEO = re.compile(r"https?://[^?#]*(\.\w+)([?#]|$)", re.IGNORECASE)
AHEAD = 8
"""Frames of a file that are decoded ahead."""
MOST_PIXELS = 1 << 26
"""Of a frame: 200 MB."""
MOST_BUFFERED = 1 << 30
"""Bytes of frames that --keep-all holds for a reader that is too slow; then the oldest are dropped."""
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each new try to connect to a camera or stream that stopped."""


@dataclass(frozen=True)
class Sampling:
    """Which frames of a source are used."""

    every: int = 1
    """Each n-th frame."""
    fps: float | None = None
    """At most so many frames a second, by time: the first frame at or after each 1/fps seconds."""
    start: float = 0.0
    end: float | None = None
    """Seconds, both included; None: to the end."""
    keep_all: bool = False
    """Live: use every frame, however late, in place of the newest."""
    after: int = -1
    """Frames up to this index were used in an earlier call, and are not used again."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ConfigError(f"every: {self.every}; expected 1 or more: each n-th frame")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise ConfigError(f"fps: {self.fps}; expected a number above 0")
        if not 0 <= self.start < float("inf"):
            raise ConfigError(f"start: {self.start}; expected seconds from 0")
        if self.end is not None and not self.end >= self.start:
            raise ConfigError(f"end: {self.end}; expected seconds, not before the start at {self.start:g}")


@dataclass(frozen=True)
class Frame:
    """One frame."""

    index: int
    """From 0, of all frames of the source, used or not."""
    time: float  # seconds
    source: str
    """As the user named it."""
    pixels: NDArray[np.uint8]  # [h, w, 3] RGB, upright
    arrived: float = 0.0
    """Clock (time.monotonic) when it was read."""
    scaled: NDArray[np.uint8] | None = None
    """The same in the size that the reader asked for, where the decoder is good at that."""


@dataclass
class Tally:
    """What became of the frames of a source."""

    read: int = 0
    """Frames that came, used or not."""
    used: int = 0
    dropped: int = 0
    """Live: frames for which there was no time."""
    undecodable: int = 0
    missing: int = 0
    """Frames that the file's index names and that did not come."""
    reconnects: int = 0
    note: str = ""
    """Why the source ended early; empty: it did not."""
    failed: bool = False
    """It has no frames, or is a camera or stream that stopped and did not come back."""

    def to_json(self) -> dict[str, Any]:
        """Return the counts, and the note if there is one."""
        counts = {name: getattr(self, name) for name in ("read", "used", "dropped", "undecodable", "missing")}
        return counts | ({"reconnects": self.reconnects} if self.reconnects else {}) | (
            {"note": self.note} if self.note else {}
        )  # fmt: skip

    def __str__(self) -> str:
        parts = [f"{plural(self.read, 'frame')} read", f"{self.used:,} used" if self.used != self.read else ""]
        parts += [f"{n:,} {name}" for name, n in (("dropped", self.dropped), ("undecodable", self.undecodable),
                                                  ("missing", self.missing)) if n]  # fmt: skip
        parts += [plural(self.reconnects, "reconnect")] if self.reconnects else []
        return ", ".join(filter(None, parts)) + (f"; {self.note}" if self.note else "")


# What the user names


def kind_of(name: str) -> Kind | None:
    """Return what kind of moving image a name means; None: an image, a folder or a pattern.

    >>> kind_of("clip.mp4"), kind_of("0"), kind_of("rtsp://camera/1"), kind_of("photo.jpg")
    ('video', 'camera', 'stream', None)
    """
    if name.isdecimal() and not Path(name).exists():
        return "camera"
    if STREAM.match(name) or ((web := WEB_VIDEO.match(name)) and web[1].lower() in VIDEOS):
        return "stream"
    path = Path(name).expanduser()
    return "video" if path.suffix.lower() in VIDEOS and not path.is_dir() else None


def find_sources(named: str) -> tuple[list[str], list[str]]:
    """Return the images and the moving images that a name means, in order.

    That is itself, what is in a folder, what matches a pattern, or the lines of a .txt list: cameras, addresses, or
    paths from the list's folder. Folders and patterns without videos are returned as they are, as images.
    """
    path = Path(named).expanduser()
    if path.suffix.lower() == ".txt" and path.is_file():
        lines = [line.strip() for line in read_lines(path, "an image, video, camera or stream on each line")]
        found = [_in_list(line, path.parent) for line in lines if line and not line.startswith("#")]
        if not found:
            raise UserError(f"{named}: has no lines; expected an image, video, camera or stream on each")
        return _split(found)
    if path.is_dir():
        videos = [os.path.join(folder, name) for folder, names in walk_files(path) for name in names
                  if Path(name).suffix.lower() in VIDEOS]  # fmt: skip
        has_images = not videos or next(walk_images(path), None) is not None
        return [named] if has_images else [], videos
    if not path.exists() and "://" not in named and glob.has_magic(named):
        images, moving = _split(sorted(name for name in glob.glob(str(path), recursive=True) if Path(name).is_file()))
        return (images, moving) if moving else ([named], [])
    return _split([named])


def _in_list(line: str, folder: Path) -> str:
    """Return a line of a list as a name from here."""
    is_path = kind_of(line) in ("video", None) and "://" not in line
    return str(folder / Path(line).expanduser()) if is_path else line


def _split(names: list[str]) -> tuple[list[str], list[str]]:
    return [name for name in names if not kind_of(name)], [name for name in names if kind_of(name)]


# Reading


def open_capture(name: str) -> Capture | None:
    """Return an open source, or None if it cannot be opened."""
    kind = kind_of(name)
    return open_camera(int(name)) if kind == "camera" else open_video(place_of(name), kind == "stream")


class Source:
    """One video file, camera or stream. Its frames can be read once, by iteration or with others by frames_together.

    Args:
        name: as the user named it.
        sampling: which frames to use.
        opener: opens the name, as open_capture does.
        pause: waits so many seconds.
    Raises:
        UserError: it cannot be opened, or its frames are too large.
    """

    def __init__(self, name: str, sampling: Sampling, opener: Callable[[str], Capture | None] = open_capture,
                 pause: Callable[[float], object] | None = None) -> None:  # fmt: skip
        load_cv2()
        self.name, self.sampling, self.tally = name, sampling, Tally()
        self.kind = kind_of(name) or "video"
        if self.kind == "stream" and is_offline():
            raise UserError(f"{name}: not opened, because of --offline or {OFFLINE}")
        if self.kind == "video" and not Path(name).expanduser().is_file():
            raise UserError(f"{name}: no such file; expected a video")
        self._opener, self._stop = opener, Event()
        self._pause = pause or self._stop.wait
        capture = opener(name)
        if capture is None:
            raise UserError(_cannot_open(name, self.kind))
        self.size, self.fps, self.expected = capture.size, capture.fps, capture.expected
        self.live = self.kind == "camera" or (self.kind == "stream" and not self.expected)
        self._capture: Capture | None = capture
        if not self.live:
            self.rest()  # a folder of videos takes no memory
        if self.size[0] * self.size[1] > MOST_PIXELS:
            raise UserError(f"{name}: {self.size[0]} x {self.size[1]} pixels; expected at most {MOST_PIXELS:,} in all")
        self.scale_to: tuple[int, int] | None = None
        """(width, height) of Frame.scaled; None: it is not wanted."""
        self._due, self._last, self._gap, self._began = 0.0, 0.0, 0.0, 0.0

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in order. Raises UserError if there is not one."""
        for batch in frames_together([self], 1):
            yield from (frame for _, frame in batch)
        if self.tally.failed and not self.tally.read:
            raise UserError(f"{self.name}: {self.tally.note}")

    def rest(self) -> None:
        """Close it until it starts."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def start(self, changed: Condition) -> None:
        """Begin to read in a thread, which notifies when frames wait or there are no more."""
        self._waiting = _Waiting(self.live, self.sampling.keep_all, self.tally, changed)
        self._reader = Thread(target=self._read, name="frames", daemon=True)
        self._reader.start()

    def is_ready(self, most: int) -> bool:
        """Return whether frames wait: one of a live source, as many as wanted of a file, or its last ones."""
        waiting = len(self._waiting.frames)
        return waiting >= (1 if self.live or self._waiting.closed else min(most, AHEAD))

    def is_done(self) -> bool:
        """Return whether all frames were taken."""
        return self._waiting.closed and not self._waiting.frames

    def take(self, most: int) -> list[Frame]:
        """Return the next frames that wait."""
        found = self._waiting.take(most)
        self.tally.used += len(found)
        return found

    def stop(self) -> Exception | None:
        """End reading. Return what the reading thread raised."""
        self._stop.set()
        self._waiting.close()
        self._reader.join(TIMEOUT)
        return self._waiting.error

    def _read(self) -> None:
        """Read until the end, in a thread."""
        capture = None
        try:
            capture = self._capture or self._opener(self.name)
            if capture is None:
                self.tally.failed, self.tally.note = True, "it can no longer be opened"
            else:
                self._read_all(capture)
        except Exception as error:
            self._waiting.error = error
        finally:
            self._waiting.close()

    def _read_all(self, capture: Capture) -> None:
        index = -1
        try:
            while not self._stop.is_set():
                if not capture.grab():
                    if self.live and (again := self._reconnected(capture)) is not None:
                        capture = again
                        continue
                    self._finish()
                    break
                index += 1
                moment = self._moment(capture, index)
                if self.sampling.end is not None and moment > self.sampling.end:
                    break
                self.tally.read += 1
                if self._is_wanted(index, moment) and (pixels := capture.pixels()) is not None:
                    scaled = None if self.scale_to is None else capture.scaled(self.scale_to)
                    frame = Frame(index, moment, self.name, pixels, time.monotonic(), scaled)
                    self._waiting.put(frame, self._stop)
        finally:
            self._close(capture)

    def _moment(self, capture: Capture, index: int) -> float:
        """Return the time of the frame that was just read; it never goes back."""
        if self.live:
            now = time.monotonic()
            self._began = now if index == 0 else self._began
            return now - self._began
        moment: float = max(self._last, capture.moment())
        self._gap, self._last = max(self._gap, moment - self._last), moment
        return moment

    def _is_wanted(self, index: int, moment: float) -> bool:
        sampling = self.sampling
        if moment < sampling.start or index % sampling.every:
            return False
        if sampling.fps is not None:
            tick = (moment - sampling.start) * sampling.fps + 1e-6  # timestamps are rounded
            if tick < self._due:
                return False
            self._due = int(tick) + 1
        return index > sampling.after

    def _reconnected(self, capture: Capture) -> Capture | None:
        """Return a live source that was opened again; None: it did not come back, or nobody waits for it."""
        self._close(capture)
        for pause in PAUSES:
            self._pause(pause)
            if self._stop.is_set():
                return None
            again = self._opener(self.name)
            if again is not None:
                self.tally.reconnects += 1
                return again
        self.tally.failed = True
        self.tally.note = (
            f"it stopped after {plural(self.tally.read, 'frame')}, and did not come back in {len(PAUSES)} tries within "
            f"{sum(PAUSES):.0f} s"
        )
        return None

    def _close(self, capture: Capture) -> None:
        self.tally.undecodable, capture.undecodable = self.tally.undecodable + capture.undecodable, 0
        capture.release()

    def _finish(self) -> None:
        """Compare what came with what the container says."""
        if self.live:
            return
        if not self.tally.read:
            self.tally.failed = True
            self.tally.note = "no frame can be decoded; the file is damaged or of an unknown codec"
        elif self.expected:
            if Path(self.name).suffix.lower() in INDEXED:
                self.tally.missing = max(0, self.expected - self.tally.read)
            duration = self.expected / self.fps
            if self._last + max(0.5, 2 * self._gap) < duration:
                self.tally.note = (
                    f"the video ends at {self._last:.2f} s of {duration:.2f} s: the file is cut off or damaged"
                )


def frames_together(sources: list[Source], most: int, patience: float | None = None
                    ) -> Iterator[list[tuple[Source, Frame]]]:  # fmt: skip
    """Read sources at the same time, and yield the frames that wait together, with their sources.

    most: frames of one source at once. patience: seconds without a frame after which an empty list is yielded.
    """
    changed = Condition()
    for source in sources:
        source.start(changed)
    try:
        while True:
            with changed:
                changed.wait_for(lambda: any(one.is_ready(most) for one in sources)
                                 or all(one.is_done() for one in sources), patience)  # fmt: skip
            if all(source.is_done() for source in sources):
                break
            yield [(source, frame) for source in sources if source.is_ready(most) for frame in source.take(most)]
    finally:
        errors = [source.stop() for source in sources]
    if wrong := next(filter(None, errors), None):
        raise wrong


class _Waiting:
    """Frames between a reading thread and their reader."""

    def __init__(self, live: bool, keep_all: bool, tally: Tally, changed: Condition) -> None:
        self.frames: deque[Frame] = deque()
        self.live, self.keep_all, self.tally = live, keep_all, tally
        self.changed, self.closed = changed, False
        self.error: Exception | None = None

    def put(self, frame: Frame, stop: Event) -> None:
        """Add a frame: wait for room (file), or drop the oldest (live)."""
        with self.changed:
            if not self.live:
                self.changed.wait_for(lambda: len(self.frames) < AHEAD or stop.is_set() or self.closed)
            self.frames.append(frame)
            most = 1 if not self.keep_all else max(1, MOST_BUFFERED // frame.pixels.nbytes)
            while self.live and len(self.frames) > most:
                self.frames.popleft()
                self.tally.dropped += 1
            self.changed.notify_all()

    def take(self, most: int) -> list[Frame]:
        """Return the next frames, at most so many."""
        with self.changed:
            frames = [self.frames.popleft() for _ in range(min(most, len(self.frames)))]
            self.changed.notify_all()
            return frames

    def close(self) -> None:
        """Let nobody wait any more."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()


def _cannot_open(name: str, kind: Kind) -> str:
    """Return why a source cannot be opened, as far as that can be seen, and what to do."""
    if kind == "camera":
        return f"camera {name}: there is none, or another program uses it; cameras count from 0"
    if kind == "stream":
        return f"{name}: gives no video within {TIMEOUT:.0f} s; check the address and the password"
    with Path(name).expanduser().open("rb") as content:
        start = content.read(64)
    if not start:
        return f"{name}: is empty (0 bytes); expected a video"
    if start.isascii() and b"\0" not in start:
        return f"{name}: is text ({printable(start[:20].decode())!r}); expected a video"
    return f"{name}: cannot be read as a video: it is damaged, cut off before its index, or of an unknown format"
