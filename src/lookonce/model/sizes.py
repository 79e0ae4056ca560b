"""Sizes of a network: its maps, their strides, its weights and operations. No torch here.

Source: darknet/src/parser.c and each layer's *_layer.c (output sizes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from lookonce.errors import ConfigError
from lookonce.model.layers import (
    AvgPool,
    Batchnorm,
    Connected,
    Conv,
    Crop,
    Detection,
    Head,
    Layer,
    Linked,
    Local,
    LocalAvgPool,
    MaxPool,
    PlacedHead,
    Region,
    Reorg,
    Route,
    Sam,
    ScaleChannels,
    Shortcut,
    SpaceToDepth,
    Upsample,
    Yolo,
)

MAX_NUMBERS = 2**32
"""Limit on the numbers in all weights and all maps of one image: 16 GiB of float32. YOLOv2 has 0.1 billion at 608 px,
the largest of Darknet's networks (cspx-p7-mish) about 2 billion at 1536."""
MAX_WINDOW = 256
"""Largest size and stride of a convolution or a pool."""
MAX_LAYERS = 4096


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
        if isinstance(layer, Conv) and layer.share is not None:
            _check_shared(layers, index, [input_shape, *out])
        out.append(_shape(layer, shape, index, out))
        numbers += num_weights(layer, shape.channels) + math.prod(out[-1])
        if isinstance(layer, MaxPool):  # its map is padded first
            padding = sum(layer.pad)
            numbers += shape.channels * (shape.height + padding) * (shape.width + padding)
        if numbers > MAX_NUMBERS or index >= MAX_LAYERS:
            raise LayerError(index, layer, f"the network is too large: up to here its weights and maps for an input of "
                             f"{input_shape.width} x {input_shape.height} px hold {numbers} numbers; expected at most "
                             f"{MAX_NUMBERS} (16 GiB), and at most {MAX_LAYERS} layers")  # fmt: skip
    return out


