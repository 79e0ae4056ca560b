"""Tests of lookonce.model.zoo. Oracle: the sizes of Darknet's published weight files."""

from collections import Counter

import pytest

from conftest import SHARED
from lookonce.errors import ConfigError
from lookonce.model import zoo
from lookonce.model.darknet.cfg import read_cfg
from lookonce.model.layers import (
    Connected,
    Conv,
    Detection,
    Dropout,
    Local,
    MaxPool,
    Route,
    Shortcut,
    Upsample,
    Yolo,
)
from lookonce.model.sizes import Shape, heads_of, num_floats, shapes


@pytest.mark.parametrize("layers, floats", [
    (zoo.yolov2(80, zoo.COCO_ANCHORS), 50_983_561),
    (zoo.yolov2(20, zoo.VOC_ANCHORS), 50_676_061),
    (zoo.yolov2_2016(20, zoo.VOC_ANCHORS), 67_158_109),
    (zoo.yolov2_tiny_voc(20, zoo.VOC_ANCHORS), 15_867_885),
    (zoo.yolov2_tiny(80, zoo.COCO_ANCHORS), 11_237_145),
    (zoo.darknet19(), 20_856_776),
    (zoo.yolov1(20), (789_312_988 - 16) // 4),
    (zoo.yolov3(80, zoo.YOLOV3_ANCHORS), (248_007_048 - 20) // 4),
    (zoo.yolov3_tiny(80, zoo.TINY_ANCHORS), (35_434_956 - 20) // 4),
    (zoo.yolov4(80, zoo.YOLOV4_ANCHORS), (257_717_640 - 20) // 4),
    (zoo.yolov4_tiny(80, zoo.TINY_ANCHORS), (24_251_276 - 20) // 4),
    (zoo.yolo_fastest(80, zoo.FASTEST_ANCHORS), (1_384_268 - 20) // 4),
    (zoo.yolo_fastest_xl(80, zoo.FASTEST_ANCHORS), (3_693_964 - 20) // 4),
], ids=["yolov2", "yolov2-voc", "yolo-voc.2.0", "yolov2-tiny-voc", "yolov2-tiny", "darknet19",
        "yolov1", "yolov3", "yolov3-tiny", "yolov4", "yolov4-tiny", "fastest", "fastest-xl"])  # fmt: skip
def test_networks_hold_as_many_numbers_as_their_weight_files(layers, floats):
    assert num_floats(layers) == floats


SECTIONS = {
    "yolov1": {Conv: 24, MaxPool: 4, Local: 1, Dropout: 1, Connected: 1, Detection: 1},
    "yolov1_tiny": {Conv: 8, MaxPool: 6, Connected: 1, Detection: 1},
    "yolov3": {Conv: 75, Shortcut: 23, Yolo: 3, Route: 4, Upsample: 2},
    "yolov3_tiny": {Conv: 13, MaxPool: 6, Yolo: 2, Route: 2, Upsample: 1},
    "yolov4": {Conv: 110, Route: 21, Shortcut: 23, MaxPool: 3, Upsample: 2, Yolo: 3},
    "yolov4_tiny": {Conv: 21, Route: 11, MaxPool: 3, Yolo: 2, Upsample: 1},
    "yolo_fastest": {Conv: 84, Dropout: 18, Shortcut: 18, MaxPool: 3, Route: 5, Yolo: 2, Upsample: 1},
    "yolo_fastest_xl": {Conv: 84, Dropout: 18, Shortcut: 18, MaxPool: 3, Route: 5, Yolo: 2, Upsample: 1},
}
"""Sections of Darknet's cfg files, counted."""


@pytest.mark.parametrize("name", SECTIONS)
def test_networks_have_the_layers_of_darknets_cfg(name):
    layers = zoo.detector(name, 80, zoo.YOLOV3_ANCHORS)
    assert Counter(map(type, layers)) == SECTIONS[name]


def test_heads_are_those_of_the_cfgs():
    coarse, middle, fine = heads_of(zoo.yolov3(80, zoo.YOLOV3_ANCHORS))
    assert [head.stride for head in (coarse, middle, fine)] == [32, 16, 8]
    assert [head.layer.mask for head in (coarse, middle, fine)] == [(6, 7, 8), (3, 4, 5), (0, 1, 2)]
    assert coarse.layer.anchors == ((116, 90), (156, 198), (373, 326))
    found = heads_of(zoo.yolov4(80, zoo.YOLOV4_ANCHORS))
    assert [(head.stride, head.layer.mask, head.layer.scale_x_y) for head in found] == [
        (8, (0, 1, 2), 1.2), (16, (3, 4, 5), 1.1), (32, (6, 7, 8), 1.05)
    ]  # fmt: skip
    published = heads_of(zoo.yolov4_tiny(80, zoo.TINY_ANCHORS, fine_mask=(1, 2, 3)))
    assert [head.layer.mask for head in published] == [(3, 4, 5), (1, 2, 3)]
    assert [head.layer.mask for head in heads_of(zoo.yolov4_tiny(2, zoo.VOC_ANCHORS))] == [(3, 4), (0, 1, 2)]
    (one,) = heads_of(zoo.yolov1(20))
    assert (one.layer.side, one.layer.num, one.layer.channels) == (7, 3, 1715)


def test_yolov3_tiny_is_the_tuple_of_its_cfg():
    assert read_cfg(YOLOV3_TINY).layers == zoo.yolov3_tiny(80, zoo.TINY_ANCHORS)


@pytest.mark.parametrize("name, network", [
    ("yolo-fastest-1.1", zoo.yolo_fastest),
    ("yolo-fastest-1.1-xl", zoo.yolo_fastest_xl),
])  # fmt: skip
def test_yolo_fastest_is_the_tuple_of_its_cfg(name, network):
    cfg = SHARED / "weights" / f"{name}.cfg"
    if not cfg.is_file():
        pytest.skip(f"the published networks are not at {cfg.parent}")
    assert read_cfg(cfg.read_text()).layers == network(80, zoo.FASTEST_ANCHORS)


def convolution(filters, size=3, normalize=True):
    activation = "leaky" if normalize else "linear"
    first = "batch_normalize=1\n" if normalize else ""
    return f"[convolutional]\n{first}filters={filters}\nsize={size}\nstride=1\npad=1\nactivation={activation}\n"


def pool(stride=2):
    return f"[maxpool]\nsize=2\nstride={stride}\n"


def yolo(mask):
    return (f"[yolo]\nmask={mask}\nanchors = 10,14,  23,27,  37,58,  81,82,  135,169,  344,319\nclasses=80\nnum=6\n"
            "jitter=.3\nignore_thresh = .7\ntruth_thresh = 1\nrandom=1\n")  # fmt: skip


YOLOV3_TINY = "[net]\nwidth=416\nheight=416\nchannels=3\n" + "".join([
    convolution(16), pool(), convolution(32), pool(), convolution(64), pool(), convolution(128), pool(),
    convolution(256), pool(), convolution(512), pool(1), convolution(1024), convolution(256, 1), convolution(512),
    convolution(255, 1, False), yolo("3,4,5"), "[route]\nlayers = -4\n", convolution(128, 1), "[upsample]\nstride=2\n",
    "[route]\nlayers = -1, 8\n", convolution(256), convolution(255, 1, False), yolo("0,1,2"),
])  # fmt: skip


def test_the_trunk_is_darknet19s_18_convolutions():
    assert sum(isinstance(layer, Conv) for layer in zoo.backbone()) == 18
    assert sum(isinstance(layer, Conv) for layer in zoo.yolov2(20, zoo.VOC_ANCHORS)) == 23


def test_an_unknown_network_names_the_known_ones():
    with pytest.raises(ConfigError, match="'yolov5'; expected one of yolov1, yolov1_tiny, yolov2, yolov2_2016"):
        zoo.detector("yolov5", 1, zoo.VOC_ANCHORS)


def test_yolov2_small_is_the_head_of_yolov2_on_finer_cells():
    layers = zoo.yolov2_small(3, zoo.VOC_ANCHORS)
    convolutions = [
        *((3, 16, 3), (16, 32, 3), (32, 16, 1), (16, 32, 3), (32, 64, 3), *((64, 32, 1), (32, 64, 3)) * 2),
        *((64, 128, 3), *((128, 64, 1), (64, 128, 3)) * 2, (128, 256, 3), (256, 128, 1), (128, 256, 3)),
        *((256, 128, 1), (4 * 128, 128, 1), (128 + 128, 256, 3)),
    ]
    assert num_floats(layers) == sum(n * m * k * k + 4 * m for n, m, k in convolutions) + 256 * 40 + 40
    [head] = heads_of(layers)
    assert head.stride == 16
    assert head.layer.anchors == tuple((2 * w, 2 * h) for w, h in zoo.VOC_ANCHORS)
    maps = shapes(layers, Shape(3, 416, 416))
    joined = next(n for n, layer in enumerate(layers) if isinstance(layer, Upsample)) + 1
    assert layers[joined] == Route((-1, -14))
    assert maps[joined - 14] == Shape(128, 26, 26)  # the end of the stage before the last
    assert layers[joined - 14 : joined - 12] == (Shortcut(-3), Conv(256, stride=2))
