"""Speed measurement: rounds, tables, the machine, networks and files. Cases are computed by hand.

Oracle of what the peers run: the network itself. No test depends on how fast anything is.
"""

import importlib.util
import io
import itertools
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lookonce import Detector
from lookonce.data.images import BATCH
from lookonce.data.lookup import find_images
from lookonce.deploy import benchmark
from lookonce.deploy.benchmark import (
    OPENCV,
    PLAIN,
    Candidate,
    Machine,
    Series,
    Speed,
    Took,
    files_series,
    interleave,
    is_int8,
    matrix_rates,
    missing,
    network_series,
    opencv,
    plain,
    process_threads,
    readable,
    short,
    tabulate,
    this_machine,
    timed,
    ways,
)
from lookonce.deploy.matrix_rate import Product
from lookonce.errors import ConfigError, UserError
from lookonce.model.model_file import load_model
from lookonce.model.sizes import num_operations

MACHINE = Machine("X", None, 2, 2, None, "S", {"torch": "3.0"})
REAL = importlib.util.find_spec


@pytest.fixture(autouse=True)
def without_products(monkeypatch):
    """Large matrix products take long."""
    monkeypatch.setattr(benchmark, "products", lambda _: ())


def candidate(name, batch=1, device="cpu", network="n 416 x 416", model="n.safetensors"):
    heading = f"{network}, batch {batch}, {device}"
    return Candidate(heading, name, model, "fp32", device, batch, lambda: Took(1.0), name in (OPENCV, PLAIN))


CANDIDATES = [
    candidate("openvino, latency"), candidate(OPENCV), candidate(PLAIN), candidate("torch", 8), candidate(PLAIN, 8),
    candidate("torch", device="cuda"),
]  # fmt: skip
SECONDS = [[0.1, 0.2, 0.4], [0.2, 0.6, 1.6], [0.4, 0.4, 0.4], [1.0, 2.0, 3.0], [2.0, 2.0, 9.0], [0.01, 0.01, 0.02]]


def measured(candidates, seconds, **more):
    return tabulate(Series(candidates, 1, **more), [[Took(each) for each in one] for one in zip(*seconds, strict=True)])


@pytest.fixture
def speed():
    tables = measured(CANDIDATES, SECONDS, shares=lambda _: {"waiting": 0.027})
    return Speed(MACHINE, 2, tuple(tables), ("onnxruntime: not installed; pip install lookonce[onnx]",))


def test_everything_runs_once_a_round_in_turn_and_warm_up_does_not_count():
    order, places = [], []

    def run(name):
        order.append(name)
        return len(order)

    found = interleave([lambda: run("a"), lambda: run("b")], 2, 1, places.append)
    assert order == ["a", "b"] * 3
    assert places == [0, 1] * 3
    assert found == ([[3, 4], [5, 6]], False)


@pytest.mark.parametrize("calls, kept", [(2, []), (3, []), (4, [[3, 4]]), (5, [[3, 4]])])
def test_a_stop_keeps_the_whole_rounds_before_it(calls, kept):
    numbers = itertools.count(1)

    def run():
        if (number := next(numbers)) > calls:
            raise KeyboardInterrupt
        return number

    assert interleave([run, run], 9, 1) == (kept, True)


def test_a_run_is_timed_by_both_clocks_after_a_rest(monkeypatch):
    order = []
    clock = SimpleNamespace(
        sleep=lambda seconds: order.append(("rest", seconds)),
        perf_counter=iter([10.0, 12.5]).__next__, process_time=iter([100.0, 103.0]).__next__,
    )  # fmt: skip
    monkeypatch.setattr(benchmark, "time", clock)
    assert timed(lambda: order.append("run"))() == Took(2.5, 3.0)
    assert order == [("rest", benchmark.REST), "run"]


def test_each_row_has_its_median_p95_rate_cpu_time_and_ratio():
    first, batch, _ = measured(CANDIDATES, SECONDS)
    row = first.rows[0]
    assert (row.median_ms, row.images_per_s, row.cpu_ms) == (pytest.approx(200), pytest.approx(5), None)
    assert row.p95_ms == pytest.approx(1e3 * (0.2 + 0.9 * 0.2))  # place .95 * 2 = 1.9
    assert row.ratio == pytest.approx(3)  # 2, 3, 4
    assert batch.rows[0].images_per_s == pytest.approx(8 / 2)
    (table,) = tabulate(Series([CANDIDATES[3]], 2), [[Took(1.0, 1.6)], [Took(1.0, 3.2)]])
    assert table.rows[0].cpu_ms == pytest.approx(300)  # an image of eight
    assert table.rounds == 2


