"""Tests of lookonce.data.anchors."""

import numpy as np
import pytest
import torch

from lookonce.data.anchors import collisions, coverage, encoded, every_anchor, input_boxes, input_scale
from lookonce.data.read import read_dataset
from lookonce.model.heads import region
from lookonce.model.layers import Detection, PlacedHead, Region, Yolo
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
    assert [each.tolist() for each in found] == [[0], [1], [0], []]


YOLO_ANCHORS = ((16.0, 16.0), (32.0, 32.0), (64.0, 64.0), (128.0, 128.0))
"""(w, h) in input pixels."""


def yolos(*masks):
    return [PlacedHead(Yolo(YOLO_ANCHORS, mask, 2), 32 // 2**n) for n, mask in enumerate(masks)]


def slow_collisions(dataset, heads):
    """As collisions, for yolo layers and images of 416 px: one object after another."""
    place = {}
    for n, (x1, y1, x2, y2) in enumerate(dataset.boxes.tolist()):
        w, h = x2 - x1, y2 - y1
        overlaps = [min(w, a) * min(h, b) / (w * h + a * b - min(w, a) * min(h, b)) for a, b in YOLO_ANCHORS]
        best = overlaps.index(max(overlaps))
        centre, image = ((x1 + x2) / 2, (y1 + y2) / 2), int(dataset.image_of_box[n])
        place[n] = [(image, k, best, *(int(c // head.stride) for c in centre))
                    for k, head in enumerate(heads) if best in head.layer.mask]  # fmt: skip
    last = {slot: n for n, slots in place.items() for slot in slots}
    lost = [n for n, slots in place.items() if slots and all(last[slot] != n for slot in slots)]
    return [lost, [last[place[n][0]] for n in lost], [place[n][0][2] for n in lost],
            [n for n, slots in place.items() if not slots]]  # fmt: skip


@pytest.mark.parametrize("masks", [((2, 3), (0, 1)), ((3,), (1, 2)), ((0, 1, 2, 3),), ((2, 3), (1, 2), (0, 1))])
def test_collisions_of_yolo_layers_are_those_of_a_slow_loop(masks):
    draw = np.random.default_rng(3)
    images = []
    for _ in range(6):
        centre, size = draw.integers(100, 316, (30, 2)), draw.integers(8, 150, (30, 2))
        images.append([([*(c - s / 2).tolist(), *(c + s / 2).tolist()], 0, False)
                       for c, s in zip(centre, size, strict=True)])  # fmt: skip
    dataset = dataset_of(images)
    dataset.sizes[:] = 416
    found = collisions(dataset, yolos(*masks), INPUT_SIZE, "letterbox")
    assert [each.tolist() for each in found] == slow_collisions(dataset, yolos(*masks))
    assert len(found.objects) > 3
    assert (len(found.unassigned) > 3) == (masks == ((3,), (1, 2)))


def test_anchors_of_yolo_layers_are_one_list_and_those_of_region_layers_are_lists_of_their_own():
    shapes, own = every_anchor(yolos((2, 3), (1, 2)))
    assert (shapes, own) == (list(YOLO_ANCHORS), [[2, 3], [1, 2]])
    shapes, own = every_anchor([head((1.0, 1.0), (2.0, 1.0)), head((3.0, 1.0), stride=16)])
    assert (shapes, own) == ([(32, 32), (64, 32), (48, 16)], [[0, 1], [2]])


def test_a_detection_layer_learns_the_first_object_of_a_cell_and_has_no_anchors():
    # cells of 208 px; a, b and d have their centres in the first, of which d is difficult
    a, b, c, d = [0.0, 0, 99, 99], [99.0, 99, 300, 300], [220.0, 0, 300, 90], [1.0, 1, 9, 9]
    dataset = dataset_of([[(d, 0, True), (a, 0, False), (b, 1, False), (c, 1, False)]])
    dataset.sizes[:] = 416
    found = collisions(dataset, [PlacedHead(Detection(2, 2, 2, INPUT_SIZE), 1)], INPUT_SIZE, "letterbox")
    assert [each.tolist() for each in found] == [[2], [1], [0], []]
    everything = coverage(dataset, [PlacedHead(Detection(2, 2, 2, INPUT_SIZE), 1)], INPUT_SIZE, "letterbox")[0]
    assert (everything.recall, everything.collisions) == (None, 0.25)


def test_an_anchor_of_any_head_may_fit():
    dataset = dataset_of([[([0.0, 0, 32, 32], 0, False), ([200.0, 200, 264, 264], 1, False)]])
    dataset.sizes[:] = 416
    one, two = head((2.0, 2.0)), head((2.0, 2.0), stride=16)  # 64 px and 32 px
    assert coverage(dataset, [one], INPUT_SIZE, "letterbox")[0].recall == 0.5
    assert coverage(dataset, [one, two], INPUT_SIZE, "letterbox")[0].recall == 1.0
