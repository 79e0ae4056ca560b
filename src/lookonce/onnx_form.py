"""A network as ONNX: its records become nodes, its numbers initialisers. Batch norm must be folded.

Letters: B images, C channels, H x W cells. The tensors "pixels" (floats 0..1) and "raw" (the map before the region
layer) have these names in every file that is made from here, so that a runtime finds the network in it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from lookonce.description import KEY, Description, ModelFileError, not_ours
from lookonce.layers import LUMA, AvgPool, Conv, Layer, MaxPool, Reorg, Route, channels_before, sources

if TYPE_CHECKING:
    from lookonce.network import Convolution, Network

OPSET = 18
IR = 10
"""ONNX's file version that goes with it; read by ONNX Runtime from 1.18 on."""
PIXELS, RAW = "pixels", "raw"


class Graph:
    """Nodes and initialisers as they come."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """One node with one output; its name."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: object) -> str:
        """An initialiser; its name."""
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def model(self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
        """The whole as a model, checked."""
        graph = helper.make_graph(self.nodes, "lookonce", inputs, outputs, self.initializers)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
        made.producer_name = "lookonce"
        return made


def floats(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    """A float32 tensor's name and shape; a side that is a word is free."""
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def pixels_info() -> onnx.ValueInfoProto:
    """The network's input: [B, 3, H, W] floats 0..1."""
    return floats(PIXELS, ("batch", 3, "height", "width"))


def add_network(graph: Graph, network: Network) -> str:
    """Add the nodes that take "pixels" to "raw"; the name of the latter. network: batch norm folded."""
    outputs: list[str] = []
    convolutions = iter(network.convolution_list())
    channels = channels_before(network.layers, network.channels)
    first = PIXELS if network.channels == 3 else _grey(graph)
    for index, layer in enumerate(network.layers):
        given = outputs[-1] if outputs else first
        if isinstance(layer, Route):
            found = [outputs[source] for source in sources(layer, index)]
            outputs.append(graph.add("Concat", found, f"{index}/route", axis=1) if len(found) > 1 else found[0])
        elif isinstance(layer, Conv):
            outputs.append(_convolution(graph, index, layer, given, next(convolutions)))
        else:
            outputs.append(_plain(graph, index, layer, given, channels[index]))
    return graph.add("Identity", outputs[-1:], RAW)


def network_model(network: Network) -> onnx.ModelProto:
    """The network alone, from "pixels" to "raw". network: batch norm folded."""
    graph = Graph()
    add_network(graph, network)
    return graph.model([pixels_info()], [raw_info()])


def describe(made: onnx.ModelProto, about: Description) -> None:
    """Write a description into an ONNX model."""
    helper.set_model_props(made, {KEY: json.dumps(about.to_json())})


def read_description(made: onnx.ModelProto, place: str) -> Description:
    """The description in an ONNX model. Raises ModelFileError where there is none, or of another format."""
    found = {entry.key: entry.value for entry in made.metadata_props}
    if KEY not in found:
        raise not_ours(place, "an ONNX file")
    return Description.from_text(found[KEY], place)


def read_onnx(path: Path) -> onnx.ModelProto:
    """An .onnx file. Raises ModelFileError for what is none, or of an opset that is not known here."""
    try:
        made = onnx.load_model(path)
    except (OSError, ValueError, DecodeError) as error:
        raise ModelFileError(f"{path}: not an ONNX file ({str(error).splitlines()[0][:120]})") from None
    opset = max((entry.version for entry in made.opset_import if entry.domain == ""), default=0)
    if not 1 <= opset <= (newest := onnx.defs.onnx_opset_version()):  # OpenVINO would run it as one that it knows
        raise ModelFileError(f"{path}: opset {opset}; this onnx package knows 1 to {newest}; run: pip install -U onnx")
    return made


def network_part(made: onnx.ModelProto, place: str) -> onnx.ModelProto:
    """The network in one of our files, from "pixels" to "raw"; the rest is left out.

    Raises ModelFileError for a file that has no such tensors.
    """
    made_by = {name: index for index, node in enumerate(made.graph.node) for name in node.output}
    if RAW not in made_by:
        raise ModelFileError(f"{place}: no tensor {RAW!r} in it; write it with lookonce export")
    part = Graph()
    part.nodes = list(made.graph.node[made_by.get(PIXELS, -1) + 1 : made_by[RAW] + 1])  # in the order of their writing
    needed = {name for node in part.nodes for name in node.input}
    part.initializers = [value for value in made.graph.initializer if value.name in needed]
    found = part.model([pixels_info()], [raw_info()])
    found.opset_import[0].version = made.opset_import[0].version
    return found


def raw_info() -> onnx.ValueInfoProto:
    """The network's output: [B, A*(5+C), H, W]."""
    return floats(RAW, ("batch", "channels", "rows", "columns"))


def _grey(graph: Graph) -> str:
    """network.grey of "pixels"."""
    luma = graph.constant("grey/luma", np.array(LUMA, np.float32)[None, :, None, None])  # [1, 3, 1, 1]
    return graph.add("Conv", [PIXELS, luma], "grey")


def _convolution(graph: Graph, index: int, layer: Conv, given: str, own: Convolution) -> str:
    assert own.conv.bias is not None  # folded
    numbers = own.conv.weight.detach().numpy(), own.conv.bias.detach().numpy()
    names = [graph.constant(f"{index}/{name}", value) for name, value in zip(("weight", "bias"), numbers, strict=True)]
    before = layer.size // 2
    out = graph.add("Conv", [given, *names], f"{index}/convolution", pads=[before] * 4, strides=[layer.stride] * 2)
    match layer.activation:
        case "leaky":
            return graph.add("LeakyRelu", [out], f"{index}/leaky", alpha=0.1)
        case "relu":
            return graph.add("Relu", [out], f"{index}/relu")
        case "logistic":
            return graph.add("Sigmoid", [out], f"{index}/logistic")
        case "linear":
            return out


def _plain(graph: Graph, index: int, layer: Layer, given: str, channels: int) -> str:
    """A layer without numbers of its own."""
    match layer:
        case MaxPool(size, stride):
            before = (size - 1) // 2
            pads = [before, before, size - 1 - before, size - 1 - before]  # as in network.max_pool
            kernel = {"kernel_shape": [size] * 2, "strides": [stride] * 2}
            if size == stride == 2:
                return graph.add("MaxPool", [given], f"{index}/maxpool", ceil_mode=1, **kernel)
            return graph.add("MaxPool", [given], f"{index}/maxpool", pads=pads, **kernel)
        case Reorg(stride):
            return _reorg(graph, f"{index}/reorg", given, channels, stride)
        case AvgPool():
            return graph.add("GlobalAveragePool", [given], f"{index}/avgpool")
        case _:
            return given


def _reorg(graph: Graph, name: str, given: str, channels: int, stride: int) -> str:
    """network.reorg; a 0 in a shape keeps that side of what is reshaped."""
    deep = channels // stride**2
    split = graph.constant(f"{name}/split", np.array([0, deep, 0, stride, -1, stride]))
    view = graph.add("Reshape", [given, split], f"{name}/view")  # [B, D, H, s, W, s]
    turned = graph.add("Transpose", [view], f"{name}/turned", perm=[0, 3, 5, 1, 2, 4])
    sides = graph.add("Shape", [given], f"{name}/sides", start=2)  # [2]
    fewer = graph.add("Div", [sides, graph.constant(f"{name}/stride", np.array([stride]))], f"{name}/fewer")
    head = graph.constant(f"{name}/head", np.array([0, channels * stride**2]))
    shape = graph.add("Concat", [head, fewer], f"{name}/shape", axis=0)
    return graph.add("Reshape", [turned, shape], name)  # [B, C*s*s, H/s, W/s]