def test_p95_is_what_nineteen_in_twenty_do_not_exceed():
    for seconds, expected in (
        (range(1, 22), 20e3),
        ([1.0, 2.0], 1950),
        ([7.0], 7000),
    ):  # 20: place .95 * 20 of 1..21
        assert measured([candidate("torch")], [list(seconds)])[0].rows[0].p95_ms == pytest.approx(expected)


def test_a_ratio_is_the_median_within_rounds_not_the_ratio_of_medians():
    row = measured([candidate("torch"), candidate(PLAIN)], [[1, 3, 2], [2, 9, 8]])[0].rows[0]
    assert row.ratio == 3  # 2, 3, 4; that of the medians would be 8 / 2


def test_a_ratio_is_against_the_first_peer_of_the_same_network_batch_and_device():
    one, batch, cuda = measured(CANDIDATES, SECONDS)
    assert [table.against for table in (one, batch, cuda)] == [OPENCV, PLAIN, None]
    assert [row.ratio for row in one.rows] == pytest.approx([3, 1, 1.5])  # the last: .5, 1.5, 4
    assert [row.ratio for row in batch.rows] == pytest.approx([2, 1])  # the first: 2, 1, 3
    assert cuda.rows[0].ratio is None
    other = measured([candidate("torch", network="other"), candidate(OPENCV)], [[1.0], [1.0]])
    assert other[0].rows[0].ratio is None


def test_a_row_has_its_share_of_the_fastest_matrix_product_of_its_precision_within_a_round():
    rows = [replace(candidate("openvino, latency"), operations=30 * 10**9), candidate(PLAIN),
            replace(candidate("torch", device="cuda"), operations=30 * 10**9)]  # fmt: skip
    slow, fast, other = (Product(name, kind, 17 * 10**9, None)
                         for name, kind in (("slow", "fp32"), ("fast", "fp32"), ("other", "bf16")))  # fmt: skip
    series = Series(rows, 3, products=[slow, fast, other])
    seconds = [[0.15, 0.30, 0.60], [1.0] * 3, [0.1] * 3, [0.5] * 3, [0.05, 0.10, 0.40], [0.01] * 3]
    rounds = [[Took(each) for each in one] for one in zip(*seconds, strict=True)]
    cpu, cuda = tabulate(series, rounds)
    assert cpu.rows[0].of_matrix_rate == pytest.approx(100 / 170)  # 200 of 340, 100 of 170, 50 of 42.5
    assert [row.of_matrix_rate for row in (*cpu.rows[1:], *cuda.rows)] == [None, None]
    assert "of the machine's" in str(Speed(MACHINE, 2, (cpu,)))
    assert "of the machine's" not in str(Speed(MACHINE, 2, (cuda,)))
    assert list(map(str, matrix_rates(series, rounds))) == ["fp32 170 GFLOP/s (fast)", "bf16 1700 GFLOP/s (other)"]
    said = str(Speed(MACHINE, 2, (cpu,), matrix_rates=matrix_rates(series, rounds)))
    assert "large matrix products: fp32 170 GFLOP/s (fast), bf16 1700 GFLOP/s (other)" in said


def test_the_operations_of_a_row_are_those_of_its_images(run, monkeypatch):
    monkeypatch.setattr(benchmark, "missing", lambda _: "left out")
    monkeypatch.setattr(benchmark, "computes_bf16", lambda: False)
    monkeypatch.setattr(benchmark, "products", lambda threads: [Product(str(threads), each, 1, print)
                                                                for each in ("fp32", "bf16", "int8")])  # fmt: skip
    series = network_series([run / "model.safetensors"], 3, 1, 2)
    model = load_model(run)
    each = num_operations(model.layers, (96, 96))
    assert {(c.images, c.operations) for c in series.candidates} == {(1, each), (3, 3 * each)}
    assert [(product.name, product.precision) for product in series.products] == [("2", "fp32")]  # the rows' own


