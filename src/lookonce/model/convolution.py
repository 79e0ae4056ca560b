"""Convolutions with faster gradients on a CPU. Letters: B images, C channels, F filters, H x W cells, K x K.

With AVX2 alone, oneDNN computes the gradient of channels_last weights at half the speed of a matrix product. In bf16 it
computes some gradients of depthwise convolutions 6 to 12 times slower than necessary (docs/results.md).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

WINDOWS = 16_000_000
"""Bytes of windows copied at a time: they stay in the processor's cache."""
FEW_CHANNELS = 16
"""Below this many channels the rows of the matrix are too short: oneDNN is faster."""


def convolve(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Return conv(x) [B, F, H', W'], with gradients computed in the fastest way."""
    if torch.is_grad_enabled() and conv.weight.requires_grad:
        if is_faster(x, conv):
            return cast(Tensor, Convolve.apply(x, conv.weight, conv.bias))  # type: ignore[no-untyped-call]
        if is_slow_depthwise(x, conv):
            half = torch.bfloat16
            return cast(Tensor, Depthwise.apply(x.to(half), conv.weight.to(half), conv.stride[0]))  # type: ignore[no-untyped-call]
    return cast(Tensor, conv(x))


def is_faster(x: Tensor, conv: nn.Conv2d) -> bool:
    """Return whether the matrix product is faster: float32, AVX2, channels_last, a kernel that Convolve supports."""
    return (
        x.device.type == "cpu"
        and torch.backends.cpu.get_cpu_capability() == "AVX2"
        and x.dtype == conv.weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and x.is_contiguous(memory_format=torch.channels_last)
        and conv.in_channels >= FEW_CHANNELS
        and conv.stride == conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.kernel_size[0] == conv.kernel_size[1] == 2 * int(conv.padding[0]) + 1
    )


def is_slow_depthwise(x: Tensor, conv: nn.Conv2d) -> bool:
    """Return whether this is a depthwise convolution in bf16 on a CPU, of a kind that Depthwise supports."""
    return (
        x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and conv.bias is None
        and conv.groups == conv.in_channels == conv.out_channels > 1
        and conv.dilation == (1, 1)
        and conv.stride[0] == conv.stride[1]
        and conv.kernel_size[0] == conv.kernel_size[1] == 2 * int(conv.padding[0]) + 1
    )


class Depthwise(torch.autograd.Function):
    """A depthwise convolution with an odd kernel and padding K // 2.

    The gradient of its input is a depthwise convolution too, of the gradient with zeros between its cells where the
    stride is above 1. The gradient of kernels above 3 x 3 is computed in float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        """Return the convolution. x: [B, C, H, W]; weight: [C, 1, K, K]."""
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Return the gradients of x and weight where they are needed. grad: [B, C, H', W']."""
        x, weight = ctx.saved_tensors
        x_needed, weight_needed, _ = ctx.needs_input_grad
        stride, size, x_grad, weight_grad = ctx.stride, weight.shape[-1], None, None
        if x_needed:
            spread = grad
            if stride > 1:
                spread = torch.zeros_like(x)
                spread[:, :, ::stride, ::stride] = grad
            x_grad = F.conv2d(spread, weight.flip(2, 3), None, 1, size // 2, groups=len(weight))
        if weight_needed:
            wide = torch.float32 if size > 3 else grad.dtype
            sides = [stride] * 2, [size // 2] * 2, [1, 1]
            _, weight_grad, _ = torch.ops.aten.convolution_backward(
                grad.to(wide), x.to(wide), weight.to(wide), None, *sides, False, [0, 0], len(weight),
                [False, True, False],
            )  # fmt: skip
            weight_grad = weight_grad.to(weight.dtype)
        return x_grad, weight_grad, None


class Convolve(torch.autograd.Function):
    """A convolution of stride 1 with an odd kernel and padding K // 2."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return F.conv2d(x, weight, bias). x: [B, C, H, W]; weight: [F, C, K, K]; bias: [F]."""
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of x, weight and bias where they are needed. grad: [B, F, H, W]."""
        x, weight = ctx.saved_tensors
        x_needed, weight_needed, bias_needed = ctx.needs_input_grad
        pad = [weight.shape[-1] // 2] * 2
        x_grad, _, _ = torch.ops.aten.convolution_backward(
            grad, x, weight, None, [1, 1], pad, [1, 1], False, [0, 0], 1, [x_needed, False, False]
        )
        return (
            x_grad,
            weight_gradient(x, grad, weight.shape[-1]) if weight_needed else None,
            grad.sum((0, 2, 3)) if bias_needed else None,
        )


def weight_gradient(x: Tensor, grad: Tensor, size: int) -> Tensor:
    """Return the gradient of the weights [F, C, K, K]. x: [B, C, H, W]; grad: [B, F, H, W]; size: K.

    It is the product of the output cells' gradients and a matrix whose rows are the windows of these cells.
    """
    batch, channels, height, width = x.shape
    filters, pad, length = grad.shape[1], size // 2, size * size * channels
    padded = F.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1).contiguous()  # [B, H+2p, W+2p, C]
    image, row, cell, _ = padded.stride()
    windows = padded.as_strided(
        (batch, height, width, size, size, channels), (image, row, cell, row, cell, 1)
    )  # a view: [B, H, W, K, K, C]
    gradients = grad.permute(0, 2, 3, 1)  # [B, H, W, F]
    found = x.new_zeros(filters, length)
    at_a_time = max(1, WINDOWS // (4 * height * width * length))
    for start in range(0, batch, at_a_time):
        part = slice(start, start + at_a_time)
        found.addmm_(gradients[part].reshape(-1, filters).t(), windows[part].reshape(-1, length))
    return found.view(filters, size, size, channels).permute(0, 3, 1, 2)  # channels last, as the weights
