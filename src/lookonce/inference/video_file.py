"""Write a video whose frames have their own times.

Frames go to the program ffmpeg (H.264) if it is installed, else to OpenCV (MPEG-4 part 2). Both write constant frame
rates, so the table of durations in the MP4 file is replaced at the end. Format: ISO/IEC 14496-12, sections 8.2 to 8.6.
"""

from __future__ import annotations

import logging
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lookonce.errors import UserError
from lookonce.files import temporary
from lookonce.inference.captures import load_cv2

log = logging.getLogger("lookonce")
TIMESCALE = 10_000
"""Units of time in a second: 0.1 ms, and durations up to 119 hours in 32 bits."""
CONTAINERS = (b"trak", b"mdia", b"minf", b"stbl", b"edts")
"""Boxes on the way to the tables of a track."""


class VideoFile:
    """A video that is being written. It appears under its name when it is closed.

    Args:
        path: ends in .mp4; replaced if it exists.
        size: (width, height) of the frames, pixels.
        fps: frames a second, for the last frame's duration and the encoder.
    Raises:
        UserError: this computer cannot write a video of this size.
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        self.path, self.size, self.fps = path, size, min(max(fps, 1.0), 240.0)
        self.times: list[float] = []
        self._beside = temporary(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None
        even = size[0] + size[0] % 2, size[1] + size[1] % 2  # encoders take even sides
        self._padding = None if even == size else ((0, size[1] % 2), (0, size[0] % 2), (0, 0))
        self._encoder: _Ffmpeg | _OpenCV = (_Ffmpeg if has_h264() else _OpenCV)(self._beside, even, self.fps)

    def write(self, pixels: NDArray[np.uint8], time: float) -> None:
        """Add a frame [h, w, 3] RGB; time in seconds. A frame of another size is scaled to that of the video."""
        if pixels.shape[1::-1] != self.size:
            pixels = load_cv2().resize(pixels, self.size)
        if self._padding:
            pixels = np.pad(pixels, self._padding, "edge")
        self._encoder.write(pixels)
        self.times.append(time)

    def close(self) -> None:
        """Complete the file. Raises UserError if it could not be written."""
        try:
            self._encoder.close()
            if self.times:
                set_times(self._beside, self.times, 1 / self.fps)
                self._beside.replace(self.path)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror or error}") from None
        finally:
            with suppress(OSError):  # the error above names the cause
                self._beside.unlink(missing_ok=True)


@lru_cache(maxsize=1)
def has_h264() -> bool:
    """Return whether this computer has an ffmpeg that writes H.264."""
    program = shutil.which("ffmpeg")
    if program is None:
        return False
    try:
        listed = subprocess.run([program, "-hide_banner", "-encoders"], capture_output=True, text=True, timeout=30,
                                check=False).stdout  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return " libx264 " in listed


class _Ffmpeg:
    """The ffmpeg program, which reads raw frames. It stops when we close, not at Ctrl-C in our terminal."""

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        self.begun = False
        self.messages: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        group: dict[str, Any] = (
            {"creationflags": 0x200} if sys.platform == "win32" else {"start_new_session": True}
        )  # 0x200: CREATE_NEW_PROCESS_GROUP
        command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}",
                   "-framerate", f"{fps:.6g}", "-i", "pipe:0", "-c:v", "libx264", "-preset", "veryfast", "-bf", "0",
                   "-pix_fmt", "yuv420p", "-f", "mp4", str(path.absolute())]  # fmt: skip
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self.messages,
                                        **group)  # fmt: skip

    def write(self, pixels: NDArray[np.uint8]) -> None:
        assert self.process.stdin is not None
        self.begun = True
        try:
            self.process.stdin.write(np.ascontiguousarray(pixels).data)
        except OSError:
            raise self._failure() from None

    def close(self) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):  # the exit code below says the same
            self.process.stdin.close()
        failed = self.process.wait() != 0 and self.begun  # without a frame it always fails
        failure = self._failure() if failed else None
        self.messages.close()
        if failure is not None:
            raise failure

    def _failure(self) -> UserError:
        self.messages.seek(0)
        lines = self.messages.read().decode(errors="replace").strip().splitlines() or ["no reason given"]
        return UserError(f"ffmpeg cannot write the video: {lines[-1]}")


class _OpenCV:
    """OpenCV's own encoder."""

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        cv2 = load_cv2()
        self.writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
        if not self.writer.isOpened():
            raise UserError(f"{path.parent}: this computer cannot write a video of {size[0]} x {size[1]} pixels; "
                            "install ffmpeg with H.264, or leave the video out with --no-save-images")  # fmt: skip
        _say_once()

    def write(self, pixels: NDArray[np.uint8]) -> None:
        self.writer.write(np.ascontiguousarray(pixels[..., ::-1]))

    def close(self) -> None:
        self.writer.release()


@lru_cache(maxsize=1)
def _say_once() -> None:
    log.info("videos are MPEG-4 part 2, which browsers do not play; for H.264 install the program ffmpeg")


# The times in an MP4 file


def set_times(path: Path, times: list[float], last: float) -> None:
    """Give the frames of an MP4 file their times, counted from the first. last: duration of the last frame, seconds.

    The file has one track without reordered frames, and its index behind the frames.
    """
    with path.open("r+b") as file:
        place, index = _find_index(file)
        file.seek(place)
        file.write(_with_times(index, _durations(times, last)))
        file.truncate()


def _durations(times: list[float], last: float) -> list[int]:
    """Return the duration of each frame, in units of TIMESCALE. Rounding does not add up."""
    starts = [round((time - times[0]) * TIMESCALE) for time in times]
    return [*(max(0, after - before) for before, after in pairwise(starts)), max(1, round(last * TIMESCALE))]


def _find_index(file: IO[bytes]) -> tuple[int, bytes]:
    """Return the place and content of the box `moov`, which is the last."""
    place = 0
    while header := file.read(8):
        size, kind = struct.unpack(">I4s", header)
        if size == 1:
            size = struct.unpack(">Q", file.read(8))[0]
        if kind == b"moov":
            file.seek(place)
            return place, file.read(size)
        place += size
        file.seek(place)
    raise OSError("the encoder wrote no index")


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, content) of the boxes that follow one another."""
    place = 0
    while place < len(content):
        size, kind = struct.unpack_from(">I4s", content, place)
        yield kind, content[place + 8 : place + size]
        place += size


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _with_times(index: bytes, durations: list[int]) -> bytes:
    """Return the box `moov` with these durations of frames in units of TIMESCALE."""
    total = sum(durations)
    runs = [(len(list(run)), duration) for duration, run in groupby(durations)]
    table = struct.pack(">II", 0, len(runs)) + b"".join(struct.pack(">II", *run) for run in runs)

    def changed(kind: bytes, content: bytes) -> bytes:
        if kind in CONTAINERS:
            content = b"".join(_box(each, changed(each, part)) for each, part in _boxes(content))
        elif kind in (b"mvhd", b"mdhd"):
            content = content[:12] + struct.pack(">II", TIMESCALE, total) + content[20:]
        elif kind == b"tkhd":
            content = content[:20] + struct.pack(">I", total) + content[24:]
        elif kind == b"elst":
            content = content[:8] + struct.pack(">I", total) + content[12:]
        elif kind == b"stts":
            content = table
        return content

    return _box(b"moov", b"".join(_box(kind, changed(kind, content)) for kind, content in _boxes(index[8:])))
