"""Mirrors src/lookonce/training/callbacks.py."""

from types import SimpleNamespace

import pytest
import torch

from lookonce.data.catalog import read_dataset
from lookonce.training.callbacks import BestCheckpoint, Inputs, Patience, averaging
from lookonce.training.module import Training
from sets import write_squares


def test_the_average_is_young_at_first_and_old_in_the_end():
    average = averaging(0.9)._kwargs["avg_fn"]
    one, zero = torch.tensor(1.0), torch.tensor(0.0)
    assert average(one, zero, 0).item() == pytest.approx(1 / 10)
    assert average(one, zero, 8).item() == pytest.approx(9 / 18)
    assert average(one, zero, 10_000).item() == pytest.approx(0.9)
    assert average(torch.tensor(3), torch.tensor(5), 4).item() == 5


def test_inputs_are_what_detection_sees_and_a_bad_picture_is_grey(tmp_path):
    dataset = read_dataset(write_squares(tmp_path / "s", {"val": 2}))
    found = Inputs(dataset, (64, 64), "letterbox")
    assert found[0].shape == (3, 64, 64)
    assert torch.equal(found[0], found[0])
    dataset.records[1].path.write_text("no picture")
    assert (found[1] - 0.5).abs().max() < 0.003
    assert len(found) == 2


@pytest.mark.parametrize("callback", [BestCheckpoint(monitor="val/mAP"), Patience("val/mAP", 0.0, 1, mode="max")])
def test_warm_up_is_neither_best_nor_a_trial_of_patience(callback, monkeypatch):
    judged = []
    monkeypatch.setattr(type(callback).__mro__[1], "on_validation_end", lambda *_: judged.append(1))
    module = SimpleNamespace(warming_up=True)
    monkeypatch.setattr("lookonce.training.callbacks.Training", SimpleNamespace)
    callback.on_validation_end(None, module)
    assert not judged
    module.warming_up = False
    callback.on_validation_end(None, module)
    assert judged
    assert Training is not SimpleNamespace
