"""Tests of lookonce.deploy.int8_of_run: what becomes of int8 at the end of a training."""

import importlib.util
import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest

from lookonce import Detector, evaluate, train
from lookonce.data.read import read_splits
from lookonce.deploy.int8_of_run import add_int8
from lookonce.training import duration
from lookonce.training.config import RunConfig
from lookonce.training.recipes import settings
from lookonce.training.signals import Stopped


@pytest.fixture
def ended(run, squares, tmp_path, processor_with_int8, monkeypatch):
    """A run that is complete, and where a few validation images are enough."""
    monkeypatch.setattr(duration, "FEW_TO_VALIDATE", 8)
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    how = settings("quick")
    sets = read_splits(squares, ["train", "val"])
    return SimpleNamespace(folder=tmp_path / "r", config=RunConfig(str(squares), settings=how), settings=how,
                           train_set=sets[0], val_set=sets[1], began=0.0)  # fmt: skip


def said(ended, caplog):
    with caplog.at_level(logging.INFO, "lookonce"):
        add_int8(ended)
    return [message for message in caplog.messages if message.startswith("int8")]


def test_a_training_ends_with_an_int8_form_that_the_detector_takes(ended, squares, caplog, monkeypatch):
    pytest.importorskip("nncf", reason="the extra int8 is not installed")
    monkeypatch.setattr("lookonce.deploy.int8.MAX_DROP", 0.1)
    begins, line = said(ended, caplog)
    assert begins.startswith("int8: the run is complete; making")
    assert line.startswith("int8: mAP 0.")
    assert " on 8 validation images, for detect and serve on this processor" in line
    assert {p.name for p in ended.folder.iterdir()} == {"model.safetensors", "model-int8.xml", "model-int8.bin"}
    caplog.clear()
    with caplog.at_level(logging.INFO, "lookonce"):
        detector = Detector(ended.folder)
    assert detector.backend.info.precision == "int8"
    assert detector.backend.info.cost in line
    assert detector.backend.info.cost in caplog.text
    assert detector(squares / "JPEGImages" / "test000.png").names
    assert Detector(ended.folder, precision="fp32").backend.info.precision == "fp32"
    assert Detector(ended.folder, "torch").backend.info.name == "torch"
    before, after = (evaluate(ended.folder, squares, precision=each).mean_ap for each in ("fp32", "int8"))
    assert abs(before - after) < 0.1


@pytest.mark.parametrize("obstacle, message", [
    ("no package", "int8: not made: this processor runs int8 faster, which needs: pip install 'lookonce[int8]'"),
    ("few images", "int8: not made: 8 validation images are too few to judge it by; 20 would do"),
    ("no images", "int8: not made: 0 validation images are too few"),
    ("no time", "int8: not made: a run of under 3 minutes has no time for it"),
])  # fmt: skip
def test_what_is_in_the_way_of_int8_is_one_line(obstacle, message, ended, caplog, monkeypatch):
    match obstacle:
        case "no package":
            real = importlib.util.find_spec
            monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nncf" else real(name))
        case "few images":
            monkeypatch.setattr(duration, "FEW_TO_VALIDATE", 20)
        case "no images":
            ended.val_set = None
        case "no time":
            ended.config = replace(ended.config, settings=replace(ended.settings, minutes=2.0, epochs=None))
    [line] = said(ended, caplog)
    assert line.startswith(message)
    assert [p.name for p in ended.folder.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("config", [{"device": "cuda"}, {}], ids=["a GPU", "another processor"])
def test_where_nothing_is_gained_nothing_is_said(config, ended, caplog, monkeypatch):
    monkeypatch.setattr(duration, "choose_device", lambda device: {"auto": "cpu"}.get(device, device))
    if not config:
        monkeypatch.setattr(duration, "has_int8", lambda: False)
    ended.config = replace(ended.config, **config)
    with caplog.at_level(logging.INFO, "lookonce"):
        add_int8(ended)
    assert not caplog.messages


@pytest.mark.parametrize("raised, message", [
    (RuntimeError("of another\npackage"), "int8: not made: RuntimeError: of another package"),
    (Stopped(15), "int8: stopped; the run is complete without it"),
])  # fmt: skip
def test_whatever_goes_wrong_the_run_stays_and_an_old_form_goes(raised, message, ended, caplog, monkeypatch):
    def fails(*_):
        raise raised

    monkeypatch.setattr("lookonce.deploy.int8.quantise_quickly", fails)
    before = (ended.folder / "model.safetensors").read_bytes()
    for name in ("model-int8.xml", "model-int8.bin"):
        (ended.folder / name).write_text("of an earlier model")
    assert said(ended, caplog)[1:] == [message]
    assert [p.name for p in ended.folder.iterdir()] == ["model.safetensors"]
    assert (ended.folder / "model.safetensors").read_bytes() == before


def test_train_ends_with_it(squares, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("lookonce.deploy.int8_of_run.add_int8", lambda run: asked.append(run.folder))
    folder = train(squares, network="nano", size=64, steps=1, batch_size=4, anchors=2, out=tmp_path)
    assert asked == [folder]
