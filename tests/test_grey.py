"""Networks of channels=1 work from reading to training, with every command and on every backend."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import CASES
from lookonce import Detector, Network, evaluate, export, save_darknet
from lookonce.commands.prune import prune
from lookonce.model.darknet.cfg import read_cfg
from lookonce.model.model_file import load_model, save_model
from lookonce.training.pretrained import start_from

CASE = CASES / "57-channels-1"
BACKENDS = ("torch", "openvino", "onnxruntime")


@pytest.fixture(scope="module")
def image(squares):
    return np.array(Image.open(squares / "JPEGImages" / "test000.png"))


def test_a_foreign_grey_detector_runs_the_same_on_every_backend(image, tmp_path):
    shutil.copy(CASE / "g.cfg", tmp_path)
    foreign = read_cfg((CASE / "g.cfg").read_text())
    save_darknet(Network(foreign.layers, foreign.channels), tmp_path / "n.cfg", tmp_path / "g.weights")
    assert load_model(tmp_path / "g.cfg").network.channels == 1
    raws = {}
    for backend in BACKENDS:
        detector = Detector(tmp_path / "g.cfg", backend, precision="fp32", threshold=0.01)
        detector(image)
        raws[backend] = detector.backend(np.moveaxis(image[None, :64, :64], -1, 1).astype(np.float32) / 255)
    for found in raws.values():
        np.testing.assert_allclose(found, raws["torch"], atol=1e-4)


def test_a_grey_run_learns_and_its_model_knows_its_channels(grey_run, squares):
    model = load_model(grey_run)
    assert (model.network.channels, model.description.channels, model.network.stride) == (1, 1, 16)
    assert read_cfg((grey_run / "network.cfg").read_text()).channels == 1
    assert evaluate(grey_run, squares, split="train").mean_ap > 0.1


def test_every_backend_finds_the_same(grey_run, image):
    found = [Detector(grey_run, backend, precision="fp32", threshold=0.05)(image) for backend in BACKENDS]
    assert len(found[0]) > 0
    for other in found[1:]:
        np.testing.assert_allclose(other.boxes, found[0].boxes, atol=0.05)


def test_colour_makes_no_difference_to_a_grey_detector(grey_run, image):
    luma = (image.astype(int) @ [77, 150, 29] / 256).astype(np.uint8)
    detector = Detector(grey_run, "torch", precision="fp32", threshold=0.05)
    colour, grey = detector(image), detector(luma)
    assert len(colour) == len(grey) > 0
    np.testing.assert_allclose(colour.boxes, grey.boxes, atol=1)


@pytest.mark.parametrize("format", ["darknet", "onnx", "openvino"])
def test_exports_find_the_same(grey_run, image, format, tmp_path):
    file = export(grey_run, format, out=tmp_path / "m").files[0]
    expected = Detector(grey_run, "torch", precision="fp32", threshold=0.05)(image)
    found = Detector(file, precision="fp32", threshold=0.05)(image)
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.05)


def test_int8_and_pruning_take_it(grey_run, squares, tmp_path):
    pytest.importorskip("nncf", reason="the extra int8 is not installed")
    file = export(grey_run, "openvino", int8=True, max_drop=1, data=squares, out=tmp_path / "m").files[0]
    assert "int8" in str(Detector(file).backend.info)
    pruned = prune(grey_run, squares, ratio=0.2, steps=6, max_drop=0.99, out=tmp_path, name="less")
    assert load_model(tmp_path / "less").network.channels == 1
    assert "million parameters" in str(pruned)


def test_a_grey_model_file_comes_back_whole(grey_run, tmp_path):
    model = load_model(grey_run)
    save_model(replace(model, seen=7), tmp_path / "m.safetensors")
    again = load_model(tmp_path / "m.safetensors")
    x = torch.rand(1, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.network(x)[0], model.network(x)[0])
    assert again.description.channels == 1


def test_fine_tuning_takes_rgb_weights_but_for_the_first_layer(run):
    trained = load_model(run)
    network = Network(trained.network.layers, channels=1)
    rows = start_from(network, run, 0, trained.input_size)
    assert rows[0].status == "random: the file has 8 x 3 x 3 x 3"
    assert rows[1].status == "loaded"
