"""Tests of lookonce.inference.backends.open."""

import copy
import html
import os
import pickle
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch

import damage
from conftest import GOLDEN
from lookonce import Detector
from lookonce.cli import main
from lookonce.data.images import load_rgb
from lookonce.errors import UserError
from lookonce.inference.backends.open import open_backend
from lookonce.inference.backends.openvino import the_core
from lookonce.inference.backends.settings import Settings
from lookonce.model.model_file import load_model, save_model
from lookonce.model.onnx_graph import network_part, read_description, read_onnx

DAMAGED = Path(__file__).parents[2] / "cases" / "onnx-damage"
INSTALLED = ["torch", "openvino"]
try:
    import onnxruntime  # noqa: F401

    INSTALLED.append("onnxruntime")
except ImportError:
    pass


@pytest.fixture
def forms(tmp_path, monkeypatch):
    """The converted forms in a cache of this test's own."""
    monkeypatch.setenv("LOOKONCE_CACHE", str(tmp_path / "cache"))
    return lambda: sorted(file.name for file in (tmp_path / "cache" / "forms").glob("*/*") if file.suffix != ".json")


@pytest.fixture
def model(run, tmp_path):
    """A model file of one's own."""
    (tmp_path / "m").mkdir()
    return Path(shutil.copy(run / "model.safetensors", tmp_path / "m" / "m.safetensors"))


def test_every_runtime_and_every_file_gives_the_same_detections(run, model, exported, squares):
    images = [load_rgb(squares / "JPEGImages" / f"test00{n}.png") for n in range(4)]
    images.append(np.ascontiguousarray(images[0][:50]))
    expected = Detector(run, "torch", device="cpu", precision="fp32", threshold=0.05)(images)
    others = [(model, name) for name in INSTALLED] + [
        (exported / name, "auto") for name in ("m.onnx", "m.xml", "raw.onnx")
    ]
    others += [(exported / "m.onnx", "onnxruntime")] if "onnxruntime" in INSTALLED else []
    assert sum(map(len, expected)) > 5
    for file, name in others:
        found = Detector(file, name, device="cpu", precision="fp32", threshold=0.05)(images)
        for one, right in zip(found, expected, strict=True):
            assert one.names == right.names, (file, name)
            np.testing.assert_allclose(one.boxes, right.boxes, atol=0.05)
            np.testing.assert_allclose(one.scores, right.scores, atol=1e-4)


def test_a_model_file_is_converted_once_and_anew_when_it_changes(model, forms, caplog):
    caplog.set_level("INFO", "lookonce")
    for _ in range(2):
        assert str(Detector(model, "openvino").backend.info) in caplog.text
    assert caplog.text.count("converted for openvino; this is done once") == 1
    assert forms() == ["network.bin", "network.xml"]
    before = load_model(model)
    other = model.with_name("m-2.safetensors")
    save_model(type(before)(before.network, ("x", "y"), before.input_size), other)
    assert open_backend(other, Settings("openvino")).about.labels == ("x", "y")
    assert open_backend(model, Settings("openvino")).about.labels == before.labels
    assert forms() == ["network.bin", "network.bin", "network.xml", "network.xml"]
    assert caplog.text.count("this is done once") == 2
    assert sorted(file.name for file in model.parent.iterdir()) == ["m-2.safetensors", "m.safetensors"]


@pytest.mark.parametrize("name", INSTALLED[1:])
def test_converted_forms_that_others_left_beside_a_model_are_not_used(model, forms, name):
    """A model comes in a folder with other files; only its own content says what it computes."""
    x = np.random.default_rng(0).random((1, 3, 96, 96), np.float32)
    expected = open_backend(model, Settings("torch", "cpu", "fp32"))(x)
    genuine = load_model(model)
    with torch.no_grad():
        genuine.network.head_convolutions()[0].bias.fill_(7.0)
    save_model(genuine, model.with_name("planted.safetensors"))
    planted = open_backend(model.with_name("planted.safetensors"), Settings(name, "cpu", "fp32"))(x)
    assert abs(planted[0] - expected[0]).max() > 1
    made = sorted((Path(os.environ["LOOKONCE_CACHE"]) / "forms").glob("*/network.*"))
    for file in made:
        for stem in (".lookonce-m", ".lookonce-openvino", "m", "network", f".{model.name}"):
            shutil.copy(file, model.with_name(stem + file.suffix))
    found = open_backend(model, Settings(name, "cpu", "fp32"))(x)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-4)
    assert len(forms()) == 2 * len(made)


