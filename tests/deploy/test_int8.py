"""Tests of lookonce.deploy.int8. Oracle: the float model's mAP and numbers."""

import pickle
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lookonce import Detector, evaluate, export
from lookonce.data.read import read_splits
from lookonce.deploy.int8 import DropError, _Judge, quantise, quantise_quickly
from lookonce.errors import ConfigError, UserError
from lookonce.inference.backends.openvino import the_core
from lookonce.model.model_file import load_model

pytest.importorskip("nncf", reason="the extra int8 is not installed")


@pytest.fixture(scope="module")
def quantised():
    """What NNCF made in the fixture int8: one network."""
    return []


@pytest.fixture(scope="module")
def int8(run, squares, quantised, tmp_path_factory):
    import nncf

    real = nncf.quantize_with_accuracy_control

    def quantise(*args, **options):
        made = real(*args, **options)
        quantised.append(made.clone())
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nncf, "quantize_with_accuracy_control", quantise)
        out = tmp_path_factory.mktemp("int8") / "m"
        return export(run, "openvino", int8=True, max_drop=0.1, data=squares, out=out)


@pytest.fixture
def quantised_once(int8, quantised, monkeypatch):
    """Quantising gives the network of the fixture int8 again, in no time."""
    monkeypatch.setattr("nncf.quantize_with_accuracy_control", lambda *_, **__: quantised[0].clone())


def test_convolutions_are_eight_bits_and_the_file_is_a_detector(int8, run, squares):
    assert "of the train split" in int8.accuracy
    assert "val: mAP" in int8.accuracy
    assert ", fp32 -> int8, cpu)" in int8.accuracy
    assert "by mAP" in int8.verification
    read = the_core().read_model(int8.files[0])
    weights = [op for op in read.get_ops() if op.get_type_name() == "Constant" and op.get_element_type().size == 1]
    assert len(weights) >= 2
    detector = Detector(int8.files[0])
    assert detector.backend.info.precision == "int8"
    assert detector.thresholds.tolist() == Detector(run, "torch").thresholds.tolist()
    before, after = (evaluate(model, squares, split="test").mean_ap for model in (run, int8.files[0]))
    assert abs(before - after) < 0.1


def test_an_export_beside_its_model_is_its_int8_form(int8, run, squares, tmp_path, processor_with_int8):
    model = Path(shutil.copy(run / "model.safetensors", tmp_path / "m.safetensors"))
    for file in int8.files:
        shutil.copy(file, tmp_path / f"m-int8{file.suffix}")
    assert Detector(model).backend.info.precision == "int8"
    assert re.fullmatch(r"mAP 0\.\d{4} (lower|higher) on 8 validation images", Detector(model).backend.info.cost)
    assert Detector(int8.files[0]).backend.info.cost == Detector(model).backend.info.cost
    again = pickle.loads(pickle.dumps(Detector(model).backend))
    assert again.info == Detector(model).backend.info


def test_a_model_that_finds_nothing_is_refused(run, squares, monkeypatch, tmp_path):
    model = load_model(run)
    last = model.network.convolution_list()[-1].conv
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(-9.0)
    with pytest.raises(UserError, match=r"int8: the model scores mAP 0 on the 8 validation images .* train it longer"):
        quantise(model, squares)


def test_the_first_and_last_convolutions_go_back_to_floats_if_all_in_int8_lose_too_much(run, squares, monkeypatch):
    drops = iter((0.2, 0.001))
    real = _Judge.compared

    def compared(self, *given):
        found = real(self, *given)
        compared = replace(found.comparison, before=0.9, after=0.9 - next(drops))
        return replace(found, comparison=compared)

    monkeypatch.setattr(_Judge, "compared", compared)
    train, val = read_splits(squares, ["train", "val"])
    found = quantise_quickly(load_model(run), train, val)
    assert len(found.kept) == 2
    assert found.convolutions > 3
    drops = iter((0.2,))
    with pytest.raises(
        DropError, match=r"int8 loses more than 0\.005 on the validation images \(mAP 0\.9000 -> 0\.7000"
    ):
        quantise_quickly(load_model(run), train, val, until=0.0)


def test_int8_is_asked_of_openvino_and_of_a_file(run):
    for given in ({"backend": "torch"}, {"backend": "onnxruntime"}):
        with pytest.raises(ConfigError, match="precision: int8 runs on OpenVINO, from a file"):
            Detector(run, precision="int8", **given)
    with pytest.raises(ConfigError, match="precision: int8 runs on OpenVINO, from a file"):
        Detector(load_model(run), "openvino", precision="int8")


def test_a_file_that_is_not_int8_does_not_run_as_int8(exported):
    with pytest.raises(ConfigError, match=r"m\.xml: its network is not int8"):
        Detector(exported / "m.xml", precision="int8")


