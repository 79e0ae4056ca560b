"""Tests of lookonce.commands.moving."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lookonce.cli import main
from lookonce.commands.detect import detect
from lookonce.commands.moving import _free, _scale_to
from lookonce.errors import Interrupted, UserError
from lookonce.inference.detector import Detector
from lookonce.inference.sources import Sampling, Source

FRAMES = 24
ZONES = """
lines: {middle: [[48, 0], [48, 96]], edge: [[1, 0], [1, 96]]}
zones: {right: [[60, 5], [95, 5], [95, 90], [60, 90]]}
"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red square that moves from left to right at 20 frames a second."""
    path = tmp_path_factory.mktemp("moving") / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 20, (96, 96))
    for n in range(FRAMES):
        image = np.full((96, 96, 3), 255, np.uint8)
        image[36:64, 2 + int(2.6 * n) : 30 + int(2.6 * n)] = (0, 0, 255)
        writer.write(image)
    writer.release()
    return path


@pytest.fixture(scope="module")
def zones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zones") / "zones.yaml"
    path.write_text(ZONES)
    return path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_video_becomes_a_video_of_the_same_times_and_a_line_a_frame(run, clip, tmp_path):
    summary = detect(run, [str(clip)], out=tmp_path / "out")
    source = Source(str(tmp_path / "out" / "clip.mp4"), Sampling())
    times = [frame.time for frame in source]
    assert times == pytest.approx([n / 20 for n in range(FRAMES)], abs=1e-4)
    said = lines(tmp_path / "out" / "clip.jsonl")
    assert [line["frame"] for line in said] == list(range(FRAMES))
    assert [line["time"] for line in said] == pytest.approx(times, abs=1e-4)
    assert {line["source"] for line in said} == {str(clip)}
    assert "id" not in said[10]["detections"][0]
    about = json.loads((tmp_path / "out" / "videos.json").read_text())
    assert about["sources"][0]["frames"] == {
        "read": FRAMES,
        "used": FRAMES,
        "dropped": 0,
        "undecodable": 0,
        "missing": 0,
    }
    assert about["sources"][0]["detections"] == sum(len(line["detections"]) for line in said) > FRAMES / 2
    assert f"in {FRAMES} frames read\n-> {tmp_path / 'out'} (videos.json, jsonl, mp4)" in str(summary)


def test_detections_are_those_of_the_frames_as_images(run, clip, tmp_path):
    detect(run, [str(clip)], out=tmp_path, every=5, save_images=False)
    detector = Detector(run)
    frames = list(Source(str(clip), Sampling(every=5)))
    assert [line["detections"] for line in lines(tmp_path / "clip.jsonl")] == [
        detector(frame.pixels).to_json() for frame in frames
    ]
    assert not (tmp_path / "clip.mp4").exists()


