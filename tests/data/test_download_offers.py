"""Mirrors src/lookonce/offers.py: the table against itself and against the networks that the files are for."""

import hashlib
from urllib.parse import urlsplit

import pytest
import torch

from lookonce.data.download import OFFERS
from lookonce.model import zoo
from lookonce.model.network import Network

BY_NAME = {offer.name: offer for offer in OFFERS}


def numbers(layers):
    """How many float32 a network's file holds: each tensor of it once; a convolution with batch norm has no bias."""
    with torch.device("meta"):
        state = Network(layers).state_dict()
    return sum(value.numel() for name, value in state.items() if "num_batches" not in name)


def test_the_table_has_what_was_asked_for_once():
    assert set(BY_NAME) == {
        "voc2007-trainval", "voc2007-test", "voc2012-trainval", "yolov2", "yolov2-voc", "yolov2-tiny",
        "yolov2-tiny-voc", "yolo9000", "darknet19_448.conv.23",
    }  # fmt: skip
    assert len(BY_NAME) == len({offer.file for offer in OFFERS}) == len(OFFERS)


@pytest.mark.parametrize("name", list(BY_NAME))
def test_each_line_is_well_formed(name):
    offer = BY_NAME[name]
    assert len(set(offer.mirrors)) == len(offer.mirrors) >= 2
    for url in offer.mirrors:
        assert urlsplit(url).scheme in ("http", "https")
        assert url.endswith("/" + offer.file)
    if offer.checksum:
        algorithm, _, value = offer.checksum.partition(":")
        assert len(bytes.fromhex(value)) == hashlib.new(algorithm, usedforsecurity=False).digest_size
    assert (offer.folder is None) != offer.file.endswith(".tar")


@pytest.mark.parametrize("name, layers, left_out", [
    ("yolov2", zoo.yolov2(80, zoo.VOC_ANCHORS), 0),
    ("yolov2-voc", zoo.yolov2(20, zoo.VOC_ANCHORS), 0),
    ("yolov2-tiny", zoo.yolov2_tiny(80, zoo.VOC_ANCHORS), 0),
    ("yolov2-tiny-voc", zoo.yolov2_tiny_voc(20, zoo.VOC_ANCHORS), 0),
    ("darknet19_448.conv.23", zoo.darknet19(), 1000 + 1024 * 1000),
])  # fmt: skip
def test_weights_are_as_long_as_their_network(name, layers, left_out):
    lengths = {header + 4 * (numbers(layers) - left_out) for header in (16, 20)}
    assert set(BY_NAME[name].sizes) <= lengths


def test_archives_are_whole_blocks_of_tar():
    assert [offer.sizes[0] % 512 for offer in OFFERS if offer.folder] == [0, 0, 0]
