"""Tests of lookonce.inference.backends.onnxruntime. Oracle: the network itself, run by PyTorch."""

import sys

import numpy as np
import pytest
import torch

from lookonce.errors import UserError
from lookonce.inference.backends import onnxruntime as backend
from lookonce.inference.backends.settings import Settings
from lookonce.model.model_file import load_model


@pytest.fixture
def file(exported):
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    return exported / "m.onnx"


def test_an_exported_file_gives_the_networks_own_numbers(run, file):
    x = torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = load_model(run).network(x)[0].numpy()
    made = backend.OnnxruntimeBackend(file, Settings(device="cpu"))
    np.testing.assert_allclose(made(x.numpy())[0], expected, atol=1e-4, rtol=1e-4)
    assert made.info.name == "onnxruntime"
    assert made.about.labels == ("blue", "red")


@pytest.mark.parametrize("given, message", [
    ({"device": "tensorrt"}, "device: 'tensorrt'; this onnxruntime has cpu; .*pip install onnxruntime-gpu"),
    ({"device": "abacus"}, "device: 'abacus'"),
    ({"precision": "bf16"}, "onnxruntime runs networks in fp32"),
])  # fmt: skip
def test_what_it_does_not_have_is_told(file, given, message, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UserError, match=message):
        backend.OnnxruntimeBackend(file, Settings(**given))


def test_a_package_that_is_not_there_is_told_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"not installed; run: pip install 'lookonce\[onnx\]'"):
        backend.OnnxruntimeBackend(tmp_path / "m.onnx", Settings())


@pytest.mark.parametrize("asked, given", [(1, 1), (None, 5)])
def test_threads_reach_onnx_runtime(file, monkeypatch, asked, given):
    monkeypatch.setattr(backend, "usable_cores", lambda: 5)
    made = backend.OnnxruntimeBackend(file, Settings(device="cpu", threads=asked))
    assert made._session.get_session_options().intra_op_num_threads == given
