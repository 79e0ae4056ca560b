"""Mirrors src/lookonce/exporting/onnx.py."""

import onnx
import pytest
import torch

from lookonce import export
from lookonce.cli import main
from lookonce.exporting import onnx as writer
from lookonce.exporting.graph import detector_model
from lookonce.exporting.parity import ParityError


def spoilt(model, raw):
    """A graph of other numbers than the model's."""
    convolution = model.network.convolution_list()[0].conv
    before = convolution.weight.detach().clone()
    with torch.no_grad():
        convolution.weight.mul_(1.05)
        made = detector_model(model, raw)
        convolution.weight.copy_(before)
    return made


def test_the_command_writes_one_file_and_a_table(run, squares, tmp_path, capsys):
    words = ["export", str(run), "--format", "onnx", "--out", str(tmp_path / "cells"), "--data", str(squares)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0] == str(tmp_path / "cells.onnx")
    assert "largest difference" in said
    assert [p.name for p in tmp_path.iterdir()] == ["cells.onnx"]
    assert [o.name for o in onnx.load(tmp_path / "cells.onnx").graph.output] == ["detections"]


def test_raw_ends_with_all_predictions(run, tmp_path):
    file = export(run, "onnx", raw=True, out=tmp_path / "cells").files[0]
    graph = onnx.load(file).graph
    assert [o.name for o in graph.output] == ["boxes", "scores"]
    assert "NonMaxSuppression" not in {node.op_type for node in graph.node}


def test_a_file_that_is_not_the_same_is_not_kept_and_the_one_before_stays(run, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "detector_model", spoilt)
    (tmp_path / "old.onnx").write_bytes(b"before")
    with pytest.raises(ParityError, match="does not give what the model gives"):
        export(run, "onnx", out=tmp_path / "old", overwrite=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"old.onnx": b"before"}


def test_without_onnxruntime_openvino_checks_it(run, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "OpenVINO" in export(run, "onnx", out=tmp_path / "cells").parity
