"""Mirrors src/lookonce/speed/result.py. Oracle: cases computed by hand."""

import json
import re
from dataclasses import replace

import pytest

from lookonce.deploy.benchmark import (
    OPENCV,
    PLAIN,
    Absent,
    FilesSpeed,
    Machine,
    Row,
    Speed,
    StepSpeed,
    networks_speed,
    short,
)

MACHINE = Machine("X", None, 2, 2, None, "S", {"torch": "3.0"})


def row(backend, batch=1, device="cpu", network="n 416 x 416", model="n.safetensors"):
    return Row(model, network, backend, "fp32", device, batch)


ROWS = [row("openvino, latency"), row(OPENCV), row(PLAIN), row("torch", 8), row(PLAIN, 8), row("torch", device="cuda")]
SECONDS = [[0.1, 0.2, 0.4], [0.2, 0.6, 1.6], [0.4, 0.4, 0.4], [1.0, 2.0, 3.0], [2.0, 2.0, 9.0], [0.01, 0.01, 0.02]]


@pytest.fixture
def speed():
    files = FilesSpeed("runs/a/model.safetensors", "openvino 1, fp32, cpu", 500, 9.5, 10, 0.95, 100.0, 2.4, 0.97)
    steps = StepSpeed("n.safetensors", 416, 8, "fp32", 5.0, 4.5, 3.0, 0.9, 1.5, 0.027)
    absent = (Absent("onnxruntime", "not installed; pip install lookonce[onnx]"),)
    return Speed(MACHINE, 2, 3, networks_speed(ROWS, SECONDS), absent, (files,), (steps,), ("a note",))


def test_each_row_has_its_median_p95_rate_and_ratio():
    found = networks_speed(ROWS, SECONDS)[0]
    assert (found.median_ms, found.images_per_s) == (pytest.approx(200), pytest.approx(5))
    assert found.p95_ms == pytest.approx(1e3 * (0.2 + 0.9 * 0.2))  # place .95 * 2 = 1.9
    assert found.ratio == pytest.approx(3)  # 2, 3, 4; the ratio of medians happens to be 3 too
    assert found.against == OPENCV
    assert networks_speed(ROWS, SECONDS)[3].images_per_s == pytest.approx(8 / 2)


def test_a_ratio_is_against_opencv_else_plain_pytorch_of_the_same_batch_and_device():
    found = networks_speed(ROWS, SECONDS)
    assert [one.against for one in found] == [OPENCV, OPENCV, OPENCV, PLAIN, PLAIN, None]
    assert found[1].ratio == 1
    assert found[2].ratio == pytest.approx(1.5)  # .5, 1.5, 4
    assert found[3].ratio == pytest.approx(2)  # 2, 1, 3
    assert found[5].ratio is None
    other = [row("torch", network="other"), row(OPENCV)]
    assert networks_speed(other, [[1.0], [1.0]])[0].ratio is None


def test_json_holds_the_figures_of_the_table(speed):
    found = json.loads(json.dumps(speed.to_json()))
    text = str(speed)
    for one in found["networks"]:
        cells = [one["precision"], *(f"{one[key]:.1f}" for key in ("median_ms", "p95_ms", "images_per_s"))]
        cells += [] if one["ratio"] is None else [f"{one['ratio']:.2f}"]
        assert re.search(r"\s+".join(map(re.escape, (one["backend"], *cells))), text), one
    (files,), (steps,) = found["files"], found["training"]
    assert f"{files['images_per_s']:.1f}" in text
    assert f"{files['share_of_possible']:.1%}" in text
    assert f"{steps['train_of_bare']:.1%}" in text
    assert found["machine"]["versions"] == MACHINE.versions
    assert found["absent"][0]["what"] == "onnxruntime"
    assert "json" not in found


def test_the_table_tells_machine_threads_and_what_is_absent(speed):
    text = str(speed)
    for part in (str(MACHINE), "threads: 2", "rounds: 3", "n 416 x 416, batch 8, cpu", "x OpenCV dnn",
                 "x plain PyTorch", "no peer", "onnxruntime: not installed; pip install lookonce[onnx]", "a note",
                 "a: openvino 1, fp32, cpu"):  # fmt: skip
        assert part in text, part
    assert "stopped" not in text
    assert speed.exit_code == 0


def test_models_of_one_network_are_told_apart():
    rows = [row("openvino, latency"), row("openvino, latency", model="out/n-int8.xml"), row(OPENCV)]
    text = str(Speed(MACHINE, 1, 1, networks_speed(rows, [[1.0], [0.5], [2.0]]), ()))
    assert "openvino, latency: n-int8.xml" in text
    assert "openvino, latency: n.safetensors" in text
    assert re.search(r"OpenCV dnn +fp32", text)


def test_a_stop_is_told_and_ends_as_shells_have_it(speed):
    stopped = replace(speed, stopped=True)
    assert "stopped before the last round" in str(stopped)
    assert stopped.exit_code == 130


@pytest.mark.parametrize("model, name", [
    ("a/b.safetensors", "b.safetensors"), ("runs/x/model.safetensors", "x"),
    ("model.safetensors", "model.safetensors"), ("a/b.xml", "b.xml"),
])  # fmt: skip
def test_models_are_called_by_file_or_run(model, name):
    assert short(model) == name
