"""Tests of lookonce.model.operations."""

import numpy as np
import pytest
import torch

from conftest import GOLDEN
from lookonce.model.layers import Crop, MaxPool
from lookonce.model.operations import (
    activate,
    add_shortcut,
    binary_input,
    binary_weights,
    crop,
    dropout,
    max_pool,
    reorg,
    space_to_depth,
)


@pytest.mark.parametrize("name", ["4x4x4", "8x4x6", "64x26x26"])
def test_reorg_is_darknets(name):
    golden = np.load(GOLDEN / "dk_reorg.npz")
    given = np.arange(64 * 26 * 26).reshape(64, 26, 26) if name == "64x26x26" else golden[f"in_{name}"]
    found = reorg(torch.from_numpy(given)[None].float(), 2)[0]
    np.testing.assert_array_equal(found.numpy(), golden[f"darknet_{name}"])
    assert not np.array_equal(found.numpy(), golden[f"tf_space_to_depth_{name}"])


def test_reorg_follows_darknets_loop():
    """The index arithmetic of the golden README, written as a loop."""
    s, c, h, w = 2, 12, 4, 6
    x = torch.randn(1, c, h, w, generator=torch.Generator().manual_seed(3))
    d = c // (s * s)
    memory, out = x.reshape(d, h * s, w * s), torch.zeros(c, h, w)
    for k in range(c):
        for j in range(h):
            for i in range(w):
                out[k, j, i] = memory[k % d, j * s + (k // d) // s, i * s + (k // d) % s]
    assert torch.equal(reorg(x, s)[0], out.reshape(c * s * s, h // s, w // s))


def test_binary_weights_and_inputs_are_those_of_darknets_loops():
    """binarize_weights and binarize_cpu as loops: a 0 is not above 0."""
    weight = np.random.default_rng(6).normal(size=(3, 4, 2, 2)).astype(np.float32)
    weight[0, 1], weight[2] = 0, 0
    expected = np.zeros_like(weight)
    for f in range(3):
        mean = sum(abs(float(value)) for value in weight[f].flat) / weight[f].size
        for at in np.ndindex(weight[f].shape):
            expected[f][at] = mean if weight[f][at] > 0 else -mean
    np.testing.assert_allclose(binary_weights(torch.from_numpy(weight)).numpy(), expected, rtol=1e-6)
    given = torch.tensor([-2.0, -0.0, 0.0, 1e-30, 3.0])
    assert binary_input(given).tolist() == [-1, -1, -1, 1, 1]
    assert binary_input(given.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("size, stride", [(2, 2), (2, 1), (3, 2), (3, 1)])
@pytest.mark.parametrize("side", [(13, 7), (8, 6)])
def test_max_pool_is_darknets_loop(size, stride, side):
    x = torch.randn(1, 2, *side, generator=torch.Generator().manual_seed(4))
    rows, cols = ((n + size - 1 - size) // stride + 1 for n in side)
    found = max_pool(x, MaxPool(size, stride))
    assert found.shape[2:] == (rows, cols)
    start = -((size - 1) // 2)
    for i in range(rows):
        for j in range(cols):
            y, z = start + i * stride, start + j * stride
            window = x[0, :, max(y, 0) : y + size, max(z, 0) : z + size]
            assert torch.equal(found[0, :, i, j], window.amax((1, 2)))


@pytest.mark.parametrize("name", ["4x4x4", "8x4x6", "64x26x26"])
def test_space_to_depth_is_tensorflows(name):
    golden = np.load(GOLDEN / "dk_reorg.npz")
    given = np.arange(64 * 26 * 26).reshape(64, 26, 26) if name == "64x26x26" else golden[f"in_{name}"]
    found = space_to_depth(torch.from_numpy(given)[None].float(), 2)[0]
    np.testing.assert_array_equal(found.numpy(), golden[f"tf_space_to_depth_{name}"])


@pytest.mark.parametrize("name", [
    "leaky", "linear", "relu", "logistic", "mish", "swish", "elu", "selu", "tanh", "ramp", "hard_mish",
])  # fmt: skip
def test_activations_and_their_gradients_are_darknets(name):
    golden = np.load(GOLDEN / "dk_activations.npz")
    x = torch.from_numpy(golden["x"]).requires_grad_()
    y = activate(x, name)
    np.testing.assert_allclose(y.detach().numpy(), golden[name], atol=1e-6, rtol=1e-6)
    y.sum().backward()
    kinks = (golden["x"] == 0) | (np.abs(golden["x"]) == 2)
    np.testing.assert_allclose(x.grad.numpy()[~kinks], golden[f"{name}_gradient"][~kinks], atol=2e-5)


@pytest.mark.parametrize("case", ["fewer_channels", "more_channels"])
def test_a_shortcut_adds_the_first_channels_as_darknet_does(case):
    golden = np.load(GOLDEN / "dk_shortcut.npz")
    x, other = (torch.from_numpy(golden[f"{case}_{name}"])[None] for name in ("input", "from"))
    np.testing.assert_allclose(add_shortcut(x, other)[0].numpy(), golden[f"{case}_output"], atol=1e-6)


@pytest.mark.parametrize("adjust", [True, False])
def test_a_crop_is_darknets_at_detection(adjust):
    golden = np.load(GOLDEN / "dk_v1_crop.npz")
    found = crop(torch.from_numpy(golden["input"])[None], Crop(11, 17, adjust))[0]
    np.testing.assert_array_equal(found.numpy(), golden["crop" if adjust else "crop_noadjust"])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_dropout_zeroes_a_fraction_at_random_and_keeps_the_mean(layout):
    x = torch.ones(4, 16, 25, 25).contiguous(memory_format=layout)
    torch.manual_seed(3)
    out = dropout(x, 0.3)
    assert out.stride() == x.stride()
    assert out.unique().tolist() == [0, pytest.approx(1 / 0.7)]
    assert (out == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert (out == 0).float().mean((0, 2, 3)).std() < 0.02  # every channel
    assert not torch.equal(out, dropout(x, 0.3))
    torch.manual_seed(3)
    assert torch.equal(out, dropout(x, 0.3))
    assert (dropout(x, 1.0) == 0).all()
    assert torch.equal(dropout(x, 0.0), x)
