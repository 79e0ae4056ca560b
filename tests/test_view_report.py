"""Mirrors src/lookonce/view/report.py."""

import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from lookonce import evaluate
from lookonce.errors import UserError
from lookonce.model_file import load_model
from lookonce.view.report import read_curves, write_report


class Outside(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [v for k, v in attrs if k in ("src", "href", "action") and not v.startswith(("data:", "#"))]


def test_the_page_is_one_file_that_needs_no_other(run, squares, tmp_path):
    report = evaluate(run, squares, bootstrap=20)
    picture = Image.new("RGB", (20, 10))
    page = write_report(tmp_path / "r.html", run, load_model(run), report, [("a <b> & c", picture)])
    text = page.read_text(encoding="utf-8")
    outside = Outside()
    outside.feed(text)
    assert outside.found == []
    assert "a &lt;b&gt; &amp; c" in text
    assert f"{report.mean_ap:.4f}" in text
    assert "VOC 2010" in text
    assert re.search(r"<svg.*</svg>", text, re.DOTALL)
    assert not re.search(r">\s*nan\b", text)


def test_curves_come_from_the_runs_own_file(run, tmp_path):
    found = read_curves(run / "metrics.csv")
    assert [epoch for epoch, _ in found["loss_epoch"]] == list(range(1, 61))
    with pytest.raises(UserError, match="not the curves of a run"):
        read_curves(tmp_path / "none.csv")
