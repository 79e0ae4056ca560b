"""Build and run a network from its layers. Letters: B images, C channels, F filters, H x W cells, K x K kernel.

With AVX2 alone, oneDNN computes the gradient of channels_last weights at half the speed of a matrix product
(docs/results.md), so convolutions here use that product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lookonce.errors import ConfigError
from lookonce.model.layers import (
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
    heads_of,
    last_convolutions,
    sources,
    stride,
)

if TYPE_CHECKING:
    from lookonce.model.darknet.weights import Origin


class Sigma(NamedTuple):
    """Convention for a variance v: a batch norm divides by sigma(v) = sqrt(v + inside) + outside."""

    inside: float
    outside: float


TRAINED_HERE = Sigma(1e-5, 0.0)
"""PyTorch's convention, and that of Darknet's CUDA kernel."""
DARKNET = Sigma(0.0, 1e-6)
"""Darknet on a CPU. Source: darknet/src/blas.c, normalize_cpu."""


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


SMALL = 1e-12
"""The smallest square of sigma (Darknet's, at variance 0). PyTorch 2.11 refuses an epsilon of 0; this replaces it."""


class BatchNorm(nn.Module):
    """Batch norm that stores a file's raw variance and the convention with which it is read."""

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
        """Return sigma(v) [C], the divisor in evaluation."""
        return (self.running_var + self.sigma.inside).sqrt() + self.sigma.outside

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, C, H, W]: batch statistics in training, running ones in evaluation.

        Training changes the statistics, so TRAINED_HERE applies to them from then on.
        """
        if self.training:
            self.sigma = TRAINED_HERE
        var, eps = (self.running_var, self.sigma.inside) if self.training else (self.divisor() ** 2 - SMALL, SMALL)
        return F.batch_norm(x, self.running_mean, var, self.weight, self.bias, self.training, self.momentum, eps)


WINDOWS = 16_000_000
"""Bytes of windows copied at a time: they stay in the processor's cache."""
FEW_CHANNELS = 16
"""Below this many channels the rows of the matrix are too short: oneDNN is faster."""


