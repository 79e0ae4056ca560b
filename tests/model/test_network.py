"""Tests of lookonce.model.network."""

import numpy as np
import pytest
import torch
from torch import nn

from conftest import GOLDEN
from lookonce import load_darknet, save_darknet
from lookonce.errors import ConfigError
from lookonce.model import zoo
from lookonce.model.layers import AvgPool, Conv, MaxPool, Reorg, Route
from lookonce.model.network import (
    DARKNET,
    TRAINED_HERE,
    BatchNorm,
    Convolve,
    Network,
    convolve,
    folded,
    is_faster,
    max_pool,
    reorg,
)
from sets import nano

TINY = (Conv(8), MaxPool(), Conv(16), Route((-1, -2)), Reorg(2), Conv(4, size=1, batch_normalize=False))


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


def test_batch_norm_reads_small_variances_by_its_files_convention():
    norm = BatchNorm(2).eval()
    norm.running_var.copy_(torch.tensor([1e-6, 1.0]))
    norm.running_mean.copy_(torch.tensor([0.5, -1.0]))
    x = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    centred = x - norm.running_mean[:, None, None]
    torch.testing.assert_close(norm(x), centred / (norm.running_var[:, None, None] + 1e-5).sqrt())
    here = norm(x)
    norm.sigma = DARKNET
    torch.testing.assert_close(norm(x), centred / (norm.running_var[:, None, None].sqrt() + 1e-6))
    assert (norm(x)[:, 0] / here[:, 0]).abs().min() > 3  # the convention shows


def test_batch_norm_in_training_is_torchs():
    mine, theirs = BatchNorm(3), torch.nn.BatchNorm2d(3)
    for seed in range(3):
        x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(mine(x), theirs(x))
    torch.testing.assert_close(mine.running_var, theirs.running_var)
    torch.testing.assert_close(mine.eval()(x), theirs.eval()(x))


