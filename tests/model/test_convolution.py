"""Tests of lookonce.model.convolution."""

import pytest
import torch
from torch import nn

from lookonce.model.convolution import Convolve, Depthwise, convolve, is_faster


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
    monkeypatch.setattr("lookonce.model.convolution.WINDOWS", windows)
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
    assert not is_faster(x, nn.Conv2d(16, 6, 3, padding=1, groups=2))
    assert not is_faster(x, nn.Conv2d(16, 6, 3, padding=1, dilation=2))
    assert not is_faster(x[:, :3].contiguous(memory_format=torch.channels_last), nn.Conv2d(3, 6, 3, padding=1))
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_faster(x, conv)
    with torch.no_grad():
        assert convolve(x, conv).grad_fn is None
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert not is_faster(x, conv)
    assert "Convolve" not in str(convolve(x, conv).grad_fn)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [(8, 6), (7, 5)])
def test_gradients_of_depthwise_convolutions_are_pytorchs(size, stride, side):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, *side, generator=draw, dtype=torch.float64).requires_grad_()
    weight = torch.randn(6, 1, size, size, generator=draw, dtype=torch.float64).requires_grad_()
    theirs = torch.nn.functional.conv2d(x, weight, None, stride, size // 2, groups=6)
    seed = torch.randn(theirs.shape, generator=draw, dtype=torch.float64)
    own = Depthwise.apply(x, weight, stride)
    torch.testing.assert_close(own, theirs)
    for a, b in zip(torch.autograd.grad(own, (x, weight), seed), torch.autograd.grad(theirs, (x, weight), seed),
                    strict=True):  # fmt: skip
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_depthwise_convolutions_in_bf16_have_gradients_near_those_of_float32():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, 8, 9, 9, generator=draw).requires_grad_()
    conv = nn.Conv2d(8, 8, 5, 2, 2, groups=8, bias=False)
    with torch.autocast("cpu", torch.bfloat16):
        out = convolve(x, conv)
    assert type(out.grad_fn).__name__ == "DepthwiseBackward"
    own = torch.autograd.grad(out.float().square().sum(), (x, conv.weight))
    theirs = torch.autograd.grad(conv(x).square().sum(), (x, conv.weight))
    for a, b in zip(own, theirs, strict=True):
        assert (a - b).norm() < 0.02 * b.norm()
