"""Mirrors src/lookonce/view/report.py."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookonce import evaluate
from lookonce.data.dataset import Record
from lookonce.errors import UserError
from lookonce.model.detections import Detections
from lookonce.report.run_page import Gallery, Page, SizeRow, compared, facts, write_report
from lookonce.training.history import read_curves


class Outside(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [v for k, v in attrs if k in ("src", "href", "action") and not v.startswith(("data:", "#"))]


def test_the_page_is_one_file_that_needs_no_other(run, squares, tmp_path):
    report = evaluate(run, squares, bootstrap=20)
    gallery = Gallery("Some", "<note>", [("a <b> & c", Image.new("RGB", (20, 10)))])
    told = facts({"network": "nano", "size": 96}, "squares", 24, ((1.0, 2.0),))
    sizes = [SizeRow("small", 0, None, None, None), SizeRow("large", 7, 0.5, 0.25, 0.125)]
    page = Page(run, report.metrics, "test", told, ["take <care>"], sizes, [gallery])
    text = write_report(tmp_path / "r.html", page).read_text(encoding="utf-8")
    outside = Outside()
    outside.feed(text)
    assert outside.found == []
    for said in ("a &lt;b&gt; &amp; c", "take &lt;care&gt;", f"{report.mean_ap:.4f}", "VOC 2010", "1.00 x 2.00",
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
