"""Tests of lookonce.deploy.export."""

import inspect
import json
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import onnx
import pytest
import torch

from conftest import GOLDEN
from lookonce import Detector, Network, export
from lookonce.cli import main
from lookonce.data.images import load_rgb
from lookonce.deploy.export import LOWEST_SCORE, Options, write_darknet
from lookonce.deploy.verify import VerificationError
from lookonce.inference.backends.openvino import the_core
from lookonce.model import zoo
from lookonce.model.boxes import cxcywh_to_xyxy
from lookonce.model.detections import Predictions
from lookonce.model.heads import decode
from lookonce.model.model_file import Model, load_model, save_model
from lookonce.model.network import DARKNET
from lookonce.model.onnx_graph import detector_model
from lookonce.model.postprocess import Selection, nms_per_class
from lookonce.model.resize import to_input
from sets import nano

try:
    import cv2
except ImportError:
    cv2 = None
can_judge = pytest.mark.skipif(
    not hasattr(getattr(cv2, "dnn", None), "readNetFromDarknet"),
    reason="OpenCV 4 is not here (opencv-python-headless below 5: later ones read no Darknet files)",
)

THRESHOLD = LOWEST_SCORE
IOU_THRESHOLD = 0.4
"""At which OpenCV's region layer suppresses; its reader of cfg files sets no other."""


def opencv(cfg, weights, x):
    """What OpenCV's dnn finds on an input [1, 3, H, W]: boxes of 0..1 of the input, as lookonce's Predictions."""
    cv2.setNumThreads(1)
    network = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    network.setInput(x.numpy())
    region = load_model(cfg).heads[0].layer
    height, width = (side // load_model(cfg).network.stride for side in x.shape[-2:])
    rows = torch.from_numpy(network.forward()).reshape(height, width, len(region.anchors), -1)  # [H, W, A, 5+C]
    found = rows.permute(2, 0, 1, 3).reshape(1, height * width * len(region.anchors), -1)
    return Predictions(cxcywh_to_xyxy(found[..., :4]), found[..., 4], found[..., 5:])


def detections(predictions, scores):
    """{(box, class): (score, xyxy)} that stay after suppression."""
    box, label = nms_per_class(predictions.boxes[0], scores[0], Selection(THRESHOLD, IOU_THRESHOLD))
    pairs = zip(box.tolist(), label.tolist(), strict=True)
    return {pair: (float(scores[0][pair]), predictions.boxes[0, pair[0]]) for pair in pairs}


@torch.no_grad()
def agree(model, x, stem):
    """Export folded, let OpenCV detect, compare with ours; the number of detections."""
    cfg, weights, _ = write_darknet(model, stem, Options(folded=True)).files
    theirs = opencv(cfg, weights, x)
    side = torch.tensor([x.shape[-1], x.shape[-2]] * 2)
    raw = decode(model.network(x), model.network.heads)
    mine = replace(raw, boxes=raw.boxes / side)
    ours = detections(mine, mine.objectness[..., None] * mine.class_prob)
    judged = detections(theirs, theirs.class_prob)  # OpenCV's are products already
    assert ours.keys() == judged.keys()
    for pair, (score, box) in ours.items():
        assert abs(score - judged[pair][0]) < 1e-4
        torch.testing.assert_close(box, judged[pair][1], atol=1e-4, rtol=1e-4)
    return len(ours)


def random_model(layers, input_size, seed=0):
    """A model whose batch norms and head are lively enough for a few dozen detections."""
    generator = torch.Generator().manual_seed(seed)
    network = Network(layers).eval()
    for convolution in network.convolution_list():
        if convolution.norm is not None:
            convolution.norm.running_mean.normal_(0, 0.2, generator=generator)
            convolution.norm.running_var.uniform_(0.5, 2, generator=generator)
            convolution.norm.weight.data.uniform_(0.8, 1.4, generator=generator)
        gain = 2 if convolution.norm is not None else 0.3  # a calm head: exp() of its logits makes the boxes
        convolution.conv.weight.data.normal_(0, (gain / convolution.conv.weight[0].numel()) ** 0.5, generator=generator)
    return Model(network, tuple(f"c{index}" for index in range(layers[-1].classes)), input_size, seen=7)


@can_judge
@pytest.mark.parametrize("layers", [zoo.yolov2(3, zoo.VOC_ANCHORS), zoo.yolov2_tiny(3, zoo.VOC_ANCHORS)],
                         ids=["yolov2", "yolov2_tiny"])  # fmt: skip
def test_opencv_finds_the_same_with_a_network_of_the_zoo(layers, tmp_path):
    model = random_model(layers, (160, 160))
    x = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(5))
    assert agree(model, x, tmp_path / "n") > 5


