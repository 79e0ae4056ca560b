"""Write a network as ONNX nodes, layer by layer, from "pixels" to its raw maps.

Letters: B images, C channels, F filters, H x W cells, L cells of a local layer, K x K kernel. Batch norm is folded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lookonce.model.layers import (
    LUMA,
    Activation,
    AvgPool,
    Batchnorm,
    Connected,
    Conv,
    Crop,
    Layer,
    Local,
    LocalAvgPool,
    MaxPool,
    Reorg,
    Route,
    Sam,
    ScaleChannels,
    Shortcut,
    SpaceToDepth,
    Upsample,
)
from lookonce.model.model_file import Model
from lookonce.model.sizes import Shape, channels_before, heads_of, shapes, sources

PIXELS, RAW = "pixels", "raw"
Numbers = Mapping[int, tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Weight and bias of each layer that has any, by its index; their shapes are number_shapes."""


class Graph:
    """Nodes and initialisers in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node with one output; return the output's name."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: object) -> str:
        """Add an initialiser; return its name."""
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def raws(layers: tuple[Layer, ...]) -> dict[str, int]:
    """Return the names of a network's raw maps, each with the index of its layer: "raw", or "raw0", "raw1", ..."""
    heads = [head.index for head in heads_of(layers)] or [len(layers) - 1]
    return {RAW: heads[0]} if len(heads) == 1 else {f"{RAW}{n}": index for n, index in enumerate(heads)}


