"""Mirrors src/lookonce/runtimes/opening.py."""

import os
import shutil
import subprocess
import sys

import numpy as np
import onnx
import openvino
import pytest

from conftest import GOLDEN
from lookonce import Detector
from lookonce.cli import main
from lookonce.data.pictures import load_rgb
from lookonce.errors import UserError
from lookonce.model_file import load_model, save_model
from lookonce.runtimes.opening import open_runtime
from lookonce.runtimes.openvino import the_core
from lookonce.runtimes.settings import Settings

INSTALLED = ["torch", "openvino"]
try:
    import onnxruntime  # noqa: F401

    INSTALLED.append("onnxruntime")
except ImportError:
    pass


def kept(folder):
    return sorted(p.suffix for p in folder.glob(".lookonce-*"))


@pytest.fixture
def model(run, tmp_path):
    """A model file of one's own, so that what is kept beside it can be seen."""
    shutil.copy(run / "model.safetensors", tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def test_every_runtime_and_every_file_gives_the_same_detections(run, model, exported, squares):
    pictures = [load_rgb(squares / "JPEGImages" / f"test00{n}.png") for n in range(4)]
    pictures.append(np.ascontiguousarray(pictures[0][:50]))
    expected = Detector(run, "torch", device="cpu", precision="fp32", threshold=0.05)(pictures)
    others = [(model, name) for name in INSTALLED] + [
        (exported / name, "auto") for name in ("m.onnx", "m.xml", "raw.onnx")
    ]
    others += [(exported / "m.onnx", "onnxruntime")] if "onnxruntime" in INSTALLED else []
    assert sum(map(len, expected)) > 5
    for file, name in others:
        found = Detector(file, name, device="cpu", precision="fp32", threshold=0.05)(pictures)
        for one, right in zip(found, expected, strict=True):
            assert one.names == right.names, (file, name)
            np.testing.assert_allclose(one.boxes, right.boxes, atol=0.05)
            np.testing.assert_allclose(one.scores, right.scores, atol=1e-4)


def test_a_model_file_is_converted_once_and_anew_when_it_changes(model, caplog):
    caplog.set_level("INFO", "lookonce")
    for _ in range(2):
        assert Detector(model, "openvino").runtime.name in caplog.text
    assert caplog.text.count("converted for OpenVINO; this is done once") == 1
    assert kept(model.parent) == [".bin", ".xml"]
    before = {p.name for p in model.parent.glob(".lookonce-*")}
    changed = load_model(model)
    save_model(type(changed)(changed.network, ("x", "y"), changed.frame), model)
    assert open_runtime(model, Settings("openvino")).about.labels == ("x", "y")
    assert kept(model.parent) == [".bin", ".xml"]
    assert not before & {p.name for p in model.parent.glob(".lookonce-*")}


def test_the_names_beside_darknets_files_are_part_of_what_is_kept(tmp_path):
    for ending in ("cfg", "weights"):
        shutil.copy(GOLDEN / f"dk_tinys_160.{ending}", tmp_path / f"m.{ending}")
    first = open_runtime(tmp_path / "m.cfg", Settings("openvino")).about
    (tmp_path / "m.names").write_text("".join(f"thing {n}\n" for n in range(len(first.labels))))
    assert open_runtime(tmp_path / "m.weights", Settings("openvino")).about.labels[0] == "thing 0"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="this user may write everywhere")
def test_where_the_folder_cannot_be_written_it_stays_in_memory(model):
    model.parent.chmod(0o500)
    try:
        assert open_runtime(model, Settings("openvino")).name
        assert kept(model.parent) == []
    finally:
        model.parent.chmod(0o700)


def test_where_nothing_can_be_written_it_stays_in_memory(model, monkeypatch):
    def full(*_):
        raise UserError("the disk is full")

    monkeypatch.setattr("lookonce.runtimes.opening._keep", full)
    assert open_runtime(model, Settings("openvino")).name
    assert kept(model.parent) == []


def test_a_model_in_memory_runs_in_pytorch_unless_asked(run):
    model = load_model(run)
    assert open_runtime(model, Settings()).name.startswith("torch")
    assert open_runtime(model, Settings("openvino")).name.startswith("openvino")


