"""Mirrors src/lookonce/exporting/openvino.py."""

import json

import numpy as np
import pytest
from test_export_onnx import spoilt

from lookonce import Detector, export
from lookonce.deploy import export as writer
from lookonce.deploy.verify import ParityError
from lookonce.inference.backends.openvino import the_core
from lookonce.model.model_file import load_model


@pytest.mark.parametrize("half", [False, True])
def test_the_files_describe_themselves_and_half_is_half_the_size(run, squares, tmp_path, half):
    found = export(run, "openvino", half=half, out=tmp_path / "cells", data=squares)
    assert [p.name for p in found.files] == ["cells.xml", "cells.bin"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cells.bin", "cells.xml"]
    read = the_core().read_model(found.files[0])
    about = json.loads(read.get_rt_info("lookonce").value)
    assert about["labels"] == list(load_model(run).labels)
    assert [o.get_any_name() for o in read.outputs] == ["detections"]
    weights = sum(p.numel() for p in load_model(run).network.parameters())
    assert (found.files[1].stat().st_size < 3 * weights) == half


def test_raw_is_the_network_alone(run, tmp_path):
    found = export(run, "openvino", raw=True, out=tmp_path / "cells")
    read = the_core().read_model(found.files[0])
    assert [name in o.get_names() for name, o in zip(("pixels", "raw"), (*read.inputs, *read.outputs), strict=True)]
    given = np.random.default_rng(0).random((2, 3, 96, 96), np.float32)
    mine, theirs = (Detector(model, "openvino", precision="fp32").backend(given) for model in (run, found.files[0]))
    np.testing.assert_allclose(theirs, mine, atol=1e-4)


def test_files_that_are_not_the_same_are_not_kept(run, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "detector_model", spoilt)
    with pytest.raises(ParityError):
        export(run, "openvino", out=tmp_path / "cells")
    assert list(tmp_path.iterdir()) == []
