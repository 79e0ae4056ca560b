"""Tests of lookonce.inference.frame_lines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lookonce.errors import UserError
from lookonce.inference.counting import Event
from lookonce.inference.frame_lines import FrameLines
from lookonce.inference.sources import Frame
from lookonce.model.detections import Detections

NAMES = ("cat", "dog")
FOUND = Detections([[1, 2, 3, 4], [5, 6, 7.5, 8]], [0.9, 0.5], [1, 0], NAMES, ids=[4, -1])


def frame(index: int) -> Frame:
    return Frame(index, index / 3, "clip.mp4", np.zeros((1, 1, 3), np.uint8))


def test_a_frame_is_a_line_that_is_complete_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "clip.jsonl"
    lines = FrameLines(path)
    lines.add(frame(0), FOUND, [Event(0.25, 4, "dog", "line", "door", "in")])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {
            "frame": 0, "time": 0.0, "source": "clip.mp4",
            "detections": [
                {"label": "dog", "class_id": 1, "score": 0.9, "box": [1, 2, 3, 4], "id": 4},
                {"label": "cat", "class_id": 0, "score": 0.5, "box": [5, 6, 7.5, 8], "id": None},
            ],
            "events": [
                {"time": 0.25, "id": 4, "class": "dog", "kind": "line", "name": "door", "direction": "in"}
            ],
        }
    ]  # fmt: skip
    lines.close()


def test_resuming_keeps_complete_lines_and_cuts_off_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "clip.jsonl"
    for resume in (False, True):
        lines = FrameLines(path, resume)
        for index in range(2):
            lines.add(frame(index + 2 * resume), FOUND, None)
        lines.close()
        whole = path.read_text()
        path.write_text(whole + '{"frame": 9, "ti')
    again = FrameLines(path, resume=True)
    again.close()
    assert path.read_text() == whole
    assert [(line.frame, line.time) for line in again.earlier] == [(n, round(n / 3, 6)) for n in range(4)]
    found = again.earlier[0].found(NAMES)
    assert (found.boxes.tolist(), found.names) == (FOUND.boxes.tolist(), ("dog", "cat"))


def test_a_new_file_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "clip.jsonl"
    path.write_text("old\n")
    FrameLines(path).close()
    assert path.read_text() == ""


@pytest.mark.parametrize(
    "text", ["hello\n", '{"frame": 1}\n', '{"frame": 1, "time": 0, "source": 3, "detections": []}\n']
)
def test_what_is_no_such_file_is_an_error_with_its_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "clip.jsonl"
    path.write_text('{"frame": 0, "time": 0, "source": "a", "detections": []}\n' + text)
    with pytest.raises(UserError, match=r"clip\.jsonl:2: .*; expected the lines of an earlier detect"):
        FrameLines(path, resume=True)


def test_a_class_that_the_model_lacks_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "clip.jsonl"
    lines = FrameLines(path)
    lines.add(frame(0), FOUND, None)
    lines.close()
    [line] = FrameLines(path, resume=True).earlier
    with pytest.raises(UserError, match="labels 0 to 1; expected 0 to 0"):
        line.found(("cat",))


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.jsonl: cannot be written"):
        FrameLines(tmp_path / "none" / "x.jsonl")
