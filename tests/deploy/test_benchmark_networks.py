"""Mirrors src/lookonce/speed/networks.py. Oracle of what the peers run: the network itself."""

import importlib.util

import numpy as np
import pytest
import torch

from lookonce.deploy import benchmark as networks
from lookonce.deploy.benchmark import (
    OPENCV,
    PLAIN,
    Kind,
    is_int8,
    kinds,
    line_up,
    missing,
    opencv,
    plain,
    process_threads,
)
from lookonce.errors import ConfigError, UserError
from lookonce.model.model_file import load_model

REAL = importlib.util.find_spec


def without(monkeypatch, *modules):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in modules else REAL(name))


@pytest.fixture
def model(run):
    return run / "model.safetensors"


@pytest.fixture
def dull(monkeypatch):
    """A machine without bf16 and without a GPU."""
    monkeypatch.setattr(networks, "computes_bf16", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_all_that_is_installed_has_a_row_for_each_batch(model, dull):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("cv2")
    before = sorted(model.parent.iterdir())
    made = line_up([model], 3, 1)
    assert [(row.backend, row.batch) for row in made.rows] == [
        ("openvino, latency", 1), ("onnxruntime", 1), ("torch", 1), (OPENCV, 1), (PLAIN, 1),
        ("openvino, throughput", 3), ("onnxruntime", 3), ("torch", 3), (OPENCV, 3), (PLAIN, 3),
    ]  # fmt: skip
    assert {row.network for row in made.rows} == {f"{model.parent.name} 96 x 96"}
    assert {row.precision for row in made.rows} == {"fp32"}
    for row, run in zip(made.rows, made.runs, strict=True):
        assert len(run()[0]) == row.batch
    assert [one.what for one in made.absent] == ["bf16"]  # told once, of two backends
    assert sorted(model.parent.iterdir()) == before  # nothing was left beside the model


def test_what_is_not_installed_is_told_with_the_command(model, dull, monkeypatch):
    without(monkeypatch, "onnxruntime", "cv2", "openvino")
    made = line_up([model], 2, 1)
    assert {row.backend for row in made.rows} == {"torch", PLAIN}
    assert {one.what: one.why for one in made.absent if one.what != "bf16"} == {
        "openvino": "not installed; pip install openvino",
        "onnxruntime": "not installed; pip install lookonce[onnx]",
        OPENCV: "not installed; pip install opencv-python-headless",
    }
    monkeypatch.setattr(importlib.util, "find_spec", REAL)
    assert missing("numpy") is None


def test_an_exported_file_stands_with_its_model_in_any_order(model, exported, dull):
    made = line_up([exported / "m.xml", model], 2, 1)
    assert len({row.network for row in made.rows}) == 1
    own = [row.backend for row in made.rows if row.model.endswith("m.xml")]
    assert own == ["openvino, latency", "openvino, throughput"]
    assert sum(row.backend == PLAIN for row in made.rows) == 2  # of the model alone
    assert [row.is_peer for row in made.rows if row.batch == 1] == sorted(
        row.is_peer for row in made.rows if row.batch == 1
    )


def test_other_layers_are_another_network(model, exported, dull, tmp_path):
    from lookonce import Network
    from lookonce.model.model_file import Model, save_model
    from sets import nano

    other = tmp_path / model.parent.name / "model.safetensors"
    save_model(Model(Network(nano(1, ((1.0, 1.0),))), ("a",), (64, 64)), other)
    names = list(dict.fromkeys(row.network for row in line_up([model, other], 2, 1).rows))
    assert names == [f"{model.parent.name} 96 x 96", f"{model.parent.name} 64 x 64"]


def test_a_file_that_nothing_runs_is_told(exported, dull, monkeypatch):
    without(monkeypatch, "openvino")
    with pytest.raises(UserError, match=r"m\.xml: nothing here can run it: openvino: not installed; pip install"):
        line_up([exported / "m.xml"], 2, 1)


def test_what_a_runtime_refuses_is_told(model, dull, monkeypatch):
    def refuse(source, settings):
        raise ConfigError(f"{settings.backend}: no")

    monkeypatch.setattr(networks, "open_backend", refuse)
    with pytest.raises(UserError, match="torch, cpu, fp32: torch: no"):
        line_up([model], 2, 1)


def test_an_int8_export_is_known_and_runs_as_its_runtime_likes(exported, tmp_path):
    assert not is_int8(exported / "m.xml")
    assert not is_int8(exported / "m.onnx")
    file = tmp_path / "i.xml"
    file.write_text('<net><layer id="1" type="FakeQuantize"/></net>')
    assert is_int8(file)
    assert not is_int8(tmp_path / "none.xml")
    assert [kind.precision for kind in kinds(file, 4)] == ["auto", "auto"]


def test_a_gpu_has_rows_of_the_same_kinds(model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = [kind for kind in kinds(model, 4) if kind.device == "cuda"]
    assert found == [
        Kind("onnxruntime", "cuda", "fp32", (1, 4)),
        Kind("torch", "cuda", "fp32", (1, 4)),
        Kind("torch", "cuda", "bf16", (1, 4)),
    ]


@pytest.mark.parametrize("batch", [1, 3])
def test_peers_compute_what_the_network_does(run, batch):
    pytest.importorskip("cv2")
    model = load_model(run)
    images = np.random.default_rng(1).random((batch, 3, 96, 96), np.float32)
    with torch.no_grad():
        expected = model.network(torch.from_numpy(images))[0].numpy()
    for peer in (opencv(model), plain(model, "cpu")):
        np.testing.assert_allclose(peer(images)[0], expected, atol=1e-3, rtol=1e-3)


def test_a_network_that_opencv_cannot_read_has_no_row_of_it(run, dull, monkeypatch):
    cv2 = pytest.importorskip("cv2")

    def refuse(_):
        raise cv2.error("(-212) Unsupported layer")

    monkeypatch.setattr(networks, "opencv", refuse)
    made = line_up([run / "model.safetensors"], 2, 1)
    assert OPENCV not in {row.backend for row in made.rows}
    assert "Unsupported layer" in next(one.why for one in made.absent if one.what == OPENCV)


def test_threads_are_given_and_given_back():
    cv2 = pytest.importorskip("cv2")
    before = torch.get_num_threads(), cv2.getNumThreads()
    with process_threads(3):
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (3, 3)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == before
