"""Mirrors src/lookonce/layers.py."""

import pytest

from lookonce import zoo
from lookonce.errors import ConfigError
from lookonce.layers import (
    Conv,
    MaxPool,
    Region,
    Reorg,
    Route,
    Shape,
    num_floats,
    num_operations,
    region_of,
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
    assert {stride(zoo.detector(name, 2, zoo.VOC_ANCHORS)) for name in zoo.DETECTORS} == {32}


def test_a_classifier_has_no_region():
    with pytest.raises(ConfigError, match="cannot detect"):
        region_of(zoo.darknet19())


def test_num_floats_counts_bias_norm_and_weights():
    assert num_floats((Conv(2, size=1), Conv(4, batch_normalize=False))) == 2 * 3 + 2 * 4 + 4 * 2 * 9 + 4


@pytest.mark.parametrize("network, classes, side, billions", [
    ("yolov2", 80, 608, 62.94), ("yolov2_tiny_voc", 20, 416, 6.97)])  # fmt: skip
def test_operations_are_those_that_darknets_page_tells(network, classes, side, billions):
    found = num_operations(zoo.detector(network, classes, zoo.VOC_ANCHORS), (side, side))
    assert round(found / 1e9, 2) == billions
