"""Tests of lookonce.report.explain_network."""

import pytest

from lookonce.model import zoo
from lookonce.model.network import Network
from lookonce.model.sizes import num_floats
from lookonce.report.explain_network import layer_table
from sets import nano


@pytest.mark.parametrize("name", zoo.DETECTORS)
def test_totals_are_those_of_the_weights_file(name):
    layers = zoo.detector(name, 20, zoo.VOC_ANCHORS)
    table = layer_table(layers, (416, 416))
    assert table.weights == num_floats(layers)
    assert len(table.rows) == len(layers)


def test_yolov2_is_shown_as_in_its_paper():
    table = layer_table(zoo.yolov2(20, zoo.VOC_ANCHORS), (416, 416))
    assert table.weights - table.learned == 2 * sum(
        row.shape.channels for row in table.rows if row.kind in ("conv 3x3", "conv 1x1")
    )
    assert table.rows[-1].shape == (125, 13, 13)
    assert str(table).splitlines()[-1].endswith("29.36 billion operations at 416 x 416 px")
    assert [row.reads for row in table.rows if row.kind == "route"] == ["16", "27, 24"]


def test_shapes_and_learned_weights_are_those_of_the_running_network(squares):
    import torch

    network = Network(nano(2, ((1.0, 1.0),))).eval()
    table = layer_table(network.layers, (96, 64))
    assert table.learned == sum(p.numel() for p in network.parameters())
    (raw,) = network(torch.zeros(1, 3, 64, 96))
    assert table.rows[-1].shape == tuple(raw.shape[1:])
    assert "conv 3x3" in str(table)
