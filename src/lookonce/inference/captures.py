"""Decoders of moving images: PyAV where the user has it, else OpenCV. Both give the same frames and times.

A capture is an open video file, camera or stream that is read once, frame by frame. PyAV is never required: its wheels
carry codecs under the GPL. Cameras are read by OpenCV, which knows their drivers.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lookonce.errors import UserError

TIMEOUT = 10.0
"""Seconds that a stream has to answer."""


class Capture(Protocol):
    """An open video file, camera or stream."""

    size: tuple[int, int]
    """(width, height), pixels, upright."""
    fps: float
    """Mean frames a second, as the container says."""
    expected: int
    """Frames, as the container says, which may be an estimate; 0: unknown."""
    undecodable: int
    """Parts of the file so far that could not be decoded."""

    def grab(self) -> bool:
        """Go to the next frame; False: there is none."""

    def moment(self) -> float:
        """Return the frame's time in seconds from the start of the video, as the container has it."""

    def pixels(self) -> NDArray[np.uint8] | None:
        """Return the frame [h, w, 3] RGB, upright; None: it cannot be decoded."""

    def scaled(self, size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """Return the frame in (width, height) pixels, averaged; None: the decoder is no faster at that."""

    def release(self) -> None:
        """Close the source."""


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


def load_av() -> Any | None:
    """Return PyAV, silent; None: it is not installed."""
    try:
        import av
    except ImportError:
        return None
    av.logging.set_level(None)
    return av


def open_camera(number: int) -> Capture | None:
    """Return a camera; None: there is none of this number, or another program uses it."""
    capture = load_cv2().VideoCapture(number)
    return OpenCvCapture(capture) if capture.isOpened() else None


def open_video(place: str, live: bool = False) -> Capture | None:
    """Return a file or stream; None: it cannot be opened. live: frames are wanted at once, not fast."""
    if load_av() is not None:
        return PyAvCapture.opened(place, live)
    cv2 = load_cv2()
    limit = round(1000 * TIMEOUT)
    capture = cv2.VideoCapture(place, cv2.CAP_FFMPEG, [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit,
                                                       cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit])  # fmt: skip
    return OpenCvCapture(capture) if capture.isOpened() else None


def place_of(name: str) -> str:
    """Return the path of a file that the user named; an address as it is."""
    return name if "://" in name else str(Path(name).expanduser())


class OpenCvCapture:
    """A capture of OpenCV."""

    undecodable = 0

    def __init__(self, capture: Any) -> None:
        cv2 = self._cv2 = load_cv2()
        self._capture = capture
        self.size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        self.fps = _positive(capture.get(cv2.CAP_PROP_FPS)) or 30.0
        self.expected = int(_positive(capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def grab(self) -> bool:
        """Go to the next frame; False: there is none."""
        return bool(self._capture.grab())

    def moment(self) -> float:
        """Return the frame's time, seconds."""
        return round(float(self._capture.get(self._cv2.CAP_PROP_POS_MSEC)) / 1000, 6)

    def pixels(self) -> NDArray[np.uint8] | None:
        """Return the frame; None: it cannot be decoded."""
        good, pixels = self._capture.retrieve()
        if not good:
            self.undecodable += 1
            return None
        found: NDArray[np.uint8] = self._cv2.cvtColor(pixels, self._cv2.COLOR_BGR2RGB)
        return found

    def scaled(self, size: tuple[int, int]) -> None:
        """Return None: OpenCV decodes whole frames."""

    def release(self) -> None:
        """Close the source."""
        self._capture.release()


class PyAvCapture:
    """A capture of PyAV. Its first frame is decoded when it is opened, because that one says how it is turned."""

    def __init__(self, container: Any, live: bool) -> None:
        self._av, self._container, self._stream = load_av(), container, container.streams.video[0]
        self._stream.thread_type = "SLICE" if live else "AUTO"  # threads that decode whole frames hold some back
        self._scaler, self._reducer = (self._av.video.reformatter.VideoReformatter() for _ in range(2))  # type: ignore[union-attr]
        self._packets, self._waiting = container.demux(self._stream), []  # type: ignore[var-annotated]
        self.undecodable, self._frame, self._start = 0, None, self._stream.start_time or 0
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.fps = _positive(float(rate)) or 30.0 if rate else 30.0
        self.expected = self._stream.frames or round(_positive((container.duration or 0) / 1e6) * self.fps)
        first = self._next()
        self._waiting[:0] = [first] if first is not None else []
        turned = first is not None and round(first.rotation / 90) % 2
        width, height = self._stream.codec_context.width, self._stream.codec_context.height
        self.size: tuple[int, int] = (height, width) if turned else (width, height)

    @classmethod
    def opened(cls, place: str, live: bool) -> PyAvCapture | None:
        """Return the capture of a file or address; None: it cannot be opened or has no video."""
        av = load_av()
        options = {"rtsp_flags": "prefer_tcp"} if place.lower().startswith("rtsp") else {}  # as OpenCV does
        try:
            container = av.open(place, options=options, timeout=(TIMEOUT, TIMEOUT))  # type: ignore[union-attr]
        except (av.error.FFmpegError, OSError, ValueError):  # type: ignore[union-attr]
            return None
        if container.streams.video:
            return cls(container, live)
        container.close()
        return None

    def grab(self) -> bool:
        """Go to the next frame; False: there is none."""
        self._frame = self._next()
        return self._frame is not None

    def moment(self) -> float:
        """Return the frame's time, seconds; the exact fraction, rounded to the microsecond."""
        frame: Any = self._frame
        return 0.0 if frame.pts is None else round(float((frame.pts - self._start) * frame.time_base), 6)

    def pixels(self) -> NDArray[np.uint8] | None:
        """Return the frame; None: it cannot be decoded."""
        return self._upright(self._scaler, None, "BICUBIC")

    def scaled(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the frame in another size, which costs no more than its colours."""
        return self._upright(self._reducer, size, "BILINEAR")

    def _upright(self, scaler: Any, size: tuple[int, int] | None, interpolation: str) -> NDArray[np.uint8]:
        frame: Any = self._frame
        turns = round(frame.rotation / 90)
        width, height = (size[::-1] if turns % 2 else size) if size is not None else (None, None)
        found = scaler.reformat(frame, width, height, "rgb24", interpolation=interpolation).to_ndarray()
        return np.ascontiguousarray(np.rot90(found, turns))

    def release(self) -> None:
        """Close the source."""
        self._packets, self._waiting = iter(()), []
        with suppress(self._av.error.FFmpegError):  # type: ignore[union-attr]
            self._container.close()

    def _next(self) -> Any:
        """Return the next frame that can be decoded, or None."""
        while not self._waiting:
            try:
                packet = next(self._packets, None)
            except self._av.error.FFmpegError:  # type: ignore[union-attr]
                return None  # a file that is cut, a stream that stopped
            if packet is None:
                return None
            try:
                self._waiting = packet.decode()
            except self._av.error.FFmpegError:  # type: ignore[union-attr]
                self.undecodable += 1
        return self._waiting.pop(0)


def _positive(value: float) -> float:
    return value if 0 < value < 1e9 else 0.0
