"""Build and run a network from its layers. Letters: B images, C channels, F filters, H x W cells, K x K kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lookonce.errors import ConfigError
from lookonce.model.convolution import convolve
from lookonce.model.layers import (
    Batchnorm,
    Connected,
    Conv,
    Layer,
    Linked,
    Local,
    Route,
    Sam,
    ScaleChannels,
    Shortcut,
)
from lookonce.model.operations import activate, add_shortcut, binary_input, binary_weights, grey, run_plain
from lookonce.model.sizes import channels_before, heads_of, last_convolutions, sources, stride

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
DARKNET_FORK = TRAINED_HERE
"""Darknet's popular fork, on CPU and GPU. Its files have a version above 0.2.0 in their header."""


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
        self.sum_over_processes: Callable[[Tensor], Tensor] | None = None
        """Adds up values [...] of all processes that train together, with gradients; None: each for itself."""
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def divisor(self) -> Tensor:
        """Return sigma(v) [C], the divisor in evaluation."""
        return (self.running_var + self.sigma.inside).sqrt() + self.sigma.outside

    def gain_and_offset(self) -> tuple[Tensor, Tensor]:
        """Return a and b [C]: in evaluation it computes a x + b."""
        gain = self.weight / self.divisor()
        return gain, self.bias - self.running_mean * gain

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, C, H, W]: batch statistics in training, running ones in evaluation.

        Training changes the statistics, so TRAINED_HERE applies to them from then on.
        """
        if self.training:
            self.sigma = TRAINED_HERE
            if self.sum_over_processes is not None:
                return self._synchronized(x, self.sum_over_processes)
        var, eps = (self.running_var, self.sigma.inside) if self.training else (self.divisor() ** 2 - SMALL, SMALL)
        return F.batch_norm(x, self.running_mean, var, self.weight, self.bias, self.training, self.momentum, eps)

    def _synchronized(self, x: Tensor, total: Callable[[Tensor], Tensor]) -> Tensor:
        """Normalise by the mean and variance over the batches of all processes, in float32."""
        wide, shape = x.float(), (1, -1, 1, 1)
        sums = total(torch.cat((wide.sum((0, 2, 3)), wide.new_tensor([x.numel() / x.shape[1]]))))  # [C + 1]
        count = sums[-1]
        mean = sums[:-1] / count
        centred = wide - mean.view(shape)
        var = total((centred**2).sum((0, 2, 3))) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
        gain = self.weight / (var + self.sigma.inside).sqrt()
        return (centred * gain.view(shape) + self.bias.view(shape)).to(x.dtype)


class Convolution(nn.Module):
    """Convolution, batch norm or bias, activation: one [convolutional] or [connected] section."""

    def __init__(self, channels: int, layer: Conv) -> None:
        super().__init__()
        self.layer = layer
        self.conv = nn.Conv2d(
            channels, layer.filters, layer.size, layer.stride, layer.pad, layer.dilation, layer.groups,
            bias=not layer.batch_normalize,
        )  # fmt: skip
        self.norm = BatchNorm(layer.filters) if layer.batch_normalize else None
        nn.init.kaiming_normal_(self.conv.weight, a=0.1)
        if self.conv.bias is not None:
            nn.init.normal_(self.conv.weight, std=0.01)
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor, layer: Conv | None = None) -> Tensor:
        """[B, C, H, W] to [B, filters, H', W']. layer: a layer that shares these weights; None: its own."""
        own, layer = layer is None, layer or self.layer
        if own and not layer.xnor:
            x = convolve(x, self.conv)
        else:
            sides = (layer.stride, layer.pad, layer.dilation, layer.groups)
            x = F.conv2d(binary_input(x) if layer.xnor else x, self.weights(), self.conv.bias, *sides)
        x = self.norm(x) if self.norm is not None else x
        return activate(x, layer.activation, inplace=self.norm is not None)

    def weights(self) -> Tensor:
        """Return the weights [F, C, K, K] with which it convolves: its own, or binary ones made of them."""
        return binary_weights(self.conv.weight) if self.layer.xnor else self.conv.weight


class LocalConvolution(nn.Module):
    """A convolution with other weights at each of its L output cells: one [local] section."""

    def __init__(self, channels: int, layer: Local) -> None:
        super().__init__()
        self.layer = layer
        rows, cols = layer.cells
        self.bias = nn.Parameter(torch.zeros(layer.filters, rows, cols))
        self.weight = nn.Parameter(torch.empty(rows * cols, layer.filters, channels * layer.size**2))  # [L, F, C*K*K]
        nn.init.normal_(self.weight, std=math.sqrt(2 / self.weight.shape[2]))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, filters, H', W']."""
        windows = F.unfold(x, self.layer.size, padding=self.layer.padding, stride=self.layer.stride)  # [B, C*K*K, L]
        found = torch.matmul(self.weight, windows.permute(2, 1, 0))  # [L, F, B]
        return activate(
            found.permute(2, 1, 0).reshape(len(x), -1, *self.layer.cells) + self.bias, self.layer.activation
        )


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
        self.convolutions, self.local_convolutions, self.batch_norms = (nn.ModuleDict() for _ in range(3))
        for i, layer in enumerate(layers):
            match layer:
                case Conv(share=None):
                    self.convolutions[str(i)] = Convolution(before[i], layer)
                case Connected(output, activation, normalize, inputs):
                    self.convolutions[str(i)] = Convolution(inputs, Conv(output, 1, 1, normalize, activation))
                case Local():
                    self.local_convolutions[str(i)] = LocalConvolution(before[i], layer)
                case Batchnorm():
                    self.batch_norms[str(i)] = BatchNorm(before[i])
        self._sources = {i: sources(layer, i) for i, layer in enumerate(layers) if isinstance(layer, Linked)}
        self._raw_layers = tuple(head.index for head in self.heads) or (len(layers) - 1,)  # a head passes its map on
        self._kept = {*self._raw_layers, *(source for found in self._sources.values() for source in found)}
        self._frozen = 0

    def convolution_list(self) -> list[Convolution]:
        """Return the convolutions, connected layers among them, in their order."""
        return [cast(Convolution, module) for module in self.convolutions.values()]

    def norms(self) -> list[BatchNorm]:
        """Return the batch norms: those of convolutions in their order, then those that are layers of their own."""
        inside = [convolution.norm for convolution in self.convolution_list() if convolution.norm is not None]
        return [*inside, *(cast(BatchNorm, norm) for norm in self.batch_norms.values())]

    @property
    def sigmas(self) -> list[Sigma]:
        """The convention for variances of each batch norm, in the order of `norms`."""
        return [norm.sigma for norm in self.norms()]

    @sigmas.setter
    def sigmas(self, sigmas: Sequence[Sequence[float]]) -> None:
        for norm, (inside, outside) in zip(self.norms(), sigmas, strict=True):
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
        others = [kept[source] for source in self._sources.get(index, ())]
        match layer:
            case Conv(share=None):
                return cast(Tensor, self.convolutions[str(index)](x))
            case Conv(share=int(share)):
                return cast(Tensor, self.convolutions[str(share)](x, layer))
            case Batchnorm():
                return cast(Tensor, self.batch_norms[str(index)](x))
            case Local():
                self._check_map(index, x, layer.map == x.shape[2:])
                return cast(Tensor, self.local_convolutions[str(index)](x))
            case Connected(_, _, _, inputs):
                self._check_map(index, x, inputs == x[0].numel())
                return cast(Tensor, self.convolutions[str(index)](x.flatten(1)[:, :, None, None]))
            case Route(_, groups, group_id):
                if groups > 1:
                    others = [other.chunk(groups, 1)[group_id] for other in others]
                return torch.cat(others, 1) if len(others) > 1 else others[0]
            case Shortcut():
                return activate(add_shortcut(x, others[0]), layer.activation)
            case ScaleChannels() | Sam():
                return activate(x * others[0], layer.activation)
            case _:
                return run_plain(x, layer, self.training)

    def _check_map(self, index: int, x: Tensor, fits: bool) -> None:
        """Raise ConfigError for a map of another size than a layer's weights are made for."""
        if not fits:
            kind = type(self.layers[index]).__name__.lower()
            raise ConfigError(f"layer {index} ({kind}): a map of {tuple(x.shape[1:])}; its weights are made for "
                              "another: this network has one input size, that of its cfg")  # fmt: skip

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
        for at, module in (*self.local_convolutions.items(), *self.batch_norms.items()):
            module.requires_grad_(not convolutions or int(at) > self.split_index)
        self.train(self.training)

    def train(self, mode: bool = True) -> Network:
        """Set training mode; frozen convolutions stay in evaluation."""
        super().train(mode)
        for convolution in self.convolution_list()[: self._frozen]:
            convolution.eval()
        for at, norm in self.batch_norms.items():
            norm.train(mode and (not self._frozen or int(at) > self.split_index))
        return self


