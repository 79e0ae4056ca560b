"""Mirrors src/lookonce/darknet/cfg.py."""

import pytest

from lookonce import zoo
from lookonce.darknet.cfg import Cfg, CfgError, read_cfg, write_cfg
from lookonce.layers import Conv, MaxPool, Region, num_floats


@pytest.mark.parametrize("name", list(zoo.DETECTORS))
def test_every_detector_survives_the_way_to_text_and_back(name):
    cfg = Cfg(zoo.detector(name, 7, zoo.VOC_ANCHORS), 320, 608)
    assert read_cfg(write_cfg(cfg)) == cfg


def test_the_classifier_survives_too():
    cfg = Cfg(zoo.darknet19(10), 224, 224)
    assert read_cfg(write_cfg(cfg)) == cfg


def test_darknets_spelling_is_read():
    text = (
        "\ufeff[network]\r\nwidth = 64\r\nheight=32 # low\r\n\r\n"
        "[conv]\r\nfilters=8\r\nsize=3\r\nstride=1\r\npad=1\r\nactivation=leaky\r\n"
        "; a pool\n[max]\nsize=2\nstride=2\n"
    )
    cfg = read_cfg(text)
    assert cfg == Cfg((Conv(8, batch_normalize=False), MaxPool()), 64, 32)
    assert num_floats(cfg.layers) == 8 + 8 * 27


def test_a_regions_defaults_are_darknets():
    text = "[net]\n[convolutional]\nfilters=6\nactivation=linear\n[region]\nanchors=1,2\nclasses=1\n"
    assert read_cfg(text).layers[-1] == Region(((1, 2),), 1, False, False, False, 0.5, 1, 1, 1, 1)


@pytest.mark.parametrize("text, message", [
    ("", "x.cfg:1: no .net. section"),
    ("[net]\n", "x.cfg:1: a network without layers"),
    ("[net]\n\n[yolo]\n", "x.cfg:3: section .yolo.; expected one of net, convolutional"),
    ("[net]\n[maxpool]\nsice=2\n", "x.cfg:3: key 'sice' in .maxpool.; expected padding, size, stop"),
    ("[net]\n[maxpool]\nsize=two\n", "x.cfg:3: size='two'; expected numbers"),
    ("[net]\n[maxpool]\nsize=-2\n", "x.cfg:3: size=-2; expected a whole number, at least 1"),
    ("[net]\nhello\n", "x.cfg:2: 'hello'; expected .section."),
    ("[net]\n[route]\n", "x.cfg:2: .route. without layers"),
    ("[net]\n[convolutional]\nsize=3\nactivation=leaky\n", "x.cfg:2: size=3 with a padding of 0; expected pad=1"),
    ("[net]\n[convolutional]\nactivation=swish\n", "x.cfg:3: activation=swish; expected one of leaky"),
    ("[net]\n[region]\nanchors=1,2,3\n", "x.cfg:3: 3 numbers in anchors; expected 2 above 0 for num=1"),
])  # fmt: skip
def test_errors_name_the_line(text, message):
    with pytest.raises(CfgError, match=message):
        read_cfg(text, "x.cfg")
