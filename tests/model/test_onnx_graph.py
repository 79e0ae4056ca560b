"""Tests of lookonce.model.onnx_graph. Oracles: PyTorch's network and decode, our own suppression.

Run by OpenVINO: onnx's own evaluator gets a pooling with uneven borders wrong.
"""

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from conftest import GOLDEN
from lookonce import Network
from lookonce.inference.backends.openvino import the_core
from lookonce.model import zoo
from lookonce.model.heads import decode
from lookonce.model.layers import AvgPool, Conv, Detection, Dropout, MaxPool, Region, Reorg, Route
from lookonce.model.model_file import Model, load_model
from lookonce.model.onnx_graph import detector_model, network_model, predictions_info, raw_model
from lookonce.model.postprocess import Selection, nms_per_class
from sets import two_heads


@pytest.fixture(scope="module")
def trained(run, exported):
    """A trained model and its graph."""
    return load_model(run), onnx.load(exported / "m.onnx")


def with_predictions(made, *, alone=False):
    """The graph with boxes and scores among its outputs. alone: without the rows."""
    other = onnx.ModelProto()
    other.CopyFrom(made)
    if alone:
        del other.graph.output[:], other.graph.input[1:]
    other.graph.output.extend(predictions_info())
    return other


def images(input_size, count=2):
    return np.random.default_rng(0).integers(0, 256, (count, 3, input_size[1], input_size[0]), np.uint8)


