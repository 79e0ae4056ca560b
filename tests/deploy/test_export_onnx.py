"""Mirrors src/lookonce/exporting/onnx.py."""

import numpy as np
import onnx
import pytest
import torch

from lookonce import Detector, export
from lookonce.cli import main
from lookonce.deploy import export as writer
from lookonce.deploy.verify import ParityError
from lookonce.model.onnx_graph import detector_model


def spoilt(model):
    """A graph of other numbers than the model's."""
    convolution = model.network.convolution_list()[0].conv
    before = convolution.weight.detach().clone()
    with torch.no_grad():
        convolution.weight.mul_(1.05)
        made = detector_model(model)
        convolution.weight.copy_(before)
    return made


def test_the_command_writes_one_file_and_a_table_and_says_who_reads_it(run, squares, tmp_path, capsys, caplog):
    words = ["export", str(run), "--format", "onnx", "--out", str(tmp_path / "cells"), "--data", str(squares)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0] == str(tmp_path / "cells.onnx")
    assert "largest difference" in said
    assert "for ONNX Runtime and OpenVINO; for OpenCV use --raw, or for OpenCV 4 --format darknet" in caplog.text
    assert [p.name for p in tmp_path.iterdir()] == ["cells.onnx"]
    assert [o.name for o in onnx.load(tmp_path / "cells.onnx").graph.output] == ["detections"]


def test_raw_is_the_network_alone_for_opencv_too(run, squares, tmp_path, caplog):
    """Oracle: our own raw map, from the model file."""
    caplog.set_level("INFO", "lookonce")
    found = export(run, "onnx", raw=True, out=tmp_path / "cells")
    assert "for every reader of ONNX, OpenCV too" in caplog.text
    assert "scores" in found.parity
    graph = onnx.load(found.files[0]).graph
    assert [(o.name, o.type.tensor_type.elem_type) for o in graph.output] == [("raw", onnx.TensorProto.FLOAT)]
    assert [(i.name, i.type.tensor_type.elem_type) for i in graph.input] == [("pixels", onnx.TensorProto.FLOAT)]
    cv2 = pytest.importorskip("cv2", reason="OpenCV is one of its readers")
    given = np.random.default_rng(0).random((1, 3, 96, 96), np.float32)
    network = cv2.dnn.readNetFromONNX(str(found.files[0]))
    network.setInput(given)
    expected = Detector(run, "torch", device="cpu", precision="fp32").backend(given)
    np.testing.assert_allclose(network.forward(), expected[0], atol=1e-4)


def test_a_file_that_is_not_the_same_is_not_kept_and_the_one_before_stays(run, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "detector_model", spoilt)
    (tmp_path / "old.onnx").write_bytes(b"before")
    with pytest.raises(ParityError, match="does not give what the model gives"):
        export(run, "onnx", out=tmp_path / "old", overwrite=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"old.onnx": b"before"}


def test_without_onnxruntime_openvino_checks_it(run, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "OpenVINO" in export(run, "onnx", out=tmp_path / "cells").parity
