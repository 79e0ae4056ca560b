"""A network as ONNX: its records become nodes, its numbers initialisers. Batch norm must be folded.

Letters: B images, C channels, H x W cells. The tensors "pixels" (floats 0..1) and "raw" (the map before the region
layer) have these names in every file that is made from here, so that a backend finds the network in it. A file that is
read back gives its numbers; its nodes must be those that its own description asks for.

A detector as one ONNX graph: pixels to rows. Its decoding is region.decode itself, traced.

    images uint8 [B, 3, H, W] -> pixels 0..1 -> the network -> raw -> decode -> boxes, scores -> suppress -> detections

Letters: B images, N predictors, C classes, M rows.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lookonce.model.layers import (
    LUMA,
    AvgPool,
    Conv,
    Layer,
    MaxPool,
    Reorg,
    Route,
    Shape,
    channels_before,
    heads_of,
    shapes,
    sources,
)
from lookonce.model.model_file import KEY, Description, Model, ModelFileError, not_ours
from lookonce.model.postprocess import PLAIN_THRESHOLD, Selection

if TYPE_CHECKING:
    from lookonce.model.network import Network


OPSET = 18


IR = 10
"""ONNX's file version that goes with it; read by ONNX Runtime from 1.18 on."""


PIXELS, RAW = "pixels", "raw"


MOST_SIDE = 2**14
"""Of the input, pixels: far beyond every detector, and small enough to be told before memory is taken."""


Size = tuple[int, int]


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


Numbers = Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Weight [C_out, C_in, k, k] and bias [C_out] of each convolution, in the order of the layers."""


def numbers_of(network: Network) -> Numbers:
    """The numbers of a network whose batch norm is folded."""
    found = []
    for one in network.convolution_list():
        assert one.conv.bias is not None  # folded
        found.append((one.conv.weight.detach().numpy(), one.conv.bias.detach().numpy()))
    return found


def add_network(graph: Graph, layers: tuple[Layer, ...], numbers: Numbers, channels: int = 3,
                size: Size | None = None) -> None:  # fmt: skip
    """Add the nodes that take "pixels" to the raw maps.

    channels: 3, or 1 for a network that turns its RGB input grey.
    size: (W, H) of the input, pixels, where it is fixed; None: it is free.
    """
    outputs: list[str] = []
    convolutions = iter(numbers)
    before = channels_before(layers, channels)
    given_shape = None if size is None else Shape(channels, size[1], size[0])
    fixed = None if given_shape is None else [given_shape, *shapes(layers, given_shape)]
    first = PIXELS if channels == 3 else _grey(graph)
    for index, layer in enumerate(layers):
        given = outputs[-1] if outputs else first
        if isinstance(layer, Route):
            found = [outputs[source] for source in sources(layer, index)]
            outputs.append(graph.add("Concat", found, f"{index}/route", axis=1) if len(found) > 1 else found[0])
        elif isinstance(layer, Conv):
            outputs.append(_convolution(graph, index, layer, given, next(convolutions)))
        elif isinstance(layer, Reorg):
            sides = None if fixed is None else (fixed[index].height, fixed[index].width)
            outputs.append(_reorg(graph, f"{index}/reorg", given, (before[index], layer.stride), sides))
        else:
            outputs.append(_plain(graph, index, layer, given))
    for name, index in raws(layers).items():
        graph.add("Identity", [outputs[index]], name)


def network_model(layers: tuple[Layer, ...], numbers: Numbers, channels: int = 3,
                  size: Size | None = None) -> onnx.ModelProto:  # fmt: skip
    """The network alone, from "pixels" to "raw". size: (W, H) of the input where it is fixed, for one image."""
    graph = Graph()
    add_network(graph, layers, numbers, channels, size)
    if size is None:
        free = [floats(name, ("batch", f"channels{n}", f"rows{n}", f"columns{n}")) for name, n in raws(layers).items()]
        return graph.model([pixels_info()], free)
    width, height = size
    sides = shapes(layers, Shape(channels, height, width))
    outputs = [floats(name, (1, *sides[index])) for name, index in raws(layers).items()]
    return graph.model([floats(PIXELS, (1, 3, height, width))], outputs)


def describe(made: onnx.ModelProto, about: Description) -> None:
    """Write a description into an ONNX model."""
    helper.set_model_props(made, {KEY: json.dumps(about.to_json())})


def read_description(made: onnx.ModelProto, place: str) -> Description:
    """The description in an ONNX model. Raises ModelFileError where there is none, or of another format."""
    try:
        found = {entry.key: entry.value for entry in made.metadata_props}
    except UnicodeDecodeError:
        raise ModelFileError(f"{place}: a description that is not text; export it again with lookonce export") from None
    if KEY not in found:
        raise not_ours(place, "an ONNX file")
    return Description.from_text(found[KEY], place)


def read_onnx(path: Path) -> onnx.ModelProto:
    """An .onnx file. Raises ModelFileError for what is none, or of an opset that is not known here."""
    try:
        made = onnx.load_model(path, load_external_data=False)
    except (OSError, ValueError, DecodeError) as error:
        said = str(error).splitlines()[0][:120]
        raise ModelFileError(f"{path}: not an ONNX file ({said.encode('unicode_escape').decode()})") from None
    newest = onnx.defs.onnx_opset_version()
    opset = max((entry.version for entry in made.opset_import if not entry.domain.strip()), default=0)
    if not 1 <= opset <= newest:  # OpenVINO would run it as one that it knows
        way_out = "run: pip install -U onnx" if opset > newest else "export it again with lookonce export"
        raise ModelFileError(f"{path}: opset {opset}; this onnx package knows 1 to {newest}; {way_out}")
    return made


def raws(layers: tuple[Layer, ...]) -> dict[str, int]:
    """Return the names of a network's raw maps, each with the index of its layer: "raw", or "raw0", "raw1", ..."""
    heads = [head.index for head in heads_of(layers)] or [len(layers) - 1]
    return {RAW: heads[0]} if len(heads) == 1 else {f"{RAW}{n}": index for n, index in enumerate(heads)}