def test_int8_is_not_the_float_model_under_another_name(int8, run):
    inputs = np.random.default_rng(0).random((1, 3, 96, 96), np.float32)
    floats = Detector(run, "openvino", precision="fp32").backend(inputs)[0]
    rounded = Detector(int8.files[0]).backend(inputs)[0]
    assert 1e-4 < np.abs(floats - rounded).max() < np.abs(floats).max()


def test_int8_can_be_raw(quantised_once, run, squares, tmp_path):
    file = export(run, "openvino", int8=True, raw=True, max_drop=0.5, data=squares, out=tmp_path / "m").files[0]
    detector = Detector(file)
    assert detector.backend.info.precision == "int8"
    assert detector(squares / "JPEGImages" / "test000.png").names


def test_what_loses_too_much_is_not_written(quantised_once, run, squares, tmp_path, monkeypatch):
    class Lost:
        before, after, drop = 0.9, 0.7, 0.2

    monkeypatch.setattr("lookonce.deploy.int8.compare_detections", lambda *_: Lost())
    with pytest.raises(DropError, match=r"more than --max-drop 0.005 on the val images"):
        export(run, "openvino", int8=True, data=squares, out=tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_which_nothing_stays_in_8_bits_is_not_written(quantised_once, run, squares, tmp_path, monkeypatch):
    monkeypatch.setattr("lookonce.deploy.int8._is_quantised", lambda _: False)
    with pytest.raises(DropError, match=r"\(all convolutions went back to float32\), and nothing was written"):
        export(run, "openvino", int8=True, max_drop=1.0, data=squares, out=tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options, message", [
    ({"int8": True}, "--int8: no images to calibrate on; give --data"),
    ({"int8": True, "half": True, "data": "."}, "--half: int8 has 8 bits already"),
    ({"max_drop": 0.01}, "--max-drop: without --int8"),
    ({"int8": True, "max_drop": 2.0, "data": "."}, "max_drop: 2.0; expected"),
])  # fmt: skip
def test_options_that_do_not_go_together_are_told(run, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        export(run, "openvino", out=tmp_path / "m", **options)


def test_int8_is_of_openvino(run, tmp_path):
    with pytest.raises(ConfigError, match="--int8: not an option of onnx"):
        export(run, "onnx", int8=True, data=tmp_path, out=tmp_path / "m")


def test_images_without_labels_do_not_calibrate(run, squares, tmp_path):
    shutil.copy(squares / "JPEGImages" / "test000.png", tmp_path / "a.png")
    with pytest.raises(UserError, match=str(tmp_path)):
        export(run, "openvino", int8=True, data=tmp_path, out=tmp_path / "m")


@pytest.fixture
def broken(squares, tmp_path):
    """The squares with one train image that holds nothing."""
    data = shutil.copytree(squares, tmp_path / "broken")
    (data / "JPEGImages" / "train000.png").write_bytes(b"")
    return data


def test_an_image_that_cannot_be_read_neither_calibrates_nor_stops(run, broken, tmp_path, caplog):
    made = export(run, "openvino", int8=True, max_drop=0.1, data=broken, out=tmp_path / "m")
    assert "calibrated on 23 images" in made.accuracy
    assert "train: 1 of 24 images cannot be read and are left out" in caplog.text


@pytest.mark.parametrize("split, images", [("train", 24), ("val", 8)])
def test_where_no_image_can_be_read_int8_says_so(run, broken, tmp_path, split, images):
    for path in (broken / "JPEGImages").glob(f"{split}*.png"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=f"{split}: none of its {images} images can be read"):
        export(run, "openvino", int8=True, data=broken, out=tmp_path / "m")
    assert not list(tmp_path.glob("m*"))


def test_a_missing_package_is_named(run, squares, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ConfigError, match=r"pip install 'lookonce\[int8\]'"):
        export(run, "openvino", int8=True, data=squares, out=tmp_path / "m")


def test_a_model_with_a_tree_is_judged_in_the_classes_of_the_tree(tree_run, squares, monkeypatch):
    judged = []

    def unchanged(network, calibration, validation, judge, **_):
        fixed = network.clone()
        fixed.reshape([1, 3, 96, 96])
        judged.append(judge(the_core().compile_model(fixed, "CPU"), range(8))[0])
        return network.clone()

    monkeypatch.setattr("nncf.quantize_with_accuracy_control", unchanged)
    monkeypatch.setattr("lookonce.deploy.int8._is_quantised", lambda _: True)
    found = quantise(load_model(tree_run), squares)
    assert found.comparison.drop == 0
    assert judged[0] == pytest.approx(evaluate(tree_run, squares, split="val", backend="torch").mean_ap, abs=1e-3)
    assert judged[0] > 0.3