def number_shapes(layers: tuple[Layer, ...], channels: int) -> dict[int, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the shapes of weight and bias of each layer that has any, batch norm folded. channels: of the input."""
    found: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    for index, (layer, before) in enumerate(zip(layers, channels_before(layers, channels), strict=True)):
        match layer:
            case Conv(filters, size, share=None):
                found[index] = (filters, before // layer.groups, size, size), (filters,)
            case Connected():
                found[index] = (layer.output, layer.inputs, 1, 1), (layer.output,)
            case Local(filters, size):
                rows, cols = layer.cells
                found[index] = (rows * cols, filters, size * size * before), (filters, rows, cols)
            case Batchnorm():
                found[index] = (1, before, 1, 1), (1, before, 1, 1)
    return found


def folded_numbers(model: Model) -> Numbers:
    """Return the numbers of a model's network, with batch norm folded into them."""
    from lookonce.model.network import folded  # needs torch, which reading a file does not

    found = {}
    network = folded(model.network)
    for index, module in network.convolutions.items():
        conv: Any = module.conv
        found[int(index)] = conv.weight.detach().numpy(), conv.bias.detach().numpy()
    for index, module in network.local_convolutions.items():
        local: Any = module
        weight, size = local.weight.detach().numpy(), local.layer.size**2  # [L, F, C*K*K]
        by_window = weight.reshape(*weight.shape[:2], -1, size).swapaxes(2, 3)  # [L, F, K*K, C]
        found[int(index)] = by_window.reshape(weight.shape), local.bias.detach().numpy()
    for index, module in network.batch_norms.items():
        norm: Any = module
        gain, offset = (each.detach().numpy()[None, :, None, None] for each in norm.gain_and_offset())
        found[int(index)] = gain, offset
    return dict(sorted(found.items()))


def add_network(graph: Graph, model: Model, numbers: Numbers, size: tuple[int, int] | None = None) -> None:
    """Add the nodes from "pixels" to the raw maps. size: (W, H) of the input; None: variable."""
    layers, channels = model.layers, channels_before(model.layers, model.channels)
    maps = None
    if size is not None:
        given = Shape(model.channels, size[1], size[0])
        maps = [given, *shapes(layers, given)]
    source = PIXELS
    if model.channels == 1:  # operations.grey
        luma = graph.constant("grey/luma", np.array(LUMA, np.float32)[None, :, None, None])  # [1, 3, 1, 1]
        source = graph.add("Conv", [PIXELS, luma], "grey")
    outputs: list[str] = []
    for index, layer in enumerate(layers):
        match layer:
            case Conv() | Connected() | Local() | Batchnorm():
                source = _add_weighted(graph, index, layer, source, numbers, channels[index])
            case Route() | Shortcut() | ScaleChannels() | Sam():
                others = [(outputs[i], channels_after(channels, layers, i)) for i in sources(layer, index)]
                source = _add_linked(graph, index, layer, (source, channels[index]), others)
            case Reorg(stride) if maps is not None:
                source = _add_fixed_reorg(graph, f"{index}/reorg", source, maps[index], stride)
            case Reorg(stride):
                source = _add_reorg(graph, f"{index}/reorg", source, channels[index], stride)
            case _:
                source = _add_plain(graph, index, layer, source, model)
        outputs.append(source)
    for name, index in raws(layers).items():
        graph.add("Identity", [outputs[index]], name)


def channels_after(channels: list[int], layers: tuple[Layer, ...], index: int) -> int:
    """Return the channels of a layer's output. channels: of each layer's input."""
    return channels[index + 1] if index + 1 < len(layers) else channels[index]


def _add_weighted(
    graph: Graph, index: int, layer: Conv | Connected | Local | Batchnorm, source: str, numbers: Numbers, channels: int
) -> str:
    """Add a layer with weights, and its activation."""
    if isinstance(layer, Conv) and layer.share is not None:
        names = [f"{layer.share}/weight", f"{layer.share}/bias"]
    else:
        names = [graph.constant(f"{index}/{name}", value)
                 for name, value in zip(("weight", "bias"), numbers[index], strict=True)]  # fmt: skip
    match layer:
        case Batchnorm():
            return graph.add(
                "Add", [graph.add("Mul", [source, names[0]], f"{index}/scaled"), names[1]], f"{index}/norm"
            )
        case Conv():
            if layer.xnor:
                source = _add_signs(graph, f"{index}/signs", source)
            more = {name: value for name, value in (("group", layer.groups), ("dilations", [layer.dilation] * 2))
                    if value not in (1, [1, 1])}  # fmt: skip
            pads, strides = [layer.pad] * 4, [layer.stride] * 2
            out = graph.add("Conv", [source, *names], f"{index}/convolution", pads=pads, strides=strides, **more)
        case Connected():
            shape = graph.constant(f"{index}/flat/shape", np.array([0, layer.inputs, 1, 1]))
            flat = graph.add("Reshape", [source, shape], f"{index}/flat")  # [B, inputs, 1, 1]
            out = graph.add("Conv", [flat, *names], f"{index}/connected")
        case Local():
            out = _add_local(graph, index, layer, source, names)
    return _add_activation(graph, index, layer.activation, out)


def _add_signs(graph: Graph, name: str, source: str) -> str:
    """Add operations.binary_input."""
    zero, one, minus = (graph.constant(f"{name}/{word}", np.array(value, np.float32))
                        for word, value in (("zero", 0), ("one", 1), ("minus", -1)))  # fmt: skip
    return graph.add("Where", [graph.add("Greater", [source, zero], f"{name}/above"), one, minus], name)


def _add_local(graph: Graph, index: int, layer: Local, source: str, names: list[str]) -> str:
    """Add network.LocalConvolution: the K*K shifted maps, one matrix product a cell, the bias."""
    (rows, cols), pad = layer.cells, layer.padding
    name, stride = f"{index}/local", layer.stride
    pads = graph.constant(f"{name}/pads", np.array([0, 0, pad, pad, 0, 0, pad, pad]))
    padded = graph.add("Pad", [source, pads], f"{name}/padded")
    parts = []
    for row in range(layer.size):
        for col in range(layer.size):
            ends = (row + (rows - 1) * stride + 1, col + (cols - 1) * stride + 1)
            parts.append(_add_slice(graph, f"{name}/{row}-{col}", padded, (row, col), ends, (2, 3), stride))
    stacked = graph.add("Concat", parts, f"{name}/windows", axis=1)  # [B, K*K*C, H, W]
    flat = graph.constant(f"{name}/flat", np.array([0, 0, rows * cols]))
    windows = graph.add("Reshape", [stacked, flat], f"{name}/columns")  # [B, K*K*C, L]
    turned = graph.add("Transpose", [windows], f"{name}/turned", perm=[2, 1, 0])
    product = graph.add("MatMul", [names[0], turned], f"{name}/product")  # [L, F, B]
    back = graph.add("Transpose", [product], f"{name}/back", perm=[2, 1, 0])
    shape = graph.constant(f"{name}/shape", np.array([0, layer.filters, rows, cols]))
    return graph.add("Add", [graph.add("Reshape", [back, shape], f"{name}/map"), names[1]], name)


def _add_slice(
    graph: Graph,
    name: str,
    source: str,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int],
    step: int = 1,
) -> str:
    """Add a part of a map, from starts to ends along axes."""
    limits = (("starts", starts), ("ends", ends), ("axes", axes), ("steps", [step] * len(axes)))
    given = [graph.constant(f"{name}/{word}", np.array(values, np.int64)) for word, values in limits]
    return graph.add("Slice", [source, *given], name)


