"""The file of one video's detections: JSON lines, one a frame, written as it goes and read back to resume.

A line has "frame" (index from 0), "time" (seconds), "source", "detections" as in detections.json, with "id" where
objects are tracked, and "events" where zones are counted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

import msgspec

from lookonce.errors import UserError
from lookonce.inference.counting import Event
from lookonce.inference.sources import Frame
from lookonce.model.detections import Detections


class Entry(msgspec.Struct):
    """A detection in a line."""

    class_id: int
    score: float
    box: tuple[float, float, float, float]
    id: int | None = None


class Line(msgspec.Struct):
    """A frame in the file."""

    frame: int
    time: float
    source: str
    detections: list[Entry]

    def found(self, class_names: tuple[str, ...]) -> Detections:
        """Return the detections, ids -1 where there is none. Raises UserError for a class that the model lacks."""
        parts = [(one.box, one.score, one.class_id, one.id or -1) for one in self.detections]
        boxes, scores, labels, ids = zip(*parts, strict=True) if parts else ((), (), (), ())
        return Detections(boxes, scores, labels, class_names, ids=ids)  # type: ignore[arg-type]


class FrameLines:
    """Writes the file; each line is complete when `add` returns.

    Args:
        path: the file.
        resume: add to the file that is there; what it has is in `earlier`. Otherwise it is replaced.
    Raises:
        UserError: the file cannot be written, or is not such a file.
    """

    def __init__(self, path: Path, resume: bool = False) -> None:
        self.path = path
        self.earlier: list[Line] = _complete_lines(path) if resume and path.exists() else []
        try:
            self._file: TextIO = path.open("a" if resume else "w", encoding="utf-8", newline="\n")
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None

    def add(self, frame: Frame, found: Detections, events: list[Event] | None) -> None:
        """Write one frame. events: None where no zones are counted. Raises UserError if the disk is full."""
        line: dict[str, Any] = {"frame": frame.index, "time": round(frame.time, 6), "source": frame.source,
                                "detections": found.to_json()}  # fmt: skip
        if events is not None:
            line["events"] = [event.to_json() for event in events]
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written: {error.strerror or error}; continue later with --resume"
            ) from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _complete_lines(path: Path) -> list[Line]:
    """Return the lines of a file, and cut off a last one that is not complete."""
    lines = read_lines(path)
    try:
        with path.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None
    return lines


def read_lines(path: Path) -> list[Line]:
    """Return the complete lines of a file. Raises UserError if it cannot be read or is not such a file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    found = []
    for number, text in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), 1):
        try:
            found.append(msgspec.json.decode(text, type=Line))
        except msgspec.DecodeError as error:
            raise UserError(f"{path}:{number}: {error}; expected the lines of an earlier detect") from None
    return found