def empty(layers: tuple[Layer, ...], channels: int = 3) -> Network:
    """Return a network with uninitialised weights: fill all of them before it runs."""
    with torch.device("meta"):
        network = Network(layers, channels)
    return network.to_empty(device="cpu")


def folded(network: Network) -> Network:
    """Return the same network with every batch norm folded into its convolution: for detection only."""
    plain = tuple(
        replace(layer, batch_normalize=False) if isinstance(layer, Conv | Connected) else layer
        for layer in network.layers
    )
    result = empty(plain, network.channels)
    result.origin = network.origin
    for new, old in zip(result.convolution_list(), network.convolution_list(), strict=True):
        assert new.conv.bias is not None  # plain convolutions have one
        with torch.no_grad():
            if old.norm is None:
                new.load_state_dict(old.state_dict())
                new.conv.weight.copy_(old.weights())
                continue
            gain, offset = old.norm.gain_and_offset()
            new.conv.weight.copy_(old.weights() * gain[:, None, None, None])
            new.conv.bias.copy_(offset)
    result.local_convolutions.load_state_dict(network.local_convolutions.state_dict())
    result.batch_norms.load_state_dict(network.batch_norms.state_dict())
    result.sigmas = network.sigmas[len(network.sigmas) - len(network.batch_norms) :]
    return result.eval()