def raw_shapes(about: Description, place: str) -> list[Shape]:
    """Return the raw maps that a network gives for its input. Raises ModelFileError for an input it cannot take."""
    width, height = about.input_size
    if not all(1 <= side <= MOST_SIDE for side in about.input_size):
        raise ModelFileError(f"{place}: an input of {width:.6g} x {height:.6g}; expected sides from 1 to {MOST_SIDE}")
    maps = shapes(about.layers, Shape(about.channels, height, width))
    if any(side < 1 for each in maps for side in each):
        raise ModelFileError(f"{place}: an input of {width} x {height} is too small for its network")
    return [maps[index] for index in raws(about.layers).values()]


def network_part(made: onnx.ModelProto, about: Description, place: str) -> onnx.ModelProto:
    """The network in one of our files, from "pixels" to "raw", with a free input; the rest is left out.

    Nothing of the file is run but the numbers of its convolutions, in the network that its description says.
    Raises ModelFileError for a file that holds another network.
    """
    raw_shapes(about, place)
    try:
        outputs = {name: index for index, node in enumerate(made.graph.node) for name in node.output}
        names = list(raws(about.layers))
        if names[-1] not in outputs:
            raise ModelFileError(f"{place}: no tensor {names[-1]!r} in it; write it with lookonce export")
        found = list(made.graph.node[outputs.get(PIXELS, -1) + 1 : outputs[names[-1]] + 1])
        numbers = _read_numbers({value.name: value for value in made.graph.initializer}, about, place)
        for size in (None, about.input_size):
            expected = Graph()
            add_network(expected, about.layers, numbers, about.channels, size)
            if found == expected.nodes:
                return network_model(about.layers, numbers, about.channels)
    except ModelFileError:
        raise
    except ValueError:  # names that are not text, numbers that ONNX cannot hold
        pass
    raise ModelFileError(
        f"{place}: its network is not the one of its description; export it again with lookonce export"
    )


def _read_numbers(tensors: dict[str, onnx.TensorProto], about: Description, place: str) -> Numbers:
    """The numbers of the convolutions. Raises ModelFileError for one that is not there or has other sides."""
    found = []
    channels = channels_before(about.layers, about.channels)
    for index, layer in enumerate(about.layers):
        if isinstance(layer, Conv):
            weight, bias = (layer.filters, channels[index], layer.size, layer.size), (layer.filters,)
            found.append((_read_tensor(tensors, f"{index}/weight", weight, place),
                          _read_tensor(tensors, f"{index}/bias", bias, place)))  # fmt: skip
    return found


def _read_tensor(tensors: dict[str, onnx.TensorProto], name: str, shape: tuple[int, ...], place: str
                 ) -> NDArray[np.float32]:  # fmt: skip
    tensor = tensors.get(name, onnx.TensorProto())
    is_there = tensor.data_type == onnx.TensorProto.FLOAT and tensor.data_location == onnx.TensorProto.DEFAULT
    if not is_there or tuple(tensor.dims) != shape or len(tensor.raw_data) != 4 * math.prod(shape):
        sides = " x ".join(map(str, shape))
        raise ModelFileError(
            f"{place}: {name}: expected {sides} numbers of 32 bits; export it again with lookonce export"
        )
    return np.frombuffer(tensor.raw_data, "<f4").reshape(shape)