@can_judge
def test_opencv_finds_the_same_with_a_trained_detector(run, squares, tmp_path):
    model = load_model(run)
    found = 0
    for name in ("test000", "test001", "test002"):
        image = load_rgb(squares / "JPEGImages" / f"{name}.png")
        x = torch.from_numpy(to_input(image, model.input_size, model.resize))[None]
        found += agree(model, x, tmp_path / "n")
    assert found >= 3


def test_a_trained_model_comes_back_from_darknets_files_whole(run, tmp_path):
    model = load_model(run)
    write_darknet(model, tmp_path / "n", Options())
    found = load_model(tmp_path / "n.cfg")
    assert (found.labels, found.input_size, found.seen) == (model.labels, model.input_size, model.seen)
    assert found.heads == model.heads
    assert all(c.norm.sigma == DARKNET for c in found.network.convolution_list() if c.norm)
    x = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(found.network(x), model.network(x), rtol=1e-4, atol=1e-4)


def test_a_tree_goes_along(tmp_path):
    model = load_model(GOLDEN / "dk_tree_96x64.cfg")
    assert model.labels[:2] == ("node00", "node01")
    save_model(model, tmp_path / "n.safetensors")
    again = load_model(tmp_path / "n.safetensors")
    assert again.tree == model.tree
    files = write_darknet(again, tmp_path / "d" / "n", Options()).files
    assert files[-1].read_text() == (GOLDEN / "dk_tree30.tree").read_text()
    assert load_model(tmp_path / "d" / "n.cfg").tree == model.tree
    assert (tmp_path / "d" / "n.weights").read_bytes()[20:] == (GOLDEN / "dk_tree_96x64.weights").read_bytes()[20:]


def test_a_resize_that_darknet_has_not_is_told(tmp_path, caplog):
    model = Model(Network(nano(2, ((1.0, 1.0),))), ("a\nb", "c"), resize="stretch")
    write_darknet(model, tmp_path / "n", Options())
    assert "this model stretches images" in caplog.text
    assert (tmp_path / "n.names").read_text() == "a\\nb\nc\n"
    assert np.frombuffer((tmp_path / "n.weights").read_bytes()[:12], "<i4").tolist() == [0, 2, 0]


def test_a_region_without_softmax_is_said_to_be_no_file_of_opencvs(tmp_path, caplog):
    model = load_model(GOLDEN / "dk_logistic_96.cfg")
    assert not model.heads[0].layer.softmax
    cfg, weights, _ = write_darknet(model, tmp_path / "m", Options()).files
    assert "m.cfg: OpenCV does not read it: its region layer judges each class alone (softmax=0)" in caplog.text
    if hasattr(getattr(cv2, "dnn", None), "readNetFromDarknet"):
        with pytest.raises(cv2.error, match="useLogistic"):
            cv2.dnn.readNetFromDarknet(str(cfg), str(weights)).forward()


def spoilt(model):
    """A graph of other numbers than the model's."""
    convolution = model.network.convolution_list()[0].conv
    before = convolution.weight.detach().clone()
    with torch.no_grad():
        convolution.weight.mul_(1.05)
        made = detector_model(model)
        convolution.weight.copy_(before)
    return made


def test_the_command_writes_one_file_and_a_table_and_says_who_reads_it(run, squares, tmp_path, capsys, caplog):
    words = ["export", str(run), "--format", "onnx", "--out", str(tmp_path / "cells"), "--data", str(squares)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0] == str(tmp_path / "cells.onnx")
    assert "largest difference" in said
    assert "for ONNX Runtime and OpenVINO; for OpenCV use --raw, or for OpenCV 4 --format darknet" in caplog.text
    assert [p.name for p in tmp_path.iterdir()] == ["cells.onnx"]
    assert [o.name for o in onnx.load(tmp_path / "cells.onnx").graph.output] == ["detections"]


