"""Tests of lookonce.inference.pretrained_models. Oracle: the published lengths; OpenCV's detections in test_files."""

import os
import shutil
from pathlib import Path
from unittest.mock import patch

import pytest

from conftest import SHARED
from lookonce.commands.download import download
from lookonce.data.download import DOWNLOADS, fetch_image, part_of
from lookonce.errors import ConfigError, UserError
from lookonce.inference import pretrained_models
from lookonce.inference.cache import CacheError
from lookonce.inference.pretrained_models import (
    MODELS,
    cached,
    find,
    model_name,
    model_path,
    models_folder,
    path_of,
)
from lookonce.model.darknet.cfg import read_cfg
from lookonce.model.model_file import load_model
from lookonce.model.sizes import num_classes, num_floats
from mirrors import Handler

PUBLISHED = SHARED / "weights"
needs_published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"the published networks are not at {PUBLISHED}")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LOOKONCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LOOKONCE_OFFLINE", raising=False)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_file_is_as_long_as_its_layers(model):
    layers = model.build()[: model.prefix]
    assert model.weights.sizes in [(4 * num_floats(layers) + header,) for header in (16, 20)]
    assert model.weights.checksum is not None
    assert num_classes(model.build()) == 80


def test_names_are_those_of_the_files():
    assert {model.name for model in MODELS} <= {wanted.name for wanted in DOWNLOADS}
    assert [find(name).name for name in ("coco", "COCO", "yolo_fastest_xl", "yolov4_tiny", "darknet53.conv.74")] == [
        "yolo-fastest-1.1-xl", "yolo-fastest-1.1-xl", "yolo-fastest-1.1-xl", "yolov4-tiny", "darknet53.conv.74",
    ]  # fmt: skip
    assert len(pretrained_models.NAMES.read_text().split("\n")) == 81


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"'yolov3tinny'; expected one of .*; did you mean 'yolov3-tiny'\?"):
        find("yolov3tinny")


@needs_published
def test_weights_in_the_folder_are_used_without_a_connection(monkeypatch):
    monkeypatch.setenv("LOOKONCE_OFFLINE", "1")
    assert cached("coco") is None
    models_folder().mkdir(parents=True)
    shutil.copy(PUBLISHED / "yolo-fastest-1.1-xl.weights", models_folder())
    path = path_of("coco")
    assert path == cached("coco") == models_folder() / "yolo-fastest-1.1-xl.weights"
    theirs = read_cfg((PUBLISHED / "yolo-fastest-1.1-xl.cfg").read_text())
    ours = read_cfg(path.with_suffix(".cfg").read_text())
    assert (ours.layers, ours.width, ours.height) == (theirs.layers, theirs.width, theirs.height)


def test_offline_the_message_says_what_to_put_where():
    with pytest.raises(UserError) as error:
        path_of("coco", offline=True)
    assert "yolo-fastest-1.1-xl.weights (3,693,964 bytes) as" in str(error.value)
    assert str(error.value).endswith(str(models_folder() / "yolo-fastest-1.1-xl.weights"))


def test_a_name_is_downloaded_once_with_one_line_that_says_from_where(published, published_weights, caplog):
    server = published("good")
    caplog.set_level("INFO", "lookonce")
    path = path_of("x")
    assert path.read_bytes() == published_weights
    assert caplog.messages == [f"downloading {server.url('good')} ({len(published_weights):,} bytes)"]
    assert path_of("X") == path_of("coco") == path
    assert len(server.asked) == 1
    assert load_model(path).labels[:3] == ("person", "bicycle", "car")


@pytest.mark.parametrize("answers, asked", [
    (["changed", "good"], ["/changed", "/good"]),  # a wrong checksum: the next mirror
    (["gone", "page", "good"], ["/gone", "/page", "/good"]),
    (["drops"], ["/drops"]),  # a half download is resumed
])  # fmt: skip
def test_mirrors_are_tried_in_order_until_one_has_the_file(published, published_weights, answers, asked):
    server = published(*answers)
    assert path_of("x").read_bytes() == published_weights
    assert [path for path, _ in server.asked][: len(asked)] == asked
    assert {file.name for file in models_folder().iterdir()} - {"x.weights.lock"} == {"x.cfg", "x.names", "x.weights"}


