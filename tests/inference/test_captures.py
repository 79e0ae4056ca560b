"""Tests of lookonce.inference.captures."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lookonce.errors import UserError
from lookonce.inference import captures
from lookonce.inference.captures import OpenCvCapture, PyAvCapture, load_av, open_camera, open_video, place_of

needs_av = pytest.mark.skipif(load_av() is None, reason="PyAV is not installed")
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
VIDEOS = {
    "reordered.mp4": ("-vf", "select='not(mod(n,7)*mod(n,3))+gt(n,40)'", "-vsync", "vfr", "-c:v", "mpeg4", "-bf", "2"),
    "variable.mkv": ("-vf", "setpts='PTS+0.43/TB*gt(N,10)+0.2*N*N/TB/900'", "-vsync", "vfr", "-c:v", "mpeg4"),
    "late.ts": ("-c:v", "mpeg2video"),
    "odd.avi": ("-vf", "scale=63:47", "-c:v", "mjpeg"),
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 frames at 10 a second; frame n is a gradient that is brighter by 10 n."""
    path = tmp_path_factory.mktemp("captures") / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    ramp = np.linspace(0, 120, 64, dtype=np.uint8)[None, :, None].repeat(48, 0).repeat(3, 2)
    for n in range(12):
        writer.write(ramp + 10 * n)
    writer.release()
    return path


def turned(clip: Path, folder: Path, matrix: list[int]) -> Path:
    """A copy whose metadata turn the image."""
    content = bytearray(clip.read_bytes())
    place = content.find(b"tkhd") + 44  # version 0
    content[place : place + 36] = np.array([v << 16 for v in matrix[:8]] + [1 << 30], ">i4").tobytes()
    path = folder / "turned.mp4"
    path.write_bytes(content)
    return path


def frames(capture) -> list[tuple[float, np.ndarray]]:
    found = []
    while capture.grab():
        found.append((capture.moment(), capture.pixels()))
    capture.release()
    return found


def by_opencv(path: Path) -> OpenCvCapture:
    return OpenCvCapture(cv2.VideoCapture(str(path), cv2.CAP_FFMPEG))


def assert_both_agree(path: Path) -> None:
    ours, other = PyAvCapture.opened(str(path), False), by_opencv(path)
    assert ours is not None
    assert (ours.size, ours.fps) == (other.size, pytest.approx(other.fps, rel=0.01))
    assert ours.expected == pytest.approx(other.expected, abs=1)
    mine, theirs = frames(ours), frames(other)
    assert [time for time, _ in mine] == pytest.approx([time for time, _ in theirs], abs=0.001)
    assert len(mine) > 10
    for (_, a), (_, b) in zip(mine, theirs, strict=True):
        assert a.shape == b.shape
        assert np.abs(a.astype(int) - b).max() <= 2


@needs_av
@needs_ffmpeg
@pytest.mark.parametrize("name", VIDEOS)
def test_pyav_gives_the_frames_and_times_of_opencv(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    subprocess.run(["ffmpeg", "-v", "fatal", "-f", "lavfi", "-i", "testsrc2=size=64x48:rate=30:d=2", *VIDEOS[name],
                    str(path)], check=True)  # fmt: skip
    assert_both_agree(path)


@needs_av
@pytest.mark.parametrize("matrix", [(0, 1, 0, -1, 0, 0, 0, 0), (-1, 0, 0, 0, -1, 0, 0, 0), (0, -1, 0, 1, 0, 0, 0, 0)])
def test_pyav_turns_frames_as_opencv_does(clip: Path, tmp_path: Path, matrix: tuple[int, ...]) -> None:
    assert_both_agree(turned(clip, tmp_path, list(matrix)))


@needs_av
def test_pyav_counts_what_it_cannot_decode_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "hurt.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for n in range(12):
        writer.write(np.full((48, 64, 3), 10 * n, np.uint8))
    writer.release()
    content = bytearray(path.read_bytes())
    starts = [n for n in range(len(content)) if content[n : n + 2] == b"\xff\xd8"]
    assert len(starts) == 12
    content[starts[5] : starts[6] - 8] = bytes(starts[6] - 8 - starts[5])
    path.write_bytes(content)
    capture = PyAvCapture.opened(str(path), False)
    assert capture is not None
    seen = [round(pixels.mean() / 10) for _, pixels in frames(capture)]
    assert (seen, capture.undecodable) == ([n for n in range(12) if n != 5], 1)


@needs_av
@pytest.mark.parametrize("matrix", [(1, 0, 0, 0, 1, 0, 0, 0), (0, 1, 0, -1, 0, 0, 0, 0)])
def test_pyav_scales_frames_nearly_as_the_network_s_input_is_made(clip: Path, tmp_path: Path, matrix) -> None:
    capture = PyAvCapture.opened(str(turned(clip, tmp_path, list(matrix))), False)
    assert capture is not None
    assert capture.grab()
    half = capture.size[0] // 2, capture.size[1] // 2
    found, whole = capture.scaled(half), capture.pixels()
    assert found.shape == (half[1], half[0], 3)
    expected = np.asarray(Image.fromarray(whole).resize(half, Image.Resampling.BILINEAR))
    assert np.abs(found.astype(int) - expected).mean() < 2


def test_opencv_scales_nothing(clip: Path) -> None:
    capture = by_opencv(clip)
    assert capture.grab()
    assert capture.scaled((32, 24)) is None


def test_opencv_reads_where_pyav_is_not_installed(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captures, "load_av", lambda: None)
    capture = open_video(str(clip))
    assert isinstance(capture, OpenCvCapture)
    assert [time for time, _ in frames(capture)] == pytest.approx([n / 10 for n in range(12)])


@pytest.mark.parametrize("av", [None, pytest.param("av", marks=needs_av)])
def test_what_is_no_video_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, av: str | None) -> None:
    if av is None:
        monkeypatch.setattr(captures, "load_av", lambda: None)
    (tmp_path / "text.mp4").write_text("hello\n" * 20)
    assert open_video(str(tmp_path / "text.mp4")) is None
    assert open_video(str(tmp_path / "none.mp4")) is None
    assert open_video("http://127.0.0.1:1/none.mjpg", live=True) is None


def test_there_is_no_camera_of_a_high_number() -> None:
    assert open_camera(97) is None


def test_a_place_is_a_path_or_an_address() -> None:
    assert place_of("rtsp://host/~/1") == "rtsp://host/~/1"
    assert place_of("~/clip.mp4") == str(Path.home() / "clip.mp4")


def test_without_opencv_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(UserError, match=r"need OpenCV, which is not installed; run: pip install 'lookonce\[video\]'"):
        captures.load_cv2()
