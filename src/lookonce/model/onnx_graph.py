"""Write a detector as an ONNX graph: the network node by node from its layers, its decoding traced by PyTorch.

    images uint8 [B, 3, H, W] -> pixels 0..1 -> network -> raw maps -> decode -> boxes, scores -> suppress -> detections

Letters: B images, C channels or classes, H x W cells, N predictions, M rows. Batch norm is folded. Every file has the
tensors "pixels" and "raw" ("raw0", "raw1", ... of several heads), between which backends find the network. A file is
read only if its nodes are those of the network in its description; then its weights are used.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import helper

from lookonce.model.layers import Detection, PlacedHead
from lookonce.model.model_file import KEY, Model, ModelFileError, not_ours
from lookonce.model.onnx_layers import PIXELS, Graph, Numbers, add_network, folded_numbers, number_shapes, raws
from lookonce.model.postprocess import PLAIN_THRESHOLD, Selection
from lookonce.model.sizes import Shape, shapes
from lookonce.model.tree import Tree

OPSET = 18
IR = 10
"""ONNX's file version for this opset; ONNX Runtime reads it from 1.18 on."""
MAX_SIDE = 2**14
"""Largest side of an input, pixels; larger ones are refused before memory is taken."""
IMAGES, BOXES, SCORES, DETECTIONS = "images", "boxes", "scores", "detections"
SCORE_THRESHOLD, IOU_THRESHOLD = "score_threshold", "iou_threshold"


def detector_model(model: Model) -> onnx.ModelProto:
    """Return a detector as an ONNX model.

    From "images", uint8 [B, 3, H, W] RGB, already resized (B, H and W are free), to "detections" [M, 7], rows of image,
    class, x1, y1, x2, y2 (input px), score. Before suppression: "boxes" [B, N, 4] and "scores" [B, N, C].
    """
    graph = Graph()
    graph.add("Cast", [IMAGES], "images/float", to=onnx.TensorProto.FLOAT)
    graph.add("Div", ["images/float", graph.constant("images/most", np.float32(255))], PIXELS)
    add_network(graph, model, folded_numbers(model))
    _add_decoding(graph, model)
    _add_suppression(graph, model)
    images = helper.make_tensor_value_info(IMAGES, onnx.TensorProto.UINT8, ("batch", 3, "height", "width"))
    inputs = [images, _floats(SCORE_THRESHOLD, (1,)), _floats(IOU_THRESHOLD, (1,))]
    made = _whole(graph, inputs, [_floats(DETECTIONS, ("rows", 7))], model)
    made.doc_string = "boxes are xyxy in input pixels; rows are sorted by image, class, descending score, prediction"
    return made


def network_model(model: Model, numbers: Numbers | None = None) -> onnx.ModelProto:
    """Return the network alone: from "pixels", float32 [B, 3, H, W] RGB in 0..1, to the raw maps. B, H, W are variable.

    numbers: weights and biases with batch norm folded; None: those of the model.
    """
    graph, names = Graph(), raws(model.layers)
    add_network(graph, model, numbers or folded_numbers(model))
    outputs = [_floats(name, ("batch", f"channels{n}", f"rows{n}", f"columns{n}")) for name, n in names.items()]
    return _whole(graph, [_floats(PIXELS, ("batch", 3, "height", "width"))], outputs, model)


def raw_model(model: Model) -> onnx.ModelProto:
    """Return the network alone for one image of the model's own input size; every reader of ONNX runs it, also OpenCV.

    From "pixels", float32 [1, 3, H, W] RGB in 0..1, already resized, to the raw maps, of a region layer
    [1, A*(5+C), H/stride, W/stride].
    """
    graph, (width, height) = Graph(), model.input_size
    add_network(graph, model, folded_numbers(model), model.input_size)
    maps = shapes(model.layers, Shape(model.channels, height, width))
    outputs = [_floats(name, (1, *maps[index])) for name, index in raws(model.layers).items()]
    made = _whole(graph, [_floats(PIXELS, (1, 3, height, width))], outputs, model)
    made.doc_string = "raw is the map before the head: per anchor x, y, w, h, objectness and classes"
    return made


