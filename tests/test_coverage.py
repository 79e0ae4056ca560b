"""Mirrors src/lookonce/coverage.py."""

import numpy as np
import pytest
import torch

from lookonce.coverage import coverage, input_boxes, input_scale
from lookonce.resize import boxes_to_input
from test_matching import dataset_of

FRAME = (416, 416)


def test_objects_are_counted_by_their_side_at_the_input_with_what_anchors_can_hold():
    # pictures of 500 px at an input of 416: x .832. Sides there: 20.8, 49.9, 49.9, 124.8
    small, medium, tall = [0.0, 0, 25, 25], [100.0, 100, 160, 160], [200.0, 100, 350, 250]
    dataset = dataset_of([[(small, 0, False), (medium, 0, False), (medium, 1, False)], [(tall, 0, False)]])
    found = {c.size: c for c in coverage(dataset, ((1.6, 1.6),), FRAME, "stretch")}
    assert [found[s].objects for s in ("all", "small", "medium", "large")] == [4, 1, 2, 1]
    assert found["small"].fit == 0.0  # (.65 / 1.6)^2 = .17
    assert found["medium"].fit == 1.0
    assert found["large"].fit == 0.0  # (1.6 / 3.9)^2 = .17
    assert found["medium"].lost == 0.5  # two of one cell and anchor
    assert found["all"].lost == 0.25
    assert found["all"].fit == 0.5


def test_no_object_of_a_size_is_no_number():
    found = coverage(dataset_of([[]]), ((1.0, 1.0),), FRAME, "letterbox")
    assert all((c.objects, c.fit, c.lost) == (0, None, None) for c in found)


@pytest.mark.parametrize("mode", ["letterbox", "stretch"])
def test_boxes_of_many_pictures_lie_where_resize_lays_each(mode):
    dataset = dataset_of([[([10.0, 20, 30, 90], 0, False)], [([0.0, 0, 5, 5], 0, False), ([7.0, 8, 9, 99], 1, False)]])
    dataset.sizes[:] = [[640, 480], [301, 999]]
    found = input_boxes(dataset, FRAME, mode)
    for n, image in enumerate(dataset.image_of_box):
        size = tuple(int(v) for v in dataset.sizes[image])
        expected = boxes_to_input(torch.from_numpy(dataset.boxes[n]), size, FRAME, mode)
        np.testing.assert_allclose(found[n], expected, atol=1e-3)
    assert input_scale(dataset, FRAME, "letterbox")[0] == pytest.approx(0.65)
