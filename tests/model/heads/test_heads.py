"""Tests of lookonce.model.heads: networks with several heads."""

from dataclasses import replace

import pytest
import torch

from lookonce.model.boxes import iou
from lookonce.model.heads import decode, loss, region
from lookonce.model.layers import Connected, Conv, Detection, MaxPool, PlacedHead, Region, Route, Yolo
from lookonce.model.losses import LossOptions, Objects
from lookonce.model.network import Network
from lookonce.model.sizes import Shape, check_input_size, fitted, heads_of, stride

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


ANCHORS = ((4.0, 4.0), (8.0, 10.0), (16.0, 12.0))
V3 = (Conv(8), MaxPool(), Conv(16, 1, 1, False, "linear"), Yolo(ANCHORS, (0, 1), 3), Route((1,)), Conv(8), MaxPool(),
      Conv(8, 1, 1, False, "linear"), Yolo(ANCHORS, (2,), 3))  # fmt: skip
V4 = tuple(replace(layer, iou_loss="ciou", scale_x_y=1.1, iou_thresh=0.3) if isinstance(layer, Yolo) else layer
           for layer in V3)  # fmt: skip
V7 = tuple(
    replace(layer, new_coords=True, scale_x_y=2.0) if isinstance(layer, Yolo)
    else replace(layer, activation="logistic") if layer in (V3[2], V3[7]) else layer
    for layer in V3
)  # fmt: skip
V1 = fitted((Conv(8), MaxPool(), Connected(4 * (3 + 10), "linear"), Detection(3, 2, 2, sqrt=True, rescore=True)),
            Shape(3, 16, 24))  # fmt: skip


@pytest.mark.parametrize("layers", [V1, V3, V4, V7], ids=["v1", "v3", "v4", "new coordinates"])
def test_networks_of_every_family_learn_a_batch(layers):
    torch.manual_seed(0)
    network = Network(layers).train()
    objects = Objects(torch.tensor([[3.0, 3, 9, 12], [2, 1, 18, 13], [10, 4, 14, 9]]), torch.tensor([0, 2, 1]),
                      torch.tensor([0, 1, 1]), torch.zeros(3, dtype=torch.bool))  # fmt: skip
    images = torch.rand(2, 3, 16, 24)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    totals = []
    for _ in range(90):
        terms = loss(network(images), network.heads, objects, LossOptions())
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()
        totals.append(terms["total"].item())
    assert totals[-1] < 0.5 * totals[0]
    with torch.no_grad():
        found = decode(network.eval()(images), network.heads)
    overlap = iou(found.boxes[0], objects.boxes[:1])
    assert overlap[found.objectness[0].argmax()] > 0.5
