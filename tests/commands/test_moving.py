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
from lookonce.commands.moving import _free
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


def test_a_zone_outside_the_video_and_a_second_camera_are_errors(run, clip, tmp_path, monkeypatch):
    wide = tmp_path / "wide.yaml"
    wide.write_text("lines: {far: [[0, 0], [500, 0]]}")
    with pytest.raises(UserError, match=r"far: the point \(500, 0\) is outside the image; expected 0 to 96"):
        detect(run, [str(clip)], out=tmp_path / "out", zones=wide)
    monkeypatch.setattr("lookonce.commands.moving.Source", lambda name, sampling: type("Live", (), {
        "live": True, "name": name})())  # fmt: skip
    with pytest.raises(UserError, match="0: never ends, so nothing after it would be read; give it alone"):
        detect(run, ["0", "1"], out=tmp_path / "out")


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