def test_json_holds_the_figures_of_the_table(speed):
    found, text = json.loads(json.dumps(speed.to_json())), str(speed)
    for table in found["tables"]:
        assert f"{table['heading']}, 3 rounds" in text
        for row in table["rows"]:
            cells = [row["precision"], *(f"{row[key]:.1f}" for key in ("median_ms", "p95_ms", "images_per_s"))]
            cells += [] if row["ratio"] is None else [f"{row['ratio']:.2f}"]
            assert re.search(r"\s+".join(map(re.escape, (row["name"], *cells))), text), row
    assert found["machine"]["versions"] == MACHINE.versions
    assert found["notes"] == list(speed.notes)


def test_the_table_shows_machine_threads_shares_and_what_is_missing(speed):
    text = str(speed)
    for part in (str(MACHINE), "threads: 2", "n 416 x 416, batch 8, cpu, 3 rounds", "x OpenCV dnn", "x plain PyTorch",
                 "no peer", "waiting: 2.7%", *speed.notes):  # fmt: skip
        assert part in text, part
    assert "stopped" not in text
    assert "instructions unknown" in text
    assert speed.exit_code == 0


def test_rows_of_several_models_carry_the_models_name():
    rows = [candidate("openvino, latency"), candidate("openvino, latency", model="out/n-int8.xml"), candidate(OPENCV)]
    (table,) = measured(rows, [[1.0], [0.5], [2.0]])
    assert [row.name for row in table.rows] == [
        "openvino, latency: n.safetensors", "openvino, latency: n-int8.xml", OPENCV,
    ]  # fmt: skip


def test_a_stop_is_reported_and_ends_as_in_a_shell(speed):
    stopped = replace(speed, stopped=True)
    assert "stopped before the last round" in str(stopped)
    assert stopped.exit_code == 130


@pytest.mark.parametrize("model, name", [
    ("a/b.safetensors", "b.safetensors"), ("runs/x/model.safetensors", "x"),
    ("model.safetensors", "model.safetensors"), ("a/b.xml", "b.xml"),
])  # fmt: skip
def test_models_are_called_by_file_or_run(model, name):
    assert short(model) == name


def test_versions_are_those_of_what_is_installed(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cv2" else real(name))
    found = this_machine()
    assert "cv2" not in found.versions
    assert {"lookonce", "Python", "torch", "numpy"} <= found.versions.keys()
    assert 1 <= found.cores <= found.all_cores


def test_a_machine_is_described_in_two_lines_and_its_gpu_in_one_more():
    shown = Machine("X", {"AVX-512": True, "bf16": False, "VNNI": True}, 2, 8, None, "Linux x86_64", {"torch": "3.0"})
    assert str(shown) == "X; AVX-512 yes, bf16 no, VNNI yes; 2 of 8 cores; Linux x86_64\ntorch 3.0"
    assert str(Machine("X", None, 1, 1, "Big GPU", "S", {})).splitlines()[1] == "Big GPU"


def without(monkeypatch, *modules):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in modules else REAL(name))


@pytest.fixture
def model(run):
    return run / "model.safetensors"


