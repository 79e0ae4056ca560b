"""Tests of lookonce.commands.evaluate."""

import json
import platform
from dataclasses import replace

import numpy as np
import pytest
import yaml
from torch import __version__ as torch_version

import lookonce
from conftest import SHARED, needs_shared
from lookonce import Detector, evaluate, read_dataset
from lookonce.cli import main
from lookonce.commands.convert import convert
from lookonce.console import rendered
from lookonce.errors import ConfigError, UserError
from lookonce.evaluation.average_precision import Rules, score
from lookonce.evaluation.coco import score_coco
from lookonce.evaluation.evaluate import analyse, detect_all
from sets import write_squares


def test_a_report_is_the_score_of_the_detections(run, squares):
    report = evaluate(run, squares, bootstrap=50)
    dataset = read_dataset(squares, "test")
    detector = Detector(run, precision="fp32")
    found, skipped = detect_all(detector, dataset)
    assert skipped == 0
    assert report.backend == detector.backend.info
    assert report.mean_ap == score(dataset, found, Rules(score_threshold=0.005), bootstrap=0).mean_ap
    assert report.mean_ap > 0.5
    low, high = report.metrics.interval
    assert low <= report.mean_ap <= high
    assert repr(report) == f"Report(mAP@0.5 {report.mean_ap:.3f}, 8 images, {len(dataset.boxes)} objects, {run})"
    assert "lost to each kind of error" in report._repr_html_()
    said = str(report)
    assert "VOC 2010" in said
    assert "IoU >= 0.5" in said
    assert "difficult objects ignored" in said


def test_protocol_split_and_classes_are_chosen(run, squares):
    report = evaluate(run, squares, split="all", labels=("red",), protocol="voc2007", difficult="count", bootstrap=0)
    assert [c.name for c in report.metrics.classes] == ["red"]
    assert report.metrics.images == 40
    assert "11-point" in str(report)
    assert "red" in rendered(report)


def test_a_score_says_what_computed_it(run, squares, tmp_path, capsys):
    words = ["evaluate", str(run), str(squares), "--bootstrap", "0", "--backend", "torch", "--device", "cpu"]
    assert main([*words, "--json", "--report", str(tmp_path / "a.html")]) == 0
    told = json.loads(capsys.readouterr().out)
    torch = torch_version
    assert told["backend"] == {"name": "torch", "version": torch, "precision": "fp32", "device": "cpu"}
    assert told["versions"] | {"lookonce": lookonce.__version__, "python": platform.python_version(), "torch": torch} \
        == told["versions"]  # fmt: skip
    page = (tmp_path / "a.html").read_text()
    assert f"torch {torch}, fp32, cpu" in page
    assert f"python {platform.python_version()}" in page
    assert "--precision</code> fp32" in page
    report = evaluate(run, squares, bootstrap=0, backend="torch", device="cpu", precision="bf16")
    assert f"(test); torch {torch}, bf16, cpu" in str(report).splitlines()[0]
    assert told["mean_ap"] == evaluate(run, squares, bootstrap=0, backend="torch", device="cpu").mean_ap
    assert [c["name"] for c in told["classes"]] == ["blue", "red"]


@pytest.mark.parametrize("backend", ["auto", "torch", "openvino", "onnxruntime"])
def test_a_score_is_the_models_and_not_the_machines(run, squares, backend):
    if backend == "onnxruntime":
        pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    report = evaluate(run, squares, bootstrap=0, backend=backend)
    assert report.backend.precision == "fp32"
    assert report.mean_ap == pytest.approx(evaluate(run, squares, bootstrap=0, backend="torch").mean_ap, abs=1e-4)


def test_classes_that_do_not_agree_are_an_error_and_no_zero(run, tmp_path):
    root = write_squares(tmp_path / "s", {"test": 2})
    for file in (root / "Annotations").iterdir():
        file.write_text(file.read_text().replace("red", "crimson").replace("blue", "crimson"))
    with pytest.raises(UserError, match="'blue'"):
        evaluate(run, root)
    with pytest.raises(UserError, match="class 'crimson'; expected one of the detector's"):
        evaluate(run, root, labels=("crimson",))


def test_an_image_that_cannot_be_read_counts_as_missed(run, tmp_path):
    root = write_squares(tmp_path / "s", {"test": 3})
    (root / "JPEGImages" / "test000.png").write_text("no image")
    report = evaluate(run, root, bootstrap=0)
    assert report.skipped == 1
    assert report.metrics.images == 3


