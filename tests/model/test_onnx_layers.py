"""Tests of lookonce.model.onnx_layers. Oracle: PyTorch's network, which equals Darknet's numbers (test_files.py)."""

from types import SimpleNamespace
from typing import get_args

import numpy as np
import onnx
import pytest
import torch

from conftest import GOLDEN
from lookonce.inference.backends.openvino import the_core
from lookonce.model.darknet.files import load_darknet
from lookonce.model.layers import (
    Activation,
    Batchnorm,
    Connected,
    Conv,
    Crop,
    Local,
    MaxPool,
    Route,
    Shortcut,
    Upsample,
)
from lookonce.model.network import Network
from lookonce.model.onnx_graph import network_model
from lookonce.model.sizes import Shape, fitted

FAMILY = ["dk_v1_64x48", "dk_yolo3_96x64", "dk_yolo4_tiny_96x64", "dk_yolo4_new_96x64", "dk_yolo4_gaussian_48x32",
          "dk_yolo4_extras_48x32"]  # fmt: skip


def compare(network, size, count=1):
    """Run a network in OpenVINO and ONNX Runtime; expect PyTorch's raw maps."""
    about = SimpleNamespace(
        network=network, layers=network.layers, channels=network.channels, to_json=dict, input_size=size
    )
    made = network_model(about)
    onnx.checker.check_model(made, full_check=True)
    x = torch.rand(count, 3, *size[::-1], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = [raw.numpy() for raw in network(x)]
    read = the_core().read_model(made.SerializeToString())
    runs = [the_core().compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x.numpy())]
    runs[0] = [runs[0][n] for n in range(len(expected))]
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    runs.append(onnxruntime.InferenceSession(made.SerializeToString()).run(None, {"pixels": x.numpy()}))
    for found in runs:
        for one, raw in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, raw, atol=1e-5 * np.abs(raw).max() + 1e-6)


@pytest.mark.parametrize("name", FAMILY)
def test_the_nodes_of_every_family_give_pytorchs_numbers(name):
    network = load_darknet(GOLDEN / f"{name}.cfg", GOLDEN / f"{name}.weights")
    compare(network, (network.origin.cfg.width, network.origin.cfg.height), count=2)


def test_every_activation_and_the_rarer_settings_too():
    torch.manual_seed(0)
    layers = (
        Crop(32, 48), *(Conv(6, activation=name) for name in get_args(Activation)), Conv(6, 3, 1, dilation=2, share=2),
        Crop(30, 40, adjust=False), Conv(4, 3, 2, padding=0), MaxPool(3, 2, padding=1), Conv(8, 1),
        Shortcut(-2, "swish"), Conv(2, 1), Shortcut(-2, "leaky"), Shortcut(-3), Conv(8, 1), Upsample(2, 0.5),
        Route((-1, -1), 2, 1),
    )  # fmt: skip
    compare(Network(layers).eval(), (50, 36))


def test_binary_convolutions_and_batch_norms_of_their_own():
    torch.manual_seed(1)
    layers = (Conv(4), Batchnorm(), Conv(6, xnor=True), Conv(8, 3, 2, False, groups=2, xnor=True), Batchnorm(), Conv(4))
    network = Network(layers).eval()
    for norm in network.norms():
        norm.running_mean.normal_(std=0.3)
        norm.weight.data.normal_()
    compare(network, (24, 16), count=2)


def test_local_and_connected_layers_of_any_setting():
    torch.manual_seed(0)
    layers = (Conv(5), Local(4, 3, 2, 1, "relu"), Local(3, 2, 1, 0, "linear"), Connected(9, "mish", True), Connected(6))
    network = Network(fitted(layers, Shape(3, 12, 10))).eval()
    with torch.no_grad():
        for local in network.local_convolutions.values():
            local.bias.normal_()
    compare(network, (10, 12), count=3)
