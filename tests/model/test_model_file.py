"""Tests of lookonce.model.model_file."""

import json
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from conftest import CASES, GOLDEN
from lookonce import __version__
from lookonce.errors import UserError
from lookonce.model.model_file import FORMAT, Model, ModelFileError, load_model, not_ours, save_model
from lookonce.model.network import DARKNET, Network
from sets import nano

ANCHORS = ((1.0, 2.0), (3.123456789, 0.5))


def model(**given):
    network = Network(nano(2, ANCHORS)).eval()
    for convolution in network.convolution_list()[:2]:
        convolution.norm.sigma = DARKNET
    return Model(network, ("é a", "b"), (96, 64), "stretch", (0.25, 0.5), 123, {"recipe": {"loss": "region"}}, **given)


def test_a_model_comes_back_whole(tmp_path):
    given = model()
    save_model(given, tmp_path / "m.safetensors")
    found = load_model(tmp_path / "m.safetensors")
    assert [getattr(found, n) for n in ("labels", "input_size", "resize", "thresholds", "seen", "training")] == [
        ("é a", "b"), (96, 64), "stretch", (0.25, 0.5), 123, {"recipe": {"loss": "region"}}]  # fmt: skip
    assert found.heads == given.heads
    x = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found.network(x)[0], given.network(x)[0])
    assert not found.network.training


def test_a_run_folder_stands_for_its_model(run):
    assert load_model(run).labels == load_model(run / "model.safetensors").labels


def test_what_is_no_model_file_is_told(tmp_path):
    with pytest.raises(UserError, match="no such model file"):
        load_model(tmp_path / "m.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(UserError, match="not a model file"):
        load_model(tmp_path / "text.safetensors")
    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="without lookonce's description"):
        load_model(tmp_path / "other.safetensors")


