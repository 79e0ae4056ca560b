"""Tests of lookonce.model.boxes; numpy gives what torch gives."""

import numpy as np
import torch

from lookonce.model import boxes


def random_boxes(n, seed):
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=g) * 50
    return torch.cat((corner, corner + torch.rand(n, 2, generator=g) * 40), -1)


def slow_iou(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(w, 0) * max(h, 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def test_formats_are_inverses():
    given = random_boxes(20, 0)
    torch.testing.assert_close(boxes.cxcywh_to_xyxy(boxes.xyxy_to_cxcywh(given)), given)
    assert boxes.xyxy_to_cxcywh(torch.tensor([10.0, 20, 30, 60])).tolist() == [20, 40, 20, 40]


def test_iou_of_all_pairs_is_the_loops():
    a, b = random_boxes(12, 1), random_boxes(9, 2)
    expected = torch.tensor([[slow_iou(p, q) for q in b.tolist()] for p in a.tolist()])
    torch.testing.assert_close(boxes.iou(a[:, None], b), expected)


def test_iou_known_by_hand():
    a = torch.tensor([0.0, 0, 2, 2])
    assert boxes.iou(a, torch.tensor([1.0, 1, 3, 3])).item() == torch.tensor(1 / 7).item()
    assert boxes.iou(a, torch.tensor([2.0, 0, 4, 2])).item() == 0
    assert boxes.iou(torch.zeros(4), torch.zeros(4)).item() == 0


def test_shape_iou_is_iou_on_one_centre():
    a, b = torch.rand(7, 2, generator=torch.Generator().manual_seed(3)) + 0.1, torch.tensor([[0.5, 0.5], [1.0, 0.2]])
    centred = [boxes.cxcywh_to_xyxy(torch.cat((torch.zeros_like(s), s), -1)) for s in (a, b)]
    torch.testing.assert_close(boxes.shape_iou(a[:, None], b), boxes.iou(centred[0][:, None], centred[1]))


def test_area_of_a_box_turned_inside_out_is_nothing():
    assert boxes.area(torch.tensor([[0.0, 0, 3, 2], [3, 0, 0, 2]])).tolist() == [6, 0]


def test_clip_keeps_boxes_in_the_frame():
    found = boxes.clip(torch.tensor([[-5.0, 2, 700, 3], [10, -1, 20, 900]]), 640, 480)
    assert found.tolist() == [[0, 2, 640, 3], [10, 0, 20, 480]]


VALUES = np.array([[-1e4, -90, -20, -1.5], [0, 3, 60, 1e4]], np.float32)


def test_the_library_is_that_of_the_values():
    assert boxes.library(VALUES) is np
    assert boxes.library(torch.from_numpy(VALUES)) is torch


def test_like_keeps_kind_and_dtype():
    assert boxes.like((1, 2), VALUES.astype(np.float64)).dtype == np.float64
    assert torch.equal(boxes.like((1, 2), torch.zeros(1)), torch.tensor([1.0, 2.0]))


def test_sigmoid_and_softmax_are_torchs_even_far_out():
    tensor = torch.from_numpy(VALUES)
    for name in ("sigmoid", "softmax"):
        found = getattr(boxes, name)(VALUES)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, getattr(boxes, name)(tensor), rtol=1e-6, atol=1e-30)
    assert torch.equal(boxes.softmax(tensor), torch.softmax(tensor, -1))


def test_relative_distance_is_that_of_centres_over_the_diagonal_of_the_hull():
    a, b = np.array([[0.0, 0, 2, 2]]), np.array([[0.0, 0, 2, 2], [2, 2, 4, 4], [1, 0, 3, 2]])
    np.testing.assert_allclose(boxes.relative_distance(a[:, None], b), [[0, 8 / 32, 1 / 13]])
    assert boxes.relative_distance(np.zeros((1, 4)), np.zeros((1, 4))) == 0
