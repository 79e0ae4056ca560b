"""Tests of lookonce.inference.sources."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from lookonce.errors import ConfigError, UserError
from lookonce.inference.captures import Capture
from lookonce.inference.sources import PAUSES, Sampling, Source, find_sources, frames_together, kind_of, open_capture

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffmpeg is not installed")
FRAMES = 20


def grey(level: int) -> np.ndarray:
    return np.full((48, 64, 3), level, np.uint8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 frames at 10 a second; frame n is grey of 10 n."""
    path = tmp_path_factory.mktemp("videos") / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for n in range(FRAMES):
        writer.write(grey(10 * n))
    writer.release()
    return path


def indices(path: Path | str, **sampling: float) -> list[int]:
    return [frame.index for frame in Source(str(path), Sampling(**sampling))]


def test_every_frame_comes_in_order_with_its_pixels_and_time(clip: Path) -> None:
    source = Source(str(clip), Sampling())
    frames = list(source)
    assert [frame.index for frame in frames] == list(range(FRAMES))
    assert [frame.time for frame in frames] == pytest.approx([n / 10 for n in range(FRAMES)])
    assert [frame.pixels.mean() for frame in frames] == pytest.approx([10 * n for n in range(FRAMES)], abs=4)
    assert (source.size, source.live, str(source.tally)) == ((64, 48), False, "20 frames read")


def test_colours_are_rgb(tmp_path: Path) -> None:
    path = tmp_path / "red.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    writer.write(np.full((48, 64, 3), (0, 0, 255), np.uint8))  # BGR
    writer.release()
    [frame] = Source(str(path), Sampling())
    assert frame.pixels[20, 20].tolist() == pytest.approx([254, 0, 0], abs=6)


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ({"every": 7}, [0, 7, 14]),
        ({"fps": 2}, [0, 5, 10, 15]),
        ({"fps": 4}, [0, 3, 5, 8, 10, 13, 15, 18]),  # 0, .25 -> .3, .5, .75 -> .8
        ({"fps": 100}, list(range(FRAMES))),
        ({"start": 0.45, "end": 0.8}, [5, 6, 7, 8]),
        ({"start": 0.5, "fps": 2}, [5, 10, 15]),
        ({"fps": 2, "after": 7}, [10, 15]),
    ],
)
def test_sampling_is_by_index_or_by_time(clip: Path, sampling: dict[str, float], expected: list[int]) -> None:
    assert indices(clip, **sampling) == expected


@pytest.mark.parametrize(
    "bad", [{"every": 0}, {"fps": 0}, {"fps": float("nan")}, {"start": -1}, {"start": 3, "end": 2}]
)
def test_sampling_that_selects_nothing_is_an_error(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"^{list(bad)[-1]}: "):
        Sampling(**bad)


VARIABLE = {
    "a.mp4": ("select='not(mod(n,7)*mod(n,3))+gt(n,40)'", ("-c:v", "mpeg4", "-bf", "2")),
    "b.webm": ("select='not(mod(n,5)*mod(n,3))+gt(n,40)'", ("-c:v", "libvpx")),
    "c.mkv": ("setpts='PTS+0.43/TB*gt(N,10)+0.2*N*N/TB/900'", ("-c:v", "mpeg4")),
}


@needs_ffmpeg
@pytest.mark.parametrize("name", VARIABLE)
def test_times_of_variable_frame_rates_are_those_of_ffprobe(tmp_path: Path, name: str) -> None:
    filters, codec = VARIABLE[name]
    path = tmp_path / name
    subprocess.run(["ffmpeg", "-v", "fatal", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=30:d=2", "-vf", filters,
                    "-vsync", "vfr", *codec, str(path)], check=True)  # fmt: skip
    probed = subprocess.run(["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "frame=pts_time", "-of",
                             "csv=p=0", str(path)], check=True, capture_output=True, text=True).stdout  # fmt: skip
    expected = [float(line.strip(",")) for line in probed.split()]
    source = Source(str(path), Sampling())
    times = [frame.time for frame in source]
    assert len(set(np.diff(expected).round(3))) > 1  # the rate varies
    assert times == pytest.approx(expected, abs=0.001)
    assert (source.tally.read, source.tally.missing, source.tally.note) == (len(expected), 0, "")