def test_folding_changes_nothing_but_rounding():
    network = Network(TINY).eval()
    for convolution in network.convolution_list()[:-1]:
        convolution.norm.running_var.uniform_(0.01, 2)
        convolution.norm.running_mean.normal_()
        convolution.norm.sigma = DARKNET
    x = torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(folded(network)(x)[0], network(x)[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", list(zoo.DETECTORS))
def test_every_detector_of_the_zoo_runs_on_any_multiple_of_its_stride(name):
    network = Network(zoo.detector(name, 3, zoo.VOC_ANCHORS)).eval()
    with torch.no_grad():
        assert [raw.shape for raw in network(torch.rand(1, 3, 64, 96))] == [(1, 5 * 8, 2, 3)]


def test_an_input_off_the_stride_is_refused():
    network = Network(zoo.yolov2_tiny(3, zoo.VOC_ANCHORS))
    with pytest.raises(ConfigError, match="100 x 64 px; both sides must divide by 32"):
        network(torch.rand(1, 3, 64, 100))


def test_the_classifier_gives_logits():
    network = Network((Conv(8), MaxPool(), Conv(10, size=1, batch_normalize=False, activation="linear"), AvgPool()))
    assert network(torch.rand(2, 3, 20, 20))[0].shape == (2, 10, 1, 1)


def test_frozen_convolutions_keep_weights_and_statistics():
    network = Network(TINY)
    network.freeze(1)
    first, second = network.convolution_list()[:2]
    before = first.norm.running_mean.clone(), second.norm.running_mean.clone()
    network.train()(torch.rand(2, 3, 32, 32))[0].sum().backward()
    assert torch.equal(first.norm.running_mean, before[0])
    assert not torch.equal(second.norm.running_mean, before[1])
    assert first.conv.weight.grad is None
    assert second.conv.weight.grad is not None
    with pytest.raises(ConfigError, match="this network has 3"):
        network.freeze(4)


def test_a_grey_network_sees_darknets_luma_of_an_rgb_image():
    network = Network(TINY, channels=1).eval()
    assert network.convolution_list()[0].conv.weight.shape[1] == 1
    pixels = torch.randint(256, (1, 3, 32, 64), generator=torch.Generator().manual_seed(0))
    luma = [[(77 * r + 150 * g + 29 * b) / 256 for r, g, b in zip(*rows, strict=True)]
            for rows in zip(*pixels[0].tolist(), strict=True)]  # fmt: skip
    grey = torch.tensor(luma)[None, None] / 255
    with torch.no_grad():
        torch.testing.assert_close(network(pixels / 255), network(grey))
        torch.testing.assert_close(network(grey.expand(1, 3, 32, 64)), network(grey))
        torch.testing.assert_close(folded(network)(pixels / 255), network(grey), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(network.forward_head(network.forward_backbone(pixels / 255, 2), 2), network(grey))


def test_low_precision_ends_at_the_networks_edge():
    network = Network(TINY).to(torch.bfloat16).eval()
    assert network(torch.rand(1, 3, 32, 32).to(torch.bfloat16))[0].dtype == torch.float32


@pytest.fixture
def darknets(tmp_path):
    """A network read from Darknet's files."""
    torch.manual_seed(0)
    save_darknet(Network(nano(2, ((1.0, 1.0),))), tmp_path / "n.cfg", tmp_path / "n.weights")
    return load_darknet(tmp_path / "n.cfg", tmp_path / "n.weights")


def test_a_network_of_darknets_trains_as_any_module(darknets):
    x = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(darknets.parameters(), 0.05)
    losses = []
    for _ in range(6):
        loss = (darknets.train()(x)[0] - 1).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.7 * losses[0]
    assert all(parameter.grad.isfinite().all() for parameter in darknets.parameters())
    darknets.train()(torch.zeros(4, 3, 64, 64))[0].sum().backward()  # no variance at all
    assert all(parameter.grad.isfinite().all() for parameter in darknets.parameters())


def test_training_alone_changes_how_darknets_variances_are_read(darknets, tmp_path):
    x = torch.rand(1, 3, 64, 64)
    before = darknets(x)[0]
    assert torch.equal(darknets.train().eval()(x)[0], before)
    norms = [convolution.norm for convolution in darknets.convolution_list()[:-1]]
    assert {norm.sigma for norm in norms} == {DARKNET}
    darknets.freeze(2)
    with torch.no_grad():
        darknets.train()(torch.rand(4, 3, 64, 64))
    assert [norm.sigma for norm in norms] == [DARKNET] * 2 + [TRAINED_HERE] * 4
    save_darknet(darknets.eval(), tmp_path / "t.cfg", tmp_path / "t.weights")
    torch.testing.assert_close(load_darknet(tmp_path / "t.cfg", tmp_path / "t.weights")(x), darknets(x))


def operands(channels=16, filters=6, size=3, side=(7, 5), bias=True, batch=3):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, *side, generator=draw).contiguous(memory_format=torch.channels_last)
    conv = nn.Conv2d(channels, filters, size, padding=size // 2, bias=bias).to(memory_format=torch.channels_last)
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return x.requires_grad_(), conv


def gradients(run, x, conv):
    x.grad = None
    conv.zero_grad()
    out = run(x)
    (out * torch.linspace(-1, 2, out.numel()).view_as(out)).sum().backward()
    return [out.detach(), x.grad, *(parameter.grad for parameter in conv.parameters())]


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("windows", [1, 10_000, 16_000_000])
def test_output_and_gradients_are_pytorchs(size, bias, windows, monkeypatch):
    monkeypatch.setattr("lookonce.model.network.WINDOWS", windows)
    x, conv = operands(size=size, bias=bias)
    own = gradients(lambda x: Convolve.apply(x, conv.weight, conv.bias), x, conv)
    theirs = gradients(conv, x, conv)
    for a, b in zip(own, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-5)


def test_the_weight_gradient_is_the_loop_of_its_definition():
    x, conv = operands(channels=2, filters=2, side=(3, 4), batch=2)
    out = Convolve.apply(x, conv.weight, None)
    seed = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    out.backward(seed)
    sought = torch.zeros_like(conv.weight)
    for image in range(2):
        for f, c, i, j in torch.cartesian_prod(*map(torch.arange, (2, 2, 3, 3))).tolist():
            for row in range(3):
                for col in range(4):
                    at = (row + i - 1, col + j - 1)
                    if 0 <= at[0] < 3 and 0 <= at[1] < 4:
                        sought[f, c, i, j] += (seed[image, f, row, col] * x[image, c, at[0], at[1]]).detach()
    torch.testing.assert_close(conv.weight.grad, sought, atol=1e-5, rtol=1e-5)


def test_no_gradient_where_none_is_asked_for():
    x, conv = operands()
    conv.weight.requires_grad_(False)
    Convolve.apply(x, conv.weight, conv.bias).sum().backward()
    assert conv.weight.grad is None
    assert x.grad is not None


def test_the_gradient_lies_in_memory_as_the_weights():
    x, conv = operands()
    Convolve.apply(x, conv.weight, conv.bias).sum().backward()
    assert conv.weight.grad.is_contiguous(memory_format=torch.channels_last)


def test_it_is_taken_where_it_is_faster_alone(monkeypatch):
    x, conv = operands()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert is_faster(x, conv)
    assert "Convolve" in str(convolve(x, conv).grad_fn)
    assert not is_faster(x.contiguous(), conv)
    assert not is_faster(x.double(), conv)
    assert not is_faster(x, nn.Conv2d(16, 6, 3, stride=2, padding=1))
    assert not is_faster(x, nn.Conv2d(16, 6, 3, padding=0))
    assert not is_faster(x[:, :3].contiguous(memory_format=torch.channels_last), nn.Conv2d(3, 6, 3, padding=1))
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_faster(x, conv)
    with torch.no_grad():
        assert convolve(x, conv).grad_fn is None
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert not is_faster(x, conv)
    assert "Convolve" not in str(convolve(x, conv).grad_fn)