def test_objects_are_numbered_and_counted(run, clip, zones, tmp_path):
    summary = detect(run, [str(clip)], out=tmp_path, zones=zones, labels=["red"], save=["csv"])
    [one] = summary.sources
    assert one.objects == 1
    counts = one.to_json()["counts"]
    assert counts["middle"] == {"in": {}, "out": {"red": 1}}  # the line goes down the image: its left is on the right
    assert sum(counts["right"].get(way, {}).get("red", 0) for way in ("enter", "vanish")) == 2
    with (tmp_path / "clip-events.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    [crossing] = [row for row in rows if row["name"] == "middle"]
    assert float(crossing["time"]) == pytest.approx((48 - 16) / 2.6 / 20, abs=0.08)  # when its centre is at 48
    assert [
        event for line in lines(tmp_path / "clip.jsonl") for event in line["events"] if event["name"] == "middle"
    ] == [
        {"time": float(crossing["time"]), "id": 1, "class": "red", "kind": "line", "name": "middle", "direction": "out"}
    ]
    with (tmp_path / "clip.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == one.detections
    assert table[-1]["id"] == "1"
    assert one.warnings[0].startswith("edge: cannot count anything here")
    assert "middle: in 0, out 1" in str(summary)


def test_a_stop_keeps_complete_files_and_resume_ends_as_an_unbroken_call(run, clip, zones, tmp_path, monkeypatch):
    whole = detect(run, [str(clip)], out=tmp_path / "whole", zones=zones, save=["csv"])
    calls, plain = [], Detector.detect

    def stops(self, images, selection=None):
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return plain(self, images, selection)

    monkeypatch.setattr(Detector, "detect", stops)
    with pytest.raises(Interrupted, match=r"stopped: .*clip\.mp4: \d+ detections"):
        detect(run, [str(clip)], out=tmp_path / "out", zones=zones, save=["csv"])
    assert len(lines(tmp_path / "out" / "clip.jsonl")) == 8
    assert len(list(Source(str(tmp_path / "out" / "clip.mp4"), Sampling()))) == 8
    with (tmp_path / "out" / "clip.jsonl").open("a") as file:
        file.write('{"frame": 8, "ti')  # as after a power cut
    again = detect(run, [str(clip)], out=tmp_path / "out", zones=zones, save=["csv"], resume=True)
    for name in ("clip.jsonl", "clip.csv", "clip-events.csv"):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert again.sources[0].to_json()["counts"] == whole.sources[0].to_json()["counts"]
    assert again.sources[0].video == "clip-2.mp4"
    assert len(list(Source(str(tmp_path / "out" / "clip-2.mp4"), Sampling()))) == FRAMES - 8


def test_resume_with_another_source_is_an_error(run, clip, tmp_path):
    (tmp_path / "clip.jsonl").write_text('{"frame": 0, "time": 0, "source": "other/clip.mp4", "detections": []}\n')
    with pytest.raises(UserError, match=r"clip\.jsonl: is of other/clip\.mp4, not of .*; give the same sources"):
        detect(run, [str(clip)], out=tmp_path, resume=True)


def test_overwrite_replaces_what_an_earlier_call_wrote_and_never_the_source(run, clip, tmp_path):
    own = tmp_path / "clip.mp4"
    own.write_bytes(clip.read_bytes())
    for _ in range(2):
        detect(run, [str(own)], out=tmp_path, overwrite=True, end=0.2)
        assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4", "clip-2.mp4", "clip-2.jsonl", "videos.json"}
    assert own.read_bytes() == clip.read_bytes()


def test_labels_and_crops_of_frames_are_written(run, clip, tmp_path):
    detect(run, [str(clip)], out=tmp_path, save=["yolo", "crops"], save_images=False, start=0.5, end=0.6)
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == [f"clip-{n:06d}.txt" for n in (10, 11, 12)]
    crop = next((tmp_path / "crops" / "red").glob("clip-000010-*.jpg"))
    assert np.asarray(Image.open(crop)).mean((0, 1))[0] > 200


def test_a_zone_outside_the_video_is_an_error(run, clip, tmp_path):
    wide = tmp_path / "wide.yaml"
    wide.write_text("lines: {far: [[0, 0], [500, 0]]}")
    with pytest.raises(UserError, match=r"far: the point \(500, 0\) is outside the image; expected 0 to 96"):
        detect(run, [str(clip)], out=tmp_path / "out", zones=wide)


def test_a_list_may_have_images_and_videos(run, clip, tmp_path, capsys):
    [frame] = Source(str(clip), Sampling(start=0.5, end=0.5))
    Image.fromarray(frame.pixels).save(tmp_path / "clip.png")
    (tmp_path / "list.txt").write_text(f"# two kinds\n{clip}\nclip.png\n")
    out = tmp_path / "out"
    assert main(["detect", str(run), str(tmp_path / "list.txt"), "--out", str(out), "--save", "coco", "--json"]) == 0
    assert {path.name for path in out.iterdir()} == {
        "clip.jpg", "clip-2.mp4", "clip-2.jsonl", "videos.json", "detections.json", "coco.json",
    }  # fmt: skip
    said = json.loads(capsys.readouterr().out)
    assert (said["images"], said["sources"][0]["frames"]["used"]) == (1, FRAMES)
    [image] = json.loads((out / "detections.json").read_text())["images"]
    assert image["file"] == str(tmp_path / "clip.png")
    assert image["detections"] == lines(out / "clip-2.jsonl")[10]["detections"]
    with pytest.raises(UserError, match=r"resume: is for videos; leave out .*clip\.png"):
        detect(run, [str(tmp_path / "list.txt")], out=out, resume=True)


class Camera:
    """A camera that shows a clip, then stops."""

    size, fps, expected, undecodable = (96, 96), 20.0, 0, 0

    def __init__(self, clip: Path) -> None:
        self.frames = iter([frame.pixels for frame in Source(str(clip), Sampling())])

    def grab(self) -> bool:
        self.frame = next(self.frames, None)
        return self.frame is not None

    def pixels(self) -> np.ndarray:
        return self.frame

    def scaled(self, size: tuple[int, int]) -> None:
        return None

    def release(self) -> None:
        pass


def test_cameras_are_read_together_and_each_has_its_files(run, clip, zones, tmp_path, monkeypatch):
    opened: dict[str, Camera] = {"0": Camera(clip), "1": Camera(clip)}
    sizes, plain = [], Detector.detect

    def detecting(self, images, selection=None):
        sizes.append(len(images))
        return plain(self, images, selection)

    monkeypatch.setattr(Detector, "detect", detecting)
    monkeypatch.setattr("lookonce.commands.moving.Source", lambda name, sampling: Source(
        name, sampling, lambda name: opened.pop(name, None), lambda seconds: None))  # fmt: skip
    with pytest.raises(UserError, match=r"^0: .*it stopped after 24 frames, and did not come.*; 1: .*it stop"):
        detect(run, ["0", "1"], out=tmp_path, zones=zones, labels=["red"], keep_all=True)
    about = json.loads((tmp_path / "videos.json").read_text())["sources"]
    assert [one["lines"] for one in about] == ["camera-0.jsonl", "camera-1.jsonl"]
    for one in about:
        assert one["frames"]["used"] == FRAMES
        assert one["objects"] >= 1
        assert one["counts"]["middle"]["in"] == {}
        assert len(lines(tmp_path / one["lines"])) == len(list(Source(str(tmp_path / one["video"]), Sampling()))) == 24
    assert sum(sizes) == 2 * FRAMES
    assert max(sizes) > 8  # frames of both in one call


def test_a_camera_cannot_be_continued(run, clip, tmp_path, monkeypatch):
    monkeypatch.setattr("lookonce.commands.moving.Source", lambda name, sampling: Source(
        name, sampling, lambda name: Camera(clip)))  # fmt: skip
    with pytest.raises(UserError, match="0: is live, so it cannot be continued; leave out --resume"):
        detect(run, ["0"], out=tmp_path, resume=True)


def test_frames_far_larger_than_the_input_are_scaled_by_the_decoder(run, clip, tmp_path, monkeypatch):
    detector = Detector(run)
    width, height = detector.about.input_size
    assert _scale_to(detector, (4 * width, 2 * height)) == (width, height // 2)
    assert _scale_to(detector, (width, height)) is None
    detector.tiling = object()  # tiles need the whole frame
    assert _scale_to(detector, (4 * width, 2 * height)) is None
    [frame] = Source(str(clip), Sampling(start=0.5, end=0.5))
    large = np.kron(frame.pixels, np.ones((4, 4, 1), np.uint8))
    camera = Camera(clip)
    camera.frames = iter([large])
    camera.scaled = lambda size: np.asarray(Image.fromarray(large).resize(size, Image.Resampling.BILINEAR))
    camera.size = 384, 384
    opened = [camera]
    monkeypatch.setattr("lookonce.commands.moving.Source", lambda name, sampling: Source(
        name, sampling, lambda name: opened.pop() if opened else None, lambda seconds: None))  # fmt: skip
    with pytest.raises(UserError, match="it stopped after 1 frame"):
        detect(run, ["0"], out=tmp_path)
    [line] = lines(tmp_path / "camera-0.jsonl")
    [found], [expected] = line["detections"], Detector(run)(large).to_json()
    assert found["box"] == pytest.approx(expected["box"], abs=2)  # in pixels of the whole frame


class FakeView:
    """A view that the user closes after some frames."""

    def __init__(self, most: int) -> None:
        self.most, self.names, self.shown, self.closed = most, [], [], False

    def begin(self, names: list[str]) -> None:
        self.names.append(names)

    def put(self, name: str, pixels: np.ndarray) -> None:
        self.shown.append((name, pixels))

    def update(self) -> None:
        if len(self.shown) >= self.most:
            raise KeyboardInterrupt

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(("words", "kind"), [(["--show"], "window"), (["--show", "page"], "page")])
def test_frames_are_shown_and_closing_the_view_keeps_everything(run, clip, tmp_path, monkeypatch, words, kind):
    view, kinds = FakeView(5), []
    monkeypatch.setattr("lookonce.commands.moving.open_view", lambda show: [kinds.append(show), view][1])
    code = main(["detect", str(run), str(clip), "--out", str(tmp_path), "--no-save-images", *words])
    assert (code, kinds, view.names, view.closed) == (130, [kind], [["clip"]], True)
    assert {name for name, _ in view.shown} == {"clip"}
    [frame] = Source(str(clip), Sampling(end=0))
    assert (view.shown[0][1] != frame.pixels).any()  # with its boxes
    assert len(lines(tmp_path / "clip.jsonl")) == json.loads((tmp_path / "videos.json").read_text())["sources"][0][
        "frames"]["used"]  # fmt: skip


def test_a_display_that_is_not_there_is_an_error_before_the_model_is_opened(clip, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "tkinter", None)
    assert main(["detect", "nowhere", str(clip), "--out", str(tmp_path / "out"), "--show"]) == 2
    assert "use --show page" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_without_frames_does_not_end_the_others(run, clip, tmp_path, monkeypatch):
    broken = tmp_path / "a.mp4"
    broken.write_bytes(clip.read_bytes())
    plain = Source._read_all

    def reading(self, capture):
        if self.name == str(broken):
            capture.grab = lambda: False
        plain(self, capture)

    monkeypatch.setattr(Source, "_read_all", reading)
    with pytest.raises(UserError, match=r"a\.mp4: 0 detections in 0 frames read; no frame can be decoded"):
        detect(run, [str(broken), str(clip)], out=tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.jsonl", "clip.jsonl", "clip.mp4", "videos.json"}
    assert len(lines(tmp_path / "out" / "clip.jsonl")) == FRAMES


def test_the_command_line_prints_the_counts(run, clip, tmp_path, capsys):
    assert main(["detect", str(run), str(clip), "--out", str(tmp_path), "--track", "--fps", "5", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["sources"][0]["frames"]["used"] == 6
    assert main(["detect", str(run), str(tmp_path / "none.mp4")]) == 2
    assert "none.mp4: no such file; expected a video" in capsys.readouterr().err


def test_names_of_files_come_from_the_source():
    taken: set[str] = set()
    assert [_free(name, taken) for name in ("a/clip.mp4", "b/Clip.mov", "0", "rtsp://me:word@host/1?key=2")] == [
        "clip", "Clip-2", "camera-0", "1",
    ]  # fmt: skip


def test_frames_are_detected_in_tiles(run, clip, tmp_path):
    detect(run, [str(clip)], out=tmp_path, every=10, save_images=False, tile="64x96", overlap=0.5)
    detector = Detector(run, tile=(64, 96), overlap=0.5)
    frames = list(Source(str(clip), Sampling(every=10)))
    assert [line["detections"] for line in lines(tmp_path / "clip.jsonl")] == [
        detector(frame.pixels).to_json() for frame in frames
    ]
    about = json.loads((tmp_path / "videos.json").read_text())
    assert (about["tile"], about["overlap"]) == ([64, 96], 0.5)
