"""Sources of moving images: video files, cameras and streams as frames with their index and exact time.

The time of a frame of a file is its timestamp in the container, in seconds from the start of the video, never its index
over the frame rate: variable frame rates are common. The time of a live frame is when it arrived, from the first one.
A thread decodes ahead. A file waits for the reader; a camera or stream does not: the reader gets the newest frame, and
frames that it had no time for are counted as dropped.
"""

from __future__ import annotations

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
TIMEOUT = 10_000
"""Milliseconds that a stream has to answer."""


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
    """A camera or stream stopped and did not come back."""

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


def find_sources(named: str) -> list[str]:
    """Return the moving images that a name means: itself, those of a .txt list, or those of a folder without images.

    Lines of a list are cameras, addresses, or paths from the list's folder. Raises UserError for a list that mixes
    videos and images.
    """
    path = Path(named).expanduser()
    if path.suffix.lower() == ".txt" and path.is_file():
        lines = [line.strip() for line in read_lines(path, "a video, camera or stream on each line")]
        lines = [line for line in lines if line and not line.startswith("#")]
        moving = [line for line in lines if kind_of(line)]
        if moving and len(moving) < len(lines):
            other = next(line for line in lines if not kind_of(line))
            raise UserError(f"{named}: has {moving[0]} and {other}; expected videos, cameras and streams alone")
        return [str(path.parent / line) if kind_of(line) == "video" else line for line in moving]
    if path.is_dir():
        if next(walk_images(path), None) is not None:
            return []
        return [os.path.join(folder, name) for folder, names in walk_files(path) for name in names
                if Path(name).suffix.lower() in VIDEOS]  # fmt: skip
    return [named] if kind_of(named) else []


# Reading