def test_rotation_in_the_metadata_is_applied(clip: Path, tmp_path: Path) -> None:
    content = bytearray(clip.read_bytes())
    matrix = content.find(b"tkhd") + 44  # version 0
    quarter = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], ">i4")
    content[matrix : matrix + 36] = quarter.tobytes()
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(content)
    source = Source(str(turned), Sampling(every=10))
    assert source.size == (48, 64)
    assert {frame.pixels.shape for frame in source} == {(64, 48, 3)}


@needs_ffmpeg
def test_a_file_that_is_cut_is_reported_with_its_counts(tmp_path: Path) -> None:
    whole = tmp_path / "whole.mp4"
    subprocess.run(["ffmpeg", "-v", "fatal", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=30:d=3", "-c:v", "mpeg4",
                    "-movflags", "faststart", str(whole)], check=True)  # fmt: skip
    cut = tmp_path / "cut.mp4"
    content = whole.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    source = Source(str(cut), Sampling())
    read = len(list(source))
    assert 10 < read < 80
    assert source.tally.missing == 90 - read
    assert f"{read} frames read, {90 - read} missing; the video ends at " in str(source.tally)
    assert "of 3.00 s: the file is cut off or damaged" in source.tally.note


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello, I am text\n" * 9, "is text"),
        (bytes(range(256)) * 4, "cannot be read as a video: it is damaged"),
    ],
)
def test_what_is_no_video_is_an_error_that_says_what_it_is(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"clip.mp4: {message}"):
        Source(str(path), Sampling())


def test_a_missing_file_camera_or_stream_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"nowhere\.mp4: no such file"):
        Source("nowhere.mp4", Sampling())
    with pytest.raises(UserError, match=r"camera 97: there is none, or another program uses it"):
        Source("97", Sampling(), lambda name: None)
    with pytest.raises(UserError, match=r"rtsp://x: gives no video within 10 s"):
        Source("rtsp://x", Sampling(), lambda name: None)
    monkeypatch.setenv("LOOKONCE_OFFLINE", "1")
    with pytest.raises(UserError, match=r"rtsp://x: not opened, because of --offline"):
        Source("rtsp://x", Sampling(), lambda name: None)


class FakeCapture:
    """A camera that gives some frames and stops."""

    size, fps, expected, undecodable = (64, 48), 30.0, 0, 0

    def __init__(self, frames: int, pace: float = 0.0) -> None:
        self.left, self.pace = frames, pace

    def grab(self) -> bool:
        time.sleep(self.pace)
        self.left -= 1
        return self.left >= 0

    def moment(self) -> float:
        raise AssertionError("the time of a live frame is when it arrives")

    def pixels(self) -> np.ndarray:
        return grey(self.left)

    def release(self) -> None:
        pass


def test_a_camera_that_stops_is_opened_again_after_growing_pauses_and_then_reported() -> None:
    opened = iter([FakeCapture(3), None, None, FakeCapture(2), *[None] * len(PAUSES)])
    pauses: list[float] = []
    source = Source("0", Sampling(keep_all=True), lambda name: next(opened), pauses.append)
    assert [frame.index for frame in source] == [0, 1, 2, 3, 4]
    assert pauses == [*PAUSES[:3], *PAUSES]
    assert (source.tally.failed, source.tally.reconnects, source.tally.dropped) == (True, 1, 0)
    assert "it stopped after 5 frames, and did not come back in 5 tries within 31 s" in str(source.tally)


def test_a_slow_reader_of_a_camera_gets_the_newest_frame_and_drops_are_counted() -> None:
    source = Source("0", Sampling(), lambda name: FakeCapture(40, pace=0.002), lambda seconds: source._stop.set())
    seen = []
    for frame in source:
        time.sleep(0.01)
        seen.append(frame.index)
    assert seen == sorted(set(seen))
    assert source.tally.dropped > 0
    assert len(seen) + source.tally.dropped == source.tally.read == 40


def test_keep_all_gives_a_slow_reader_every_frame() -> None:
    source = Source("0", Sampling(keep_all=True), lambda name: FakeCapture(20), lambda seconds: source._stop.set())
    assert [frame.index for frame in source if not time.sleep(0.002)] == list(range(20))
    assert source.tally.dropped == 0