def test_raw_is_the_network_alone_for_opencv_too(run, squares, tmp_path, caplog):
    """Oracle: our own raw map, from the model file."""
    caplog.set_level("INFO", "lookonce")
    found = export(run, "onnx", raw=True, out=tmp_path / "cells")
    assert "for every reader of ONNX, OpenCV too" in caplog.text
    assert "scores" in found.verification
    graph = onnx.load(found.files[0]).graph
    assert [(o.name, o.type.tensor_type.elem_type) for o in graph.output] == [("raw", onnx.TensorProto.FLOAT)]
    assert [(i.name, i.type.tensor_type.elem_type) for i in graph.input] == [("pixels", onnx.TensorProto.FLOAT)]
    cv2 = pytest.importorskip("cv2", reason="OpenCV is one of its readers")
    given = np.random.default_rng(0).random((1, 3, 96, 96), np.float32)
    network = cv2.dnn.readNetFromONNX(str(found.files[0]))
    network.setInput(given)
    expected = Detector(run, "torch", device="cpu", precision="fp32").backend(given)
    np.testing.assert_allclose(network.forward(), expected[0], atol=1e-4)


def test_a_file_that_is_not_the_same_is_not_kept_and_the_one_before_stays(run, tmp_path, monkeypatch):
    monkeypatch.setattr("lookonce.model.onnx_graph.detector_model", spoilt)
    (tmp_path / "old.onnx").write_bytes(b"before")
    with pytest.raises(VerificationError, match="does not compute what the model does"):
        export(run, "onnx", out=tmp_path / "old", overwrite=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"old.onnx": b"before"}


def test_without_onnxruntime_openvino_checks_it(run, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "OpenVINO" in export(run, "onnx", out=tmp_path / "cells").verification


@pytest.mark.parametrize("half", [False, True])
def test_the_files_describe_themselves_and_half_is_half_the_size(run, squares, tmp_path, half):
    found = export(run, "openvino", half=half, out=tmp_path / "cells", data=squares)
    assert [p.name for p in found.files] == ["cells.xml", "cells.bin"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cells.bin", "cells.xml"]
    read = the_core().read_model(found.files[0])
    about = json.loads(read.get_rt_info("lookonce").value)
    assert about["labels"] == list(load_model(run).labels)
    assert [o.get_any_name() for o in read.outputs] == ["detections"]
    weights = sum(p.numel() for p in load_model(run).network.parameters())
    assert (found.files[1].stat().st_size < 3 * weights) == half


def test_raw_is_the_network_alone(run, tmp_path):
    found = export(run, "openvino", raw=True, out=tmp_path / "cells")
    read = the_core().read_model(found.files[0])
    assert [name in o.get_names() for name, o in zip(("pixels", "raw"), (*read.inputs, *read.outputs), strict=True)]
    given = np.random.default_rng(0).random((2, 3, 96, 96), np.float32)
    mine, theirs = (Detector(model, "openvino", precision="fp32").backend(given) for model in (run, found.files[0]))
    np.testing.assert_allclose(theirs, mine, atol=1e-4)


def test_files_that_are_not_the_same_are_not_kept(run, tmp_path, monkeypatch):
    monkeypatch.setattr("lookonce.model.onnx_graph.detector_model", spoilt)
    with pytest.raises(VerificationError):
        export(run, "openvino", out=tmp_path / "cells")
    assert list(tmp_path.iterdir()) == []


def test_every_choice_is_an_option_of_the_command_with_the_same_default():
    said = inspect.signature(export).parameters
    choices = {f.name: f.default for f in fields(Options) if f.name != "digest"}  # which the command computes
    assert choices == {name: said[name].default for name in choices}


def test_an_export_to_darknet_loads_neither_onnx_nor_openvino(run, tmp_path):
    code = (
        "import sys; from lookonce import export; export(sys.argv[1], 'darknet', out=sys.argv[2]); "
        "print(sorted({'onnx', 'openvino', 'onnxruntime'} & sys.modules.keys()))"
    )
    words = [sys.executable, "-c", code, str(run), str(tmp_path / "cells")]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip() == "[]"
