"""Mirrors src/lookonce/diagnosing.py: a trained network is broken on purpose; the right check fails, no other."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from lookonce.cli import main
from lookonce.commands import diagnose as diagnosing
from lookonce.commands.diagnose import diagnose, pair_names
from lookonce.errors import UserError
from lookonce.model.detections import Detections
from lookonce.model.layers import Region
from lookonce.model.model_file import load_model, save_model
from lookonce.model.network import Network
from sets import write_squares


def broken(model, change):
    """A copy of a model with its numbers changed in place."""
    network = Network(model.network.layers)
    network.load_state_dict(model.network.state_dict())
    with torch.no_grad():
        change(network.convolution_list())
    return replace(model, loaded=network.eval())


def with_anchors(model, factor):
    *layers, region = model.network.layers
    network = Network((*layers, Region(tuple((w * factor, h * factor) for w, h in region.anchors), region.classes)))
    network.load_state_dict(model.network.state_dict())
    return replace(model, loaded=network.eval())


def nan(convolutions):
    convolutions[2].conv.weight[0, 0, 0, 0] = float("nan")


def silent(convolutions):
    convolutions[-1].conv.weight.zero_()


def variance(convolutions):
    convolutions[1].norm.running_var[3] = -1


def faint(convolutions):
    convolutions[-1].conv.bias.view(2, -1)[:, 4] -= 9


def untrained(convolutions):
    torch.manual_seed(0)
    for convolution in convolutions:
        torch.nn.init.kaiming_normal_(convolution.conv.weight)


DEFECTS = {
    "labels permuted": (lambda m: replace(m, labels=m.labels[::-1]), {"class names", "detections"},
                        "boxes right, classes permuted: "),
    "anchors in pixels": (lambda m: with_anchors(m, 32), {"anchors"}, "not in cells but in pixels, where it would be"),
    "anchors as shares": (lambda m: with_anchors(m, 1 / 3), {"anchors"}, "not in cells but in shares of the input"),
    "anchors of another set": (lambda m: with_anchors(m, 1.6), {"anchors", "detections"},
                               r"predicted boxes are 1.\d\dx too wide"),
    "another resize mode": (lambda m: replace(m, resize="stretch"), {"resize"},
                            "says stretch to 96 x 96 px and letterbox_antialias to 96 x 96 px was what it was"),
    "last layer zeroed": (lambda m: broken(m, silent), {"weights"}, r"layer 11, conv.weight: every number is 0"),
    "weights not a number": (lambda m: broken(m, nan), {"weights"}, "layer 4, conv.weight: 1 of 2,304 numbers are not"),
    "variance below zero": (lambda m: broken(m, variance), {"weights"}, "layer 2, norm.running_var: -1 to"),
    "faint": (lambda m: broken(m, faint), {"detections"}, "scores too low: .*detect with a lower --threshold"),
    "untrained": (lambda m: broken(m, untrained), {"detections"}, "nothing found: "),
}  # fmt: skip


@pytest.mark.parametrize("change, checks, said", DEFECTS.values(), ids=DEFECTS)
def test_each_defect_fails_its_check_and_no_other(change, checks, said, run, squares, tmp_path):
    save_model(change(load_model(run)), tmp_path / "model.safetensors")
    found = diagnose(tmp_path, squares, steps=0)
    assert set(found.failed) == checks
    assert any(re.search(said, check.said) for check in found.checks if check.name in checks)
    assert all("\n" not in check.said for check in found.checks)


def test_a_sound_run_passes_every_check_and_nothing_is_written(run, squares):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    found = diagnose(run, squares, steps=200)
    assert {check.state for check in found.checks} == {"pass"}
    assert any(", fp32, " in check.said for check in found.checks if check.name == "detections")
    assert len(found.checks) == 9
    assert found.exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def renamed(squares, tmp_path, names):
    """The squares under other names of classes."""
    root = tmp_path / "data"
    shutil.copytree(squares, root)
    for file in (root / "Annotations").iterdir():
        text = file.read_text()
        for old, new in names.items():
            text = text.replace(f"<name>{old}</name>", f"<name>{new}</name>")
        file.write_text(text)
    return root


@pytest.mark.parametrize("names, said", [
    ({"red": "Red"}, "'red' is 'Red' in the data: write it one way"),
    ({"blue": "bluе", "red": "RED"}, "'blue' is 'bluе' in the data, 'red' is 'RED' in the data"),
    ({"red": "crimson"}, "no object or class of the data is 'red'"),
])  # fmt: skip
def test_names_that_do_not_agree_are_told(names, said, run, squares, tmp_path):
    found = diagnose(run, renamed(squares, tmp_path, names), steps=0)
    assert found.failed == ("class names",)
    assert said in {check.name: check.said for check in found.checks}["class names"]


def test_a_subset_in_an_order_of_its_own_is_no_defect(run, squares, tmp_path):
    data = renamed(squares, tmp_path, {})
    file = next((data / "Annotations").glob("train*.xml"))
    file.write_text(file.read_text().replace("<name>blue</name>", "<name>green</name>"))
    model = load_model(run)
    rows = torch.arange(14).view(2, 7)[:, [0, 1, 2, 3, 4, 6, 5]].flatten()

    def exchange(convolutions):
        last = convolutions[-1].conv
        last.weight.copy_(last.weight[rows])
        last.bias.copy_(last.bias[rows])

    save_model(replace(broken(model, exchange), labels=model.labels[::-1]), tmp_path / "m.safetensors")
    found = diagnose(tmp_path / "m.safetensors", data, steps=0)
    assert found.failed == ()


def test_objects_that_share_a_cell_are_told_with_their_files(run, squares, tmp_path):
    data = renamed(squares, tmp_path, {})
    for file in (data / "Annotations").iterdir():
        objects = re.findall(r"<object>.*?</object>", file.read_text(), re.DOTALL)
        file.write_text(file.read_text().replace("</annotation>", "".join(objects) + "</annotation>"))
    found = diagnose(run, data, steps=0)
    [check] = [check for check in found.checks if check.name == "shared cells"]
    assert found.failed == ("shared cells",)
    assert "(50.0%)" in check.said
    assert re.match(
        r"Annotations/test000.xml:\d+: (red|blue), to the (red|blue) of Annotations/test000", check.places[0]
    )


@pytest.mark.parametrize("loss, scores, state, said", [
    ([9.0, 3.0, 1.0], [0.0, 0.0, 0.001], "FAIL", "what is learnt is not what is scored"),
    ([9.0, 9.1, 8.9], [0.0, 0.0, 0.0], "FAIL", "the loss did not fall"),
    ([9.0, 3.0, 1.0], [0.0, 0.1, 0.3], "pass", "loss from 9 to 1, best val/mAP 0.300"),
    ([], [], "skipped", "no epoch"),
])  # fmt: skip
def test_curves_tell_a_falling_loss_from_one_that_stands(loss, scores, state, said, run, squares, tmp_path):
    shutil.copy(run / "model.safetensors", tmp_path)
    rows = "".join(f"{n},{n},{a},{b}\n" for n, (a, b) in enumerate(zip(loss, scores, strict=True)))
    (tmp_path / "metrics.csv").write_text("epoch,step,loss_epoch,val/mAP\n" + rows)
    [check] = [check for check in diagnose(tmp_path, squares, steps=0).checks if check.name == "curves"]
    assert check.state == state
    assert said in check.said


def test_images_that_do_not_show_their_objects_cannot_be_learnt(run, squares, tmp_path):
    data = renamed(squares, tmp_path, {})
    first = data / "JPEGImages" / "train000.png"
    for file in (data / "JPEGImages").glob("train*.png"):
        file.write_bytes(first.read_bytes())
    found = diagnose(run, data, steps=60)
    assert found.failed == ("five images",)


def test_a_stop_in_the_last_check_keeps_the_answers_before(run, squares, monkeypatch):
    def stopped(model, images, steps):
        raise KeyboardInterrupt

    monkeypatch.setattr(diagnosing, "memorise", stopped)
    found = diagnose(run, squares)
    assert (found.checks[-1].state, found.checks[-1].said) == ("skipped", "stopped")
    assert len(found.checks) == 9


def test_the_command_ends_with_0_1_or_2_and_speaks_json(run, squares, tmp_path, capsys):
    assert main(["diagnose", str(run), str(squares), "--steps", "0"]) == 0
    assert "every check passes" in capsys.readouterr().out
    save_model(replace(load_model(run), resize="stretch"), tmp_path / "m.safetensors")
    assert main(["diagnose", str(tmp_path / "m.safetensors"), str(squares), "--steps", "0", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["failed"] == ["resize"]
    other = renamed(squares, tmp_path, {"red": "cat", "blue": "dog"})
    empty = write_squares(tmp_path / "empty", {"train": 2, "val": 2})
    for file in (empty / "Annotations").iterdir():
        file.write_text(re.sub(r"<object>.*</object>", "", file.read_text(), flags=re.DOTALL))
    wrong = [(tmp_path / "none", squares), (run, tmp_path / "none"), (run, other), (run, empty), (empty, squares)]
    for given in wrong:
        assert main(["diagnose", *map(str, given)]) == 2
        said = capsys.readouterr().err
        assert said.startswith("lookonce: ")
        assert said.count("\n") == 1


@pytest.mark.parametrize("given, message", [
    ({"steps": -1}, "steps: -1"), ({"val_split": "vla"}, "no split 'vla'"),
])  # fmt: skip
def test_wrong_options_are_told(given, message, run, squares):
    with pytest.raises(UserError, match=message):
        diagnose(run, squares, **given)


def test_another_resize_that_finds_more_is_named(run, squares, tmp_path, monkeypatch):
    def only_stretched(detector, dataset, selection):
        if detector.about.resize == "letterbox_antialias":
            return [Detections([], [], [], dataset.labels)] * len(dataset), 0
        return [Detections(r.boxes, np.full(len(r.labels), 0.9), r.labels, dataset.labels) for r in dataset.records], 0

    monkeypatch.setattr("lookonce.commands.diagnose.detect_all", only_stretched)
    save_model(replace(load_model(run), training={}), tmp_path / "m.safetensors")
    found = diagnose(tmp_path / "m.safetensors", squares, steps=0)
    assert found.failed == ("detections",)
    said = {check.name: check.said for check in found.checks}
    assert "100% of the objects are found with stretch_antialias, 0% with letterbox_antialias" in said["detections"]
    assert said["resize"] == "letterbox_antialias; the file does not say how it was trained"


def test_names_are_paired_exactly_first_then_by_likeness():
    assert pair_names(("cat", "Dog", "horse"), ("dog", "horsse", "cat", "Cat")) == {
        "cat": "cat", "Dog": "dog", "horse": "horsse"}  # fmt: skip
    assert pair_names(("cat",), ("dog",)) == {}