@pytest.fixture
def dull(monkeypatch):
    """A machine without bf16 and without a GPU."""
    monkeypatch.setattr(benchmark, "computes_bf16", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_all_that_is_installed_has_a_row_for_each_batch(model, dull):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("cv2")
    before = sorted(model.parent.iterdir())
    made = network_series([model], 3, 1, 1)
    assert [(row.name, row.images) for row in made.candidates] == [
        ("openvino, latency", 1), ("onnxruntime", 1), ("torch", 1), (OPENCV, 1), (PLAIN, 1),
        ("openvino, throughput", 3), ("onnxruntime", 3), ("torch", 3), (OPENCV, 3), (PLAIN, 3),
    ]  # fmt: skip
    name = f"{model.parent.name} 96 x 96, batch"
    assert {row.table for row in made.candidates} == {f"{name} 1, cpu", f"{name} 3, cpu"}
    assert {row.precision for row in made.candidates} == {"fp32"}
    assert all(row.run().seconds > 0 for row in made.candidates)
    assert [note.split(":")[0] for note in made.notes] == ["bf16"]  # once, though two backends lack it
    assert sorted(model.parent.iterdir()) == before  # nothing was left beside the model


def test_what_is_not_installed_is_named_with_the_command(model, dull, monkeypatch):
    without(monkeypatch, "onnxruntime", "cv2", "openvino")
    made = network_series([model], 2, 1, 1)
    assert {row.name for row in made.candidates} == {"torch", PLAIN}
    assert {note for note in made.notes if not note.startswith("bf16")} == {
        "openvino: not installed; pip install openvino",
        "onnxruntime: not installed; pip install lookonce[onnx]",
        f"{OPENCV}: not installed; pip install opencv-python-headless",
    }
    monkeypatch.setattr(importlib.util, "find_spec", REAL)
    assert missing("numpy") is None


def test_an_exported_file_stands_with_its_model_in_any_order(model, exported, dull):
    made = network_series([exported / "m.xml", model], 2, 1, 1).candidates
    assert len({row.table for row in made}) == 2  # one for each batch
    own = [row.name for row in made if row.model.endswith("m.xml")]
    assert own == ["openvino, latency", "openvino, throughput"]
    assert sum(row.name == PLAIN for row in made) == 2  # of the model alone
    peers = [row.is_peer for row in made if row.images == 1]
    assert peers == sorted(peers)


def test_other_layers_are_another_network(model, exported, dull, tmp_path):
    from lookonce import Network
    from lookonce.model.model_file import Model, save_model
    from sets import nano

    other = tmp_path / model.parent.name / "model.safetensors"
    save_model(Model(Network(nano(1, ((1.0, 1.0),))), ("a",), (64, 64)), other)
    made = network_series([model, other], 2, 1, 1).candidates
    names = list(dict.fromkeys(row.table.partition(",")[0] for row in made))
    assert names == [f"{model.parent.name} 96 x 96", f"{model.parent.name} 64 x 64"]


def test_a_file_that_nothing_runs_is_refused(exported, dull, monkeypatch):
    without(monkeypatch, "openvino")
    with pytest.raises(UserError, match=r"m\.xml: nothing here can run it: openvino: not installed; pip install"):
        network_series([exported / "m.xml"], 2, 1, 1)


def test_what_a_backend_refuses_is_reported(model, dull, monkeypatch):
    def refuse(source, settings):
        raise ConfigError(f"{settings.backend}: no")

    monkeypatch.setattr(benchmark, "open_backend", refuse)
    with pytest.raises(UserError, match="torch, cpu, fp32: torch: no"):
        network_series([model], 2, 1, 1)


def test_an_int8_export_is_known_and_runs_as_its_backend_likes(exported, tmp_path):
    assert not is_int8(exported / "m.xml")
    assert not is_int8(exported / "m.onnx")
    file = tmp_path / "i.xml"
    file.write_text('<net><layer id="1" type="FakeQuantize"/></net>')
    assert is_int8(file)
    assert not is_int8(tmp_path / "none.xml")
    assert [way.precision for way, _ in ways(file, 4, 1)] == ["auto", "auto"]


def test_a_gpu_has_rows_of_the_same_kinds(model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = [(way.backend, way.precision, sizes) for way, sizes in ways(model, 4, 1) if way.device == "cuda"]
    both = (1, 4)
    assert found == [("onnxruntime", "fp32", both), ("torch", "fp32", both), ("torch", "bf16", both)]


@pytest.mark.parametrize("batch", [1, 3])
def test_peers_compute_what_the_network_does(run, batch):
    pytest.importorskip("cv2")
    model = load_model(run)
    images = np.random.default_rng(1).random((batch, 3, 96, 96), np.float32)
    with torch.no_grad():
        expected = model.network(torch.from_numpy(images))[0].numpy()
    for peer in (opencv(model), plain(model, "cpu")):
        np.testing.assert_allclose(peer(images)[0], expected, atol=1e-3, rtol=1e-3)


def test_a_network_that_opencv_cannot_read_has_no_row_of_it(run, dull, monkeypatch):
    cv2 = pytest.importorskip("cv2")

    def refuse(_):
        raise cv2.error("(-212) Unsupported layer")

    monkeypatch.setattr(benchmark, "opencv", refuse)
    made = network_series([run / "model.safetensors"], 2, 1, 1)
    assert OPENCV not in {row.name for row in made.candidates}
    assert "Unsupported layer" in next(note for note in made.notes if note.startswith(OPENCV))


def test_a_peer_that_fails_when_it_runs_is_a_row_that_says_so(run, dull, monkeypatch):
    """OpenCV reads a region layer of one class without softmax, and refuses it in its first run."""

    def refuse(_):
        raise RuntimeError("(-215:Assertion failed)\nuseLogistic || useSoftmax")

    monkeypatch.setattr(benchmark, "missing", lambda module: None)
    monkeypatch.setattr(benchmark, "opencv", lambda model: refuse)
    made = network_series([run / "model.safetensors"], 2, 1, 1)
    assert OPENCV not in {row.name for row in made.candidates}
    tables = tabulate(made, [[Took(1.0) for _ in made.candidates]])
    assert len(tables) == 2
    for table in tables:
        assert table.failed == {OPENCV: "(-215:Assertion failed) useLogistic || useSoftmax"}
        assert table.against == PLAIN
    lines = str(Speed(MACHINE, 2, tuple(tables))).splitlines()
    assert [line.split() for line in lines if line.startswith(f"  {OPENCV}")] == [["OpenCV", "dnn", "failed"]] * 2
    assert f"{OPENCV} failed: (-215:Assertion failed) useLogistic || useSoftmax" in lines


def test_threads_are_given_and_given_back():
    cv2 = pytest.importorskip("cv2")
    before = torch.get_num_threads(), cv2.getNumThreads()
    with process_threads(3):
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (3, 3)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == before


@pytest.fixture(scope="module")
def images(squares):
    return find_images(squares / "JPEGImages")


def runs_of(series):
    return {candidate.name: candidate.run for candidate in series.candidates}


def test_a_slice_is_decoded_and_detected_as_a_detector_does(run, images, monkeypatch):
    decoded, written = [], []
    real, write = benchmark.load_for, benchmark.write_entry

    def write_entry(text, file, found, first):
        write(text, file, found, first)
        written.append((file, found.to_json(), first))

    monkeypatch.setattr(benchmark, "load_for", lambda file, *of: decoded.append(file) or real(file, *of))
    monkeypatch.setattr(benchmark, "write_entry", write_entry)
    model = run / "model.safetensors"
    runs = runs_of(files_series(model, images[:3], 1, 1))
    runs["decoding alone"]()
    assert decoded == [images[n % 3] for n in range(BATCH)]  # from the start again where there are few
    runs["files to JSON"]()
    expected = [found.to_json() for found in Detector(model, throughput=True)(decoded)]
    assert [(file, found) for file, found, _ in written] == list(zip(decoded, expected, strict=True))
    assert any(expected)
    runs["decoding alone"]()
    assert decoded[BATCH] == images[BATCH % 3]


def test_what_is_written_is_json(run, images, monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(text, "close", lambda: None)
    monkeypatch.setattr("tempfile.TemporaryFile", lambda *_, **__: text)
    runs = runs_of(files_series(run / "model.safetensors", images, 40, 1))
    runs["decoding alone"]()
    runs["files to JSON"]()
    assert [entry["file"] for entry in json.loads(f"[{text.getvalue()}]")] == images[:BATCH]


def test_rounds_go_through_the_images_once(run, images):
    series = files_series(run / "model.safetensors", images, 3, 1)
    assert [candidate.images for candidate in series.candidates] == [16] * 3  # 40 images in slices of whole batches
    assert (series.rounds, series.warm_up) == (3, 1)
    assert [candidate.name for candidate in series.candidates if not candidate.is_peer] == ["files to JSON"]
    heading = series.candidates[0].table
    assert "from 40 files to JSON" in heading
    took = [[Took(8, 16), Took(9, 2), Took(10, 20)], [Took(18, 17), Took(9, 3), Took(20, 40)]]
    (table,) = tabulate(series, took)
    assert (table.heading, table.against) == (heading, "network alone")
    assert table.rows[2].ratio == pytest.approx((0.8 + 0.9) / 2)
    assert table.rows[2].images_per_s == pytest.approx(16 / 15)
    assert table.rows[0].cpu_ms == pytest.approx(16.5 / 16 * 1e3)
    assert list(table.shares.values()) == [pytest.approx((18 / 20 + 20 / 40) / 2)]


def test_files_that_are_no_images_are_reported_and_left_out(images, tmp_path, caplog):
    bad = tmp_path / "bad.jpg"
    bad.write_text("no image")
    assert readable([str(bad), images[0]]) == [images[0]]
    assert "skipped" in caplog.text
    with pytest.raises(UserError, match=r"none of the 1 images could be read; the first: .*bad\.jpg"):
        readable([str(bad)])
