"""Tests of lookonce.model.sizes."""

import pytest

from lookonce.errors import ConfigError
from lookonce.model import zoo
from lookonce.model.layers import AvgPool, Conv, MaxPool, Region, Reorg, Route
from lookonce.model.sizes import (
    MAX_LAYERS,
    LayerError,
    Shape,
    channels_before,
    check_input_size,
    last_stage,
    num_classes,
    num_floats,
    num_operations,
    shapes,
    stride,
)


def test_shapes_of_yolov2_are_those_darknet_prints():
    found = shapes(zoo.yolov2(20, zoo.VOC_ANCHORS), Shape(3, 416, 416))
    assert found[0] == (32, 416, 416)
    assert found[16] == (512, 26, 26)
    assert found[25] == (512, 26, 26)
    assert found[27] == (256, 13, 13)
    assert found[28] == (1280, 13, 13)
    assert found[-1] == (125, 13, 13)


def test_odd_maps_round_as_darknet_does():
    pools = (Conv(4), MaxPool(), MaxPool(), MaxPool(2, 1))
    assert [tuple(s[1:]) for s in shapes(pools, Shape(3, 25, 21))] == [(25, 21), (13, 11), (7, 6), (7, 6)]


@pytest.mark.parametrize("layers, message", [
    ((Conv(8), Route((-3,))), r"layer 1 \(route\).*must name a layer before it"),
    ((Conv(8), Route((5,))), r"layer 1 \(route\)"),
    ((Conv(8), Route(())), r"layer 1 \(route\)"),
    ((Conv(8), MaxPool(), Route((-1, -2))), "maps of different sizes"),
    ((Conv(6), Reorg(2)), "channels must divide by 4"),
    ((Conv(30), Region(((1, 1),), 20)), "1 anchors and 20 classes need 25"),
])  # fmt: skip
def test_layers_that_do_not_fit_are_refused_by_number(layers, message):
    with pytest.raises(ConfigError, match=message):
        shapes(layers, Shape(3, 64, 64))


def test_stride_is_32_for_every_detector():
    strides = {name: stride(zoo.detector(name, 2, zoo.VOC_ANCHORS)) for name in zoo.DETECTORS}
    assert strides.pop("yolov1") == strides.pop("yolov1_tiny") == 1  # they have one input size
    assert {*strides.values()} == {32}


def test_the_last_stage_begins_where_maps_become_smallest():
    layers = zoo.detector("yolo_fastest_xl", 2, zoo.own_anchors("yolo_fastest_xl"))
    first = last_stage(layers)
    _, heights, widths = zip(*shapes(layers, Shape(3, 320, 320)), strict=True)
    assert (heights[first], widths[first - 1]) == (10, 20)
    assert min(heights) == 10


def test_a_classifier_has_no_region():
    with pytest.raises(ConfigError, match="cannot detect"):
        num_classes(zoo.darknet19())


def test_num_floats_counts_bias_norm_and_weights():
    assert num_floats((Conv(2, size=1), Conv(4, batch_normalize=False))) == 2 * 3 + 2 * 4 + 4 * 2 * 9 + 4


@pytest.mark.parametrize("network, classes, side, billions", [
    ("yolov2", 80, 608, 62.94), ("yolov2_tiny_voc", 20, 416, 6.97)])  # fmt: skip
def test_operations_are_those_that_darknets_page_tells(network, classes, side, billions):
    found = num_operations(zoo.detector(network, classes, zoo.VOC_ANCHORS), (side, side))
    assert round(found / 1e9, 2) == billions


HEAD = zoo.head(2, ((1.0, 1.0),))


@pytest.mark.parametrize("layers, pixels", [
    ((Conv(8), *HEAD), 1),
    ((Conv(8, stride=2), MaxPool(3, 3), Conv(8, stride=5), *HEAD), 30),
    ((Conv(8), MaxPool(), Conv(8), MaxPool(), Conv(8), Route((-3,)), *HEAD), 2),
    ((Conv(16), MaxPool(), MaxPool(2, 1), Conv(8), MaxPool(), Route((0,)), Reorg(4), *HEAD), 4),
    ((Conv(8), MaxPool(), Route((0,)), Reorg(2), Route((-1, 1)), *HEAD), 2),
    ((MaxPool(2, 128), *HEAD), 128),
])  # fmt: skip
@pytest.mark.parametrize("cells", [(1, 1), (3, 2), (2, 5)])
def test_stride_is_what_the_maps_show_whatever_the_network_and_input(layers, pixels, cells):
    assert stride(layers) == pixels
    width, height = cells[0] * pixels, cells[1] * pixels
    assert shapes(layers, Shape(3, height, width))[-1][1:] == (cells[1], cells[0])
    check_input_size(layers, (width, height))


@pytest.mark.parametrize("layers, input_size, message", [
    (zoo.yolov2_tiny(2, zoo.VOC_ANCHORS), (416, 400), "416 x 400 px; expected sides that are positive multiples of 32"),
    (zoo.yolov2_tiny(2, zoo.VOC_ANCHORS), (0, 32), "expected sides that are positive"),
    (zoo.yolov2_tiny(2, zoo.VOC_ANCHORS), (-32, 32), "expected sides that are positive"),
    ((Conv(8, size=2), *HEAD), (8, 8), "a last map of 9 x 9 cells for an input of 8 x 8 px; expected 8 x 8"),
    ((Conv(8), AvgPool(), *HEAD), (8, 8), "average pools leave one"),
    ((Conv(8), MaxPool(), Route((0, 1)), *HEAD), (8, 8), r"layer 2 \(route\): maps of different strides"),
    (zoo.yolov2_tiny(2, zoo.VOC_ANCHORS), (2**20, 2**20), r"layer 0 \(conv\): the network is too large"),
])  # fmt: skip
def test_an_input_that_a_network_does_not_take_is_told(layers, input_size, message):
    with pytest.raises(ConfigError, match=message):
        check_input_size(layers, input_size)


@pytest.mark.parametrize("layers, index", [
    ((Conv(8), Conv(10**11)), 1),
    ((Conv(2**15), Conv(2**15, size=3)), 1),
    ((Conv(8), MaxPool(10**6, 1)), 1),
    ((Conv(8), *[Route((-1, -1))] * 40), 23),
    ((*[MaxPool(2, 1)] * (MAX_LAYERS + 1),), MAX_LAYERS),
])  # fmt: skip
def test_what_is_too_large_is_refused_by_its_layer(layers, index):
    with pytest.raises(LayerError, match="too large") as told:
        shapes(layers, Shape(3, 8, 8))
    assert told.value.index == index


def test_no_published_network_is_too_large():
    for name in zoo.DETECTORS:
        size = (448, 448) if name.startswith("yolov1") else (1536, 1536)
        check_input_size(zoo.detector(name, 80, zoo.COCO_ANCHORS), size)
    with pytest.raises(ConfigError, match="made for maps of 7 x 7 cells: this network has one input size"):
        check_input_size(zoo.yolov1(20), (512, 512))


def test_a_grey_network_has_fewer_numbers_in_its_first_layer():
    assert channels_before((Conv(8), Conv(4)), channels=1) == [1, 8]
    assert num_floats((Conv(8),)) - num_floats((Conv(8),), channels=1) == 8 * 9 * 2
