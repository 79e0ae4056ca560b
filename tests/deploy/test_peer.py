"""Tests of lookonce.deploy.peer, with a module of that name which answers as documented. Oracle: the ground truth."""

import importlib
import json
import os
from dataclasses import replace

import pytest

from lookonce import read_dataset
from lookonce.deploy import peer
from lookonce.deploy.peer import Peer, compare_with_peer, config_of, read_peer
from lookonce.errors import ConfigError, UserError
from lookonce.evaluation.compare import Comparison

FAKE = """
import json, os
from pathlib import Path

class YOLO:
    def __init__(self, network):
        assert network.endswith((".yaml", ".pt")) and (network.endswith(".yaml") or Path(network).is_file())
        self.network = network

    def train(self, **given):
        if os.environ.get("FAKE_ERROR"):
            raise RuntimeError(os.environ["FAKE_ERROR"])
        folder = Path(given["project"], given["name"])
        (folder / "weights").mkdir(parents=True)
        (folder / "weights" / "best.pt").write_bytes(b"weights")
        root = Path(given["data"]).parent
        lists = {name: (root / f"{name}.txt").read_text().split() for name in ("train", "val")}
        boxes = [len((root / "labels" / Path(file).with_suffix(".txt").name).read_text().splitlines())
                 for file in lists["train"] if (root / file).is_file()]
        names = ("YOLO_OFFLINE", "YOLO_AUTOINSTALL", "OMP_NUM_THREADS")
        told = {"network": self.network, "given": given, "lists": lists, "boxes": sum(boxes),
                "environment": {key: os.environ[key] for key in names}}
        Path(os.environ["FAKE_TOLD"]).write_text(json.dumps(told))

    def predict(self, source, project, name, conf, save_txt, save_conf, stream, **_):
        assert save_txt and save_conf and stream and 0 < conf < 0.1
        labels = Path(project, name, "labels")
        lines = json.loads(Path(os.environ["FAKE_LINES"]).read_text())
        for file in source:
            if own := lines[Path(file).stem]:
                labels.mkdir(parents=True, exist_ok=True)
                (labels / f"{Path(file).stem}.txt").write_text("".join(line + chr(10) for line in own))
            yield file
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """The module, for this process and for those that it starts."""
    (tmp_path / "fake" / "ultralytics").mkdir(parents=True)
    (tmp_path / "fake" / "ultralytics" / "__init__.py").write_text(FAKE)
    monkeypatch.syspath_prepend(str(tmp_path / "fake"))
    importlib.invalidate_caches()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "fake"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("FAKE_TOLD", str(tmp_path / "told.json"))
    monkeypatch.setenv("FAKE_LINES", str(tmp_path / "lines.json"))
    return tmp_path


def yolo_lines(squares, found=lambda number: True):
    """What a perfect detector writes, for the test images whose number is found."""
    test = read_dataset(squares, "test")
    lines = {}
    for number, record in enumerate(test.records):
        width, height = record.size
        centre, size = (record.boxes[:, :2] + record.boxes[:, 2:]) / 2, record.boxes[:, 2:] - record.boxes[:, :2]
        rows = zip(record.labels.tolist(), (centre / (width, height)).tolist(), (size / (width, height)).tolist(),
                   strict=True)  # fmt: skip
        lines[record.path.stem] = [f"{c} {x} {y} {w} {h} 0.9" for c, (x, y), (w, h) in rows] if found(number) else []
    return lines


def compared(fake, run, lines, minutes=None):
    (fake / "lines.json").write_text(json.dumps(lines))
    (fake / "work").mkdir()
    return compare_with_peer(run / "model.safetensors", Peer("yolov8n.yaml", 3.0, 96, 2), minutes, fake / "work")


def test_both_are_trained_on_the_same_images_and_scored_by_the_same_code(fake, run, squares):
    found = compared(fake, run, yolo_lines(squares), minutes=2.5)
    assert found.theirs.mean_ap == pytest.approx(1)
    assert found.theirs.coco_ap == pytest.approx(1, abs=0.02)
    assert found.ours.mean_ap == pytest.approx(1 - found.comparison.before + found.comparison.after)
    assert (found.ours.name, found.ours.minutes) == (f"lookonce: {run.name}", 2.5)
    assert 0 < found.theirs.minutes <= 3
    told = json.loads((fake / "told.json").read_text())
    assert told["network"] == "yolov8n.yaml"
    assert told["given"]["time"] == pytest.approx(0.05)  # hours
    assert told["given"]["imgsz"] == 96
    assert {name: len(files) for name, files in told["lists"].items()} == {"train": 24, "val": 8}
    assert told["boxes"] == len(read_dataset(squares, "train").boxes)
    assert told["environment"] == {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "OMP_NUM_THREADS": "2"}
    text = str(found)
    for part in ("lookonce: squares-1", "ultralytics: yolov8n.yaml", "1.000", "the run's mAP less the peer's: "):
        assert part in text


def test_a_peer_that_finds_nothing_scores_nothing(fake, run, squares):
    found = compared(fake, run, yolo_lines(squares, lambda _: False))
    assert (found.theirs.mean_ap, found.theirs.coco_ap) == (0, 0)
    assert found.comparison.drop == -found.ours.mean_ap < 0


def test_the_gain_is_that_of_the_run(fake, run, squares):
    found = compared(fake, run, yolo_lines(squares, lambda _: False))
    text = str(replace(found, comparison=Comparison(0.2, 0.5, (-0.4, -0.1), 8)))
    assert "the run's mAP less the peer's: +0.300 [+0.100, +0.400]" in text


def test_a_peer_that_fails_is_one_line(fake, run, squares, monkeypatch):
    monkeypatch.setenv("FAKE_ERROR", "no such network")
    with pytest.raises(UserError, match="compare: ultralytics failed: RuntimeError: no such network"):
        compared(fake, run, yolo_lines(squares))


def test_without_the_package_one_line_says_so():
    with pytest.raises(ConfigError, match=r"compare: ultralytics is not installed; .*: pip install ultralytics"):
        read_peer("ultralytics")


def test_networks_are_named_behind_a_colon(fake):
    assert read_peer("ultralytics") == "yolov8n.yaml"
    assert read_peer("ultralytics:yolo11s.yaml") == "yolo11s.yaml"
    with pytest.raises(ConfigError, match="compare: 'darknet'; expected ultralytics, or ultralytics:NETWORK"):
        read_peer("darknet")


@pytest.mark.parametrize("change, message", [
    (None, "not a run that knows its data; give the folder of a run"),
    ("val_split: none", "has no validation images, by which the peer chooses"),
    ("data: /nowhere", "/nowhere: the data of .* is not there"),
])  # fmt: skip
def test_what_is_no_run_with_its_data_is_refused(change, message, run, tmp_path):
    home = tmp_path / "r"
    home.mkdir()
    if change:
        key = change.partition(":")[0]
        lines = (run / "config.yaml").read_text().splitlines()
        (home / "config.yaml").write_text("\n".join(change if line.startswith(f"{key}:") else line for line in lines))
    with pytest.raises(ConfigError, match=message):
        config_of(home)


def test_test_images_of_one_name_are_refused(fake, run, monkeypatch):
    real = peer.read_whole

    def twins(*given, **more):
        whole = real(*given, **more)
        paths = whole.dataset.paths.copy()
        paths[whole.members("test")] = "a/same.png"
        return replace(whole, dataset=replace(whole.dataset, paths=paths))

    monkeypatch.setattr(peer, "read_whole", twins)
    with pytest.raises(UserError, match="several test images are called 'same'"):
        compared(fake, run, {})
