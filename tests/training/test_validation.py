"""Tests of lookonce.training.validation."""

from types import SimpleNamespace

import pytest
import torch

from lookonce.data.read import read_dataset
from lookonce.training.validation import Inputs, Validation, collate_inputs
from sets import write_squares


def test_inputs_are_what_detection_sees_and_a_bad_image_is_grey(tmp_path):
    dataset = read_dataset(write_squares(tmp_path / "s", {"val": 2}))
    found = Inputs(dataset, (64, 64), "letterbox")
    assert found[0].images.shape == (1, 3, 64, 64)
    assert torch.equal(found[0].images, found[0].images)
    torch.testing.assert_close(found[0].boxes, torch.from_numpy(dataset.records[0].boxes) * 64 / 96)
    dataset.records[1].path.write_text("no image")
    assert (found[1].images - 0.5).abs().max() < 0.003
    assert len(found) == 2


def test_a_batch_of_inputs_knows_whose_each_object_is(tmp_path):
    dataset = read_dataset(write_squares(tmp_path / "s", {"val": 5}))
    found = Inputs(dataset, (64, 64), "letterbox")
    batch = collate_inputs([found[i] for i in range(5)])
    assert batch.images.shape == (5, 3, 64, 64)
    assert batch.image_index.tolist() == dataset.image_of_box.tolist()
    assert batch.labels.tolist() == dataset.classes.tolist()
    assert batch.ignore.tolist() == dataset.difficult.tolist()


@pytest.mark.parametrize("lightnings, precision", [("bf16-mixed", "bf16"), ("32-true", "fp32")])
def test_a_round_says_what_computed_it(lightnings, precision, tmp_path):
    found = Validation(read_dataset(write_squares(tmp_path / "s", {"val": 1})), (64, 64), "letterbox")
    found.on_validation_epoch_start(SimpleNamespace(precision=lightnings), SimpleNamespace(device="cpu"))
    assert found.computed_by == f"torch {torch.__version__}, {precision}, cpu"