def _shape(layer: Layer, shape: Shape, index: int, before: list[Shape]) -> Shape:
    channels, height, width = shape
    match layer:
        case Conv():
            return _convolved(layer, shape, index)
        case Local():
            if layer.map != (height, width):
                raise _other_size(index, layer, shape, f"maps of {layer.map[1]} x {layer.map[0]} cells")
            return Shape(layer.filters, *layer.cells)
        case Connected():
            if layer.inputs != math.prod(shape):
                raise _other_size(index, layer, shape, f"{layer.inputs} numbers")
            return Shape(layer.output, 1, 1)
        case MaxPool(size, stride):
            padded = sum(layer.pad) - size
            return Shape(channels, (height + padded) // stride + 1, (width + padded) // stride + 1)
        case LocalAvgPool(_, stride):
            return Shape(channels, (height - 1) // stride + 1, (width - 1) // stride + 1)
        case Route() | Shortcut() | ScaleChannels() | Sam():
            return _joined(layer, shape, index, [before[i] for i in sources(layer, index)])
        case Reorg(stride) | SpaceToDepth(stride):
            whole = channels if isinstance(layer, Reorg) else stride**2
            if whole % stride**2 or height % stride or width % stride:
                raise LayerError(
                    index, layer, f"a map of {channels} x {height} x {width}; channels must divide by "
                    f"{stride**2}, height and width by {stride}: give an input whose sides divide by the whole stride"
                )  # fmt: skip
            return Shape(channels * stride**2, height // stride, width // stride)
        case Upsample(stride):
            return Shape(channels, height * stride, width * stride)
        case Crop():
            if layer.height > height or layer.width > width:
                raise LayerError(index, layer, f"{layer.width} x {layer.height} of an image of {width} x {height}")
            return Shape(channels, layer.height, layer.width)
        case AvgPool():
            return Shape(channels, 1, 1)
        case Region() | Yolo() | Detection():
            _check_head(layer, shape, index)
            return shape
        case _:
            return shape


def _convolved(layer: Conv, shape: Shape, index: int) -> Shape:
    """Return the output shape of a convolution. Raises LayerError for groups or a map that do not fit."""
    channels, height, width = shape
    if channels % layer.groups or layer.filters % layer.groups:
        raise LayerError(index, layer, f"groups={layer.groups}; expected a divisor of its {channels} channels and of "
                         f"its {layer.filters} filters")  # fmt: skip
    padded = 2 * layer.pad - layer.dilation * (layer.size - 1) - 1
    rows, cols = ((side + padded) // layer.stride + 1 for side in (height, width))
    if min(rows, cols) < 1:
        raise LayerError(index, layer, f"size={layer.size} on a map of {width} x {height} cells")
    return Shape(layer.filters, rows, cols)


def _check_shared(layers: tuple[Layer, ...], index: int, before: list[Shape]) -> None:
    """Raise LayerError unless a convolution can use the weights of the one that it names. before: shapes of inputs."""
    layer = layers[index]
    assert isinstance(layer, Conv)
    other = layers[layer.share or 0] if 0 <= (layer.share or 0) < index else None
    if not isinstance(other, Conv) or other.share is not None:
        raise LayerError(index, layer, f"share_index={layer.share}; expected a convolution before it, with weights")
    same = ("filters", "size", "groups", "batch_normalize", "xnor")
    if any(getattr(layer, name) != getattr(other, name) for name in same) or (
        before[index].channels != before[layer.share or 0].channels
    ):
        raise LayerError(index, layer, f"share_index={layer.share}; expected a convolution with the same weights: "
                         f"{', '.join(same)} and channels of its input")  # fmt: skip


def _other_size(index: int, layer: Layer, shape: Shape, made_for: str) -> LayerError:
    numbers = f"{shape.channels} x {shape.height} x {shape.width}"
    return LayerError(index, layer, f"a map of {numbers}; its weights are made for {made_for}: this network has one "
                      "input size, that of its cfg")  # fmt: skip


def _joined(layer: Linked, shape: Shape, index: int, found: list[Shape]) -> Shape:
    """Return the output shape of a layer that reads the outputs of others."""
    sides = {(each.height, each.width) for each in found}
    match layer:
        case Route(_, groups, group_id):
            if len(sides) > 1:
                raise LayerError(index, layer, f"maps of different sizes {[tuple(m) for m in found[:9]]}")
            if odd := [each.channels for each in found if each.channels % groups]:
                raise LayerError(index, layer, f"groups={groups}; expected a divisor of the {odd[0]} channels it reads")
            if group_id >= groups:
                raise LayerError(index, layer, f"group_id={group_id}; expected 0 to {groups - 1} for groups={groups}")
            return Shape(sum(each.channels for each in found) // groups, found[0].height, found[0].width)
        case Shortcut():
            if sides != {(shape.height, shape.width)}:
                raise LayerError(index, layer, f"maps of different sizes {[tuple(shape), tuple(found[0])]}; expected "
                                 "equal heights and widths")  # fmt: skip
            return shape
        case ScaleChannels():
            if tuple(shape) != (found[0].channels, 1, 1):
                raise LayerError(index, layer, f"a map of {tuple(shape)} scales one of {tuple(found[0])}; expected "
                                 "one number a channel")  # fmt: skip
            return found[0]
        case Sam():
            if shape != found[0]:
                raise LayerError(index, layer, f"maps of different sizes {[tuple(shape), tuple(found[0])]}")
            return shape


def _check_head(layer: Head, shape: Shape, index: int) -> None:
    """Raise LayerError unless the map before a head has the numbers that it reads."""
    if isinstance(layer, Detection):
        if math.prod(shape) != layer.channels:
            raise LayerError(
                index, layer, f"{math.prod(shape)} numbers before it; side={layer.side}, num={layer.num} and "
                f"{layer.classes} classes need output={layer.channels} = side^2 * (classes + 5 num)"
            )  # fmt: skip
    elif shape.channels != layer.channels:
        each = 9 if isinstance(layer, Yolo) and layer.gaussian else 5
        raise LayerError(
            index, layer, f"its map has {shape.channels} channels; {len(layer.anchors)} anchors and "
            f"{layer.classes} classes need {layer.channels} = anchors * ({each} + classes) filters before it"
        )  # fmt: skip


def fitted(layers: Sequence[Layer], input_shape: Shape) -> tuple[Layer, ...]:
    """Return the layers with the sizes of their maps filled in, for networks that have one input size.

    Raises LayerError as shapes does.
    """
    found: list[Layer] = []
    maps: list[Shape] = []
    for index, layer in enumerate(layers):
        shape = maps[-1] if maps else input_shape
        match layer:
            case Connected(inputs=0):
                layer = replace(layer, inputs=math.prod(shape))
            case Local(map=(0, 0)):
                layer = replace(layer, map=(shape.height, shape.width))
                if min(layer.cells) < 1:
                    raise LayerError(index, layer, f"size={layer.size} on a map of {shape.width} x {shape.height}")
            case Detection(input_size=(0, 0)):
                layer = replace(layer, input_size=(input_shape.width, input_shape.height))
        found.append(layer)
        maps.append(_shape(layer, shape, index, maps))
    return tuple(found)


def sources(layer: Layer, index: int) -> tuple[int, ...]:
    """Return the indices of the layers that a layer at `index` reads beside, or instead of, the one before it.

    Raises LayerError for a missing layer.
    """
    match layer:
        case Route(named):
            pass
        case Shortcut(source) | ScaleChannels(source) | Sam(source):
            named = (source,)
        case _:
            return ()
    found = tuple(index + i if i < 0 else i for i in named)
    if not found or any(not 0 <= i < index for i in found):
        word = "layers" if isinstance(layer, Route) else "from"
        shown = named[:9] if isinstance(layer, Route) else named[0]
        raise LayerError(index, layer, f"{word}={shown}; each must name a layer before it")
    return found


def _channels_and_strides(layers: tuple[Layer, ...], channels: int = 3) -> list[tuple[int, int]]:
    """Return channels and stride (input pixels a cell) of each layer's output, which hold for every input size.

    After a connected layer the stride is 1. Raises LayerError for a route to a missing layer, or to maps of different
    strides.
    """
    out: list[tuple[int, int]] = []
    for index, layer in enumerate(layers):
        before, whole = out[-1] if out else (channels, 1)
        match layer:
            case Conv() | Local():
                out.append((layer.filters, whole * layer.stride))
            case Connected():
                out.append((layer.output, 1))
            case MaxPool() | LocalAvgPool():
                out.append((before, whole * layer.stride))
            case Reorg(stride) | SpaceToDepth(stride):
                out.append((before * stride**2, whole * stride))
            case Upsample(stride):
                if whole % stride:
                    raise LayerError(index, layer, f"stride={stride} of a map of stride {whole}; expected a divisor")
                out.append((before, whole // stride))
            case Route():
                numbers, strides = zip(*(out[i] for i in sources(layer, index)), strict=True)
                if len(set(strides)) > 1:
                    raise LayerError(index, layer, f"maps of different strides {list(strides[:9])}")
                out.append((sum(numbers) // layer.groups, strides[0]))
            case ScaleChannels():
                out.append(out[sources(layer, index)[0]])
            case _:
                out.append((before, whole))
    return out


def heads_of(layers: tuple[Layer, ...]) -> tuple[PlacedHead, ...]:
    """Return the heads of a network in layer order, each with its stride; none for a classifier."""
    strides = [stride for _, stride in _channels_and_strides(layers)]
    return tuple(PlacedHead(x, strides[i], i) for i, x in enumerate(layers) if isinstance(x, Head))


def last_stage(layers: tuple[Layer, ...]) -> int:
    """Return the index of the first layer of the smallest maps: the stages before it find edges, textures and parts."""
    strides = [whole for _, whole in _channels_and_strides(layers)]
    return strides.index(max(strides))


def stride(layers: tuple[Layer, ...]) -> int:
    """Return the number that divides both sides of a valid input: 32 for YOLOv2. Pools over a whole map do not count.

    1 for a network with connected layers, which has one input size (see shapes). Raises LayerError for a route to a
    missing layer, or to maps of different strides.
    """
    strides = [whole for _, whole in _channels_and_strides(layers)]
    heads = heads_of(layers)
    if not heads or any(isinstance(layer, Connected) for layer in layers):
        return strides[-1]
    return math.lcm(*(strides[index] for index in _read_by(layers, [head.index for head in heads])))


def _read_by(layers: tuple[Layer, ...], ends: list[int]) -> set[int]:
    """Return the layers that these layers depend on, themselves included."""
    found: set[int] = set()
    while ends:
        index = ends.pop()
        if index >= 0 and index not in found:
            found.add(index)
            before = [] if isinstance(layers[index], Route) else [index - 1]
            ends += [*before, *sources(layers[index], index)]
    return found


def tree_files(layers: Sequence[Layer]) -> dict[str, str]:
    """Return the files of the class tree and of its map as the cfg names them, by key; empty: no head has a tree."""
    found = next((layer for layer in layers if isinstance(layer, Region) and layer.tree), None)
    return {} if found is None else {"tree": found.tree, **({"map": found.map} if found.map else {})}


def num_classes(layers: tuple[Layer, ...]) -> int:
    """Return the classes of a detector. Raises ConfigError for a network without heads, or with heads that differ."""
    classes = {head.layer.classes for head in heads_of(layers)}
    if not classes:
        raise ConfigError("this network has no detection head: it classifies, it cannot detect")
    if len(classes) > 1:
        raise ConfigError(f"heads of {sorted(classes)} classes; expected the same number in each")
    return classes.pop()


def last_convolutions(layers: tuple[Layer, ...]) -> list[int]:
    """Return the index of the convolution before each head, or of the last one in a network without heads.

    Their filters depend on classes and anchors. Before a detection layer it is a connected layer.
    """
    ends = [head.index for head in heads_of(layers)] or [len(layers)]
    before = [[i for i in range(end) if isinstance(layers[i], Conv | Connected)] for end in ends]
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
        if isinstance(head.layer, Detection):
            if head.layer.input_size != input_size:
                raise ConfigError(f"an input of {width} x {height} px; this network has one input size, "
                                  f"{head.layer.input_size[0]} x {head.layer.input_size[1]}")  # fmt: skip
        elif (found.width, found.height) != (cols, rows):
            raise ConfigError(
                f"a last map of {found.width} x {found.height} cells for an input of {width} x {height} px; expected "
                f"{cols} x {rows}: convolutions of even size add a cell, average pools leave one"
            )


def channels_before(layers: tuple[Layer, ...], channels: int = 3) -> list[int]:
    """Return the channels of each layer's input, for images with this number of channels (3: RGB, 1: grey)."""
    return [channels, *(after for after, _ in _channels_and_strides(layers, channels))][: len(layers)]


def num_weights(layer: Layer, channels: int) -> int:
    """Return the number of weights of a layer in a .weights file. channels: those of its input."""
    match layer:
        case Conv(share=None):
            return layer.filters * (channels // layer.groups * layer.size**2 + (4 if layer.batch_normalize else 1))
        case Connected():
            return layer.output * (layer.inputs + (4 if layer.batch_normalize else 1))
        case Local():
            return layer.filters * math.prod(layer.cells) * (channels * layer.size**2 + 1)
        case Batchnorm():
            return 4 * channels
        case _:
            return 0


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
    found = 0
    for layer, shape, after in zip(layers, [before, *out], out, strict=False):
        match layer:
            case Conv():
                found += 2 * layer.size**2 * shape.channels // layer.groups * math.prod(after)
            case Local():
                found += 2 * layer.size**2 * shape.channels * math.prod(after)
            case Connected():
                found += 2 * layer.inputs * layer.output
    return found
