"""Tests of lookonce.model.convolution."""

import pytest
import torch
from torch import nn

from lookonce.model.convolution import Convolve, convolve, is_faster


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
