"""Tests of lookonce.training.validation."""

from types import SimpleNamespace

import pytest
import torch

from lookonce.data.images import load_rgb
from lookonce.data.read import read_dataset
from lookonce.data.tiles import Tiling
from lookonce.model.detections import Predictions
from lookonce.model.network import Network
from lookonce.model.resize import to_input
from lookonce.training.recipes import Settings
from lookonce.training.step import Training
from lookonce.training.validation import Inputs, Validation, collate_inputs
from sets import nano, write_squares


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


def test_tiles_are_inputs_and_their_detections_are_merged(tmp_path):
    dataset = read_dataset(write_squares(tmp_path / "s", {"val": 2}))
    tiling = Tiling((64, 96), 0.2)
    found = Validation(dataset, (32, 32), "stretch", tiling)
    inputs = Inputs(found.seen, (32, 32), "stretch")
    assert len(inputs) == 2 * 3
    pixels = load_rgb(dataset.records[1].path)
    for index, part in ((3, pixels[:, :64]), (4, pixels[:, 32:]), (5, pixels)):
        expected = torch.from_numpy(to_input(part, (32, 32), "stretch"))
        torch.testing.assert_close(inputs[index].images[0], expected, atol=0.003, rtol=0)
    found.on_validation_epoch_start(SimpleNamespace(precision="32-true"), SimpleNamespace(device="cpu"))
    box = torch.tensor([[[0.0, 8, 8, 16]]])  # 0 to 16 px of the first tile, 32 to 48 px of the second
    all_six = Predictions(box.repeat(6, 1, 1), torch.ones(6, 1), torch.tensor([[[1.0, 0]]]).repeat(6, 1, 1))
    logged = {}
    module = Training(Network(nano(2, ((1.0, 1.0),))), Settings(network="yolov2_tiny", size=32), 0)
    module.log_dict = lambda values, **_: logged.update(values)
    found.on_validation_batch_end(None, module, (all_six, torch.tensor(1.0)), None, 0)
    found.on_validation_epoch_end(None, module)
    assert [len(each) for each in found.detections] == [2, 2]
    assert found.detections[1].boxes.tolist() == [
        [0, 24, 16, 48],
        [32, 24, 48, 48],
    ]  # 0 to 24 px: a double
    assert logged["val/mAP"] == found.metrics.mean_ap
