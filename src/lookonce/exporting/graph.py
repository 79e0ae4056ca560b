"""A detector as one ONNX graph: pixels to rows. Its decoding is region.decode itself, traced.

    images uint8 [B, 3, H, W] -> pixels 0..1 -> the network -> raw -> decode -> boxes, scores -> suppress -> detections

Letters: B images, N predictors, C classes, M rows.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from lookonce.description import Description
from lookonce.model_file import Model
from lookonce.network import folded
from lookonce.onnx_form import OPSET, PIXELS, RAW, Graph, add_network, describe, floats, network_model, numbers_of
from lookonce.postprocess import PLAIN_THRESHOLD, Selection
from lookonce.region import decode

IMAGES, BOXES, SCORES, DETECTIONS = "images", "boxes", "scores", "detections"
SCORE_THRESHOLD, IOU_THRESHOLD = "score_threshold", "iou_threshold"


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
    add_network(graph, model.network.layers, numbers_of(folded(model.network)), model.network.channels)
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
    made = network_model(model.network.layers, numbers_of(folded(model.network)), model.network.channels, model.frame)
    made.doc_string = "raw is the map before the region layer: per anchor x, y, w, h, objectness and classes"
    describe(made, model.description)
    return made


def predictions_info() -> list[onnx.ValueInfoProto]:
    """The tensors before suppression."""
    return [floats(BOXES, ("batch", "predictors", 4)), floats(SCORES, ("batch", "predictors", "classes"))]


class _Decode(nn.Module):
    """Decoding as a module, since only modules are traced."""

    def __init__(self, about: Description) -> None:
        super().__init__()
        self.about = about
        self.register_buffer("anchors", torch.tensor(about.region.anchors))

    def forward(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The raw map to boxes [B, N, 4] and scores [B, N, C]."""
        assert isinstance(self.anchors, Tensor)  # a buffer
        found = decode(raw, self.anchors, self.about.stride, self.about.region.softmax, self.about.tree)
        return found.boxes, found.objectness[..., None] * found.class_prob


def _add_decoding(graph: Graph, about: Description) -> None:
    """Add what region.decode does to "raw", as "boxes" and "scores"."""
    sides = {2: torch.export.Dim("rows", min=1), 3: torch.export.Dim("columns", min=1)}
    with _quiet():
        traced = torch.onnx.export(
            _Decode(about).eval(), (torch.zeros(2, about.region.channels, 5, 7),), dynamo=True, opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1), **sides},), verbose=False,
            input_names=[RAW], output_names=[BOXES, SCORES],
        )  # fmt: skip
    assert traced is not None  # which it is where a file is asked for
    part = traced.model_proto.graph

    def own(name: str) -> str:
        return name if name in ("", RAW, BOXES, SCORES) else f"decode/{name}"

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
