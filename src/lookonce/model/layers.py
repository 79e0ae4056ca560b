"""A network as data: a tuple of frozen records, one a layer, in Darknet's order and words. No torch here.

Source: darknet/src/parser.c (names, defaults), each layer's *_layer.c (output sizes).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lookonce.errors import ConfigError

Activation = Literal["leaky", "linear", "relu", "logistic"]
MAX_NUMBERS = 2**30
"""Limit on the numbers in all weights and all maps of one image: 4 GiB of float32. YOLOv2 has 0.1 billion at 608 px."""
MAX_WINDOW = 256
"""Largest size and stride of a convolution or a pool."""
MAX_LAYERS = 4096
LUMA = (77 / 256, 150 / 256, 29 / 256)
"""Weights of red, green and blue in grey. Source: stb_image.h, stbi__compute_y, with which Darknet loads images."""


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
    """Concatenates the outputs of other layers along channels, in the listed order."""

    layers: tuple[int, ...]
    """Negative: relative to this layer; else the index in the network."""


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
    """File of the class tree (see tree.py) as the cfg names it; empty: every class excludes every other."""


@dataclass(frozen=True)
class Cost:
    """A classifier's loss; passes values on."""

    type: str = "sse"


@dataclass(frozen=True)
class Region:
    """Detection head of YOLOv2, and the scales of its loss. Defaults: yolo-voc.cfg."""

    anchors: tuple[tuple[float, float], ...]
    """(w, h) in cells."""
    classes: int
    softmax: bool = True
    """Classes exclude each other (softmax), or are independent (logistic)."""
    bias_match: bool = True
    """Assign an object to the anchor of best shape IoU, or else to the predicted shape of best IoU."""
    rescore: bool = True
    """Objectness target: the IoU of the predicted box, or else 1."""
    thresh: float = 0.6
    """A predicted box with a higher IoU than this with any object is not background."""
    object_scale: float = 5.0
    noobject_scale: float = 1.0
    class_scale: float = 1.0
    coord_scale: float = 1.0
    tree: str = ""
    """File of the class tree (see tree.py) as the cfg names it; empty: no tree."""
    map: str = ""
    """File that maps a data set's classes to the tree's, as the cfg names it. Kept, not used."""

    @property
    def channels(self) -> int:
        """Channels that the map before this layer must have: A * (5 + C)."""
        return len(self.anchors) * (5 + self.classes)


Head = Region
"""Layers that define the meaning of the map before them. A network may have several."""
Layer = Conv | MaxPool | Route | Reorg | AvgPool | Dropout | Softmax | Cost | Head


@dataclass(frozen=True)
class PlacedHead:
    """A head in its network."""

    layer: Head
    stride: int
    """Input pixels a cell of its map."""
    index: int = -1
    """Index of the layer in the network."""

    @property
    def anchors_px(self) -> list[tuple[float, float]]:
        """Its anchors (w, h) in input pixels."""
        return [(w * self.stride, h * self.stride) for w, h in self.layer.anchors]


class Shape(NamedTuple):
    """Size of a map."""

    channels: int
    height: int
    width: int


class LayerError(ConfigError):
    """A layer that does not fit the layers before it, or that is too large. index: index of the layer."""

    def __init__(self, index: int, layer: Layer, found: str) -> None:
        super().__init__(f"layer {index} ({type(layer).__name__.lower()}): {found}")
        self.index = index


