"""A convolution whose weight gradient is one matrix product, for CPUs on which that is the faster way.

With AVX2 alone oneDNN computes the gradient of channels_last weights at some half of what the matrix product of the
same numbers reaches (docs/results.md). Everything else is PyTorch's own.
Letters: B images, C channels in, F filters, H x W cells, K x K kernel.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

WINDOWS = 16_000_000
"""Bytes of windows that are laid out at a time: they stay in the processor's cache."""
FEW_CHANNELS = 16
"""Below so many channels a row of the matrix is too short, and oneDNN's way is the faster."""


def convolve(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """conv(x), [B, C, H, W] to [B, F, H', W'], with the faster weight gradient where it is one."""
    if torch.is_grad_enabled() and conv.weight.requires_grad and is_faster(x, conv):
        return cast(Tensor, Convolve.apply(x, conv.weight, conv.bias))  # type: ignore[no-untyped-call]
    return cast(Tensor, conv(x))


def is_faster(x: Tensor, conv: nn.Conv2d) -> bool:
    """Whether the matrix product pays: float32 on an AVX2 CPU, channels_last, and a kernel that Convolve knows."""
    return (
        torch.backends.cpu.get_cpu_capability() == "AVX2"
        and x.device.type == "cpu"
        and x.dtype == conv.weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and x.is_contiguous(memory_format=torch.channels_last)
        and conv.in_channels >= FEW_CHANNELS
        and conv.stride == (1, 1)
        and conv.kernel_size[0] == conv.kernel_size[1] == 2 * int(conv.padding[0]) + 1
    )


class Convolve(torch.autograd.Function):
    """A convolution of stride 1 with an odd kernel and padding K // 2."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """As F.conv2d. x: [B, C, H, W]; weight: [F, C, K, K]; bias: [F]."""
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of x, weight and bias, of those that need one. grad: [B, F, H, W]."""
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        pad = [weight.shape[-1] // 2] * 2
        back, _, _ = torch.ops.aten.convolution_backward(
            grad, x, weight, None, [1, 1], pad, [1, 1], False, [0, 0], 1, [of_x, False, False]
        )
        return (
            back,
            weight_gradient(x, grad, weight.shape[-1]) if of_weight else None,
            grad.sum((0, 2, 3)) if of_bias else None,
        )


def weight_gradient(x: Tensor, grad: Tensor, size: int) -> Tensor:
    """[F, C, K, K]: how the loss changes with the weights. x: [B, C, H, W]; grad: [B, F, H, W]; size: K.

    Each output cell is a row of its window's numbers; the rows times the cells' gradients are the sum that is sought.
    """
    batch, channels, height, width = x.shape
    filters, pad, row = grad.shape[1], size // 2, size * size * channels
    padded = F.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1).contiguous()  # [B, H+2p, W+2p, C]
    image, line, cell, _ = padded.stride()
    windows = padded.as_strided(
        (batch, height, width, size, size, channels), (image, line, cell, line, cell, 1)
    )  # a view: [B, H, W, K, K, C]
    gradients = grad.permute(0, 2, 3, 1)  # [B, H, W, F]
    found = x.new_zeros(filters, row)
    at_a_time = max(1, WINDOWS // (4 * height * width * row))
    for start in range(0, batch, at_a_time):
        part = slice(start, start + at_a_time)
        found.addmm_(gradients[part].reshape(-1, filters).t(), windows[part].reshape(-1, row))
    return found.view(filters, size, size, channels).permute(0, 3, 1, 2)  # channels last, as the weights
