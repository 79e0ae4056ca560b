"""Tests of lookonce.model.zoo. Oracle: the sizes of Darknet's published weight files."""

import pytest

from lookonce.errors import ConfigError
from lookonce.model import zoo
from lookonce.model.layers import Conv
from lookonce.model.sizes import num_floats


@pytest.mark.parametrize("layers, floats", [
    (zoo.yolov2(80, zoo.COCO_ANCHORS), 50_983_561),
    (zoo.yolov2(20, zoo.VOC_ANCHORS), 50_676_061),
    (zoo.yolov2_2016(20, zoo.VOC_ANCHORS), 67_158_109),
    (zoo.yolov2_tiny_voc(20, zoo.VOC_ANCHORS), 15_867_885),
    (zoo.yolov2_tiny(80, zoo.COCO_ANCHORS), 11_237_145),
    (zoo.darknet19(), 20_856_776),
], ids=["yolov2", "yolov2-voc", "yolo-voc.2.0", "yolov2-tiny-voc", "yolov2-tiny", "darknet19"])  # fmt: skip
def test_networks_hold_as_many_numbers_as_their_weight_files(layers, floats):
    assert num_floats(layers) == floats


def test_the_trunk_is_darknet19s_18_convolutions():
    assert sum(isinstance(layer, Conv) for layer in zoo.backbone()) == 18
    assert sum(isinstance(layer, Conv) for layer in zoo.yolov2(20, zoo.VOC_ANCHORS)) == 23


def test_an_unknown_network_names_the_known_ones():
    with pytest.raises(ConfigError, match="'yolov3'; expected one of yolov2, yolov2_2016, yolov2_tiny"):
        zoo.detector("yolov3", 1, zoo.VOC_ANCHORS)
