"""Tests of lookonce.data.anchors."""

import numpy as np
import pytest
import torch

from lookonce.data.anchors import collisions, coverage, encoded, input_boxes, input_scale
from lookonce.data.read import read_dataset
from lookonce.model.heads import region
from lookonce.model.layers import PlacedHead, Region
from lookonce.model.resize import boxes_to_input
from matching_cases import dataset_of

INPUT_SIZE = (416, 416)


def head(*anchors, stride=32):
    return PlacedHead(Region(anchors, 2), stride)


def test_objects_are_counted_by_their_side_at_the_input_with_what_anchors_cover():
    # images of 500 px at an input of 416: x .832. Sides there: 20.8, 49.9, 49.9, 124.8
    small, medium, tall = [0.0, 0, 25, 25], [100.0, 100, 160, 160], [200.0, 100, 350, 250]
    dataset = dataset_of([[(small, 0, False), (medium, 0, False), (medium, 1, False)], [(tall, 0, False)]])
    found = {c.size: c for c in coverage(dataset, [head((1.6, 1.6))], INPUT_SIZE, "stretch")}
    assert [found[s].objects for s in ("all", "small", "medium", "large")] == [4, 1, 2, 1]
    assert found["small"].recall == 0.0  # (.65 / 1.6)^2 = .17
    assert found["medium"].recall == 1.0
    assert found["large"].recall == 0.0  # (1.6 / 3.9)^2 = .17
    assert found["medium"].collisions == 0.5  # two of one cell and anchor
    assert found["all"].collisions == 0.25
    assert found["all"].recall == 0.5


def test_no_object_of_a_size_is_no_number():
    found = coverage(dataset_of([[]]), [head((1.0, 1.0))], INPUT_SIZE, "letterbox")
    assert all((c.objects, c.recall, c.collisions) == (0, None, None) for c in found)


@pytest.mark.parametrize("mode", ["letterbox", "stretch"])
def test_boxes_of_many_images_lie_where_resize_lays_each(mode):
    dataset = dataset_of([[([10.0, 20, 30, 90], 0, False)], [([0.0, 0, 5, 5], 0, False), ([7.0, 8, 9, 99], 1, False)]])
    dataset.sizes[:] = [[640, 480], [301, 999]]
    found = input_boxes(dataset, INPUT_SIZE, mode)
    for n, image in enumerate(dataset.image_of_box):
        size = tuple(int(v) for v in dataset.sizes[image])
        expected = boxes_to_input(torch.from_numpy(dataset.boxes[n]), size, INPUT_SIZE, mode)
        np.testing.assert_allclose(found[n], expected, atol=1e-3)
    assert input_scale(dataset, INPUT_SIZE, "letterbox")[0] == pytest.approx(0.65)


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_the_targets_of_a_data_set_are_those_of_each_image(squares, resize):
    dataset = read_dataset(squares)
    anchors = ((1.0, 1.2), (2.0, 1.5))
    (found,) = encoded(dataset, [head(*anchors)], (96, 96), resize)
    for n, record in enumerate(dataset.records):
        boxes = boxes_to_input(torch.from_numpy(record.boxes), record.size, (96, 96), resize)
        labels = torch.from_numpy(record.labels)
        one = region.encode(boxes, labels, labels * 0, torch.tensor(anchors), (3, 3), 32)
        mine = slice(dataset.first[n], dataset.first[n + 1])
        torch.testing.assert_close(found.anchor[mine], one.anchor)
        torch.testing.assert_close(found.col[mine], one.col)
        torch.testing.assert_close(found.wins[mine], one.wins)
        torch.testing.assert_close(found.boxes[mine], one.boxes)


def test_a_difficult_object_has_no_collision():
    boxes = [[0.0, 0, 50, 50], [1.0, 1, 51, 51]]
    for hard, expected in ((True, []), (False, [0])):
        dataset = dataset_of([[(boxes[0], 0, hard), (boxes[1], 0, False)]])
        found = collisions(dataset, [head((1.0, 1.0))], INPUT_SIZE, "letterbox")
        assert found.objects.tolist() == expected


def test_an_object_collides_only_if_it_is_a_target_of_no_head():
    # centres at 10 px and 22 px: one cell of 32 px, two of 16 px
    dataset = dataset_of([[([0.0, 0, 20, 20], 0, False), ([10.0, 10, 34, 34], 1, False)]])
    dataset.sizes[:] = 416
    coarse, fine = head((1.0, 1.0)), head((1.0, 1.0), stride=16)
    assert collisions(dataset, [coarse], INPUT_SIZE, "letterbox").objects.tolist() == [0]
    assert collisions(dataset, [fine], INPUT_SIZE, "letterbox").objects.tolist() == []
    for heads in ((coarse, fine), (fine, coarse)):
        assert coverage(dataset, heads, INPUT_SIZE, "letterbox")[0].collisions == 0.0
    found = collisions(dataset, [coarse, head((2.0, 2.0), stride=32)], INPUT_SIZE, "letterbox")
    assert [each.tolist() for each in found] == [[0], [1], [0]]


def test_an_anchor_of_any_head_may_fit():
    dataset = dataset_of([[([0.0, 0, 32, 32], 0, False), ([200.0, 200, 264, 264], 1, False)]])
    dataset.sizes[:] = 416
    one, two = head((2.0, 2.0)), head((2.0, 2.0), stride=16)  # 64 px and 32 px
    assert coverage(dataset, [one], INPUT_SIZE, "letterbox")[0].recall == 0.5
    assert coverage(dataset, [one, two], INPUT_SIZE, "letterbox")[0].recall == 1.0