@pytest.mark.parametrize("lost", ["cut", "changed", "gone", "no entry.json"])
@pytest.mark.parametrize("name", INSTALLED[1:])
def test_a_damaged_form_is_made_again(model, forms, tmp_path, caplog, name, lost):
    caplog.set_level("INFO", "lookonce")
    x = np.random.default_rng(0).random((1, 3, 96, 96), np.float32)
    expected = open_backend(model, Settings(name, "cpu"))(x)
    file = next((tmp_path / "cache").rglob("network.bin" if name == "openvino" else "network.onnx"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    if lost == "no entry.json":
        (file.parent / "entry.json").unlink()
    elif lost == "gone":
        file.unlink()
    else:
        file.write_bytes(content if lost == "changed" else content[:-7])
    np.testing.assert_array_equal(open_backend(model, Settings(name, "cpu"))(x), expected)
    assert caplog.text.count("this is done once") == 2


def test_other_versions_of_what_converts_make_another_form(model, forms, monkeypatch):
    open_backend(model, Settings("openvino"))
    monkeypatch.setattr("lookonce.inference.backends.open.version", lambda name: "0")
    open_backend(model, Settings("openvino"))
    monkeypatch.setattr("lookonce.inference.backends.open.SCHEMA", 1000)
    open_backend(model, Settings("openvino"))
    assert len(forms()) == 6


def test_a_model_that_changes_while_it_is_converted_is_kept_under_no_key(model, forms, monkeypatch):
    from lookonce.model import model_file

    before = model_file.load_model

    def overwritten(path):
        found = before(path)
        save_model(type(found)(found.network, ("x", "y"), found.input_size), path)
        return found

    monkeypatch.setattr(model_file, "load_model", overwritten)
    with pytest.raises(UserError, match=r"m\.safetensors: changed while it was read; try again"):
        open_backend(model, Settings("openvino"))
    assert forms() == []


def test_the_names_beside_darknets_files_are_part_of_what_is_kept(tmp_path):
    for ending in ("cfg", "weights"):
        shutil.copy(GOLDEN / f"dk_tinys_160.{ending}", tmp_path / f"m.{ending}")
    first = open_backend(tmp_path / "m.cfg", Settings("openvino")).about
    (tmp_path / "m.names").write_text("".join(f"thing {n}\n" for n in range(len(first.labels))))
    assert open_backend(tmp_path / "m.weights", Settings("openvino")).about.labels[0] == "thing 0"


@pytest.mark.parametrize("name", INSTALLED[1:])
def test_where_the_cache_cannot_be_written_it_stays_in_memory(model, tmp_path, monkeypatch, caplog, name):
    caplog.set_level("INFO", "lookonce")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOOKONCE_CACHE", str(tmp_path / "file" / "cache"))
    assert open_backend(model, Settings(name)).info.name == name
    assert caplog.text.count("the cache folder cannot be written") == 1


def test_where_the_disk_is_full_it_stays_in_memory(model, forms, monkeypatch, caplog):
    def full(*_):
        raise UserError("the disk is full")

    caplog.set_level("INFO", "lookonce")
    monkeypatch.setattr("lookonce.inference.backends.open.replacing", full)
    monkeypatch.setattr("lookonce.inference.backends.openvino.replacing", full)
    assert open_backend(model, Settings("openvino")).info
    assert forms() == []
    assert "the disk is full, so the converted form stays in memory" in caplog.text


@pytest.mark.parametrize("name", INSTALLED)
def test_copies_and_other_processes_find_the_same_with_the_same_thresholds(model, squares, name, monkeypatch):
    detector = Detector(os.path.relpath(model), name, device="cpu", threshold=0.05, iou_threshold=0.3)
    detector.thresholds[0] = 0.07
    image = load_rgb(squares / "JPEGImages" / "test000.png")
    expected = detector(image)
    assert len(expected) > 0
    pickled = pickle.dumps(detector)
    monkeypatch.chdir(model.parent)  # where the relative path means nothing
    for copied in (pickle.loads(pickled), copy.deepcopy(detector)):
        assert copied.thresholds.tolist() == [0.07, 0.05]
        assert copied.selection == detector.selection
        assert copied.backend.info == detector.backend.info
        assert copied(image).to_json() == expected.to_json()


@pytest.mark.parametrize("name", INSTALLED)
def test_a_detector_of_a_model_in_memory_can_be_copied(run, squares, name):
    detector = Detector(load_model(run), name, device="cpu", threshold=0.05)
    image = load_rgb(squares / "JPEGImages" / "test000.png")
    assert pickle.loads(pickle.dumps(detector))(image).to_json() == detector(image).to_json()


POOLS = """
import multiprocessing, sys
from lookonce import Detector

def detect(given):
    detector, image = given
    return detector(image).to_json()

if __name__ == "__main__":
    model, names, *images = sys.argv[1:]
    detectors = [Detector(model, name, device="cpu", threshold=0.05) for name in names.split(",")]
    questions = [(detector, image) for detector in detectors for image in images]
    expected = [detect(question) for question in questions]
    for how in set(multiprocessing.get_all_start_methods()) & {"fork", "spawn"}:
        with multiprocessing.get_context(how).Pool(1) as pool:
            if pool.map_async(detect, questions).get(100) != expected or not all(expected):
                sys.exit(how)
"""


def test_detectors_go_into_other_processes(model, squares, tmp_path):
    """In a process of its own with threads of OpenMP, which a forked process would wait for for ever."""
    (tmp_path / "pools.py").write_text(POOLS)
    images = [str(squares / "JPEGImages" / f"test00{n}.png") for n in range(2)]
    words = [sys.executable, tmp_path / "pools.py", model, ",".join(INSTALLED), *images]
    done = subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "2"}, check=False, timeout=200)
    assert done.returncode == 0


