"""Runs, model files and exports of version 0.1 still work; its detections (fp32) are in first_edition/."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lookonce import Detector, evaluate, train
from lookonce.model.model_file import load_model
from sets import write_squares

FIRST = Path(__file__).parent / "first_edition"


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    return write_squares(tmp_path_factory.mktemp("data") / "squares", {"train": 24, "val": 8, "test": 8})


@pytest.mark.parametrize("source", ["run", "run/model.safetensors", "export.onnx", "export.xml", "export.cfg"])
def test_what_version_0_1_wrote_gives_its_detections(source, squares):
    detector = Detector(FIRST / source, precision="fp32", threshold=0.1)
    entries = json.loads((FIRST / "detections.json").read_text())["pictures"]
    assert len(entries) == 8
    for entry in entries:
        found, expected = detector(squares / "JPEGImages" / Path(entry["file"]).name), entry["detections"]
        assert list(found.names) == [one["label"] for one in expected]
        np.testing.assert_allclose(found.scores, [one["score"] for one in expected], atol=1e-4)
        np.testing.assert_allclose(found.boxes, [one["box"] for one in expected], atol=0.05)


def test_a_detections_file_of_version_0_1_is_scored(squares):
    expected = evaluate(FIRST / "run", squares).mean_ap
    assert evaluate(FIRST / "detections.json", squares).mean_ap == pytest.approx(expected, abs=0.05)


def test_a_run_of_version_0_1_goes_on(squares, tmp_path):
    run = shutil.copytree(FIRST / "run", tmp_path / "run")
    config = run / "config.yaml"
    epochs = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] + 1
    config.write_text(config.read_text().replace(f"epochs: {epochs}\n", f"epochs: {epochs + 1}\n"))
    seen = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["seen"]
    train(squares, resume=run)
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["seen"] == seen + 24
    assert load_model(run).labels == ("blue", "red")
