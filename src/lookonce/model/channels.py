"""Which channels of a network's maps go together: what pruning must remove at once.

Every channel that a layer with weights makes has a number, those of the image first; a map is a list of such numbers.
Channels that are added, multiplied, convolved in one group or folded into one plane are one group.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lookonce.model.layers import (
    Batchnorm,
    Connected,
    Conv,
    Crop,
    Layer,
    Linked,
    Local,
    Reorg,
    Route,
    Sam,
    ScaleChannels,
    Shortcut,
    Softmax,
    SpaceToDepth,
)
from lookonce.model.sizes import heads_of, sources

Map = NDArray[np.int64]
"""[C] the numbers of a map's channels."""
IMAGE = -1
"""Stands for the layer that makes the channels of the image."""


@dataclass(frozen=True)
class Channels:
    """The channels of a network."""

    reads: tuple[Map, ...]
    """Of each layer the channels of the map before it."""
    makes: tuple[Map, ...]
    """Of each layer the channels of its output."""
    layer: Map
    """[all channels] which layer makes each; IMAGE for those of the image."""
    group: Map
    """[all channels] the smallest channel of its group."""
    fixed: NDArray[np.bool_]
    """[all channels] whether its group holds a channel that must stay."""

    def free_groups(self) -> dict[tuple[int, ...], list[Map]]:
        """Return the groups that can be removed: those with channels of the same layers together, in order.

        The keys name a layer once for each of its channels in a group.
        """
        members = defaultdict(list)
        for channel in np.flatnonzero(~self.fixed).tolist():
            members[int(self.group[channel])].append(channel)
        found: dict[tuple[int, ...], list[Map]] = defaultdict(list)
        for channels in members.values():
            found[tuple(self.layer[channels].tolist())].append(np.array(channels))
        return dict(found)


def follow(layers: tuple[Layer, ...], channels: int = 3, smallest: int = 1) -> Channels:
    """Return the channels of a network.

    Fixed are channels of the image, of the maps that the heads read (or of the last map), of layers without batch norm
    or with fewer than `smallest` channels, and those whose value may be other than 0 where their weights are 0.

    Args:
        layers: of the network.
        channels: of the image.
        smallest: least number of channels of a layer that can lose some.
    """
    reads: list[Map] = []
    makes: list[Map] = []
    owner = [IMAGE] * channels
    together, fixed = _Groups(channels), [np.arange(channels)]
    for index, layer in enumerate(layers):
        read = makes[-1] if makes else np.arange(channels)
        match layer:
            case Conv(filters) | Local(filters) | Connected(filters):
                made = together.add(filters)
                owner += [index] * filters
                if not getattr(layer, "batch_normalize", False) or filters < smallest:
                    fixed.append(made)
            case Route() | Shortcut() | ScaleChannels() | Sam():
                made = _linked(layer, read, [makes[source] for source in sources(layer, index)], together)
            case Reorg(stride) | SpaceToDepth(stride):
                if isinstance(layer, Reorg):  # it reads so many channels in a row as one plane (see operations.reorg)
                    planes = read.reshape(-1, stride**2)
                    together.join(planes[:, :1].repeat(stride**2, 1), planes)
                made = np.tile(read, stride**2)
            case _:
                made = read
        if isinstance(layer, Conv) and layer.groups > 1:
            for one in zip(np.split(read, layer.groups), np.split(made, layer.groups), strict=True):
                whole = np.concatenate(one)
                together.join(whole[:1].repeat(len(whole)), whole)
        if isinstance(layer, Conv) and layer.share is not None:
            together.join(made, makes[layer.share])
            together.join(read, reads[layer.share])
        if getattr(layer, "activation", "") == "logistic" or isinstance(layer, Batchnorm | Crop | Softmax):
            fixed.append(made)
        if isinstance(layer, Conv) and layer.xnor:  # the sign of a channel is never 0
            fixed.append(read)
        reads.append(read)
        makes.append(made)
    fixed += [makes[head.index] for head in heads_of(layers)] or [makes[-1]]
    group = together.smallest()
    stays = np.isin(group, group[np.concatenate(fixed)])
    return Channels(tuple(reads), tuple(makes), np.array(owner), group, stays)


def _linked(layer: Linked, read: Map, others: list[Map], together: _Groups) -> Map:
    """Return the output of a layer that reads the maps `others`, and join what it makes one."""
    if isinstance(layer, Route):
        parts = [np.split(other, layer.groups) for other in others]
        for each in parts:  # every part must keep as many, so that the map still divides
            for part in each[1:]:
                together.join(each[0], part)
        return np.concatenate([each[layer.group_id] for each in parts])
    shared = min(len(read), len(others[0]))  # a shortcut adds the first channels only
    together.join(read[:shared], others[0][:shared])
    return read


class _Groups:
    """Channels in groups that grow together (union-find)."""

    def __init__(self, channels: int) -> None:
        self.parent = list(range(channels))

    def add(self, channels: int) -> Map:
        """Add channels, each a group of its own."""
        first = len(self.parent)
        self.parent += range(first, first + channels)
        return np.arange(first, first + channels)

    def join(self, some: Map, others: Map) -> None:
        """Make one group of the groups of each pair."""
        for a, b in zip(some.ravel().tolist(), others.ravel().tolist(), strict=True):
            low, high = sorted((self._root(a), self._root(b)))
            self.parent[high] = low

    def smallest(self) -> Map:
        """Return the smallest channel of each channel's group."""
        return np.array([self._root(channel) for channel in range(len(self.parent))])

    def _root(self, channel: int) -> int:
        while self.parent[channel] != channel:
            self.parent[channel] = channel = self.parent[self.parent[channel]]
        return channel