def write_texts(folder, dataset, detections, names=True):
    """Detections as VOC texts, boxes to a hundredth."""
    folder.mkdir()
    for path, one in zip(dataset.paths, detections, strict=True):
        rows = zip(one.names if names else one.labels, one.scores, one.boxes + np.array([1, 1, 0, 0]), strict=True)
        lines = [f"{n} {s:.9f} {' '.join(f'{v:.6f}' for v in b)}" for n, s, b in rows]
        (folder / f"{path.split('/')[-1].split('.')[0]}.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def given(run, squares):
    """The detections of the run on the test squares."""
    dataset = read_dataset(squares, "test")
    return dataset, detect_all(Detector(run, precision="fp32"), dataset)[0]


def test_detections_in_texts_score_as_the_detector_that_found_them(run, squares, given, tmp_path):
    dataset, detections = given
    expected = evaluate(run, squares, bootstrap=0)
    for names in (True, False):
        mine = [one.of_classes(dataset.labels) for one in detections]
        report = evaluate(write_texts(tmp_path / str(names), dataset, mine, names), squares, bootstrap=0)
        assert report.mean_ap == pytest.approx(expected.mean_ap, abs=1e-9)
        assert "scores unknown" in str(report)
        assert "detections read from files" in str(report)
        assert report.to_json()["backend"] is None
    one = evaluate(tmp_path / "True", squares, labels=("red",), bootstrap=0)
    assert [c.name for c in one.metrics.classes] == ["red"]
    assert one.mean_ap == pytest.approx(next(c.ap for c in expected.metrics.classes if c.name == "red"))


def test_coco_results_score_as_the_detector_that_found_them(run, squares, given, tmp_path):
    convert(squares, tmp_path / "coco", format="coco")
    dataset = read_dataset(tmp_path / "coco", "test")
    file = json.loads((tmp_path / "coco/annotations/instances_test.json").read_text())
    ids = {image["file_name"].split("/")[-1]: image["id"] for image in file["images"]}
    categories = {c["name"]: c["id"] for c in file["categories"]}
    results = []
    for path, one in zip(given[0].paths, given[1], strict=True):
        for name, score_, (x1, y1, x2, y2) in zip(one.names, one.scores, one.boxes.astype(float), strict=True):
            results.append({"image_id": ids[path.split("/")[-1]], "category_id": categories[name],
                            "score": float(score_), "bbox": [x1, y1, x2 - x1, y2 - y1]})  # fmt: skip
    (tmp_path / "found.json").write_text(json.dumps(results))
    report = evaluate(tmp_path / "found.json", tmp_path / "coco", protocol="coco", bootstrap=0)
    assert report.mean_ap == report.coco.numbers["AP"]
    by_name = {path.split("/")[-1]: one for path, one in zip(given[0].paths, given[1], strict=True)}
    mine = [by_name[path.split("/")[-1]] for path in dataset.paths]
    expected = score_coco(dataset, mine)
    assert report.coco.numbers == {name: pytest.approx(v) for name, v in expected.numbers.items()}
    assert "COCO (101 recalls" in str(report)
    assert "difficult objects counted" in str(report)
    assert evaluate(run, squares, protocol="coco", bootstrap=0).coco.numbers["AP50"] > 0.5


@pytest.mark.parametrize("wrong, said", [
    ({"protocol": "pascal"}, "protocol: 'pascal'; expected one of voc2007, voc2010, coco"),
    ({"protocol": "coco", "difficult": "ignore"}, "COCO|coco.*crowds"),
    ({"report": "page.pdf"}, "ends in .html"),
])  # fmt: skip
def test_options_outside_their_law_are_refused(run, squares, tmp_path, wrong, said):
    if "report" in wrong:
        wrong = {"report": tmp_path / wrong["report"]}
    with pytest.raises(ConfigError, match=said):
        evaluate(run, squares, **wrong)


def test_detections_of_foreign_classes_are_an_error_and_no_zero(squares, given, tmp_path):
    dataset, detections = given
    other = [replace(one, class_names=("crimson", "blue")) for one in detections]
    with pytest.raises(UserError, match="class 'crimson', and the data set has 0 blue, 1 red"):
        evaluate(write_texts(tmp_path / "d", dataset, other), squares)


def test_a_split_without_the_images_is_an_error(squares, given, tmp_path):
    folder = write_texts(tmp_path / "d", *given)
    with pytest.raises(UserError, match="which no image of split 'val'"):
        evaluate(folder, squares, split="val")


def test_errors_by_kind_are_told(run, squares):
    report = evaluate(run, squares, bootstrap=0)
    assert "lost to each kind of error" in str(report)
    wrong = sum(kind.count for kind in report.analysis.errors.kinds[:-1])
    right = int(report.analysis.found.true_positive.sum())
    assert right + wrong == sum(c.detections for c in report.metrics.classes)
    assert np.isclose(report.analysis.metrics.mean_ap, report.mean_ap)


@needs_shared
def test_the_command_scores_files_of_detections(capsys):
    data = SHARED / "data"
    assert main(["evaluate", str(data / "voc100/detections"), str(data / "voc100"), "--split", "all"]) == 0
    assert "0.614 [" in capsys.readouterr().out
    sample = data / "metric_cases" / "coco_sample"
    words = ["evaluate", str(sample / "dets.json"), str(sample / "gt.json"), "--split", "all", "--protocol", "coco"]
    assert main(words) == 0
    assert "AP          0.5036" in capsys.readouterr().out


def test_a_page_replaces_nothing_and_stays_out_of_the_data(run, squares, tmp_path):
    before = (run / "report.html").read_bytes()
    with pytest.raises(UserError, match=r"report\.html: already exists; give another name, or --overwrite"):
        evaluate(run, squares, report=run / "report.html")
    assert (run / "report.html").read_bytes() == before
    with pytest.raises(UserError, match=r"new\.html: is inside the data set"):
        evaluate(run, squares, report=squares / "new.html")


def test_a_run_knows_its_data(run, squares, tmp_path):
    data = yaml.safe_load((run / "config.yaml").read_text())["data"]
    found = evaluate(run, split="val", bootstrap=0)
    assert (found.data, found.mean_ap) == (data, evaluate(run, squares, split="val", bootstrap=0).mean_ap)
    assert evaluate(run / "model.safetensors", split="val", bootstrap=0).data == data
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((run / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"DATA is missing, and .*alone.safetensors is not a run that knows its data"):
        evaluate(alone)
    moved = tmp_path / "run"
    moved.mkdir()
    (moved / "config.yaml").write_text((run / "config.yaml").read_text().replace(data, "/nowhere"))
    with pytest.raises(
        UserError, match=r"nowhere: the data of .*run is not there; give its new path: lookonce evaluate"
    ):
        evaluate(moved)


def test_tiles_are_compared_with_whole_images(run, squares, tmp_path, capsys):
    page = tmp_path / "a.html"
    words = ["evaluate", str(run), str(squares), "--bootstrap", "0", "--tile", "64x64", "--report", str(page)]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    dataset, tiling = read_dataset(squares, "test"), told["tiling"]
    for way, detector in (("whole", Detector(run, precision="fp32")),
                          ("tiled", Detector(run, precision="fp32", tile=(64, 64)))):  # fmt: skip
        found = analyse(dataset, detect_all(detector, dataset)[0], Rules(score_threshold=0.005), 0)
        assert tiling[way]["ap"] == found.metrics.mean_ap
        assert tiling[way]["by_size"] == {one.size: one.mean_ap for one in found.sizes}
        assert tiling[way]["milliseconds"] > 0
    assert told["mean_ap"] == tiling["tiled"]["ap"]
    assert {size: each["ap"] for size, each in told["sizes"].items()} == tiling["tiled"]["by_size"]
    assert (tiling["tile"], tiling["overlap"], tiling["parts"]) == ([64, 64], 0.2, 5)
    assert tiling["objects"] == {size: each["objects"] for size, each in told["sizes"].items()}
    shown = page.read_text()
    assert "tiles of 64 x 64 px, overlap 0.2; 5.0 parts an image, the whole among them; whole images: AP " in shown
    assert "--tile 64x64</code>" in shown
    report = evaluate(run, squares, bootstrap=0, tile="64x64", protocol="coco")
    assert report.tiling.tiled.ap == report.mean_ap
    assert report.tiling.tiled.by_size["small"] == report.coco.numbers["AP small"]
    assert "whole images" in str(report)
    assert evaluate(run, squares, bootstrap=0).tiling is None


def test_detections_in_files_have_no_tiles(run, squares, tmp_path):
    (tmp_path / "found.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"tile: the detections are read from .*found.json; leave it out"):
        evaluate(tmp_path / "found.json", squares, tile="64x64")
