"""Mirrors src/lookonce/onnx_form.py. Oracle: the network itself, run by PyTorch.

Run by OpenVINO: onnx's own evaluator gets a pooling with uneven borders wrong.
"""

import numpy as np
import onnx
import pytest
import torch

from lookonce import Network
from lookonce.inference.backends.openvino import the_core
from lookonce.model import zoo
from lookonce.model.layers import AvgPool, Conv, Dropout, MaxPool, Region, Reorg, Route
from lookonce.model.network import folded
from lookonce.model.onnx_graph import network_model, numbers_of

ANCHORS = ((1.0, 1.5), (3.0, 2.0))
PASSED = (Conv(8), MaxPool(), Conv(8, activation="relu"), MaxPool(), Route((-2,)), Reorg(2), Route((-1, 3)),
          Conv(14, 1, 1, False, "linear"), Region(ANCHORS, 2))  # fmt: skip
ODD = (Conv(6, stride=2, activation="logistic"), MaxPool(3, 2), MaxPool(2, 1), Dropout(), Conv(4, 5), MaxPool(3, 1),
       MaxPool(4, 4), Conv(14, 1, 1, False, "linear"), Region(ANCHORS, 2))  # fmt: skip
POOLED = (Conv(6), MaxPool(), Conv(14, 1, 1, False, "linear"), AvgPool(), Region(ANCHORS, 2))


def seeded(layers, channels=3):
    torch.manual_seed(0)
    network = Network(layers, channels)
    for convolution in network.convolution_list():
        if convolution.norm is not None:
            torch.nn.init.uniform_(convolution.norm.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(convolution.norm.running_var, 0.5, 2)
    return network.eval()


@pytest.mark.parametrize("layers, channels", [(PASSED, 3), (ODD, 3), (POOLED, 3), (PASSED, 1), ((MaxPool(), *ODD), 1)],
                         ids=["passed", "odd", "pooled", "grey", "grey and pooled first"])  # fmt: skip
@pytest.mark.parametrize("shape", [(1, 128, 128), (2, 256, 128)])
def test_the_graph_gives_the_networks_own_numbers_whatever_the_input(layers, channels, shape):
    network = seeded(layers, channels)
    model = network_model(network.layers, numbers_of(folded(network)), channels)
    onnx.checker.check_model(model, full_check=True)
    x = torch.rand(shape[0], 3, *shape[1:], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(x)[0].numpy()
    read = the_core().read_model(model.SerializeToString())
    found = the_core().compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x.numpy())[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["yolov2", "yolov2_tiny"])
def test_known_networks_keep_their_layers(name):
    layers = zoo.DETECTORS[name](20, zoo.VOC_ANCHORS)
    model = network_model(layers, numbers_of(folded(Network(layers))))
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Conv") == sum(isinstance(layer, Conv) for layer in layers)
    assert "BatchNormalization" not in kinds