def test_a_half_download_is_continued(published, published_weights):
    server = published("good")
    models_folder().mkdir(parents=True)
    part_of(models_folder() / "x.weights", server.url("good")).write_bytes(published_weights[:1000])
    assert path_of("x").read_bytes() == published_weights
    assert [start for _, start in server.asked] == ["bytes=1000-"]


def test_a_damaged_file_is_downloaded_again_or_named_offline(published, published_weights):
    published("good")
    path = path_of("x")
    path.write_bytes(published_weights[:-1] + b"?")
    assert cached("x") is None
    with pytest.raises(UserError, match=r"x: not downloaded, because of --offline or LOOKONCE_OFFLINE; save http"):
        path_of("x", offline=True)
    assert path_of("x").read_bytes() == published_weights


def test_a_wrong_file_of_every_mirror_is_removed(published):
    published("changed")
    with pytest.raises(UserError, match=r"no mirror gave the file .*damaged, or another file"):
        path_of("x")
    assert [file.name for file in models_folder().iterdir() if file.suffix != ".lock"] == []


def test_offline_nothing_is_asked(published, monkeypatch, tmp_path):
    server = published("good")
    monkeypatch.setenv("LOOKONCE_OFFLINE", "1")
    for attempt in (
        lambda: path_of("x"),
        lambda: fetch_image(server.url("good")),
        lambda: download("yolov2", out=tmp_path),
    ):
        with pytest.raises(UserError, match="not downloaded, because of --offline"):
            attempt()
    assert server.asked == []


def test_a_server_of_ones_own_takes_the_place_of_the_mirrors(published, published_weights, monkeypatch):
    server = published("never")
    monkeypatch.setenv("LOOKONCE_MIRROR", server.url("").rstrip("/") + "/folder/")
    monkeypatch.setattr(Handler, "missing", Handler.good)
    assert path_of("x").read_bytes() == published_weights
    assert [path for path, _ in server.asked] == ["/folder/x.weights"]


@pytest.mark.skipif(os.name == "nt", reason="folders are not made read-only in this way")
def test_a_cache_that_cannot_be_written_is_one_sentence(published, tmp_path, monkeypatch):
    published("good")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOOKONCE_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        CacheError, match=r"file/models: cannot be written \(.*\); set LOOKONCE_CACHE to another folder"
    ):
        path_of("x")


def test_a_file_or_a_run_comes_before_a_name_and_another_folder_does_not(published, tmp_path, monkeypatch, run):
    published("good")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "train.txt").write_text("a data set")
    assert model_path("coco") == path_of("x")
    (tmp_path / "coco" / "model.safetensors").write_bytes(b"")
    assert model_path("coco") == Path("coco")
    (tmp_path / "x").write_bytes(b"a file")
    assert model_path("x") == Path("x")
    assert model_path(run) == run
    assert model_path("coco/x") == Path("coco/x")
    assert model_path("m.pt") == Path("m.pt")  # load_model says what it is


def test_a_name_that_is_nothing_is_answered_with_all_and_the_nearest():
    with pytest.raises(
        UserError, match=r"^coc: no such file or run folder, and no .*; did you mean 'coco'\?$"
    ) as error:
        model_path("coc")
    assert all(model.name in str(error.value) for model in MODELS if model.prefix is None)
    assert "conv" not in str(error.value)


def test_the_start_of_a_network_is_for_training_alone():
    with pytest.raises(UserError, match=r"first 74 layers of yolov3, .* --network yolov3 --weights darknet53.conv.74$"):
        model_path("darknet53.conv.74")
    with pytest.raises(UserError, match="not downloaded"), patch.dict(os.environ, LOOKONCE_OFFLINE="1"):
        model_path("darknet53.conv.74", starts=True)


def test_only_files_in_the_cache_have_the_name_of_a_published_model(tmp_path):
    assert model_name(find("yolov4").path) == "yolov4"
    assert model_name(tmp_path / "yolov4.weights") == str(tmp_path / "yolov4.weights")