def _add_activation(graph: Graph, index: int, activation: Activation, source: str) -> str:
    """Add operations.activate."""
    name = f"{index}/{activation}"

    def constant(word: str, value: float) -> str:
        return graph.constant(f"{name}/{word}", np.array(value, np.float32))

    match activation:
        case "linear":
            return source
        case "leaky":
            return graph.add("LeakyRelu", [source], name, alpha=0.1)
        case "relu":
            return graph.add("Relu", [source], name)
        case "relu6":
            return graph.add("Clip", [source, constant("least", 0), constant("most", 6)], name)
        case "logistic":
            return graph.add("Sigmoid", [source], name)
        case "mish":
            soft = graph.add("Softplus", [source], f"{name}/softplus")
            return graph.add("Mul", [source, graph.add("Tanh", [soft], f"{name}/tanh")], name)
        case "swish":
            return graph.add("Mul", [source, graph.add("Sigmoid", [source], f"{name}/sigmoid")], name)
        case "elu":
            return graph.add("Elu", [source], name)
        case "selu":
            return graph.add("Selu", [source], name, alpha=1.6732, gamma=1.0507)
        case "tanh":
            return graph.add("Tanh", [source], name)
        case "ramp":
            part = graph.add("Mul", [source, constant("slope", 0.1)], f"{name}/part")
            return graph.add("Add", [graph.add("Relu", [source], f"{name}/relu"), part], name)
        case "hard_mish":
            gate = graph.add("HardSigmoid", [source], f"{name}/gate", alpha=0.5, beta=1.0)
            return graph.add("Mul", [source, gate], name)