def test_a_reader_may_stop_early(clip: Path) -> None:
    for frame in Source(str(clip), Sampling()):
        if frame.index == 2:
            break
    assert frame.index == 2


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("clip.MP4", "video"), ("~/a/clip.webm", "video"), ("0", "camera"), ("12", "camera"), ("photo.jpg", None),
        ("rtsp://user:word@host/1", "stream"), ("http://host/live.m3u8?token=1", "stream"),
        ("https://host/clip.mp4", "stream"), ("http://host/video.mjpg", "stream"), ("https://host/photo.jpg", None),
        ("https://host/page", None), ("folder/*.jpg", None),
    ],
)  # fmt: skip
def test_names_say_what_they_are(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind


def test_lists_folders_and_patterns_give_images_and_moving_images(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7").write_text("a file that is called 7")
    assert kind_of("7") is None
    (tmp_path / "sub").mkdir()
    for name in ("b.mp4", "a.mkv", "sub/c.mov", "notes.doc"):
        (tmp_path / name).touch()
    here = str(tmp_path)
    assert find_sources(here) == ([], [str(tmp_path / name) for name in ("a.mkv", "b.mp4", "sub/c.mov")])
    assert find_sources("*.m*") == ([], ["a.mkv", "b.mp4"])
    Path("sub/list.txt").write_text("# cameras\n0\n\nphoto.jpg\nrtsp://host/1\nc.mov\nhttps://host/photo.jpg\n")
    images = [str(Path("sub/photo.jpg")), "https://host/photo.jpg"]
    assert find_sources("sub/list.txt") == (images, ["0", "rtsp://host/1", str(Path("sub/c.mov"))])
    Path("sub/none.txt").write_text("# nothing\n")
    with pytest.raises(UserError, match=r"none\.txt: has no lines; expected an image, video"):
        find_sources("sub/none.txt")
    assert find_sources("photo.jpg") == (["photo.jpg"], [])
    assert find_sources("https://host/photo.jpg?size=*") == (["https://host/photo.jpg?size=*"], [])
    (tmp_path / "photo.jpg").touch()
    assert find_sources(here)[0] == [here]
    assert len(find_sources(here)[1]) == 3
    assert find_sources("*.*")[0] == ["notes.doc", "photo.jpg"]
    assert find_sources("*.jpg") == (["*.jpg"], [])  # as for images alone


def test_live_sources_are_read_at_the_same_time_and_one_that_ends_does_not_end_the_others() -> None:
    captures = {"0": FakeCapture(3, pace=0.002), "1": FakeCapture(9, pace=0.002)}
    cameras = [Source(name, Sampling(keep_all=True), lambda name: captures.pop(name, None), lambda seconds: None)
               for name in list(captures)]  # fmt: skip
    seen: dict[str, list[int]] = {"0": [], "1": []}
    most = 0
    for batch in frames_together(cameras, 2):
        most = max(most, len(batch))
        for source, frame in batch:
            seen[source.name].append(frame.index)
        time.sleep(0.01)
    assert seen == {"0": [0, 1, 2], "1": list(range(9))}
    assert most > 2  # frames of both, in one batch
    assert [camera.tally.failed for camera in cameras] == [True, True]


def test_a_wait_without_frames_yields_an_empty_list() -> None:
    camera = Source("0", Sampling(), lambda name: FakeCapture(1, pace=0.2), lambda seconds: camera._stop.set())
    batches = [len(batch) for batch in frames_together([camera], 1, patience=0.02)]
    assert batches.count(1) == 1
    assert batches.count(0) > 2


def test_an_error_of_the_reading_thread_reaches_the_reader() -> None:
    capture = FakeCapture(3)
    capture.pixels = lambda: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        list(Source("0", Sampling(), lambda name: capture))


def test_a_reader_gets_frames_in_the_size_that_it_asks_for_where_the_decoder_scales() -> None:
    capture = FakeCapture(2)
    capture.scaled = lambda size: np.zeros((size[1], size[0], 3), np.uint8)  # type: ignore[attr-defined]
    source = Source("0", Sampling(keep_all=True), lambda name: capture, lambda seconds: source._stop.set())
    source.scale_to = 32, 24
    assert [(frame.pixels.shape, frame.scaled.shape) for frame in source] == [((48, 64, 3), (24, 32, 3))] * 2


def test_files_that_wait_for_their_turn_are_closed(clip: Path) -> None:
    opened: list[Capture] = []

    def opener(name: str) -> Capture:
        opened.append(open_capture(name))  # type: ignore[arg-type]
        return opened[-1]

    source = Source(str(clip), Sampling(), opener)
    assert not opened[0].grab()
    assert len(list(source)) == FRAMES
    assert [capture.grab() for capture in opened] == [False, False]
