"""Each test breaks a trained network or its data in one way: the check for that defect fails, and no other."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from lookonce.cli import main
from lookonce.commands.diagnose import BAR, Check, Diagnosis, diagnose, pair_names
from lookonce.errors import UserError
from lookonce.evaluation.localization import Histogram
from lookonce.model.detections import Detections
from lookonce.model.layers import Region
from lookonce.model.model_file import load_model, save_model
from lookonce.model.network import BatchNorm, Network
from sets import write_squares


def broken(model, change):
    """Copy a model and change its numbers."""
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
    torch.manual_seed(1)
    for convolution in convolutions:  # none of what the run learnt stays: its numbers depend on the CPU
        torch.nn.init.kaiming_normal_(convolution.conv.weight)
        if convolution.norm is None:
            torch.nn.init.zeros_(convolution.conv.bias)
        else:
            convolution.norm.load_state_dict(BatchNorm(len(convolution.norm.weight)).state_dict())


DEFECTS = {
    "labels permuted": (lambda m: replace(m, labels=m.labels[::-1]), {"class names", "detections"},
                        "correct boxes, permuted classes: "),
    "anchors in pixels": (lambda m: with_anchors(m, 32), {"anchors"},
                          "They are in pixels, not in cells: converted, they fit"),
    "anchors as ratios of the input": (lambda m: with_anchors(m, 1 / 3), {"anchors"},
                                       "They are in ratios of the input, not in cells: converted, they fit"),
    "anchors of another set": (lambda m: with_anchors(m, 1.6), {"anchors", "detections"},
                               r"predicted boxes are 1.\d\dx too wide"),
    "another resize mode": (lambda m: replace(m, resize="stretch"), {"resize"},
                            "says stretch to 96 x 96 px, but the run was trained with letterbox_antialias to 96 x 96"),
    "last layer zeroed": (lambda m: broken(m, silent), {"weights"}, r"layer 11, conv.weight: all numbers are 0"),
    "weights not a number": (lambda m: broken(m, nan), {"weights"}, "layer 4, conv.weight: 1 of 2,304 numbers are not"),
    "variance below zero": (lambda m: broken(m, variance), {"weights"}, "layer 2, norm.running_var: found -1 to"),
    "faint": (lambda m: broken(m, faint), {"detections"}, "scores too low: .*Detect with a lower --threshold"),
    "untrained": (lambda m: broken(m, untrained), {"detections"}, "nothing found: "),
}  # fmt: skip


@pytest.mark.parametrize("change, checks, message", DEFECTS.values(), ids=DEFECTS)
def test_each_defect_fails_its_check_and_no_other(change, checks, message, run, squares, tmp_path):
    save_model(change(load_model(run)), tmp_path / "model.safetensors")
    found = diagnose(tmp_path, squares, steps=0)
    assert set(found.failed) == checks
    assert any(re.search(message, check.message) for check in found.checks if check.name in checks)
    assert all("\n" not in check.message for check in found.checks)


def test_a_sound_run_passes_every_check_and_nothing_is_written(run, squares):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    found = diagnose(run, squares, steps=200)
    assert {check.state for check in found.checks} == {"pass"}
    assert any(", fp32, " in check.message for check in found.checks if check.name == "detections")
    assert len(found.checks) == 9
    assert found.exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def renamed(squares, tmp_path, names):
    """Copy the squares with other class names."""
    root = tmp_path / "data"
    shutil.copytree(squares, root)
    for file in (root / "Annotations").iterdir():
        text = file.read_text()
        for old, new in names.items():
            text = text.replace(f"<name>{old}</name>", f"<name>{new}</name>")
        file.write_text(text)
    return root


@pytest.mark.parametrize("names, message", [
    ({"red": "Red"}, "'red' is 'Red' in the data. Use one spelling"),
    ({"blue": "bluе", "red": "RED"}, "'blue' is 'bluе' in the data, 'red' is 'RED' in the data"),
    ({"red": "crimson"}, "the data has no class or object of 'red'"),
])  # fmt: skip
def test_class_names_that_differ_fail(names, message, run, squares, tmp_path):
    found = diagnose(run, renamed(squares, tmp_path, names), steps=0)
    assert found.failed == ("class names",)
    assert message in {check.name: check.message for check in found.checks}["class names"]


def test_a_class_order_that_differs_from_the_data_passes_if_the_detections_do(run, squares, tmp_path):
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


def test_objects_that_share_a_cell_are_listed_with_their_files(run, squares, tmp_path):
    data = renamed(squares, tmp_path, {})
    for file in (data / "Annotations").iterdir():
        objects = re.findall(r"<object>.*?</object>", file.read_text(), re.DOTALL)
        file.write_text(file.read_text().replace("</annotation>", "".join(objects) + "</annotation>"))
    found = diagnose(run, data, steps=0)
    [check] = [check for check in found.checks if check.name == "shared cells"]
    assert found.failed == ("shared cells",)
    assert "(50.0%)" in check.message
    assert re.match(
        r"Annotations/test000.xml:\d+: (red|blue), collides with the (red|blue) of Annotations/test000",
        check.locations[0],
    )


@pytest.mark.parametrize("loss, scores, state, message", [
    ([9.0, 3.0, 1.0], [0.0, 0.0, 0.001], "FAIL", "the network learns something other than what is evaluated"),
    ([9.0, 9.1, 8.9], [0.0, 0.0, 0.0], "FAIL", "the loss did not fall"),
    ([9.0, 3.0, 1.0], [0.0, 0.1, 0.3], "pass", "loss from 9 to 1, best val/mAP 0.300"),
    ([], [], "skipped", "no epoch has been validated yet"),
])  # fmt: skip
def test_curves_distinguish_a_loss_that_fell_from_one_that_did_not(
    loss, scores, state, message, run, squares, tmp_path
):
    shutil.copy(run / "model.safetensors", tmp_path)
    rows = "".join(f"{n},{n},{a},{b}\n" for n, (a, b) in enumerate(zip(loss, scores, strict=True)))
    (tmp_path / "metrics.csv").write_text("epoch,step,loss_epoch,val/mAP\n" + rows)
    [check] = [check for check in diagnose(tmp_path, squares, steps=0).checks if check.name == "curves"]
    assert check.state == state
    assert message in check.message


def test_images_that_do_not_show_their_objects_fail_the_overfit_check(run, squares, tmp_path):
    data = renamed(squares, tmp_path, {})
    first = data / "JPEGImages" / "train000.png"
    for file in (data / "JPEGImages").glob("train*.png"):
        file.write_bytes(first.read_bytes())
    found = diagnose(run, data, steps=60)
    assert found.failed == ("overfit",)


def test_an_interrupt_in_the_overfit_check_keeps_the_other_results(run, squares, monkeypatch):
    def stopped(model, images, steps):
        raise KeyboardInterrupt

    monkeypatch.setattr("lookonce.commands.diagnose.overfit", stopped)
    found = diagnose(run, squares)
    assert (found.checks[-1].state, found.checks[-1].message) == ("skipped", "stopped")
    assert len(found.checks) == 9


def test_the_exit_code_is_0_1_or_2_and_json_is_printed(run, squares, tmp_path, capsys):
    assert main(["diagnose", str(run), str(squares), "--steps", "0"]) == 0
    assert "All checks passed." in capsys.readouterr().out
    save_model(replace(load_model(run), resize="stretch"), tmp_path / "m.safetensors")
    assert main(["diagnose", str(tmp_path / "m.safetensors"), str(squares), "--steps", "0", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["failed"] == ["resize"]
    other = renamed(squares, tmp_path, {"red": "cat", "blue": "dog"})
    empty = write_squares(tmp_path / "empty", {"train": 2, "val": 2})
    for file in (empty / "Annotations").iterdir():
        file.write_text(re.sub(r"<object>.*</object>", "", file.read_text(), flags=re.DOTALL))
    wrong = [(tmp_path / "none", squares), (run, tmp_path / "none"), (run, other), (run, empty), (empty, squares)]
    for arguments in wrong:
        assert main(["diagnose", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("lookonce: ")
        assert error.count("\n") == 1


@pytest.mark.parametrize("options, message", [
    ({"steps": -1}, "steps: -1"), ({"val_split": "vla"}, "no split 'vla'"),
])  # fmt: skip
def test_wrong_options_are_refused(options, message, run, squares):
    with pytest.raises(UserError, match=message):
        diagnose(run, squares, **options)


def test_another_resize_that_finds_more_is_named(run, squares, tmp_path, monkeypatch):
    def only_stretched(detector, dataset, selection):
        if detector.about.resize == "letterbox_antialias":
            return [Detections([], [], [], dataset.labels)] * len(dataset), 0
        return [Detections(r.boxes, np.full(len(r.labels), 0.9), r.labels, dataset.labels) for r in dataset.records], 0

    monkeypatch.setattr("lookonce.commands.diagnose.detect_all", only_stretched)
    save_model(replace(load_model(run), training={}), tmp_path / "m.safetensors")
    found = diagnose(tmp_path / "m.safetensors", squares, steps=0)
    assert found.failed == ("detections",)
    messages = {check.name: check.message for check in found.checks}
    assert (
        "100% of the objects are found with stretch_antialias, 0% with letterbox_antialias. Use stretch_antialias."
        in messages["detections"]
    )
    assert messages["resize"] == "letterbox_antialias; the model file has no record of its training"


def test_equal_names_are_paired_before_similar_ones():
    assert pair_names(("cat", "Dog", "horse"), ("dog", "horsse", "cat", "Cat")) == {
        "cat": "cat", "Dog": "dog", "horse": "horsse"}  # fmt: skip
    assert pair_names(("cat",), ("dog",)) == {}


SCORES = Histogram("score from", ("detections",), (("0", (0,)), ("0.5", (20,)), ("0.9", (5,))))


def test_the_table_shows_each_check_and_histograms_without_colour():
    checks = (Check("weights", "pass", "all finite"), Check("anchors", "FAIL", "in pixels: divide", ("a.xml:3: cat",)),
              Check("curves", "skipped", "no metrics.csv"))  # fmt: skip
    text = str(Diagnosis("run", "data", checks, (SCORES,)))
    assert "anchors" in text
    assert "FAIL" in text
    assert "a.xml:3: cat" in text
    assert text.endswith("Fix in this order: anchors")
    assert [line.count("#") for line in text.splitlines() if "#" in line] == [BAR, BAR // 4]
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 120


def test_the_exit_code_is_1_only_if_a_check_failed():
    assert Diagnosis("r", "d", (Check("a", "pass", ""), Check("b", "skipped", ""))).exit_code == 0
    found = Diagnosis("r", "d", (Check("a", "pass", ""), Check("b", "FAIL", "")))
    assert (found.exit_code, found.failed) == (1, ("b",))


def test_json_holds_checks_and_histograms():
    values = json.loads(json.dumps(Diagnosis("r", "d", (Check("a", "FAIL", "x", ("p",)),), (SCORES,)).to_json()))
    assert values["failed"] == ["a"]
    assert values["checks"] == [{"name": "a", "state": "FAIL", "message": "x", "locations": ["p"]}]
    assert values["histograms"][0]["rows"][1] == ["0.5", [20]]


def test_a_run_with_a_tree_passes_every_check(tree_run, squares):
    assert diagnose(tree_run, squares, steps=0).failed == ()