def shapes(layers: tuple[Layer, ...], input_shape: Shape) -> list[Shape]:
    """Return the output shape of each layer for an input of this shape.

    Raises:
        LayerError: a route to a missing layer, maps that do not fit together,
            a region whose map has another number of channels than its anchors and classes require,
            a layer with which weights and maps exceed MAX_NUMBERS.
    """
    out: list[Shape] = []
    numbers = math.prod(input_shape)
    for index, layer in enumerate(layers):
        shape = out[-1] if out else input_shape
        out.append(_shape(layer, shape, index, out))
        numbers += num_weights(layer, shape.channels) + math.prod(out[-1])
        if isinstance(layer, MaxPool):  # its map is padded first
            numbers += shape.channels * (shape.height + layer.size) * (shape.width + layer.size)
        if numbers > MAX_NUMBERS or index >= MAX_LAYERS:
            raise LayerError(index, layer, f"the network is too large: up to here its weights and maps for an input of "
                             f"{input_shape.width} x {input_shape.height} px hold {numbers} numbers; expected at most "
                             f"{MAX_NUMBERS} (4 GiB), and at most {MAX_LAYERS} layers")  # fmt: skip
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
            maps = [before[i] for i in sources(layer, index)]
            if len({(m.height, m.width) for m in maps}) > 1:
                raise LayerError(index, layer, f"maps of different sizes {[tuple(m) for m in maps[:9]]}")
            return Shape(sum(m.channels for m in maps), maps[0].height, maps[0].width)
        case Reorg(stride):
            if channels % stride**2 or height % stride or width % stride:
                raise LayerError(
                    index, layer, f"a map of {channels} x {height} x {width}; channels must divide by "
                    f"{stride**2}, height and width by {stride}: give an input whose sides divide by the whole stride"
                )  # fmt: skip
            return Shape(channels * stride**2, height // stride, width // stride)
        case AvgPool():
            return Shape(channels, 1, 1)
        case Region() if channels != layer.channels:
            raise LayerError(
                index, layer, f"its map has {channels} channels; {len(layer.anchors)} anchors and "
                f"{layer.classes} classes need {layer.channels} = anchors * (5 + classes) filters before it"
            )  # fmt: skip
        case _:
            return shape


def sources(route: Route, index: int) -> tuple[int, ...]:
    """Return the indices of the layers that a route at `index` concatenates. Raises LayerError for a missing layer."""
    found = tuple(index + i if i < 0 else i for i in route.layers)
    if not found or any(not 0 <= i < index for i in found):
        raise LayerError(index, route, f"layers={route.layers[:9]}; each must name a layer before it")
    return found


def _channels_and_strides(layers: tuple[Layer, ...], channels: int = 3) -> list[tuple[int, int]]:
    """Return channels and stride (input pixels a cell) of each layer's output, which hold for every input size.

    Raises LayerError for a route to a missing layer, or to maps of different strides.
    """
    out: list[tuple[int, int]] = []
    for index, layer in enumerate(layers):
        before, whole = out[-1] if out else (channels, 1)
        match layer:
            case Conv(filters, _, stride):
                out.append((filters, whole * stride))
            case MaxPool(_, stride):
                out.append((before, whole * stride))
            case Reorg(stride):
                out.append((before * stride**2, whole * stride))
            case Route():
                numbers, strides = zip(*(out[i] for i in sources(layer, index)), strict=True)
                if len(set(strides)) > 1:
                    raise LayerError(index, layer, f"maps of different strides {list(strides[:9])}")
                out.append((sum(numbers), strides[0]))
            case _:
                out.append((before, whole))
    return out


def heads_of(layers: tuple[Layer, ...]) -> tuple[PlacedHead, ...]:
    """Return the heads of a network in layer order, each with its stride; none for a classifier."""
    strides = [stride for _, stride in _channels_and_strides(layers)]
    return tuple(PlacedHead(x, strides[i], i) for i, x in enumerate(layers) if isinstance(x, Head))


def stride(layers: tuple[Layer, ...]) -> int:
    """Return the number that divides both sides of a valid input: 32 for YOLOv2. Pools over a whole map do not count.

    Raises LayerError for a route to a missing layer, or to maps of different strides.
    """
    heads = heads_of(layers)
    return math.lcm(*(head.stride for head in heads)) if heads else _channels_and_strides(layers)[-1][1]


def tree_file(layers: tuple[Layer, ...]) -> str:
    """Return the file of the class tree as the cfg names it; empty: no head has one."""
    return next((head.layer.tree for head in heads_of(layers) if head.layer.tree), "")


def num_classes(layers: tuple[Layer, ...]) -> int:
    """Return the classes of a detector. Raises ConfigError for a network without heads, or with heads that differ."""
    classes = {head.layer.classes for head in heads_of(layers)}
    if not classes:
        raise ConfigError("this network has no detection head (region layer): it classifies, it cannot detect")
    if len(classes) > 1:
        raise ConfigError(f"heads of {sorted(classes)} classes; expected the same number in each")
    return classes.pop()


def last_convolutions(layers: tuple[Layer, ...]) -> list[int]:
    """Return the index of the convolution before each head, or of the last one in a network without heads.

    Their filters depend on classes and anchors.
    """
    ends = [head.index for head in heads_of(layers)] or [len(layers)]
    before = [[i for i in range(end) if isinstance(layers[i], Conv)] for end in ends]
    return [found[-1] for found in before if found]


def check_input_size(layers: tuple[Layer, ...], input_size: tuple[int, int], channels: int = 3) -> None:
    """Raise ConfigError unless a detector runs on inputs of input_size (width, height).

    Both sides must be multiples of the stride, no layer too large, and each head's map must have one cell for each
    stride x stride pixels.
    """
    width, height = input_size
    whole = stride(layers)
    if min(input_size) < 1 or width % whole or height % whole:
        raise ConfigError(f"an input of {width} x {height} px; expected sides that are positive multiples of {whole}")
    maps = shapes(layers, Shape(channels, height, width))
    for head in heads_of(layers):
        found, cols, rows = maps[head.index], width // head.stride, height // head.stride
        if (found.width, found.height) != (cols, rows):
            raise ConfigError(
                f"a last map of {found.width} x {found.height} cells for an input of {width} x {height} px; expected "
                f"{cols} x {rows}: convolutions of even size add a cell, average pools leave one"
            )


def channels_before(layers: tuple[Layer, ...], channels: int = 3) -> list[int]:
    """Return the channels of each layer's input, for images with this number of channels (3: RGB, 1: grey)."""
    return [channels, *(after for after, _ in _channels_and_strides(layers, channels))][: len(layers)]


def num_weights(layer: Layer, channels: int) -> int:
    """Return the number of weights of a layer in a .weights file. channels: those of its input."""
    if not isinstance(layer, Conv):
        return 0
    return layer.filters * (channels * layer.size**2 + (4 if layer.batch_normalize else 1))


def floats_by_layer(layers: tuple[Layer, ...], channels: int = 3) -> list[int]:
    """Return num_weights of each layer. channels: those of the network's input."""
    return [num_weights(*each) for each in zip(layers, channels_before(layers, channels), strict=True)]


def num_floats(layers: tuple[Layer, ...], channels: int = 3) -> int:
    """Return the number of weights in a .weights file of this network."""
    return sum(floats_by_layer(layers, channels))


def num_operations(layers: tuple[Layer, ...], input_size: tuple[int, int], channels: int = 3) -> int:
    """Return the multiplications and additions of all convolutions for an input of (width, height), as in Darknet."""
    before = Shape(channels, input_size[1], input_size[0])
    out = shapes(layers, before)
    return sum(
        2 * layer.size**2 * shape.channels * math.prod(after)
        for layer, shape, after in zip(layers, [before, *out], out, strict=False)
        if isinstance(layer, Conv)
    )
