"""What the layers without weights compute. Letters: B images, C channels, H x W cells.

Each equals Darknet's loop; sources are named in each function.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lookonce.model.layers import (
    LUMA,
    Activation,
    AvgPool,
    Crop,
    Dropout,
    Layer,
    LocalAvgPool,
    MaxPool,
    Reorg,
    SpaceToDepth,
    Upsample,
)


def run_plain(x: Tensor, layer: Layer, training: bool) -> Tensor:
    """Return the output of a layer that has no weights and reads only the layer before it: x [B, C, H, W]."""
    match layer:
        case MaxPool():
            return max_pool(x, layer)
        case LocalAvgPool():
            return local_avg_pool(x, layer)
        case AvgPool():
            return x.mean((2, 3), keepdim=True)
        case Reorg(stride):
            return reorg(x, stride)
        case SpaceToDepth(stride):
            return space_to_depth(x, stride)
        case Upsample(stride, scale):
            return upsample(x, stride, scale)
        case Crop():
            return crop(x, layer)
        case Dropout(probability):
            return dropout(x, probability) if training else x
        case _:  # heads, softmax and cost pass their map on
            return x


def dropout(x: Tensor, probability: float) -> Tensor:
    """Return x with values set to 0 at random and the others scaled up, so that their mean stays.

    On a CPU the random numbers are NumPy's, drawn three times as fast as PyTorch's (docs/results.md); PyTorch's
    generator seeds them.
    """
    if x.device.type != "cpu":
        return F.dropout(x, probability)
    numbers = np.random.Generator(np.random.SFC64(int(torch.randint(2**62, ()))))
    kept = torch.from_numpy(numbers.integers(2**16, size=x.numel(), dtype=np.uint16) >= round(probability * 2**16))
    mask = kept.as_strided(x.shape, torch.empty_like(x).stride())
    return x * mask * (0.0 if probability >= 1 else 1 / (1 - probability))


def activate(x: Tensor, activation: Activation, inplace: bool = False) -> Tensor:
    """Return the activation of x, any shape. inplace: leaky may write into x. Source: darknet/src/activations.c."""
    match activation:
        case "leaky":
            return F.leaky_relu(x, 0.1, inplace=inplace)
        case "linear":
            return x
        case "relu":
            return F.relu(x)
        case "relu6":
            return F.relu6(x)
        case "logistic":
            return x.sigmoid()
        case "mish":
            return F.mish(x)
        case "swish":
            return F.silu(x)
        case "elu":
            return F.elu(x)
        case "selu":
            return 1.0507 * F.elu(x, 1.6732)  # Darknet's four digits
        case "tanh":
            return x.tanh()
        case "ramp":
            return F.relu(x) + 0.1 * x
        case "hard_mish":
            return x * (x + 2).clamp(0, 2) / 2


def binary_input(x: Tensor) -> Tensor:
    """Return 1 where x is above 0, else -1. Source: darknet/src/convolutional_layer.c, binarize_cpu."""
    return torch.where(x > 0, x.new_ones(()), -x.new_ones(()))


def binary_weights(weight: Tensor) -> Tensor:
    """Return [F, C, K, K] with the mean |w| of each filter, by the signs of its weights; a 0 counts as negative.

    Source: darknet/src/convolutional_layer.c, binarize_weights.
    """
    mean = weight.abs().mean((1, 2, 3), keepdim=True)
    return torch.where(weight > 0, mean, -mean)


def grey(x: Tensor) -> Tensor:
    """Convert RGB [B, 3, H, W] to grey [B, 1, H, W], without Darknet's rounding to whole levels of 255."""
    return (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def reorg(x: Tensor, stride: int) -> Tensor:
    """Darknet's reorg of [B, C, H, W]: [B, C*s*s, H/s, W/s]. C must divide by s*s.

    Not space_to_depth: Darknet reads the map's memory as [C/(s*s), H*s, W*s], which orders pixels differently.
    Source: darknet/src/blas.c, reorg_cpu, called with forward=0.
    """
    batch, channels, height, width = x.shape
    deep = channels // stride**2
    view = x.reshape(batch, deep, height, stride, width, stride)  # memory as [D, H*s, W*s]: j, dj, i, di
    folded = view.permute(0, 3, 5, 1, 2, 4)  # [B, dj, di, D, H, W]; channel k = (dj*s + di)*D + d
    return folded.reshape(batch, channels * stride**2, height // stride, width // stride)


def space_to_depth(x: Tensor, stride: int) -> Tensor:
    """TensorFlow's space_to_depth of [B, C, H, W]: [B, s*s*C, H/s, W/s], channel (dy*s + dx)*C + c.

    Source: the [reorg3d] layer of Darknet's fork.
    """
    batch, channels, height, width = x.shape
    view = x.reshape(batch, channels, height // stride, stride, width // stride, stride)  # [B, C, H/s, dy, W/s, dx]
    return view.permute(0, 3, 5, 1, 2, 4).reshape(batch, -1, height // stride, width // stride)


def max_pool(x: Tensor, layer: MaxPool) -> Tensor:
    """Return Darknet's max pooling: windows start half of the padding before the map; padding never wins.

    Source: darknet/src/maxpool_layer.c, out = (in + padding - size) / stride + 1.
    """
    before, after = layer.pad
    if before == 0 and layer.size == layer.stride and after == layer.size - 1:
        return F.max_pool2d(x, layer.size, layer.stride, ceil_mode=True)
    return F.max_pool2d(F.pad(x, (before, after, before, after), value=-math.inf), layer.size, layer.stride)


def local_avg_pool(x: Tensor, layer: LocalAvgPool) -> Tensor:
    """Return the mean over windows that start (size - 1) // 2 before the map, of the cells inside it."""
    before = (layer.size - 1) // 2
    after = layer.size - 1 - before

    def total(values: Tensor) -> Tensor:
        padded = F.pad(values, (before, after, before, after))
        return F.avg_pool2d(padded, layer.size, layer.stride, divisor_override=1)

    return total(x) / total(torch.ones_like(x[:1, :1]))


def add_shortcut(x: Tensor, other: Tensor) -> Tensor:
    """Return x + other; of maps with different channels, the first channels of other are added to the first of x.

    Source: darknet/src/blas.c, shortcut_cpu, for maps of equal height and width.
    """
    channels, others = x.shape[1], other.shape[1]
    if others == channels:
        return x + other
    if others > channels:
        return x + other[:, :channels]
    return torch.cat((x[:, :others] + other, x[:, others:]), 1)


def upsample(x: Tensor, stride: int, scale: float) -> Tensor:
    """Repeat each cell of [B, C, H, W] stride x stride times. Source: darknet/src/blas.c, upsample_cpu."""
    repeated = F.interpolate(x, scale_factor=stride, mode="nearest")
    return repeated if scale == 1 else repeated * scale


def crop(x: Tensor, layer: Crop) -> Tensor:
    """Return the centre of [B, C, H, W] as detection does. Source: darknet/src/crop_layer.c."""
    top, left = (x.shape[2] - layer.height) // 2, (x.shape[3] - layer.width) // 2
    part = x[:, :, top : top + layer.height, left : left + layer.width]
    return part * 2 - 1 if layer.adjust else part
