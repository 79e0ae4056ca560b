"""Tests of lookonce.inference.backends.openvino. Oracle: the network itself, run by PyTorch."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch

from lookonce.errors import UserError
from lookonce.inference.backends import openvino as openvino_backend
from lookonce.inference.backends.openvino import OpenvinoBackend, openvino_model, saved, the_core
from lookonce.inference.backends.settings import Settings
from lookonce.model.model_file import load_model


@pytest.fixture(scope="module")
def known(run):
    """An input, and what PyTorch gives on it."""
    x = torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return x.numpy(), load_model(run).network(x)[0].numpy()


@pytest.mark.parametrize("throughput", [False, True])
@pytest.mark.parametrize("name", ["m.onnx", "m.xml", "raw.onnx"])
def test_every_exported_file_gives_the_networks_own_numbers(exported, known, name, throughput):
    x, expected = known
    backend = OpenvinoBackend(exported / name, Settings(precision="fp32", throughput=throughput))
    for _ in range(2):
        np.testing.assert_allclose(backend(x)[0], expected, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(backend(x[1:2])[0], expected[1:2], atol=1e-4, rtol=1e-4)
    assert backend.info.name == "openvino"
    assert backend.about.labels == ("blue", "red")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not list what a process maps")
def test_the_numbers_of_a_file_are_not_mapped(exported):
    """Windows could not rename them while the exported file is verified."""
    backend = OpenvinoBackend(exported / "m.xml", Settings(precision="fp32"))
    with open("/proc/self/maps", encoding="utf-8") as maps:
        assert str(exported / "m.bin") not in maps.read()
    assert backend.info.name == "openvino"


def test_bf16_that_the_machine_lacks_is_refused_not_silently_fp32(exported):
    if "BF16" in the_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert OpenvinoBackend(exported / "m.onnx", Settings(precision="bf16")).info.precision == "bf16"
    else:
        with pytest.raises(UserError, match="no instructions for it; take fp32"):
            OpenvinoBackend(exported / "m.onnx", Settings(precision="bf16"))


def test_a_device_that_is_not_there_is_told(exported):
    with pytest.raises(UserError, match="device: 'cuda'; OpenVINO has cpu"):
        OpenvinoBackend(exported / "m.onnx", Settings(device="cuda"))


def test_an_export_that_lost_its_parts_is_told(exported, tmp_path):
    made = onnx.load(exported / "m.onnx")
    with saved(openvino_model(made), tmp_path / "m.xml"):
        pass
    (tmp_path / "m.bin").unlink()
    with pytest.raises(UserError, match=r"no m\.bin beside it"):
        OpenvinoBackend(tmp_path / "m.xml", Settings())
    for node in made.graph.node:
        node.output[:] = ["other" if name == "raw" else name for name in node.output]
        node.input[:] = ["other" if name == "raw" else name for name in node.input]
    onnx.save(made, tmp_path / "m.onnx")
    with pytest.raises(UserError, match="no tensor 'raw'"):
        OpenvinoBackend(tmp_path / "m.onnx", Settings())
    with saved(openvino_model(made), tmp_path / "n.xml"):
        pass
    with pytest.raises(UserError, match="no tensors 'pixels' and 'raw'"):
        OpenvinoBackend(tmp_path / "n.xml", Settings())


def test_files_are_written_whole_or_not_at_all(exported, tmp_path):
    def failing():
        with saved(openvino_model(onnx.load(exported / "m.onnx")), tmp_path / "m.xml"):
            raise UserError("no")

    with pytest.raises(UserError, match="no"):
        failing()
    assert list(tmp_path.iterdir()) == []


def test_threads_reach_openvino(exported):
    made = OpenvinoBackend(exported / "m.onnx", Settings(threads=1))
    assert int(made._compiled.get_property("INFERENCE_NUM_THREADS")) == 1


def test_signals_are_handled_after_detectors_came_and_went(exported):
    """In a process of its own, since it would crash: OpenVINO moves the stack that signals are handled on."""
    code = """
import os, signal, sys
from lookonce import Detector
first, second = Detector(sys.argv[1], "openvino"), Detector(sys.argv[1], "openvino")
del first
del second
signal.signal(signal.SIGINT, lambda *_: print("handled", flush=True))
signal.raise_signal(signal.SIGINT)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(exported / "m.onnx")], capture_output=True, check=False, text=True
    )
    assert (done.returncode, done.stdout) == (0, "handled\n")


@pytest.mark.parametrize("slow", [True, False])
def test_bf16_is_not_taken_by_itself_where_it_is_slow(exported, slow, monkeypatch):
    monkeypatch.setattr(openvino_backend, "is_bf16_slow", lambda: slow)
    native = "BF16" in the_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    taken = OpenvinoBackend(exported / "m.onnx", Settings()).info.precision
    assert taken == ("bf16" if native and not slow else "fp32")
