"""Tests of lookonce.model.layers."""

from lookonce.model.layers import Conv, Detection, Local, MaxPool, PlacedHead, Region, Yolo

ANCHORS = ((10.0, 14.0), (23.0, 27.0), (37.0, 58.0))


def test_padding_is_half_the_window_and_grows_with_dilation():
    assert [Conv(1, size).pad for size in (1, 2, 3, 5)] == [0, 1, 1, 2]
    assert Conv(1, 3, dilation=4).pad == 4
    assert Conv(1, 7, padding=0).pad == 0


def test_a_pool_has_the_smaller_half_of_its_padding_before_the_map():
    assert [MaxPool(size).pad for size in (1, 2, 3, 4, 13)] == [(0, 0), (0, 1), (1, 1), (1, 2), (6, 6)]
    assert MaxPool(2, 2, padding=0).pad == (0, 0)


def test_a_local_layer_has_the_cells_of_darknets_formula():
    assert Local(4, map=(7, 9)).cells == (7, 9)  # pad: (in - 1) / stride + 1
    assert Local(4, 3, 2, map=(7, 9)).cells == (4, 5)
    assert Local(4, 2, 2, 0, map=(7, 9)).cells == (3, 4)  # no pad: (in - size) / stride + 1


def test_a_yolo_head_has_the_anchors_of_its_mask_in_pixels():
    head = Yolo(ANCHORS, (2, 0), 5)
    assert head.anchors == ((37, 58), (10, 14))
    assert head.channels == 2 * (5 + 5)
    assert Yolo(ANCHORS, (1,), 5, gaussian=True).channels == 9 + 5
    assert PlacedHead(head, 16).anchors_px == [(37, 58), (10, 14)]
    assert PlacedHead(Region(((1.0, 2.0),), 5), 16).anchors_px == [(16, 32)]


def test_a_detection_head_counts_classes_once_a_cell():
    assert Detection(20, 7, 3).channels == 1715
    assert PlacedHead(Detection(20, 7, 3), 1).anchors_px == []
