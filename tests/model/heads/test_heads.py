"""Tests of lookonce.model.heads: networks with several heads."""

import pytest
import torch

from lookonce.model.heads import decode, loss, region
from lookonce.model.layers import Conv, MaxPool, PlacedHead, Region, Route
from lookonce.model.losses import LossOptions, Objects
from lookonce.model.network import Network
from lookonce.model.sizes import check_input_size, heads_of, stride

FINE, COARSE = Region(((0.5, 1.0), (2.0, 1.5)), 3), Region(((1.0, 1.0),), 3)
LAYERS = (Conv(4), MaxPool(), Conv(FINE.channels, 1, 1, False, "linear"), FINE,
          Route((1,)), Conv(6), MaxPool(), Conv(COARSE.channels, 1, 1, False, "linear"), COARSE)  # fmt: skip


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Network(LAYERS).eval()


@pytest.fixture(scope="module")
def raws(network):
    with torch.no_grad():
        return network(torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1)))


def test_each_head_knows_its_place_and_stride():
    assert heads_of(LAYERS) == (PlacedHead(FINE, 2, 3), PlacedHead(COARSE, 4, 8))
    assert stride(LAYERS) == 4
    check_input_size(LAYERS, (24, 16))


def test_a_network_gives_one_raw_map_a_head(network, raws):
    assert [raw.shape for raw in raws] == [(2, 16, 8, 12), (2, 8, 4, 6)]
    for frozen in (1, 2, 3):
        network.freeze(frozen)
        images = torch.rand(1, 3, 16, 24)
        outputs = network.forward_backbone(images, network.split_index)
        torch.testing.assert_close(network.forward_head(outputs, network.split_index), network(images))
    network.freeze(0)


@pytest.mark.parametrize("as_numpy", [False, True])
def test_predictions_are_those_of_each_head_in_turn(network, raws, as_numpy):
    given = [raw.numpy() for raw in raws] if as_numpy else raws
    found = decode(given, network.heads).numpy()
    parts = [region.decode(raw, head).numpy() for raw, head in zip(raws, network.heads, strict=True)]
    at = 0
    for part in parts:
        count = part.boxes.shape[1]
        torch.testing.assert_close(found.boxes[:, at : at + count], part.boxes)
        torch.testing.assert_close(found.class_prob[:, at : at + count], part.class_prob)
        at += count
    assert at == found.objectness.shape[1] == 2 * 96 + 24


def test_loss_terms_add_up_over_heads(network, raws):
    none = torch.zeros(1).long()
    objects = Objects(torch.tensor([[3.0, 3, 9, 12]]), none, none, none.bool())
    options = LossOptions("region_ciou", prior=True)
    found = loss(raws, network.heads, objects, options)
    parts = [region.loss(raw, head, objects, options) for raw, head in zip(raws, network.heads, strict=True)]
    for name, value in found.items():
        expected = parts[0][name] + parts[1][name]
        torch.testing.assert_close(value, expected / 2 if name == "recall" else expected)
