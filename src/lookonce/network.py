"""Network: builds and runs a tuple of layers. One module a layer, in their order.

Letters: B images, C channels, H x W cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lookonce.convolve import convolve
from lookonce.darknet.origin import Origin
from lookonce.errors import ConfigError
from lookonce.layers import (
    LUMA,
    AvgPool,
    Conv,
    Cost,
    Dropout,
    Layer,
    MaxPool,
    Region,
    Reorg,
    Route,
    Softmax,
    channels_before,
    sources,
    stride,
)


class Sigma(NamedTuple):
    """How a batch norm reads a variance v: sigma(v) = sqrt(v + inside) + outside."""

    inside: float
    outside: float


TRAINED_HERE = Sigma(1e-5, 0.0)
"""PyTorch's convention, and that of Darknet's CUDA kernel."""
DARKNET = Sigma(0.0, 1e-6)
"""Darknet on a CPU. Source: darknet/src/blas.c, normalize_cpu."""


def grey(x: Tensor) -> Tensor:
    """RGB [B, 3, H, W] as grey [B, 1, H, W]. Darknet rounds down to whole levels of 255; this does not round."""
    return (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def reorg(x: Tensor, stride: int) -> Tensor:
    """Darknet's reorg of [B, C, H, W]: [B, C*s*s, H/s, W/s]. C must divide by s*s.

    Not space_to_depth: Darknet reads the map's memory as [C/(s*s), H*s, W*s], so that other pixels meet.
    Source: darknet/src/blas.c, reorg_cpu, called with forward=0.
    """
    batch, channels, height, width = x.shape
    deep = channels // stride**2
    view = x.reshape(batch, deep, height, stride, width, stride)  # memory as [D, H*s, W*s]: j, dj, i, di
    folded = view.permute(0, 3, 5, 1, 2, 4)  # [B, dj, di, D, H, W]; channel k = (dj*s + di)*D + d
    return folded.reshape(batch, channels * stride**2, height // stride, width // stride)


class BatchNorm(nn.Module):
    """Batch norm that keeps a file's raw variance and reads it by the file's convention."""

    weight: nn.Parameter
    bias: nn.Parameter
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.sigma, self.momentum = TRAINED_HERE, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def divisor(self) -> Tensor:
        """sigma(v) [C]: what the centred map is divided by in evaluation."""
        return (self.running_var + self.sigma.inside).sqrt() + self.sigma.outside

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape; batch statistics in training, kept ones in evaluation.

        Statistics that training changes are no longer those of a file: from then on they are read as TRAINED_HERE.
        """
        if self.training:
            self.sigma = TRAINED_HERE
        var, eps = (self.running_var, self.sigma.inside) if self.training else (self.divisor() ** 2, 0.0)
        return F.batch_norm(x, self.running_mean, var, self.weight, self.bias, self.training, self.momentum, eps)