FORKED = """
import os, sys
from lookonce import Detector
model, image, *names = sys.argv[1:]
detectors = [Detector(model, name, device="cpu", threshold=0.05) for name in names]
expected = [detector(image).to_json() for detector in detectors]
child = os.fork()
if child == 0:
    if [detector(image).to_json() for detector in detectors] != expected:
        os._exit(1)
    detectors.append(Detector(model, names[0], device="cpu"))
    detectors[0](image), detectors[-1](image)
    del detectors[0]
    (os._exit if "onnxruntime" in names else sys.exit)(0)  # once imported it hangs by itself when a fork exits
idle = os.fork()
if idle == 0:
    sys.exit(0) if "onnxruntime" not in names else os._exit(0)
again = [detector(image).to_json() for detector in detectors]
sys.exit(again != expected or os.waitpid(child, 0)[1] != 0 or os.waitpid(idle, 0)[1] != 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("names", [("openvino", "torch"), ("onnxruntime",)])
def test_a_forked_process_detects_opens_another_and_ends(model, squares, names):
    if not {*names} <= {*INSTALLED}:
        pytest.skip("not installed")
    words = [sys.executable, "-c", FORKED, model, squares / "JPEGImages" / "test000.png", *names]
    done = subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "2"}, check=False, timeout=100)
    assert done.returncode == 0


@pytest.mark.parametrize("threads", [2, 8])
@pytest.mark.parametrize("throughput", [False, True])
@pytest.mark.parametrize("name", INSTALLED)
def test_each_thread_gets_the_answer_to_its_own_question(model, squares, name, threads, throughput):
    detector = Detector(model, name, device="cpu", throughput=throughput, threshold=0.01)
    images = [load_rgb(squares / "JPEGImages" / f"test00{n}.png") for n in range(8)]
    expected = [one.boxes.tolist() for one in detector(images)]
    assert len({str(boxes) for boxes in expected}) == 8

    def ask(number):  # some one by one, some several at once
        chosen = [(number + n) % 8 for n in range(1 + number % 3)]
        found = detector([images[n] for n in chosen])
        return [np.abs(np.subtract(one.boxes, expected[n])).max() for one, n in zip(found, chosen, strict=True)]

    with ThreadPoolExecutor(threads) as pool:
        apart = [one for found in pool.map(ask, range(150)) for one in found]
    assert max(apart) < 0.5


def test_commands_that_read_leave_nothing_beside_the_users_files(run, exported, squares, tmp_path, monkeypatch):
    monkeypatch.setenv("LOOKONCE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "users"
    shutil.copytree(squares, folder / "data")
    for file in (run / "model.safetensors", exported / "m.onnx", exported / "m.xml", exported / "m.bin"):
        shutil.copy(file, folder)
    monkeypatch.chdir(tmp_path)
    before = snapshot(folder)
    model, data = str(folder / "model.safetensors"), str(folder / "data")
    for words in (
        *(["detect", model, data, "--backend", name, "--out", f"by-{name}"] for name in INSTALLED),
        ["detect", str(folder / "m.onnx"), data, "--out", "found"], ["evaluate", model, data, "--bootstrap", "0"],
        ["check", data], ["benchmark", model, str(folder / "m.xml"), "--rounds", "1"],
    ):  # fmt: skip
        assert main(words) in (0, 1), words
        assert snapshot(folder) == before, words


def snapshot(folder):
    return {str(file): (file.stat().st_mtime_ns, file.stat().st_size) for file in folder.rglob("*") if file.is_file()}


def test_a_model_in_memory_runs_in_pytorch_unless_asked(run):
    model = load_model(run)
    assert open_backend(model, Settings()).info.name == "torch"
    assert open_backend(model, Settings("openvino")).info.name == "openvino"


def test_on_a_processor_openvino_is_taken(model, exported, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert open_backend(model, Settings()).info.name == "openvino"
    monkeypatch.setattr("lookonce.inference.backends.open._onnxruntime_has_cuda", lambda: False)
    assert open_backend(exported / "m.onnx", Settings()).info.name == "openvino"


def test_a_detector_on_openvino_needs_no_torch_once_converted(model, squares):
    Detector(model, "openvino")
    image = str(squares / "JPEGImages" / "test000.png")
    code = (
        "import sys; from lookonce import Detector; Detector(sys.argv[1], 'openvino')(sys.argv[2]);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(model), image], check=False).returncode == 0


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
    (folder / "nested.xml").write_text("<net>" + "<a>" * 200_000 + "</a>" * 200_000 + "</net>")
    (folder / "nested.bin").write_bytes(b"")
    edited(exported / "m.onnx", folder / "version.onnx", key=True)
    text = (exported / "m.xml").read_text()
    assert "&quot;format&quot;: 1" in text
    (folder / "version.xml").write_text(text.replace("&quot;format&quot;: 1", "&quot;format&quot;: 7"))
    shutil.copy(exported / "m.bin", folder / "version.bin")
    edited(exported / "m.onnx", folder / "opset.onnx", opset=99)
    return {
        "foreign.onnx": "an ONNX file without lookonce's description",
        "foreign.xml": "an OpenVINO file without lookonce's description",
        "text.onnx": "not an ONNX file", "text.xml": "not an OpenVINO file",
        "nested.xml": "not an OpenVINO file", "none.onnx": "no such file",
        "none.xml": "no such file", "version.onnx": "format 7; this version of lookonce reads format 1",
        "version.xml": "format 7; this version of lookonce reads format 1",
        "opset.onnx": "opset 99; this onnx package supports 1 to",
    }  # fmt: skip


def test_files_that_are_not_ours_are_one_line_and_code_2(exported, squares, tmp_path, capsys):
    image = str(squares / "JPEGImages" / "test000.png")
    for name, message in bad_files(exported, tmp_path).items():
        for backend in INSTALLED[1:] if name.endswith(".onnx") else ["openvino"]:
            words = ["detect", str(tmp_path / name), image, "--backend", backend, "--out", str(tmp_path / "d")]
            assert main(words) == 2, name
            said = capsys.readouterr().err
            assert message in said, (name, backend)
            assert name in said
            assert said.count("\n") == 1, said


def test_each_damaged_file_that_was_found_is_one_line():
    """Files that other tracebacks came from (tests/cases/onnx-damage): none of them is a detector."""
    for file in sorted(DAMAGED.iterdir()):
        for backend in INSTALLED[1:]:
            with pytest.raises(UserError, match=re.escape(str(file))) as told:
                open_backend(file, Settings(backend))
            assert str(told.value).isprintable(), file


@pytest.mark.parametrize("kind", ["bytes", "onnx", "xml"])
def test_any_damage_is_one_line_or_none(exported, tmp_path, kind):
    onnx_file, xml, numbers = (exported.joinpath(name).read_bytes() for name in ("m.onnx", "m.xml", "m.bin"))
    start, end = re.search(rb'<lookonce value="([^"]*)"', xml).span(1)
    about = html.unescape(xml[start:end].decode())
    messages = []
    for seed in range(20 if kind == "xml" else 150):
        draw = np.random.default_rng(seed)
        file = tmp_path / f"{seed}{'.xml' if kind == 'xml' else '.onnx'}"
        if kind == "xml":
            other = html.escape(damage.description_of(about, draw)).encode()
            file.write_bytes(xml[:start] + other + xml[end:] if seed % 2 else damage.bytes_of(xml, draw))
            file.with_suffix(".bin").write_bytes(numbers)
        else:
            file.write_bytes(damage.bytes_of(onnx_file, draw) if kind == "bytes" else damage.onnx_of(onnx_file, draw))
        try:
            if kind == "xml":
                Detector(file)(np.zeros((80, 90, 3), np.uint8))
            else:
                made = read_onnx(file)
                network_part(made, read_description(made, str(file)), str(file))
        except UserError as error:
            messages.append(str(error))
    assert len(messages) > 5
    assert all(map(str.isprintable, messages))


def test_a_file_of_another_network_than_its_description_is_refused(exported, run, tmp_path):
    made = onnx.load(exported / "m.onnx")
    next(node for node in made.graph.node if node.op_type == "LeakyRelu").attribute[0].f = 0.2
    onnx.save(made, tmp_path / "m.onnx")
    other = replace(load_model(run), input_size=(64, 64))
    text = (exported / "m.xml").read_text()
    input_size = ("[96, 96]", "[64, 1]")
    assert input_size[0] in text
    (tmp_path / "m.xml").write_text(text.replace(*input_size))
    shutil.copy(exported / "m.bin", tmp_path / "m.bin")
    for name in ("m.onnx", "m.xml"):
        with pytest.raises(UserError, match=f"{name}.*(not the one of its description|too small|gives|expected sides)"):
            open_backend(tmp_path / name, Settings("openvino"))
    assert open_backend(other, Settings("openvino")).about.input_size == (64, 64)


@pytest.mark.parametrize("words, message", [
    (["--backend", "onnxruntime", "--device", "abacus"], "device: 'abacus'"),
    (["--device", "cuda", "--backend", "openvino"], "device: 'cuda'; OpenVINO has"),
    (["--device", "mps"], "mps needs backend torch and a model file"),
    (["--backend", "abacus"], "abacus"),
])  # fmt: skip
def test_what_is_not_there_is_one_line_and_code_2(exported, squares, tmp_path, capsys, words, message):
    if "onnxruntime" in words and "onnxruntime" not in INSTALLED:
        pytest.skip("the extra onnx is not installed")
    image = str(squares / "JPEGImages" / "test000.png")
    assert main(["detect", str(exported / "m.onnx"), image, "--out", str(tmp_path), *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is an Apple GPU")
def test_an_apple_gpu_is_of_pytorch(model):
    with pytest.raises(UserError, match=r"device: 'mps': PyTorch "):
        Detector(model, device="mps")


def test_packages_that_are_not_installed_are_told_with_the_command(exported, squares, tmp_path, monkeypatch, capsys):
    image = str(squares / "JPEGImages" / "test000.png")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["detect", str(exported / "m.onnx"), image, "--backend", "onnxruntime", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("the package is not installed; run: pip install 'lookonce[onnx]'\n")


@pytest.mark.parametrize("backend, name", [("torch", "m.onnx"), ("torch", "m.xml"), ("onnxruntime", "m.xml")])
def test_a_runtime_that_cannot_run_such_a_file_is_told(exported, backend, name):
    with pytest.raises(UserError, match=f"backend: '{backend}' cannot run .*; take openvino"):
        open_backend(exported / name, Settings(backend))