def test_on_a_processor_openvino_is_taken(model, exported, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert open_runtime(model, Settings()).name.startswith("openvino")
    monkeypatch.setattr("lookonce.runtimes.opening._onnxruntime_has_cuda", lambda: False)
    assert open_runtime(exported / "m.onnx", Settings()).name.startswith("openvino")


def test_a_detector_on_openvino_needs_no_torch_once_converted(model, squares):
    Detector(model, "openvino")
    picture = str(squares / "JPEGImages" / "test000.png")
    code = (
        "import sys; from lookonce import Detector; Detector(sys.argv[1], 'openvino')(sys.argv[2]);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(model), picture], check=False).returncode == 0


def foreign_onnx(path):
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    shape = onnx.TensorProto.FLOAT, [1, 3, 8, 8]
    sides = [[onnx.helper.make_tensor_value_info(name, *shape)] for name in ("x", "y")]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", *sides)), path)


def edited(path, out, key=None, opset=None):
    """Our file as another version might have written it."""
    made = onnx.load(path)
    if key:
        made.metadata_props[0].value = made.metadata_props[0].value.replace('"format": 1', '"format": 7')
    if opset:
        made.opset_import[0].version = opset
    onnx.save(made, out)


def bad_files(exported, folder):
    """Files that are not ours or not for us, each with what must be said of it."""
    foreign_onnx(folder / "foreign.onnx")
    openvino.save_model(the_core().read_model(folder / "foreign.onnx"), folder / "foreign.xml")
    (folder / "text.onnx").write_text("no protobuf")
    (folder / "text.xml").write_text("<net")
    (folder / "text.bin").write_bytes(b"")
    edited(exported / "m.onnx", folder / "version.onnx", key=True)
    text = (exported / "m.xml").read_text()
    assert "&quot;format&quot;: 1" in text
    (folder / "version.xml").write_text(text.replace("&quot;format&quot;: 1", "&quot;format&quot;: 7"))
    shutil.copy(exported / "m.bin", folder / "version.bin")
    edited(exported / "m.onnx", folder / "opset.onnx", opset=99)
    return {
        "foreign.onnx": "an ONNX file without lookonce's description",
        "foreign.xml": "an OpenVINO file without lookonce's description",
        "text.onnx": "not an ONNX file", "text.xml": "not an OpenVINO file", "none.onnx": "no such file",
        "none.xml": "no such file", "version.onnx": "format 7, and this lookonce reads 1",
        "version.xml": "format 7, and this lookonce reads 1", "opset.onnx": "opset 99; this onnx package knows 1 to",
    }  # fmt: skip


def test_files_that_are_not_ours_are_one_line_and_code_2(exported, squares, tmp_path, capsys):
    picture = str(squares / "JPEGImages" / "test000.png")
    for name, message in bad_files(exported, tmp_path).items():
        for runtime in INSTALLED[1:] if name.endswith(".onnx") else ["openvino"]:
            words = ["detect", str(tmp_path / name), picture, "--runtime", runtime, "--out", str(tmp_path / "d")]
            assert main(words) == 2, name
            said = capsys.readouterr().err
            assert message in said, (name, runtime)
            assert name in said
            assert said.count("\n") == 1, said


@pytest.mark.parametrize("words, message", [
    (["--runtime", "onnxruntime", "--device", "abacus"], "device: 'abacus'"),
    (["--device", "cuda", "--runtime", "openvino"], "device: 'cuda'; OpenVINO has"),
    (["--runtime", "abacus"], "abacus"),
])  # fmt: skip
def test_what_is_not_there_is_one_line_and_code_2(exported, squares, tmp_path, capsys, words, message):
    if "onnxruntime" in words and "onnxruntime" not in INSTALLED:
        pytest.skip("the extra onnx is not installed")
    picture = str(squares / "JPEGImages" / "test000.png")
    assert main(["detect", str(exported / "m.onnx"), picture, "--out", str(tmp_path), *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_packages_that_are_not_installed_are_told_with_the_command(exported, squares, tmp_path, monkeypatch, capsys):
    picture = str(squares / "JPEGImages" / "test000.png")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["detect", str(exported / "m.onnx"), picture, "--runtime", "onnxruntime", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("the package is not installed; run: pip install lookonce[onnx]\n")


@pytest.mark.parametrize("runtime, name", [("torch", "m.onnx"), ("torch", "m.xml"), ("onnxruntime", "m.xml")])
def test_a_runtime_that_cannot_run_such_a_file_is_told(exported, runtime, name):
    with pytest.raises(UserError, match=f"runtime: '{runtime}' cannot run .*; take openvino"):
        open_runtime(exported / name, Settings(runtime))