class Convolution(nn.Module):
    """Convolution, batch norm or bias, activation: one [convolutional] section."""

    def __init__(self, channels: int, layer: Conv) -> None:
        super().__init__()
        self.layer = layer
        bias = not layer.batch_normalize
        self.conv = nn.Conv2d(channels, layer.filters, layer.size, layer.stride, layer.size // 2, bias=bias)
        self.norm = BatchNorm(layer.filters) if layer.batch_normalize else None
        nn.init.kaiming_normal_(self.conv.weight, a=0.1)
        if self.conv.bias is not None:
            nn.init.normal_(self.conv.weight, std=0.01)
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, filters, H', W']."""
        x = convolve(x, self.conv)
        x = self.norm(x) if self.norm is not None else x
        match self.layer.activation:
            case "leaky":
                return F.leaky_relu(x, 0.1, inplace=self.norm is not None)
            case "relu":
                return F.relu(x)
            case "logistic":
                return x.sigmoid()
            case "linear":
                return x


def max_pool(x: Tensor, layer: MaxPool) -> Tensor:
    """Darknet's pooling: windows start (size-1)//2 before the map; missing cells never win.

    Source: darknet/src/maxpool_layer.c, padding = size - 1, out = (in + padding - size) / stride + 1.
    """
    before = (layer.size - 1) // 2
    if before == 0 and layer.size == layer.stride:
        return F.max_pool2d(x, layer.size, layer.stride, ceil_mode=True)
    after = layer.size - 1 - before
    return F.max_pool2d(F.pad(x, (before, after, before, after), value=-math.inf), layer.size, layer.stride)


class Network(nn.Module):
    """Layers that run. Calling it on [B, 3, H, W] floats in 0..1 gives the map before the region layer.

    channels: what the first layer reads: 3, or 1 for a grey network. A grey network takes RGB too, and makes it grey.

    Raises:
        ConfigError: layers that do not fit together; at a call, an input side that does not divide by the stride.
    """

    def __init__(self, layers: tuple[Layer, ...], channels: int = 3) -> None:
        super().__init__()
        self.layers, self.channels = layers, channels
        self.stride = stride(layers)
        self.origin: Origin | None = None
        """The Darknet files that it was read from, so that they can be written as they were."""
        before = channels_before(layers, channels)
        self.convolutions = nn.ModuleDict(
            {str(i): Convolution(before[i], layer) for i, layer in enumerate(layers) if isinstance(layer, Conv)}
        )
        routes = {i: sources(layer, i) for i, layer in enumerate(layers) if isinstance(layer, Route)}
        self._kept = {source for found in routes.values() for source in found}
        self._sources = routes
        self._frozen = 0

    def convolution_list(self) -> list[Convolution]:
        """The convolutions in their order, as Darknet's weight files hold them."""
        return [cast(Convolution, module) for module in self.convolutions.values()]

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] floats 0..1 to the raw map [B, A*(5+C), H/stride, W/stride] (logits of a classifier).

        A grey network takes [B, 1, H, W] as well.
        """
        if isinstance(self.layers[-1], Region) and (x.shape[-2] % self.stride or x.shape[-1] % self.stride):
            raise ConfigError(f"an input of {x.shape[-1]} x {x.shape[-2]} px; both sides must divide by {self.stride}")
        x = self._through(x, {}, 0, len(self.layers))
        return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x

    def outputs(self, x: Tensor) -> Iterator[Tensor]:
        """The output of each layer in turn; softmax, cost and region pass on what they are given."""
        kept: dict[int, Tensor] = {}
        for index in range(len(self.layers)):
            x = self._through(x, kept, index, index + 1)
            yield x

    @property
    def cut(self) -> int:
        """Index of the first layer that is not frozen: a convolution; 0 where none is."""
        return [int(index) for index in self.convolutions][self._frozen]

    def reads(self, cut: int) -> tuple[int, ...]:
        """Layers below the cut whose outputs the layers from the cut on read; the last is cut - 1."""
        routed = {i for at, found in self._sources.items() if at >= cut for i in found if i < cut}
        return (*sorted(routed - {cut - 1}), cut - 1)

    def until(self, x: Tensor, cut: int) -> tuple[Tensor, ...]:
        """Outputs of the layers reads(cut) for images [B, 3, H, W]."""
        kept: dict[int, Tensor] = {}
        last = self._through(x, kept, 0, cut)
        return (*(kept[index] for index in self.reads(cut)[:-1]), last)

    def onwards(self, outputs: tuple[Tensor, ...], cut: int) -> Tensor:
        """The raw map from what until(x, cut) gave: forward(x) without the layers below the cut."""
        kept = dict(zip(self.reads(cut), outputs, strict=True))
        x = self._through(outputs[-1], kept, cut, len(self.layers))
        return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x

    def _through(self, x: Tensor, kept: dict[int, Tensor], start: int, stop: int) -> Tensor:
        """x through the layers start..stop; outputs that routes read are added to kept."""
        if start == 0 and self.channels == 1 and x.shape[1] == 3:
            x = grey(x)
        for index in range(start, stop):
            x = self._run(index, self.layers[index], x, kept)
            if index in self._kept:
                kept[index] = x
        return x

    def _run(self, index: int, layer: Layer, x: Tensor, kept: dict[int, Tensor]) -> Tensor:
        match layer:
            case Conv():
                return cast(Tensor, self.convolutions[str(index)](x))
            case MaxPool():
                return max_pool(x, layer)
            case Route():
                found = [kept[source] for source in self._sources[index]]
                return torch.cat(found, 1) if len(found) > 1 else found[0]
            case Reorg(stride):
                return reorg(x, stride)
            case AvgPool():
                return x.mean((2, 3), keepdim=True)
            case Dropout(probability):
                return F.dropout(x, probability, self.training)
            case Softmax() | Cost() | Region():
                return x

    def freeze(self, convolutions: int) -> None:
        """Keep the first convolutions as they are: no gradients, batch norm by its kept statistics.

        Raises ConfigError where the network has not that many.
        """
        own = self.convolution_list()
        if not 0 <= convolutions <= len(own):
            raise ConfigError(f"freeze: {convolutions} convolutions; this network has {len(own)}")
        self._frozen = convolutions
        for index, convolution in enumerate(own):
            convolution.requires_grad_(index >= convolutions)
        self.train(self.training)

    def train(self, mode: bool = True) -> Network:
        """As nn.Module.train; frozen convolutions stay in evaluation."""
        super().train(mode)
        for convolution in self.convolution_list()[: self._frozen]:
            convolution.eval()
        return self


def empty(layers: tuple[Layer, ...], channels: int = 3) -> Network:
    """A network in memory that holds no numbers yet: every one must be filled before it runs."""
    with torch.device("meta"):
        network = Network(layers, channels)
    return network.to_empty(device="cpu")


def folded(network: Network) -> Network:
    """The same function with every batch norm folded into its convolution: for detection only."""
    plain = tuple(
        Conv(layer.filters, layer.size, layer.stride, False, layer.activation) if isinstance(layer, Conv) else layer
        for layer in network.layers
    )
    result = empty(plain, network.channels)
    result.origin = network.origin
    for new, old in zip(result.convolution_list(), network.convolution_list(), strict=True):
        assert new.conv.bias is not None  # plain convolutions have one
        with torch.no_grad():
            if old.norm is None:
                new.load_state_dict(old.state_dict())
                continue
            gain = old.norm.weight / old.norm.divisor()  # [C]
            new.conv.weight.copy_(old.conv.weight * gain[:, None, None, None])
            new.conv.bias.copy_(old.norm.bias - old.norm.running_mean * gain)
    return result.eval()