def predictions_info() -> list[onnx.ValueInfoProto]:
    """Return names and shapes of the tensors before suppression."""
    return [_floats(BOXES, ("batch", "predictors", 4)), _floats(SCORES, ("batch", "predictors", "classes"))]


def raw_shapes(model: Model, place: str) -> list[Shape]:
    """Return the shapes of a network's raw maps. Raises ModelFileError for an input size that is not valid."""
    width, height = model.input_size
    if not all(1 <= side <= MAX_SIDE for side in model.input_size):
        raise ModelFileError(f"{place}: an input of {width:.6g} x {height:.6g}; expected sides from 1 to {MAX_SIDE}")
    maps = shapes(model.layers, Shape(model.channels, height, width))
    if any(side < 1 for each in maps for side in each):
        raise ModelFileError(f"{place}: an input of {width} x {height} is too small for its network")
    return [maps[index] for index in raws(model.layers).values()]


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read an .onnx file. Raises ModelFileError for another file, or for an opset that this onnx package lacks."""
    try:
        made = onnx.load_model(path, load_external_data=False)
    except (OSError, ValueError, DecodeError) as error:
        reason = str(error).splitlines()[0][:120].encode("unicode_escape").decode()
        raise ModelFileError(f"{path}: not an ONNX file ({reason})") from None
    newest = onnx.defs.onnx_opset_version()
    opset = max((entry.version for entry in made.opset_import if not entry.domain.strip()), default=0)
    if not 1 <= opset <= newest:  # OpenVINO would run it with another opset
        fix = "run: pip install -U onnx" if opset > newest else "export it again with lookonce export"
        raise ModelFileError(f"{path}: opset {opset}; this onnx package supports 1 to {newest}; {fix}")
    return made


def read_description(made: onnx.ModelProto, place: str) -> Model:
    """Read the description in an ONNX model. Raises ModelFileError if there is none, or for another format."""
    try:
        found = {entry.key: entry.value for entry in made.metadata_props}
    except UnicodeDecodeError:
        raise ModelFileError(f"{place}: its description is not text; export it again with lookonce export") from None
    if KEY not in found:
        raise not_ours(place, "an ONNX file")
    return Model.from_text(found[KEY], place)


def network_part(made: onnx.ModelProto, model: Model, place: str) -> onnx.ModelProto:
    """Return the network in a file of lookonce, as network_model does. model: the description in the file.

    Only the weights of its convolutions are used. Raises ModelFileError for a file with another network.
    """
    raw_shapes(model, place)
    try:
        outputs = {name: index for index, node in enumerate(made.graph.node) for name in node.output}
        last = [*raws(model.layers)][-1]
        if last not in outputs:
            raise ModelFileError(f"{place}: no tensor {last!r} in it; write it with lookonce export")
        found = list(made.graph.node[outputs.get(PIXELS, -1) + 1 : outputs[last] + 1])
        numbers = _read_numbers(made, model, place)
        for size in (None, model.input_size):
            expected = Graph()
            add_network(expected, model, numbers, size)
            if found == expected.nodes:
                return network_model(model, numbers)
    except ModelFileError:
        raise
    except ValueError:  # names that are not text, numbers that ONNX cannot hold
        pass
    raise ModelFileError(
        f"{place}: its network is not the one of its description; export it again with lookonce export"
    )


def _read_numbers(made: onnx.ModelProto, model: Model, place: str) -> Numbers:
    tensors = {tensor.name: tensor for tensor in made.graph.initializer}

    def read(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        tensor = tensors.get(name, onnx.TensorProto())
        is_float = tensor.data_type == onnx.TensorProto.FLOAT and tensor.data_location == onnx.TensorProto.DEFAULT
        if not is_float or tuple(tensor.dims) != shape or len(tensor.raw_data) != 4 * math.prod(shape):
            sides = " x ".join(map(str, shape))
            raise ModelFileError(
                f"{place}: {name}: expected {sides} numbers of 32 bits; export it again with lookonce export"
            )
        return np.frombuffer(tensor.raw_data, "<f4").reshape(shape)

    shapes_of = number_shapes(model.layers, model.channels)
    return {n: (read(f"{n}/weight", weight), read(f"{n}/bias", bias)) for n, (weight, bias) in shapes_of.items()}


def _whole(
    graph: Graph, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto], model: Model
) -> onnx.ModelProto:
    """Return a graph as an ONNX model, with the model's description."""
    made = helper.make_model(
        helper.make_graph(graph.nodes, "lookonce", inputs, outputs, graph.initializers),
        opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR,
    )  # fmt: skip
    made.producer_name = "lookonce"
    helper.set_model_props(made, {KEY: json.dumps(model.to_json())})
    return made