def _grey(graph: Graph) -> str:
    """network.grey of "pixels"."""
    luma = graph.constant("grey/luma", np.array(LUMA, np.float32)[None, :, None, None])  # [1, 3, 1, 1]
    return graph.add("Conv", [PIXELS, luma], "grey")


def _convolution(graph: Graph, index: int, layer: Conv, given: str,
                 numbers: tuple[NDArray[np.float32], NDArray[np.float32]]) -> str:  # fmt: skip
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


def _plain(graph: Graph, index: int, layer: Layer, given: str) -> str:
    """A layer without numbers of its own."""
    match layer:
        case MaxPool(size, stride):
            before = (size - 1) // 2
            pads = [before, before, size - 1 - before, size - 1 - before]  # as in network.max_pool
            kernel = {"kernel_shape": [size] * 2, "strides": [stride] * 2}
            if size == stride == 2:
                return graph.add("MaxPool", [given], f"{index}/maxpool", ceil_mode=1, **kernel)
            return graph.add("MaxPool", [given], f"{index}/maxpool", pads=pads, **kernel)
        case AvgPool():
            return graph.add("GlobalAveragePool", [given], f"{index}/avgpool")
        case _:
            return given


def _reorg(graph: Graph, name: str, given: str, fold: tuple[int, int], sides: tuple[int, int] | None) -> str:
    """network.reorg; a 0 in a shape keeps that side of what is reshaped.

    fold: (C, stride). sides: (H, W) of the map where they are fixed, so that no shape need be computed.
    """
    channels, stride = fold
    deep = channels // stride**2
    if sides is not None:
        return _fixed_reorg(graph, name, given, fold, sides)
    split = graph.constant(f"{name}/split", np.array([0, deep, 0, stride, -1, stride]))
    view = graph.add("Reshape", [given, split], f"{name}/view")  # [B, D, H, s, W, s]
    turned = graph.add("Transpose", [view], f"{name}/turned", perm=[0, 3, 5, 1, 2, 4])
    sizes = graph.add("Shape", [given], f"{name}/sides", start=2)  # [2]
    fewer = graph.add("Div", [sizes, graph.constant(f"{name}/stride", np.array([stride]))], f"{name}/fewer")
    head = graph.constant(f"{name}/head", np.array([0, channels * stride**2]))
    shape = graph.add("Concat", [head, fewer], f"{name}/shape", axis=0)
    return graph.add("Reshape", [turned, shape], name)  # [B, C*s*s, H/s, W/s]


