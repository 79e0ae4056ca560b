"""Tests of lookonce.training.advice."""

import numpy as np
import pytest

from lookonce.data.anchors import Coverage
from lookonce.training.advice import about_curves, about_data
from matching_cases import dataset_of

BOX = [0.0, 0.0, 10.0, 10.0]
FINE = Coverage("all", 100, 1.0, 0.0)


def test_a_set_too_small_for_a_class_is_named_and_one_that_is_not_passes():
    small = dataset_of([[(BOX, 0, False)] * 40, [(BOX, 1, False)] * 7])
    assert [line for line in about_data(small, [FINE]) if "too few examples of these classes: dog (7)" in line]
    assert about_data(dataset_of([[(BOX, 0, False)] * 40, [(BOX, 1, False)] * 40]), [FINE]) == []


@pytest.mark.parametrize("covered, said", [
    (Coverage("all", 100, 1.0, 0.05), "5.0% of the training objects are lost to anchor collisions"),
    (Coverage("all", 100, 0.9, 0.0), "no anchor fits 10.0% of the training objects"),
])  # fmt: skip
def test_objects_that_grid_or_anchors_cannot_hold_are_told(covered, said):
    full = dataset_of([[(BOX, 0, False), (BOX, 1, False)] * 40])
    found = about_data(full, [covered])
    assert len(found) == 1
    assert found[0].startswith(said)


def curves(val, train, score):
    epochs = range(1, len(val) + 1)
    return {name: list(zip(epochs, values, strict=True))
            for name, values in (("val/loss", val), ("loss_epoch", train), ("val/mAP", score))}  # fmt: skip


def test_training_and_validation_that_part_are_told():
    falling = np.linspace(10, 1, 10).tolist()
    parted = curves([5, 4, 3, 2, 2.2, 2.5, 2.8, 3, 3.2, 3.4], falling, [0.5] * 10)
    found = about_curves(parted, 10)
    assert len(found) == 1
    assert "lowest (2) in epoch 4 and is 3.2 now" in found[0]
    assert about_curves(curves(falling, falling, [0.5] * 10), 10) == []
    assert about_curves({}, 10) == []


def test_a_run_that_ends_while_it_gains_is_told_and_one_under_way_is_not():
    flat = [1.0] * 8
    rising = curves(flat, flat, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    assert "still rose by 0.200" in about_curves(rising, 8)[0]
    assert about_curves(rising, 20) == []
