"""Tests of lookonce.training.start."""

import hashlib
from pathlib import Path

import pytest

from lookonce.errors import ConfigError, UserError
from lookonce.inference import pretrained_models
from lookonce.inference.pretrained_models import find
from lookonce.training.start import choose_start, read_start, write_start


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, offline; weights put there are taken as they are."""
    monkeypatch.setenv("LOOKONCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOOKONCE_OFFLINE", "1")
    monkeypatch.setattr(pretrained_models, "mismatch", lambda path, _: None if path.is_file() else "missing")
    (tmp_path / "cache" / "models").mkdir(parents=True)
    return tmp_path / "cache" / "models"


def put(cache, name):
    path = cache / find(name).weights.file
    path.write_bytes(name.encode())
    return path


def test_auto_takes_cocos_weights_if_they_are_there(cache):
    assert choose_start("auto", None) is None
    path = put(cache, "coco")
    start = choose_start("auto", None)
    assert (start.weights, start.name, start.network, start.size) == (
        path,
        "yolo-fastest-1.1-xl",
        "yolo_fastest_xl",
        320,
    )
    assert start.sha256 == hashlib.sha256(b"coco").hexdigest()
    assert choose_start("none", None) is None
    assert choose_start(None, None) is None


def test_auto_takes_the_weights_of_the_chosen_network_only(cache):
    put(cache, "coco")
    assert choose_start("auto", "yolov2_tiny") is None
    path = put(cache, "yolov2-tiny")
    assert choose_start("auto", "YOLOv2-tiny").weights == path
    assert choose_start("auto", Path("x.cfg")) is None


def test_a_network_that_differs_from_ours_is_named_by_its_cfg(cache):
    path = put(cache, "yolov4-tiny")  # uses an anchor twice
    start = choose_start("yolov4-tiny", None)
    assert (start.network, start.size) == (str(path.with_suffix(".cfg")), 416)
    put(cache, "darknet53.conv.74")
    assert choose_start("darknet53.conv.74", None).network == "yolov3"


def test_names_and_files_that_do_not_exist_are_named(cache):
    with pytest.raises(UserError, match=r"yolo-fastest-1.1-xl: not downloaded, because of"):
        choose_start("coco", None)
    with pytest.raises(ConfigError, match=r"'yolov3-tinny'; .* did you mean 'yolov3-tiny'"):
        choose_start("yolov3-tinny", None)
    for name in ("cells/model", "a.weights"):
        with pytest.raises(ConfigError, match=f"weights: {name}: no such file; expected a model file, a run folder"):
            choose_start(name, None)


def test_a_file_wins_over_a_name(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("coco").symlink_to(run)
    start = choose_start("coco", None)
    file = tmp_path / "coco" / "model.safetensors"
    assert (start.weights, start.network, start.size) == (tmp_path / "coco", str(file), 96)
    assert start.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_run_folder_keeps_what_it_started_from(run, tmp_path):
    assert read_start(tmp_path) == {}
    start = choose_start(run, None)
    write_start(start, tmp_path)
    assert read_start(tmp_path) == {"name": str(run), "sha256": start.sha256}
    (tmp_path / "start.json").write_text("[]")
    assert read_start(tmp_path) == {}