def convolve(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Return conv(x) [B, F, H', W']; the weight gradient is computed as a matrix product if that is faster."""
    if torch.is_grad_enabled() and conv.weight.requires_grad and is_faster(x, conv):
        return cast(Tensor, Convolve.apply(x, conv.weight, conv.bias))  # type: ignore[no-untyped-call]
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
        and conv.stride == (1, 1)
        and conv.kernel_size[0] == conv.kernel_size[1] == 2 * int(conv.padding[0]) + 1
    )


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
    """Return Darknet's max pooling: windows start (size-1)//2 before the map; padding never wins.

    Source: darknet/src/maxpool_layer.c, padding = size - 1, out = (in + padding - size) / stride + 1.
    """
    before = (layer.size - 1) // 2
    if before == 0 and layer.size == layer.stride:
        return F.max_pool2d(x, layer.size, layer.stride, ceil_mode=True)
    after = layer.size - 1 - before
    return F.max_pool2d(F.pad(x, (before, after, before, after), value=-math.inf), layer.size, layer.stride)


class Network(nn.Module):
    """A network of layers. Calling it on [B, 3, H, W] floats in 0..1 returns a tuple of raw maps, one a head.

    channels: channels of the input: 3, or 1 for a grey network, which converts RGB to grey.

    Raises:
        ConfigError: layers that do not fit together; at a call, an input side that is no multiple of the stride.
    """

    def __init__(self, layers: tuple[Layer, ...], channels: int = 3) -> None:
        super().__init__()
        self.layers, self.channels = layers, channels
        self.heads, self.stride = heads_of(layers), stride(layers)
        self.origin: Origin | None = None
        """The Darknet files that it was read from, so that they can be written unchanged."""
        before = channels_before(layers, channels)
        self.convolutions = nn.ModuleDict(
            {str(i): Convolution(before[i], layer) for i, layer in enumerate(layers) if isinstance(layer, Conv)}
        )
        self._sources = {i: sources(layer, i) for i, layer in enumerate(layers) if isinstance(layer, Route)}
        self._raw_layers = tuple(head.index for head in self.heads) or (len(layers) - 1,)  # a head passes its map on
        self._kept = {*self._raw_layers, *(source for found in self._sources.values() for source in found)}
        self._frozen = 0

    def convolution_list(self) -> list[Convolution]:
        """Return the convolutions in their order, as Darknet's weight files hold them."""
        return [cast(Convolution, module) for module in self.convolutions.values()]

    @property
    def sigmas(self) -> list[Sigma]:
        """The convention for variances of each batch norm, in their order."""
        return [convolution.norm.sigma for convolution in self.convolution_list() if convolution.norm is not None]

    @sigmas.setter
    def sigmas(self, sigmas: Sequence[Sequence[float]]) -> None:
        norms = [convolution.norm for convolution in self.convolution_list() if convolution.norm is not None]
        for norm, (inside, outside) in zip(norms, sigmas, strict=True):
            norm.sigma = Sigma(inside, outside)

    def head_convolutions(self) -> list[nn.Conv2d]:
        """Return the convolution that makes each head's map, in the order of heads."""
        return [cast(Convolution, self.convolutions[str(index)]).conv for index in last_convolutions(self.layers)]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Run on [B, 3, H, W] floats 0..1; on [B, 1, H, W] as well if the network is grey.

        Returns the raw maps of the heads in layer order, of a region layer [B, A*(5+C), H/stride, W/stride]. A network
        without heads returns its last map alone: a classifier's logits.
        """
        if self.heads and (x.shape[-2] % self.stride or x.shape[-1] % self.stride):
            raise ConfigError(f"an input of {x.shape[-1]} x {x.shape[-2]} px; both sides must divide by {self.stride}")
        kept: dict[int, Tensor] = {}
        self._run_layers(x, kept, 0, len(self.layers))
        return self._maps(kept)

    @property
    def split_index(self) -> int:
        """Index of the first convolution that is not frozen: where forward_backbone ends and forward_head starts."""
        return [int(index) for index in self.convolutions][self._frozen]

    def reads(self, split_index: int) -> tuple[int, ...]:
        """Return the layers below split_index whose outputs forward_head needs; the last is split_index - 1."""
        needed = {i for at, found in self._sources.items() if at >= split_index for i in found} | {*self._raw_layers}
        return (*sorted(i for i in needed if i < split_index - 1), split_index - 1)

    def forward_backbone(self, x: Tensor, split_index: int) -> tuple[Tensor, ...]:
        """Return the outputs of the layers reads(split_index) for images [B, 3, H, W]."""
        kept: dict[int, Tensor] = {}
        last = self._run_layers(x, kept, 0, split_index)
        return (*(kept[index] for index in self.reads(split_index)[:-1]), last)

    def forward_head(self, outputs: tuple[Tensor, ...], split_index: int) -> tuple[Tensor, ...]:
        """Return the raw maps, as forward does, from the outputs of forward_backbone."""
        kept = dict(zip(self.reads(split_index), outputs, strict=True))
        self._run_layers(outputs[-1], kept, split_index, len(self.layers))
        return self._maps(kept)

    def _maps(self, kept: dict[int, Tensor]) -> tuple[Tensor, ...]:
        half = (torch.bfloat16, torch.float16)
        return tuple(kept[index].float() if kept[index].dtype in half else kept[index] for index in self._raw_layers)

    def _run_layers(self, x: Tensor, kept: dict[int, Tensor], start: int, stop: int) -> Tensor:
        """Run the layers start..stop on x; add the outputs that routes read, and the raw maps, to kept."""
        if start == 0 and self.channels == 1 and x.shape[1] == 3:
            x = grey(x)
        for index in range(start, stop):
            x = self._run_layer(index, self.layers[index], x, kept)
            if index in self._kept:
                kept[index] = x
        return x

    def _run_layer(self, index: int, layer: Layer, x: Tensor, kept: dict[int, Tensor]) -> Tensor:
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
        """Freeze the first convolutions: no gradients, batch norm with running statistics.

        Raises ConfigError where the network has fewer.
        """
        own = self.convolution_list()
        if not 0 <= convolutions <= len(own):
            raise ConfigError(f"freeze: {convolutions} convolutions; this network has {len(own)}")
        self._frozen = convolutions
        for index, convolution in enumerate(own):
            convolution.requires_grad_(index >= convolutions)
        self.train(self.training)

    def train(self, mode: bool = True) -> Network:
        """Set training mode; frozen convolutions stay in evaluation."""
        super().train(mode)
        for convolution in self.convolution_list()[: self._frozen]:
            convolution.eval()
        return self


def empty(layers: tuple[Layer, ...], channels: int = 3) -> Network:
    """Return a network with uninitialised weights: fill all of them before it runs."""
    with torch.device("meta"):
        network = Network(layers, channels)
    return network.to_empty(device="cpu")


def folded(network: Network) -> Network:
    """Return the same network with every batch norm folded into its convolution: for detection only."""
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
