"""Tests of lookonce.inference.video_file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from lookonce.errors import UserError
from lookonce.inference import video_file
from lookonce.inference.sources import Sampling, Source
from lookonce.inference.video_file import VideoFile

TIMES = [7.0, 7.033, 7.1, 7.1004, 7.6, 9.0]


@pytest.fixture(params=["opencv", "ffmpeg"])
def encoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "ffmpeg" and not video_file.has_h264():
        pytest.skip("no ffmpeg with H.264")
    monkeypatch.setattr(video_file, "has_h264", lambda: request.param == "ffmpeg")
    return request.param


def write(path: Path, size: tuple[int, int] = (64, 48)) -> Path:
    video = VideoFile(path, size, 20.0)
    for n, time in enumerate(TIMES):
        video.write(np.full((size[1], size[0], 3), (40 * n, 100, 0), np.uint8), time)
    video.close()
    return path


def test_frames_have_their_times_and_pixels(tmp_path: Path, encoder: str) -> None:
    source = Source(str(write(tmp_path / "a.mp4")), Sampling())
    frames = list(source)
    assert [frame.time for frame in frames] == pytest.approx([time - 7 for time in TIMES], abs=0.0001)
    assert [frame.pixels[..., 0].mean() for frame in frames] == pytest.approx([40 * n for n in range(6)], abs=8)
    assert source.expected / source.fps == pytest.approx(2.05, abs=0.001)  # the last frame lasts 1/20 s
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffmpeg is not installed")
def test_ffprobe_reads_the_same_times_and_duration(tmp_path: Path, encoder: str) -> None:
    path = write(tmp_path / "a.mp4")
    shown = subprocess.run(["ffprobe", "-v", "error", "-show_entries", "frame=pts_time:format=duration", "-of",
                            "default=nk=1:nw=1", str(path)], check=True, capture_output=True, text=True)  # fmt: skip
    *times, duration = (float(line) for line in shown.stdout.split())
    assert times == pytest.approx([time - 7 for time in TIMES], abs=0.0001)
    assert duration == pytest.approx(2.05, abs=0.001)
    assert shown.stderr == ""


def test_odd_sides_and_frames_of_another_size_are_written(tmp_path: Path, encoder: str) -> None:
    video = VideoFile(tmp_path / "odd.mp4", (63, 47), 10)
    video.write(np.zeros((47, 63, 3), np.uint8), 0.0)
    video.write(np.zeros((20, 30, 3), np.uint8), 0.1)
    video.close()
    assert {frame.pixels.shape for frame in Source(str(tmp_path / "odd.mp4"), Sampling())} == {(48, 64, 3)}


def test_a_video_without_frames_leaves_no_file_and_is_no_error(tmp_path: Path, encoder: str) -> None:
    VideoFile(tmp_path / "none.mp4", (64, 48), 10).close()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path, encoder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot"):
        write(tmp_path / "file" / "a.mp4")


def test_the_message_says_how_to_get_h264(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(video_file, "has_h264", lambda: False)
    video_file._say_once.cache_clear()
    with caplog.at_level("INFO", "lookonce"):
        write(tmp_path / "a.mp4")
        write(tmp_path / "b.mp4")
    assert caplog.text.count("for H.264 install the program ffmpeg") == 1
