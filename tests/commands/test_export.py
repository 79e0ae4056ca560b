"""Tests of lookonce.commands.export."""

import os
import shutil
from dataclasses import fields
from typing import get_args

import numpy as np
import pytest

from conftest import GOLDEN
from lookonce import Detector, evaluate, export
from lookonce.cli import main
from lookonce.commands.export import WRITERS, Format
from lookonce.data.images import load_rgb
from lookonce.deploy.export import Options
from lookonce.errors import UserError
from lookonce.files import temporary
from lookonce.model.model_file import load_model


def test_every_format_has_a_writer():
    assert set(get_args(Format)) == WRITERS.keys()
    options = {option.name for option in fields(Options)} - {"digest"}  # which the command computes
    assert set().union(*(writer.options for writer in WRITERS.values())) == options


@pytest.mark.parametrize("folded", [False, True])
def test_an_exported_detector_finds_the_same(run, squares, tmp_path, folded):
    files = export(run, "darknet", out=tmp_path / "cells.v2", folded=folded).files
    assert [file.name for file in files] == ["cells.v2.cfg", "cells.v2.weights", "cells.v2.names"]
    assert ("batch_normalize" in files[0].read_text()) != folded
    image = load_rgb(squares / "JPEGImages" / "test000.png")
    mine, theirs = (Detector(model, threshold=0.01)([image])[0] for model in (run, files[0]))
    assert mine.class_names == theirs.class_names
    assert len(mine) > 0
    np.testing.assert_array_equal(mine.labels, theirs.labels)
    np.testing.assert_allclose(mine.scores, theirs.scores, atol=1e-4)
    np.testing.assert_allclose(mine.boxes, theirs.boxes, atol=0.05)
    assert load_model(files[1]).seen == load_model(run).seen > 0
    scores = [evaluate(model, squares, bootstrap=0).mean_ap for model in (run, files[0])]
    assert scores[0] == pytest.approx(scores[1])


def test_the_command_writes_beside_the_model_unless_told_otherwise(run, squares, tmp_path, capsys):
    (tmp_path / "m.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    assert main(["export", str(tmp_path / "m.safetensors"), "--format", "darknet"]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / f"m.{end}") for end in ("cfg", "weights", "names")]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    assert main(["export", str(tmp_path / "run"), "--format", "darknet", "--folded"]) == 0
    assert (tmp_path / "run" / "model.weights").is_file()
    assert main(["export", str(tmp_path / "m.cfg"), "--format", "darknet", "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "m.weights").read_bytes() == (tmp_path / "m.weights").read_bytes()
    image = str(squares / "JPEGImages" / "test000.png")
    assert main(["detect", str(tmp_path / "m.cfg"), image, "--out", str(tmp_path / "d")]) == 0


def test_an_export_never_overwrites_its_model(tmp_path):
    for ending in ("cfg", "weights"):
        (tmp_path / f"m.{ending}").write_bytes((GOLDEN / f"dk_tinys_160.{ending}").read_bytes())
    for model, out in ((tmp_path / "m.cfg", None), (tmp_path / "m.weights", tmp_path / "m.cfg")):
        with pytest.raises(UserError, match="would overwrite the model itself; give --out"):
            export(model, "darknet", folded=True, out=out)


def test_a_folder_of_that_name_that_is_a_data_set_is_left_alone(run, squares, tmp_path, monkeypatch):
    shutil.copytree(squares, tmp_path / "cells")
    before = sorted(str(file) for file in (tmp_path / "cells").rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run), "--format", "darknet", "--out", "cells"]) == 0
    assert main(["export", str(run), "--format", "onnx", "--raw", "--out", "cells/"]) == 0
    assert sorted(str(file) for file in (tmp_path / "cells").rglob("*")) == before
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "cells", "cells.cfg", "cells.names", "cells.onnx", "cells.weights",
    ]  # fmt: skip


def test_what_cannot_be_exported_is_told(run):
    with pytest.raises(UserError, match="format: 'coreml'; expected one of darknet"):
        export(run, "coreml")
    with pytest.raises(UserError, match="no such model file"):
        export(run / "none.safetensors", "darknet")
    for format, option in (("darknet", "half"), ("onnx", "half"), ("onnx", "folded"), ("openvino", "folded")):
        with pytest.raises(UserError, match=f"--{option}: not an option of {format}; it takes"):
            export(run, format, **{option: True})
    with pytest.raises(UserError, match="is an exported file; give the model file"):
        export(run / "m.onnx", "darknet")


def test_an_export_replaces_nothing_unless_told(run, tmp_path):
    (tmp_path / "m.names").write_text("the user's")
    with pytest.raises(UserError, match=r"m\.names: already exists; give another name, or --overwrite"):
        export(run, "darknet", out=tmp_path / "m")
    assert [p.name for p in tmp_path.iterdir()] == ["m.names"]
    export(run, "darknet", out=tmp_path / "m", overwrite=True)
    assert (tmp_path / "m.names").read_text() == "blue\nred\n"


def test_what_a_killed_export_left_is_swept(run, tmp_path):
    name = temporary(tmp_path / "m.onnx").name
    left = tmp_path / name.replace(f"-{os.getpid()}-", "-999999999-", 1)  # no process has this id
    left.write_text("half")
    export(run, "darknet", out=tmp_path / "m")
    assert not left.exists()