def _add_linked(
    graph: Graph,
    index: int,
    layer: Route | Shortcut | ScaleChannels | Sam,
    given: tuple[str, int],
    others: list[tuple[str, int]],
) -> str:
    """Add a layer that reads the outputs of others. given, others: names of maps and their channels."""
    source, channels = given
    match layer:
        case Route(_, groups, group_id):
            found = [name for name, _ in others]
            if groups > 1:
                found = [
                    _add_slice(graph, f"{index}/part{n}", name, [total // groups * group_id],
                               [total // groups * (group_id + 1)], [1])
                    for n, (name, total) in enumerate(others)
                ]  # fmt: skip
            return graph.add("Concat", found, f"{index}/route", axis=1) if len(found) > 1 else found[0]
        case Shortcut():
            ((other, total),) = others
            if total > channels:
                other = _add_slice(graph, f"{index}/first", other, [0], [channels], [1])
            elif total < channels:
                pads = graph.constant(f"{index}/pads", np.array([0, 0, 0, 0, 0, channels - total, 0, 0]))
                other = graph.add("Pad", [other, pads], f"{index}/padded")
            out = graph.add("Add", [source, other], f"{index}/shortcut")
        case ScaleChannels() | Sam():
            out = graph.add("Mul", [others[0][0], source], f"{index}/product")
    return _add_activation(graph, index, layer.activation, out)


def _add_plain(graph: Graph, index: int, layer: Layer, source: str, model: Model) -> str:
    """Add operations.run_plain for every layer but a reorg."""
    match layer:
        case MaxPool():
            return _add_max_pool(graph, index, layer, source)
        case LocalAvgPool(size, stride):
            before = (size - 1) // 2
            after = size - 1 - before
            sides = {"kernel_shape": [size] * 2, "strides": [stride] * 2, "pads": [before, before, after, after]}
            return graph.add("AveragePool", [source], f"{index}/local_avgpool", **sides)
        case AvgPool():
            return graph.add("GlobalAveragePool", [source], f"{index}/avgpool")
        case SpaceToDepth(stride):
            return graph.add("SpaceToDepth", [source], f"{index}/reorg3d", blocksize=stride)
        case Upsample(stride, scale):
            scales = graph.constant(f"{index}/scales", np.array([1, 1, stride, stride], np.float32))
            how = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
            out = graph.add("Resize", [source, "", scales], f"{index}/upsample", **how)
            factor = graph.constant(f"{index}/factor", np.array(scale, np.float32)) if scale != 1 else ""
            return graph.add("Mul", [out, factor], f"{index}/scaled") if factor else out
        case Crop():
            return _add_crop(graph, index, layer, source, model)
        case _:  # heads, softmax, cost and dropout pass their map on
            return source


def _add_crop(graph: Graph, index: int, layer: Crop, source: str, model: Model) -> str:
    """Add operations.crop for the model's own input size."""
    before = [Shape(model.channels, *model.input_size[::-1]), *shapes(model.layers[:index], Shape(
        model.channels, *model.input_size[::-1]))][-1]  # fmt: skip
    top, left = (before.height - layer.height) // 2, (before.width - layer.width) // 2
    ends = [top + layer.height, left + layer.width]
    out = _add_slice(graph, f"{index}/crop", source, [top, left], ends, [2, 3])
    if not layer.adjust:
        return out
    two, one = (
        graph.constant(f"{index}/{word}", np.array(value, np.float32)) for word, value in (("two", 2), ("one", 1))
    )
    return graph.add("Sub", [graph.add("Mul", [out, two], f"{index}/doubled"), one], f"{index}/adjusted")


def _add_max_pool(graph: Graph, index: int, layer: MaxPool, source: str) -> str:
    """Add operations.max_pool."""
    before, after = layer.pad
    border = {"ceil_mode": 1} if layer == MaxPool(2, 2) else {"pads": [before, before, after, after]}
    kernel = {"kernel_shape": [layer.size] * 2, "strides": [layer.stride] * 2}
    return graph.add("MaxPool", [source], f"{index}/maxpool", **border, **kernel)


def _add_reorg(graph: Graph, name: str, source: str, channels: int, stride: int) -> str:
    """Add operations.reorg for maps of any size; a 0 in a shape means: unchanged."""
    split = graph.constant(f"{name}/split", np.array([0, channels // stride**2, 0, stride, -1, stride]))
    view = graph.add("Reshape", [source, split], f"{name}/view")  # [B, D, H, s, W, s]
    turned = graph.add("Transpose", [view], f"{name}/turned", perm=[0, 3, 5, 1, 2, 4])
    sizes = graph.add("Shape", [source], f"{name}/sides", start=2)  # [2]
    fewer = graph.add("Div", [sizes, graph.constant(f"{name}/stride", np.array([stride]))], f"{name}/fewer")
    head = graph.constant(f"{name}/head", np.array([0, channels * stride**2]))
    shape = graph.add("Concat", [head, fewer], f"{name}/shape", axis=0)
    return graph.add("Reshape", [turned, shape], name)  # [B, C*s*s, H/s, W/s]


def _add_fixed_reorg(graph: Graph, name: str, source: str, shape: Shape, stride: int) -> str:
    """Add operations.reorg for one image of a known size, with at most four dimensions: OpenCV transposes no more."""
    channels, height, width = shape
    rows = channels // stride**2 * height

    def reshape(source: str, step: str, *shape: int) -> str:
        return graph.add("Reshape", [source, graph.constant(f"{step}/shape", np.array(shape))], step)

    view = reshape(source, f"{name}/rows", 1, rows, stride, width * stride)  # [1, D*H, s, W*s]
    turned = graph.add("Transpose", [view], f"{name}/rows/turned", perm=[0, 2, 1, 3])
    view = reshape(turned, f"{name}/columns", 1, stride, rows * width, stride)  # [1, s, D*H*W, s]
    turned = graph.add("Transpose", [view], f"{name}/columns/turned", perm=[0, 1, 3, 2])
    return reshape(turned, name, 1, channels * stride**2, height // stride, width // stride)