def load_cv2() -> Any:
    """Return OpenCV, silent. Raises UserError if it is not installed."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # our own summary says what is wrong with a file
    try:
        import cv2
    except ImportError:
        raise UserError("videos and cameras need OpenCV, which is not installed; run: pip install 'lookonce[video]'"
                        ) from None  # fmt: skip
    return cv2


def open_capture(name: str) -> Any:
    """Return an open cv2.VideoCapture, or None if the source cannot be opened."""
    cv2 = load_cv2()
    if kind_of(name) == "camera":
        capture = cv2.VideoCapture(int(name))
    else:
        place = name if kind_of(name) == "stream" else str(Path(name).expanduser())
        capture = cv2.VideoCapture(place, cv2.CAP_FFMPEG, [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT,
                                                           cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT])  # fmt: skip
    return capture if capture.isOpened() else None


class Source:
    """One video file, camera or stream. Its frames can be read once.

    Args:
        name: as the user named it.
        sampling: which frames to use.
        opener: opens the name, as open_capture does.
        pause: waits so many seconds.
    Raises:
        UserError: it cannot be opened, has no frames, or its frames are too large.
    """

    def __init__(self, name: str, sampling: Sampling, opener: Callable[[str], Any] = open_capture,
                 pause: Callable[[float], object] | None = None) -> None:  # fmt: skip
        cv2 = load_cv2()
        self.name, self.sampling, self.tally = name, sampling, Tally()
        self.kind = kind_of(name) or "video"
        if self.kind == "stream" and is_offline():
            raise UserError(f"{name}: not opened, because of --offline or {OFFLINE}")
        if self.kind == "video" and not Path(name).expanduser().is_file():
            raise UserError(f"{name}: no such file; expected a video")
        self._opener, self._stop = opener, Event()
        self._pause = pause or self._stop.wait
        self._capture = opener(name)
        if self._capture is None:
            raise UserError(_cannot_open(name, self.kind))
        self.size = int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        """(width, height), pixels, upright."""
        self.fps = _positive(self._capture.get(cv2.CAP_PROP_FPS)) or 30.0
        """Mean frames a second, as the container says."""
        self.expected = int(_positive(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        """Frames, as the container says, which may be an estimate; 0: unknown."""
        self.live = self.kind == "camera" or (self.kind == "stream" and not self.expected)
        if self.size[0] * self.size[1] > MOST_PIXELS:
            raise UserError(f"{name}: {self.size[0]} x {self.size[1]} pixels; expected at most {MOST_PIXELS:,} in all")
        self._buffer = _Buffer(self.live, sampling.keep_all, self.tally)
        self._due, self._last, self._gap, self._began = 0.0, 0.0, 0.0, 0.0

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in order. Raises UserError if there is not one."""
        reader = Thread(target=self._read, name="frames", daemon=True)
        reader.start()
        try:
            while (frame := self._buffer.take()) is not None:
                self.tally.used += 1
                yield frame
        finally:
            self._stop.set()
            self._buffer.close()
            reader.join(TIMEOUT / 1000)
        if not self.tally.read:
            raise UserError(f"{self.name}: has no frame that can be decoded; it is damaged or of an unknown codec")

    def _read(self) -> None:
        """Read until the end, in a thread."""
        try:
            index = -1
            while not self._stop.is_set():
                if not self._capture.grab():
                    if self.live and self._reconnect():
                        continue
                    self._finish()
                    break
                index += 1
                moment = self._moment(index)
                if self.sampling.end is not None and moment > self.sampling.end:
                    break
                self.tally.read += 1
                if self._is_wanted(index, moment):
                    self._take(index, moment)
        finally:
            self._buffer.close()
            self._capture.release()

    def _take(self, index: int, moment: float) -> None:
        cv2 = load_cv2()
        good, pixels = self._capture.retrieve()
        if good:
            rgb = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
            self._buffer.put(Frame(index, moment, self.name, rgb, time.monotonic()), self._stop)
        else:
            self.tally.undecodable += 1

    def _moment(self, index: int) -> float:
        """Return the time of the frame that was just read; it never goes back."""
        if self.live:
            now = time.monotonic()
            self._began = now if index == 0 else self._began
            return now - self._began
        moment: float = max(self._last, round(self._capture.get(load_cv2().CAP_PROP_POS_MSEC) / 1000, 6))
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

    def _reconnect(self) -> bool:
        """Try to open a live source again. Return whether it came back."""
        self._capture.release()
        for pause in PAUSES:
            self._pause(pause)
            if self._stop.is_set():
                return False
            capture = self._opener(self.name)
            if capture is not None:
                self._capture = capture
                self.tally.reconnects += 1
                return True
        self.tally.failed = True
        self.tally.note = (
            f"it stopped after {plural(self.tally.read, 'frame')}, and did not come back in {len(PAUSES)} tries within "
            f"{sum(PAUSES):.0f} s"
        )
        return False

    def _finish(self) -> None:
        """Compare what came with what the container says."""
        if self.live or not self.expected or not self.tally.read:
            return
        if Path(self.name).suffix.lower() in INDEXED:
            self.tally.missing = max(0, self.expected - self.tally.read)
        duration = self.expected / self.fps
        if self._last + max(0.5, 2 * self._gap) < duration:
            self.tally.note = (
                f"the video ends at {self._last:.2f} s of {duration:.2f} s: the file is cut off or damaged"
            )


class _Buffer:
    """Frames between the reading thread and its reader."""

    def __init__(self, live: bool, keep_all: bool, tally: Tally) -> None:
        self.frames: deque[Frame] = deque()
        self.live, self.keep_all, self.tally = live, keep_all, tally
        self.changed, self.closed = Condition(), False

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

    def take(self) -> Frame | None:
        """Return the next frame; None: there are no more."""
        with self.changed:
            self.changed.wait_for(lambda: self.frames or self.closed)
            frame = self.frames.popleft() if self.frames else None
            self.changed.notify_all()
            return frame

    def close(self) -> None:
        """Let nobody wait any more."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()


def _positive(value: float) -> float:
    return value if 0 < value < 1e9 else 0.0


def _cannot_open(name: str, kind: Kind) -> str:
    """Return why a source cannot be opened, as far as that can be seen, and what to do."""
    if kind == "camera":
        return f"camera {name}: there is none, or another program uses it; cameras count from 0"
    if kind == "stream":
        return f"{name}: gives no video within {TIMEOUT / 1000:.0f} s; check the address and the password"
    with Path(name).expanduser().open("rb") as content:
        start = content.read(64)
    if not start:
        return f"{name}: is empty (0 bytes); expected a video"
    if start.isascii() and b"\0" not in start:
        return f"{name}: is text ({printable(start[:20].decode())!r}); expected a video"
    return f"{name}: cannot be read as a video: it is damaged, cut off before its index, or of an unknown format"