def _floats(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    """Return the name and shape of a float32 tensor; a side given as a word is variable."""
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def _add_decoding(graph: Graph, model: Model) -> None:
    """Add heads.decode from the raw maps to "boxes" and "scores"."""
    nodes, initializers = _trace_decoding(model.heads, model.tree, tuple(raws(model.layers)))
    graph.nodes += nodes
    graph.initializers += initializers


@lru_cache(maxsize=8)  # tracing takes seconds
def _trace_decoding(
    heads: tuple[PlacedHead, ...], tree: Tree | None, names: tuple[str, ...]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return the nodes and constants of heads.decode, traced by PyTorch. names: of the raw maps."""
    import torch  # takes seconds to import, and reading a file does without

    from lookonce.model.heads import decode

    class Decode(torch.nn.Module):
        """Decoding as a module, since only modules are traced."""

        def forward(self, *maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """From raw maps to boxes [B, N, 4] and scores [B, N, C]; of a tree, the selected class alone."""
            found = decode(maps, heads, tree)
            share = found.class_prob if tree is None else tree.top_only(found.class_prob)
            return found.boxes, found.objectness[..., None] * share

    batch = torch.export.Dim("batch", min=1)
    sides = tuple(
        {0: batch} if isinstance(head.layer, Detection)
        else {0: batch, 2: torch.export.Dim(f"rows{n}", min=1), 3: torch.export.Dim(f"columns{n}", min=1)}
        for n, head in enumerate(heads)
    )  # fmt: skip
    cells = [(1, 1) if isinstance(head.layer, Detection) else (5, 7) for head in heads]
    examples = tuple(torch.zeros(2, head.layer.channels, *size) for head, size in zip(heads, cells, strict=True))
    with _quiet_exporter():
        traced = torch.onnx.export(
            Decode().eval(), examples, dynamo=True, opset_version=OPSET, dynamic_shapes=(sides,), verbose=False,
            input_names=names, output_names=[BOXES, SCORES],
        )  # fmt: skip
    assert traced is not None  # None only if it writes a file
    part = traced.model_proto.graph

    def own(name: str) -> str:
        return name if name in ("", *names, BOXES, SCORES) else f"decode/{name}"

    for node in part.node:
        node.input[:] = map(own, node.input)
        node.output[:] = map(own, node.output)
        node.name = own(node.name)
        del node.metadata_props[:]  # they contain paths of this machine
    for initializer in part.initializer:
        initializer.name = own(initializer.name)
    return list(part.node), list(part.initializer)


def _add_suppression(graph: Graph, model: Model) -> None:
    """Add greedy suppression within each class, as "detections". The thresholds are inputs with these defaults."""
    lowest = min(model.thresholds, default=PLAIN_THRESHOLD)
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


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hide the log lines and warnings of PyTorch's exporter."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