@pytest.mark.parametrize("change, message", [
    ({"format": 99}, "format 99; this version of lookonce reads format 1"),
    ({"resize": "crop"}, "Invalid enum value 'crop' - at .*resize"),
    ({"labels": ["a"]}, "1 labels for a network of 2 classes"),
    ({"cfg": "[net]\n[rnn]"}, "section .rnn."),
    ({"sigma": []}, "does not fit its weights"),
    ({"thresholds": None}, "its description cannot be read .Expected `array`, got `null` - at .*thresholds"),
])  # fmt: skip
def test_a_description_that_does_not_hold_is_told(tmp_path, change, message):
    save_model(model(), tmp_path / "m.safetensors")
    with safetensors.safe_open(tmp_path / "m.safetensors", "pt") as file:
        about = json.loads(file.metadata()["lookonce"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    changed = {"lookonce": json.dumps({**about, **change})}
    safetensors.torch.save_file(tensors, tmp_path / "m.safetensors", changed)
    with pytest.raises(UserError, match=message) as error:
        load_model(tmp_path / "m.safetensors")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", sorted((CASES / "fuzz" / "model_header").iterdir()), ids=lambda file: file.stem)
def test_found_inputs_of_the_fuzz_test_are_told(file, tmp_path):
    save_model(model(), tmp_path / "m.safetensors")
    tensors = safetensors.torch.load_file(tmp_path / "m.safetensors")
    safetensors.torch.save_file(tensors, tmp_path / "m.safetensors", {"lookonce": file.read_text()})
    with pytest.raises(UserError, match=r"m.safetensors:") as error:
        load_model(tmp_path / "m.safetensors")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("change", ["filters=96", "filters=9000"])
def test_weights_of_other_shapes_are_refused_before_memory_is_taken(change, tmp_path):
    save_model(model(), tmp_path / "m.safetensors")
    with safetensors.safe_open(tmp_path / "m.safetensors", "pt") as file:
        about = file.metadata()["lookonce"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    safetensors.torch.save_file(tensors, tmp_path / "m.safetensors", {"lookonce": about.replace("filters=48", change)})
    with pytest.raises(UserError, match=r"does not fit its weights \(convolutions"):
        load_model(tmp_path / "m.safetensors")
    tensors["convolutions.0.norm.bias"] = tensors["convolutions.0.norm.bias"].double()
    safetensors.torch.save_file(tensors, tmp_path / "m.safetensors", {"lookonce": about})
    with pytest.raises(UserError, match=r"does not fit its weights \(convolutions.0.norm.bias\)"):
        load_model(tmp_path / "m.safetensors")


def test_a_cut_file_is_told(tmp_path):
    save_model(model(), tmp_path / "m.safetensors")
    content = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="not a model file"):
        load_model(tmp_path / "m.safetensors")


def test_a_full_disk_leaves_the_old_model(tmp_path, monkeypatch):
    from pathlib import Path

    save_model(model(), tmp_path / "m.safetensors")
    before = (tmp_path / "m.safetensors").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="cannot be written: No space left"):
        save_model(model(), tmp_path / "m.safetensors")
    monkeypatch.undo()
    assert (tmp_path / "m.safetensors").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_thresholds_go_by_class():
    with pytest.raises(UserError, match="1 thresholds for 2 classes"):
        Model(Network(nano(2, ANCHORS)), ("a", "b"), thresholds=(0.1,))


def test_a_checkpoint_is_no_model_and_its_runs_model_is_named(run, tmp_path):
    with pytest.raises(UserError, match=r"best\.ckpt: is a training checkpoint; give the model of its run: .*tensors"):
        load_model(run / "checkpoints" / "best.ckpt")
    (tmp_path / "checkpoints").mkdir()
    for place in (tmp_path / "checkpoints" / "last.ckpt", tmp_path):
        with pytest.raises(UserError, match=r"its run writes .*model\.safetensors at the first validation"):
            load_model(place)


@pytest.fixture(scope="module", params=["dk_yolov2s_160", "dk_tree_96x64"])
def about(request):
    return replace(load_model(GOLDEN / f"{request.param}.cfg").description, training={"recipe": {"loss": "region"}})


def test_it_comes_back_from_json_as_it_was(about):
    text = json.dumps(about.to_json())
    assert Model.from_text(text, "m") == about
    assert json.loads(text)["version"] == __version__
    deep = replace(about, pixel_range=(51_000.0, 52_000.0), resize="letterbox_antialias")
    assert Model.from_text(json.dumps(deep.to_json()), "m") == deep
    before = {name: value for name, value in about.to_json().items() if name != "pixel_range"}
    assert Model.from_text(json.dumps(before), "m") == about  # a file from before there was one


@pytest.mark.parametrize("change, message", [
    ({"format": FORMAT + 1}, f"m: format {FORMAT + 1}; this version of lookonce reads format {FORMAT}; use the"),
    ({"resize": "crop"}, "m: its description cannot be read (Invalid enum value 'crop' - at `$.resize`)"),
    ({"labels": ["a"]}, "1 labels for a network of"),
    ({"thresholds": [0.5]}, "1 thresholds for"),
    ({"pixel_range": [5, 1]}, "m: pixel_range [5.0, 1.0]; expected two increasing numbers"),
    ({"pixel_range": ["a", 1]}, "at `$.pixel_range[0]`"), ({"pixel_range": 3}, "at `$.pixel_range`"),
    ({"pixel_range": [0, float("inf")]}, "m: pixel_range"), ({"input_size": None}, "m: its description cannot be read"),
    ({"cfg": "[net]\n[warp]\n"}, "m:2"),
])  # fmt: skip
def test_what_does_not_hold_together_is_told(about, change, message):
    with pytest.raises(UserError) as told:
        Model.from_text(json.dumps({**about.to_json(), **change}), "m")
    assert message in str(told.value)


@pytest.mark.parametrize("change", [
    {"cfg": []}, {"cfg": None}, {"input_size": [0, 0]}, {"input_size": [96]}, {"input_size": [160, float("inf")]},
    {"input_size": [160, 1e9]}, {"input_size": [160, True]}, {"input_size": [160, -32]}, {"input_size": [2**40, 2**40]},
    {"seen": float("inf")}, {"seen": -1}, {"seen": 2**70}, {"labels": [1, 2]}, {"labels": "ab"},
    {"thresholds": [float("nan")] * 2}, {"thresholds": {}}, {"training": [1]}, {"training": {"recipe": 5}},
    {"tree": 5}, {"tree": {"parents": [None]}}, {"resize": []}, {"format": "a\nb"}, {"format": None},
    {"training": {"a": json.loads("[" * 900 + "]" * 900)}}, {"input_size": [10**9, 10**9]}, {"input_size": [-32, 32]},
])  # fmt: skip
def test_values_of_another_kind_are_one_line(about, change):
    with pytest.raises(UserError) as told:
        Model.from_text(json.dumps({**about.to_json(), **change}), "m")
    assert str(told.value).startswith("m: ")
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", "[" * 100_000, '{"seen": ' + "9" * 5000 + "}"])
def test_what_is_no_description_is_one_line(text):
    with pytest.raises(ModelFileError, match="m: its description cannot be read") as told:
        Model.from_text(text, "m")
    assert "\n" not in str(told.value)


def test_a_foreign_file_is_told_what_to_do():
    assert "write it with lookonce export" in str(not_ours("m.onnx", "an ONNX file"))


@pytest.mark.parametrize("name, part", [
    ("photo.jpg", "is an image; the model comes first, as in lookonce detect coco .*photo.jpg"),
    ("best.pt", "is a file of PyTorch, which lookonce does not read"),
    ("best.h5", "is a file of Keras, which lookonce does not read"),
])  # fmt: skip
def test_files_of_other_kinds_are_named(tmp_path, name, part):
    with pytest.raises(UserError, match=part):
        load_model(tmp_path / name)