def in_openvino(made, given):
    compiled = the_core().compile_model(
        the_core().read_model(made.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return [*compiled(given).values()]


def in_onnxruntime(made, given, **thresholds):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(made.SerializeToString(), settings, ["CPUExecutionProvider"])
    return session.run(None, {"images": given, **{k: np.array([v], np.float32) for k, v in thresholds.items()}})


def in_torch(model, given):
    with torch.no_grad():
        raws = model.network(torch.from_numpy(given).float() / 255)
    found = decode(raws, model.network.heads, model.tree)
    share = model.tree.top_only(found.class_prob) if model.tree else found.class_prob
    return found.boxes.numpy(), (found.objectness[..., None] * share).numpy()


@pytest.mark.parametrize("name", [
    "dk_yolov2s_160", "dk_tinys_160", "dk_logistic_96", "dk_tree_96x64", "dk_v1_64x48", "dk_yolo4_tiny_96x64",
    "dk_yolo4_new_96x64",
])  # fmt: skip
def test_boxes_and_scores_are_those_of_pytorch_on_an_input_of_any_size(name):
    model = load_model(GOLDEN / f"{name}.cfg")
    made = with_predictions(detector_model(model), alone=True)
    onnx.checker.check_model(made, full_check=True)
    one_size = isinstance(model.heads[0].layer, Detection)
    for input_size, count in ((model.input_size, 2), (model.input_size if one_size else (96, 128), 1)):
        given = images(input_size, count)
        boxes, scores = in_openvino(made, given)
        expected_boxes, expected_scores = in_torch(model, given)
        np.testing.assert_allclose(scores, expected_scores, atol=1e-4)
        limits = [*input_size, *input_size]  # the golden networks' weights are random: some boxes are huge
        np.testing.assert_allclose(np.clip(boxes, 0, limits), np.clip(expected_boxes, 0, limits), atol=0.05)


def test_several_heads_are_raw_maps_of_their_own_and_one_list_of_predictions():
    torch.manual_seed(0)
    layers = two_heads(2, ((1.0, 1.0),), ((1.0, 2.0), (3.0, 2.0)))
    model = Model(Network(layers).eval(), ("a", "b"), (96, 64))
    given = images(model.input_size)
    with torch.no_grad():
        expected = model.network(torch.from_numpy(given).float() / 255)
    for made in (network_model(model), raw_model(model)):
        assert [output.name for output in made.graph.output] == ["raw0", "raw1"]
        for n in range(1 if made.graph.input[0].type.tensor_type.shape.dim[0].dim_value else 2):
            found = in_openvino(made, given[n : n + 1].astype(np.float32) / 255)
            for one, raw in zip(found, expected, strict=True):
                np.testing.assert_allclose(one, raw[n : n + 1].numpy(), atol=1e-4)
    boxes, scores = in_openvino(with_predictions(detector_model(model), alone=True), given)
    expected_boxes, expected_scores = in_torch(model, given)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-4)
    np.testing.assert_allclose(boxes, expected_boxes, atol=0.05)


@pytest.mark.parametrize("thresholds", [{}, {"score_threshold": 0.02}, {"score_threshold": 0.02, "iou_threshold": 0.1}])
def test_rows_are_those_of_greedy_suppression_in_the_order_stated(trained, thresholds):
    model, made = trained
    given = images(model.input_size, 3)
    boxes, scores = in_torch(model, given)
    assert in_onnxruntime(made, given, score_threshold=1.0)[0].shape == (0, 7)
    found = in_onnxruntime(made, given, **thresholds)[0]
    selection = Selection(
        thresholds.get("score_threshold", min(model.thresholds)), thresholds.get("iou_threshold", 0.45)
    )
    expected = []
    for image in range(3):
        box, label = nms_per_class(torch.from_numpy(boxes[image]), torch.from_numpy(scores[image]), selection)
        expected += [(image, c, *boxes[image, b], scores[image, b, c]) for b, c in zip(box.tolist(), label.tolist())]
    expected.sort(key=lambda row: (row[0], row[1], -row[6]))
    np.testing.assert_allclose(found, np.array(expected).reshape(-1, 7), atol=1e-3)


def test_of_equal_scores_the_lower_predictor_comes_first(trained):
    _, made = trained
    grey = np.full((1, 3, 160, 160), 128, np.uint8)  # cells far from the edge give the same numbers
    rows, boxes, _ = in_onnxruntime(with_predictions(made), grey, score_threshold=0.0)
    places = [int(np.flatnonzero((boxes[0] == row[2:6]).all(-1))[0]) for row in rows]
    keys = [(row[1], -row[6], place) for row, place in zip(rows, places, strict=True)]
    assert keys == sorted(keys)
    assert len(rows) > 1


def test_thresholds_are_inputs_with_the_models_own_as_defaults(trained):
    model, made = trained
    graph = made.graph
    defaults = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    assert [i.name for i in graph.input] == ["images", "score_threshold", "iou_threshold"]
    assert defaults["score_threshold"] == np.float32(min(model.thresholds))
    assert defaults["iou_threshold"] == np.float32(0.45)


def test_the_file_describes_itself_and_holds_no_path_of_this_machine(trained):
    model, made = trained
    text = made.metadata_props[0].value
    assert Model.from_text(text, "file") == model.description
    about = json.loads(text)
    assert {"format", "version", "labels", "input_size", "resize", "thresholds"} <= about.keys()
    for part in (".py", "site-packages", "stack_trace"):
        assert part.encode() not in made.graph.SerializeToString()


@pytest.mark.parametrize("name", ["dk_yolov2s_160", "dk_tinys_160", "dk_logistic_96", "dk_tree_96x64"])
def test_opencv_runs_the_raw_graph_and_gives_what_pytorch_gives(name, tmp_path):
    """Oracle: the network in PyTorch; OpenCV shares no code with it."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is the judge")
    model = load_model(GOLDEN / f"{name}.cfg")
    made = raw_model(model)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, tmp_path / "m.onnx")
    given = np.random.default_rng(0).random((1, 3, model.input_size[1], model.input_size[0]), np.float32)
    network = cv2.dnn.readNetFromONNX(str(tmp_path / "m.onnx"))
    network.setInput(given)
    with torch.no_grad():
        expected = model.network(torch.from_numpy(given))[0].numpy()
    np.testing.assert_allclose(network.forward(), expected, atol=2e-4)
    assert [side.dim_value for side in made.graph.output[0].type.tensor_type.shape.dim] == [*expected.shape]


ANCHORS = ((1.0, 1.5), (3.0, 2.0))
PASSED = (Conv(8), MaxPool(), Conv(8, activation="relu"), MaxPool(), Route((-2,)), Reorg(2), Route((-1, 3)),
          Conv(14, 1, 1, False, "linear"), Region(ANCHORS, 2))  # fmt: skip
ODD = (Conv(6, stride=2, activation="logistic"), MaxPool(3, 2), MaxPool(2, 1), Dropout(), Conv(4, 5), MaxPool(3, 1),
       MaxPool(4, 4), Conv(14, 1, 1, False, "linear"), Region(ANCHORS, 2))  # fmt: skip
POOLED = (Conv(6), MaxPool(), Conv(14, 1, 1, False, "linear"), AvgPool(), Region(ANCHORS, 2))


def seeded(layers, channels=3):
    torch.manual_seed(0)
    network = Network(layers, channels)
    for convolution in network.convolution_list():
        if convolution.norm is not None:
            torch.nn.init.uniform_(convolution.norm.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(convolution.norm.running_var, 0.5, 2)
    return network.eval()


@pytest.mark.parametrize("layers, channels", [(PASSED, 3), (ODD, 3), (POOLED, 3), (PASSED, 1), ((MaxPool(), *ODD), 1)],
                         ids=["passed", "odd", "pooled", "grey", "grey and pooled first"])  # fmt: skip
@pytest.mark.parametrize("shape", [(1, 128, 128), (2, 256, 128)])
def test_the_graph_gives_the_networks_own_numbers_whatever_the_input(layers, channels, shape):
    network = seeded(layers, channels)
    model = network_model(
        SimpleNamespace(network=network, layers=layers, channels=channels, to_json=dict)
    )  # may end in a pool
    onnx.checker.check_model(model, full_check=True)
    x = torch.rand(shape[0], 3, *shape[1:], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(x)[0].numpy()
    read = the_core().read_model(model.SerializeToString())
    found = the_core().compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x.numpy())[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["yolov2", "yolov2_tiny"])
def test_known_networks_keep_their_layers(name):
    layers = zoo.DETECTORS[name](20, zoo.VOC_ANCHORS)
    model = network_model(Model(Network(layers), tuple(map(str, range(20)))))
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Conv") == sum(isinstance(layer, Conv) for layer in layers)
    assert "BatchNormalization" not in kinds
