"""The page of a run: curves, scores, advice and drawn images."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookonce import evaluate, read_dataset
from lookonce.data.dataset import Record
from lookonce.errors import ImageError, UserError
from lookonce.evaluation.evaluate import detect_all
from lookonce.inference.detector import Detector
from lookonce.model.detections import Detections
from lookonce.model.layers import PlacedHead, Region
from lookonce.model.model_file import load_model
from lookonce.report.run_page import Gallery, Page, SizeRow, compared, facts, write_report, write_run_page
from lookonce.training.config import RunConfig
from lookonce.training.history import RunReport, read_curves
from lookonce.training.validation import Validation


class Outside(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [v for k, v in attrs if k in ("src", "href", "action") and not v.startswith(("data:", "#"))]


def test_the_page_is_one_file_that_needs_no_other(run, squares, tmp_path):
    report = evaluate(run, squares, bootstrap=20)
    gallery = Gallery("Some", "<note>", [("a <b> & c", Image.new("RGB", (20, 10)))])
    rows = facts({"network": "nano", "size": 96}, "squares", 24, [PlacedHead(Region(((1.0, 2.0),), 2), 32)])
    sizes = [SizeRow("small", 0, None, None, None), SizeRow("large", 7, 0.5, 0.25, 0.125)]
    page = Page(run, report.metrics, "test", rows, ["take <care>"], sizes, [gallery])
    text = write_report(tmp_path / "r.html", page).read_text(encoding="utf-8")
    outside = Outside()
    outside.feed(text)
    assert outside.found == []
    for said in ("a &lt;b&gt; &amp; c", "Take &lt;care&gt;.", f"{report.mean_ap:.4f}", "VOC 2010", "1.00 x 2.00",
                 "<td>large</td><td>0.125</td><td>7</td><td>0.500</td><td>0.250</td>",
                 "<td>small</td><td>-</td><td>0</td><td>-</td><td>-</td>"):  # fmt: skip
        assert said in text
    assert re.search(r"<svg.*</svg>", text, re.DOTALL)
    assert not re.search(r">\s*nan\b", text)


def test_a_run_without_a_score_or_curves_has_a_page_too(tmp_path):
    text = write_report(tmp_path / "r.html", Page(tmp_path, None, "val", [])).read_text(encoding="utf-8")
    assert "mAP@" not in text
    assert "<svg" not in text


def test_an_image_is_enlarged_with_its_boxes():
    record = Record(Path("a.png"), (20, 10), np.array([[0, 0, 10, 10]], np.float32), np.array([0]), np.zeros(1, bool))
    nothing = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), ("cat",))
    image = compared(Image.new("RGB", (20, 10), (90, 90, 90)), nothing, record, ("cat",))
    assert image.size == (560, 280)
    changed = np.asarray(image) != 90
    assert changed[:, :290].any()
    assert not changed[:, 300:].any()


def test_curves_come_from_the_runs_own_file(run, tmp_path):
    found = read_curves(run / "metrics.csv")
    assert [epoch for epoch, _ in found["loss_epoch"]] == list(range(1, 61))
    rates = [epoch for epoch, _ in found["rate"]]
    assert rates == sorted(set(rates))  # several in an epoch, each at its own place
    with pytest.raises(UserError, match=r"none\.csv: cannot be read"):
        read_curves(tmp_path / "none.csv")


@pytest.fixture
def run_report(run, squares, tmp_path):
    """Of a run that has just been validated."""
    val = Validation(read_dataset(squares, "val"), (96, 96), "letterbox")
    val.metrics = evaluate(run, squares, split="val", bootstrap=0).metrics
    val.detections, _ = detect_all(Detector(run), val.dataset)
    train_set = read_dataset(squares, "train")
    config = RunConfig.from_yaml((run / "config.yaml").read_bytes(), run)
    return RunReport(tmp_path, train_set, val, replace(config, val_split="exam"), load_model(run).heads,
                     write_page=write_run_page)  # fmt: skip


def test_pages_come_after_validations_but_not_more_often_than_one_looks(run_report, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("lookonce.training.history.time.monotonic", lambda: now[0])
    written = []
    monkeypatch.setattr(run_report, "write", lambda whole: written.append((now[0], whole)))
    for passed in (0, 10, 30, 61, 62):
        now[0] = 1000.0 + passed
        run_report.on_validation_end(None, None)
    assert written == [(1000.0, False), (1061.0, False)]


def test_the_page_names_sizes_and_shows_the_worst_images_first(run_report):
    text = run_report.write().read_text(encoding="utf-8")
    assert text.index("Worst validation images") < text.index("Best validation images")
    assert "<td>medium</td>" in text
    for heading in ("Precision-recall curves", "Errors by kind", "Confusion matrix", "Calibration of scores"):
        assert heading in text
    assert "8 images of the split &ldquo;exam&rdquo;" in text
    f1s = [float(part.split("F1 ")[1][:4]) for part in text.split("<figcaption>")[1:] if "F1 " in part[:60]]
    worst, best = f1s[: len(f1s) // 2], f1s[len(f1s) // 2 :]
    assert worst == sorted(worst)
    assert best == sorted(best, reverse=True)
    assert worst[0] <= best[0]


def test_an_image_that_is_gone_leaves_the_page_standing(run_report, tmp_path, monkeypatch):
    def gone(path, **_):
        raise ImageError(path, "gone")

    monkeypatch.setattr("lookonce.report.run_page.load_rgb", gone)
    monkeypatch.setattr("lookonce.report.evaluation_page.load_rgb", gone)
    assert "<figcaption>" not in run_report.write().read_text(encoding="utf-8")


def test_without_validation_the_page_has_curves_alone(run_report):
    run_report.validation = None
    text = run_report.write().read_text(encoding="utf-8")
    assert "mAP@" not in text
    assert "Worst" not in text


def test_the_anchors_of_each_head_are_listed():
    heads = [PlacedHead(Region(((1.0, 2.0), (3.0, 4.0)), 2), 32), PlacedHead(Region(((0.5, 0.5),), 2), 16)]
    assert dict(facts({}, "squares", 24, heads))["anchors (cells)"] == "1.00 x 2.00, 3.00 x 4.00; 0.50 x 0.50"
