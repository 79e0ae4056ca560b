"""Tests of lookonce.inference.pretrained_models. Oracle: the published lengths; OpenCV's detections in test_files."""

import shutil

import pytest

from conftest import SHARED
from lookonce.data.download import DOWNLOADS
from lookonce.errors import ConfigError, UserError
from lookonce.inference import pretrained_models
from lookonce.inference.pretrained_models import MODELS, cached, find, models_folder, path_of
from lookonce.model.darknet.cfg import read_cfg
from lookonce.model.sizes import num_classes, num_floats

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
