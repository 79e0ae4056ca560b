"""A network as data: one frozen record for each Darknet layer, in Darknet's order and words.

No torch here: a description can be read, written and checked without it.
Source: darknet/src/parser.c (names, defaults), each layer's *_layer.c (output sizes).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lookonce.errors import ConfigError

Activation = Literal["leaky", "linear", "relu", "logistic"]


@dataclass(frozen=True)
class Conv:
    """Convolution, then batch norm (or a bias), then the activation. Padding: size // 2."""

    filters: int
    size: int = 3
    stride: int = 1
    batch_normalize: bool = True
    activation: Activation = "leaky"


@dataclass(frozen=True)
class MaxPool:
    """Maximum over a window; missing cells at the right and bottom do not count."""

    size: int = 2
    stride: int = 2


@dataclass(frozen=True)
class Route:
    """Outputs of other layers, stacked channel by channel in the listed order."""

    layers: tuple[int, ...]
    """Negative: counted back from this layer; else the index from the network's start."""


@dataclass(frozen=True)
class Reorg:
    """Darknet's fold of space into channels (not space_to_depth: see network.reorg)."""

    stride: int = 2


@dataclass(frozen=True)
class AvgPool:
    """Mean over the whole map."""


@dataclass(frozen=True)
class Dropout:
    """Sets values to zero at random in training; passes them on in detection."""

    probability: float = 0.5


@dataclass(frozen=True)
class Softmax:
    """Class probabilities of a classifier."""

    temperature: float = 1.0
    tree: str = ""
    """File of the class tree (see tree.py) as the cfg writes it; empty: every class excludes every other."""


@dataclass(frozen=True)
class Cost:
    """Where a classifier's loss is taken; passes values on."""

    type: str = "sse"


@dataclass(frozen=True)
class Region:
    """What the last map means, and how its loss weighs it. Defaults of the scales: yolo-voc.cfg."""

    anchors: tuple[tuple[float, float], ...]
    """(w, h) in cells."""
    classes: int
    softmax: bool = True
    """Classes exclude each other (softmax), or each is judged alone (logistic)."""
    bias_match: bool = True
    """An object belongs to the anchor of best shape, or to the predicted shape that fits it best."""
    rescore: bool = True
    """Objectness learns the IoU of its box, or 1."""
    thresh: float = 0.6
    """A predictor whose box has a better IoU than this with any object is not background."""
    object_scale: float = 5.0
    noobject_scale: float = 1.0
    class_scale: float = 1.0
    coord_scale: float = 1.0
    tree: str = ""
    """File of the class tree (see tree.py) as the cfg writes it; empty: the classes stand side by side."""
    map: str = ""
    """File that maps a data set's classes to the tree's, as the cfg writes it. Kept, not used."""

    @property
    def channels(self) -> int:
        """Channels that the map before this layer must have: A * (5 + C)."""
        return len(self.anchors) * (5 + self.classes)


Layer = Conv | MaxPool | Route | Reorg | AvgPool | Dropout | Softmax | Cost | Region


class Shape(NamedTuple):
    """Size of a map."""

    channels: int
    height: int
    width: int


def shapes(layers: tuple[Layer, ...], given: Shape) -> list[Shape]:
    """Output shape of each layer for an input of the given shape.

    Raises:
        ConfigError: a route to a layer that is not there, maps that do not fit together,
            a region whose map has another number of channels than anchors and classes ask for.
    """
    out: list[Shape] = []
    for index, layer in enumerate(layers):
        shape = out[-1] if out else given
        out.append(_shape(layer, shape, index, out))
    return out


def _shape(layer: Layer, shape: Shape, index: int, before: list[Shape]) -> Shape:
    channels, height, width = shape
    match layer:
        case Conv(filters, size, stride):
            pad = 2 * (size // 2) - size
            return Shape(filters, (height + pad) // stride + 1, (width + pad) // stride + 1)
        case MaxPool(_, stride):
            return Shape(channels, (height - 1) // stride + 1, (width - 1) // stride + 1)
        case Route():
            return _routed([before[i] for i in sources(layer, index)], index)
        case Reorg(stride):
            if channels % stride**2 or height % stride or width % stride:
                raise ConfigError(
                    f"layer {index} (reorg): a map of {channels} x {height} x {width}; channels must divide by "
                    f"{stride**2}, height and width by {stride}: use an input side that is a multiple of 32"
                )
            return Shape(channels * stride**2, height // stride, width // stride)
        case AvgPool():
            return Shape(channels, 1, 1)
        case Region() if channels != layer.channels:
            raise ConfigError(
                f"layer {index} (region): its map has {channels} channels; {len(layer.anchors)} anchors and "
                f"{layer.classes} classes need {layer.channels} = anchors * (5 + classes) filters before it"
            )
        case _:
            return shape


def sources(route: Route, index: int) -> tuple[int, ...]:
    """Indices of the layers that a route at `index` reads. Raises ConfigError where there is none."""
    found = tuple(index + i if i < 0 else i for i in route.layers)
    if not found or any(not 0 <= i < index for i in found):
        raise ConfigError(f"layer {index} (route): layers={route.layers}; each must name a layer before it")
    return found


def _routed(maps: list[Shape], index: int) -> Shape:
    if len({(m.height, m.width) for m in maps}) > 1:
        raise ConfigError(f"layer {index} (route): maps of different sizes {[tuple(m) for m in maps]}")
    return Shape(sum(m.channels for m in maps), maps[0].height, maps[0].width)


def stride(layers: tuple[Layer, ...]) -> int:
    """Input pixels for each cell of the last map (32 for YOLOv2)."""
    side: int = 2 ** (6 + sum(isinstance(layer, MaxPool | Reorg) for layer in layers))
    return side // shapes(layers, Shape(3, side, side))[-1].height


def region_of(layers: tuple[Layer, ...]) -> Region:
    """The region layer that ends a detector. Raises ConfigError for a network without one."""
    if not layers or not isinstance(layers[-1], Region):
        raise ConfigError("this network ends without a region layer: it classifies, it cannot detect")
    return layers[-1]


def channels_before(layers: tuple[Layer, ...]) -> list[int]:
    """Channels of the map that each layer reads (3 for the first: RGB)."""
    return [3, *(shape.channels for shape in shapes(layers, Shape(3, 2**10, 2**10)))][: len(layers)]


def floats_by_layer(layers: tuple[Layer, ...]) -> list[int]:
    """Numbers that each layer has in a Darknet .weights file; 0 for all but convolutions."""
    return [
        math.prod((layer.filters, channels, layer.size, layer.size))
        + layer.filters * (4 if layer.batch_normalize else 1)
        if isinstance(layer, Conv)
        else 0
        for layer, channels in zip(layers, channels_before(layers), strict=True)
    ]


def num_floats(layers: tuple[Layer, ...]) -> int:
    """Numbers that a Darknet .weights file of this network holds, its header not counted."""
    return sum(floats_by_layer(layers))


def num_operations(layers: tuple[Layer, ...], frame: tuple[int, int]) -> int:
    """Multiplications and additions of all convolutions for one input of frame (width, height), as Darknet counts."""
    given = Shape(3, frame[1], frame[0])
    out = shapes(layers, given)
    return sum(
        2 * layer.size**2 * before.channels * math.prod(after)
        for layer, before, after in zip(layers, [given, *out], out, strict=False)
        if isinstance(layer, Conv)
    )