def _fixed_reorg(graph: Graph, name: str, given: str, fold: tuple[int, int], sides: tuple[int, int]) -> str:
    """The same for one image of a known size, without maps of more than four sides, which OpenCV does not turn."""
    (channels, stride), (height, width) = fold, sides
    rows = channels // stride**2 * height

    def reshape(source: str, step: str, *shape: int) -> str:
        return graph.add("Reshape", [source, graph.constant(f"{step}/shape", np.array(shape))], step)

    view = reshape(given, f"{name}/rows", 1, rows, stride, width * stride)  # [1, D*H, s, W*s]
    turned = graph.add("Transpose", [view], f"{name}/rows/turned", perm=[0, 2, 1, 3])
    view = reshape(turned, f"{name}/columns", 1, stride, rows * width, stride)  # [1, s, D*H*W, s]
    turned = graph.add("Transpose", [view], f"{name}/columns/turned", perm=[0, 1, 3, 2])
    return reshape(turned, name, 1, channels * stride**2, height // stride, width // stride)


IMAGES, BOXES, SCORES, DETECTIONS = "images", "boxes", "scores", "detections"


SCORE_THRESHOLD, IOU_THRESHOLD = "score_threshold", "iou_threshold"


def _folded_numbers(model: Model) -> Numbers:
    """The network's numbers without batch norm."""
    from lookonce.model.network import folded  # which needs torch, and reading a file does not

    return numbers_of(folded(model.network))


def detector_model(model: Model) -> onnx.ModelProto:
    """A detector as an ONNX model.

    Args:
        model: what to write; its batch norm is folded.
    Returns:
        From "images", uint8 [B, 3, H, W] RGB, already resized (B, H and W are free), to "detections" [M, 7], rows of
        image, class, x1, y1, x2, y2 (input px), score. Inside, before suppression: "boxes" [B, N, 4] and "scores"
        [B, N, C].
    """
    about = model.description
    graph = Graph()
    graph.add("Cast", [IMAGES], "images/float", to=onnx.TensorProto.FLOAT)
    graph.add("Div", ["images/float", graph.constant("images/most", np.float32(255))], PIXELS)
    add_network(graph, model.network.layers, _folded_numbers(model), model.network.channels)
    _add_decoding(graph, about)
    inputs = [helper.make_tensor_value_info(IMAGES, onnx.TensorProto.UINT8, ("batch", 3, "height", "width"))]
    inputs += _add_suppression(graph, about)
    made = graph.model(inputs, [floats(DETECTIONS, ("rows", 7))])
    made.doc_string = "boxes are xyxy in input pixels; rows come by image, class, descending score, predictor"
    describe(made, about)
    return made


def raw_model(model: Model) -> onnx.ModelProto:
    """The network alone as an ONNX model, of a form that every reader of ONNX runs, OpenCV among them.

    Returns:
        From "pixels", float32 [1, 3, H, W] RGB in 0..1, already resized, to "raw" [1, A*(5+C), H/stride, W/stride].
    """
    made = network_model(model.network.layers, _folded_numbers(model), model.network.channels, model.input_size)
    made.doc_string = "raw is the map before the region layer: per anchor x, y, w, h, objectness and classes"
    describe(made, model.description)
    return made


def predictions_info() -> list[onnx.ValueInfoProto]:
    """The tensors before suppression."""
    return [floats(BOXES, ("batch", "predictors", 4)), floats(SCORES, ("batch", "predictors", "classes"))]


def _add_decoding(graph: Graph, about: Description) -> None:
    """Add what region.decode does to "raw", as "boxes" and "scores", traced by PyTorch."""
    import torch  # takes seconds, and detection with another backend does without

    from lookonce.model.heads import decode

    class Decode(torch.nn.Module):
        """Decoding as a module, since only modules are traced."""

        def forward(self, *raws: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """The raw maps to boxes [B, N, 4] and scores [B, N, C]."""
            found = decode(raws, about.heads, about.tree)
            return found.boxes, found.objectness[..., None] * found.class_prob

    batch = torch.export.Dim("batch", min=1)
    names = tuple(raws(about.layers))
    sides = tuple({0: batch, 2: torch.export.Dim(f"rows{n}", min=1), 3: torch.export.Dim(f"columns{n}", min=1)}
                  for n in range(len(names)))  # fmt: skip
    examples = tuple(torch.zeros(2, head.layer.channels, 5, 7) for head in about.heads)
    with _quiet():
        traced = torch.onnx.export(
            Decode().eval(), examples, dynamo=True, opset_version=OPSET, dynamic_shapes=(sides,), verbose=False,
            input_names=names, output_names=[BOXES, SCORES],
        )  # fmt: skip
    assert traced is not None  # which it is where a file is asked for
    part = traced.model_proto.graph

    def own(name: str) -> str:
        return name if name in ("", *names, BOXES, SCORES) else f"decode/{name}"

    for node in part.node:
        node.input[:] = map(own, node.input)
        node.output[:] = map(own, node.output)
        node.name = own(node.name)
        del node.metadata_props[:]  # lines of this machine's files
    for initializer in part.initializer:
        initializer.name = own(initializer.name)
    graph.nodes += part.node
    graph.initializers += part.initializer


def _add_suppression(graph: Graph, about: Description) -> list[onnx.ValueInfoProto]:
    """Add greedy suppression within each class, as "detections"; the thresholds, which are inputs with defaults."""
    lowest = min(about.thresholds, default=PLAIN_THRESHOLD)
    graph.constant(SCORE_THRESHOLD, np.array([lowest], np.float32))
    graph.constant(IOU_THRESHOLD, np.array([Selection.iou_threshold], np.float32))
    most = graph.constant("suppress/most", np.array([Selection.max_detections]))
    by_class = graph.add("Transpose", [SCORES], "suppress/scores", perm=[0, 2, 1])  # [B, C, N]
    chosen = graph.add("NonMaxSuppression", [BOXES, by_class, most, IOU_THRESHOLD, SCORE_THRESHOLD], "suppress/chosen")
    lead = graph.add("Gather", [chosen, graph.constant("suppress/lead", np.array([0, 1]))], "suppress/places", axis=1)
    where = graph.add("Gather", [chosen, graph.constant("suppress/where", np.array([0, 2]))], "suppress/rows", axis=1)
    score = graph.add("GatherND", [by_class, chosen], "suppress/score")  # [M]
    parts = [
        graph.add("Cast", [lead], "suppress/image_class", to=onnx.TensorProto.FLOAT),  # [M, 2]
        graph.add("GatherND", [BOXES, where], "suppress/box"),  # [M, 4]
        graph.add("Unsqueeze", [score, graph.constant("suppress/last", np.array([1]))], "suppress/column"),  # [M, 1]
    ]
    graph.add("Concat", parts, DETECTIONS, axis=1)
    return [floats(SCORE_THRESHOLD, (1,)), floats(IOU_THRESHOLD, (1,))]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what PyTorch's exporter says about itself from the user."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
