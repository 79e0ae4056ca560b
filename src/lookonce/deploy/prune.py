"""Channels of a network: which of them count least, and the same network without them.

A channel's weight is |gamma| of its batch norm; those below one threshold for the whole network go.
Source: Liu et al., Learning Efficient Convolutional Networks through Network Slimming (2017), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from lookonce.errors import ConfigError
from lookonce.model.layers import Conv, Layer, Reorg, Route, sources
from lookonce.model.network import Network, empty

MULTIPLE = 8
"""Channels that a cut layer keeps: a multiple of this, which processors compute in one go; at least so many."""
RGB = -1
"""Stands for the input among the convolutions that a map is made of."""
Keep = Mapping[int, NDArray[np.bool_]]
"""[filters] of each convolution, by its layer: which channels stay."""


def made_of(layers: tuple[Layer, ...]) -> list[tuple[int, ...]]:
    """For each layer the convolutions (by index) whose outputs, stacked whole, are the channels of its output.

    A reorg lists what it reads s*s times: its output channel k comes of the block of s*s channels that the channel
    k modulo C lies in (see network.reorg), so that a map without whole blocks folds to the fold without their channels.
    """
    made: list[tuple[int, ...]] = []
    for index, layer in enumerate(layers):
        match layer:
            case Conv():
                made.append((index,))
            case Route():
                made.append(tuple(conv for source in sources(layer, index) for conv in made[source]))
            case Reorg(stride):
                made.append(_before(made, index) * stride**2)
            case _:
                made.append(_before(made, index))
    return made


def blocks(layers: tuple[Layer, ...]) -> dict[int, int]:
    """The convolutions that can lose channels, each with the number of neighbouring channels that only go together.

    That is 1, or s*s before a reorg: it reads so many channels as one plane. Not among them: convolutions without
    batch norm or with fewer than 2 * MULTIPLE channels, those that the network ends with, and those whose
    channels share a plane with another's.
    """
    made = made_of(layers)
    found = {
        index: 1
        for index, layer in enumerate(layers)
        if isinstance(layer, Conv) and layer.batch_normalize and layer.filters >= 2 * MULTIPLE
    }
    for index, layer in enumerate(layers):
        if isinstance(layer, Reorg):
            together, first = layer.stride**2, 0
            for conv in _before(made, index):
                filters = _filters(layers, conv)
                if conv in found and (first % together or filters % together):
                    del found[conv]
                elif conv in found:
                    found[conv] = math.lcm(found[conv], together)
                first += filters
    for conv in made[-1]:
        found.pop(conv, None)
    return found


def choose(network: Network, ratio: float) -> Keep:
    """Which channels stay when this ratio of all that can be lost goes, the smallest |gamma| first.

    One threshold holds for the whole network. Each layer then keeps the multiple of MULTIPLE (and of its block) that is
    nearest to what the threshold leaves: one at least, and all where it takes none. A block counts by its mean; of
    equals the last go.

    Returns:
        One entry for each convolution that can lose channels.
    Raises:
        ConfigError: a ratio outside 0..1, a network that has nothing to lose.
    """
    if not 0 < ratio < 1:
        raise ConfigError(f"ratio: {ratio}; expected above 0 and below 1, the fraction of channels to remove")
    together = blocks(network.layers)
    if not together:
        raise ConfigError(
            f"nothing to prune: no convolution with batch norm and at least {2 * MULTIPLE} channels before the last; "
            "take the model that was trained, not a folded one"
        )
    worth = {index: _worth(network, index, block) for index, block in together.items()}
    everywhere = np.sort(np.concatenate([*worth.values()]))
    threshold = everywhere[int(ratio * len(everywhere))]
    return {index: _best(value, int((value >= threshold).sum()), together[index]) for index, value in worth.items()}


def cut(network: Network, keep: Keep) -> Network:
    """The same network without the channels that do not stay; other convolutions keep all of theirs.

    Every convolution loses what it no longer reads as well. Where the lost channels were 0 everywhere, the function is
    the same.
    """
    layers = tuple(
        replace(layer, filters=int(keep[index].sum())) if isinstance(layer, Conv) and index in keep else layer
        for index, layer in enumerate(network.layers)
    )
    result, made = empty(layers, network.channels), made_of(network.layers)
    stays = {RGB: np.ones(network.channels, bool)}
    for index, new, old in zip(
        map(int, network.convolutions), result.convolution_list(), network.convolution_list(), strict=True
    ):
        stays[index] = keep.get(index, np.ones(old.layer.filters, bool))
        out = torch.from_numpy(np.flatnonzero(stays[index]))
        read = torch.from_numpy(np.flatnonzero(np.concatenate([stays[conv] for conv in _before(made, index)])))
        state = {name: value[out] for name, value in old.state_dict().items()}
        new.load_state_dict({**state, "conv.weight": state["conv.weight"][:, read]})
        if new.norm is not None and old.norm is not None:
            new.norm.sigma = old.norm.sigma
    return result.train(network.training)


def _before(made: list[tuple[int, ...]], index: int) -> tuple[int, ...]:
    """What the map is made of that the layer reads."""
    return made[index - 1] if index else (RGB,)


def _filters(layers: tuple[Layer, ...], conv: int) -> int:
    layer = layers[conv] if conv != RGB else Conv(3)
    assert isinstance(layer, Conv)
    return layer.filters


def _worth(network: Network, index: int, block: int) -> NDArray[np.float64]:
    """[filters] |gamma|, of each block its mean."""
    norm = network.convolution_list()[list(network.convolutions).index(str(index))].norm
    assert norm is not None  # only those with batch norm can lose channels
    gamma = norm.weight.detach().abs().double().cpu().numpy()
    return np.repeat(gamma.reshape(-1, block).mean(1), block)


def _best(worth: NDArray[np.float64], wanted: int, block: int) -> NDArray[np.bool_]:
    """[filters] the channels of greatest worth, as many as the law of multiples makes of the number wanted."""
    step = math.lcm(MULTIPLE, block)
    number = len(worth) if wanted == len(worth) else min(max(step, step * math.floor(wanted / step + 0.5)), len(worth))
    keep = np.zeros(len(worth), bool)
    keep[np.argsort(-worth, kind="stable")[:number]] = True
    return keep
