"""Mirrors src/lookonce/view/evaluation_report.py."""

import re

import numpy as np
import pytest

from browser import needs_browser, opened
from lookonce import Detections, evaluate, read_dataset
from lookonce.evaluation.average_precision import Rules
from lookonce.evaluation.coco import score_coco
from lookonce.evaluation.evaluate import analyse
from lookonce.report.evaluation_page import write_evaluation_report
from sets import crowded


@pytest.fixture(scope="module")
def page(run, squares, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "evaluation.html"
    report = evaluate(run, squares, split="all", bootstrap=20, report=path)
    assert report.page == path
    assert str(path) in str(report)
    return path


def test_the_page_needs_no_other_file_and_runs_nothing(page):
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert not re.search(r"""(?:src|href|action)=["'](?!data:|#)""", text)
    assert not re.search(r"url\((?!#|\"?data:)", text)


def test_the_page_says_everything(page, run):
    text = page.read_text(encoding="utf-8")
    for word in ("VOC 2010 (area under the curve), IoU &gt;= 0.5", "40 images", "--split all", str(run), "numpy ",
                 ", fp32, ", "Precision against recall", "Errors by kind", "What is taken for what", "to be believed",
                 "Misses", "Hits", "duplicate", "TIDE", "small"):  # fmt: skip
        assert word in text, word
    assert text.count('<img src="data:image/jpeg') >= 4
    assert text.count("<polyline") == 2  # a curve a class
    assert "nan" not in re.sub(r"base64,[^\"]*", "", text)


def test_coco_s_numbers_stand_on_the_page_and_many_classes_make_a_list(tmp_path):
    dataset, detections = crowded(0, classes=30)
    analysis = analyse(dataset, detections, Rules(difficult="count"), bootstrap=0)
    coco = score_coco(dataset, detections)
    text = write_evaluation_report(tmp_path / "p.html", dataset, analysis, coco, [("protocol", "COCO")]).read_text()
    for name, value in coco.numbers.items():
        assert f"<td>{name}</td><td>{value:.3f}</td>" in text
    assert "taken for</th>" in text
    assert 'class="matrix' not in text
    assert "<h2>Hits</h2>" not in text  # its images are not there


def test_names_cannot_break_the_page_and_nothing_to_say_is_no_error(squares, tmp_path):
    dataset = read_dataset(squares, "test", labels=("red",))
    object.__setattr__(dataset, "labels", ("<script>alert(1)</script>",))
    empty = dataset.select(np.zeros(len(dataset), bool))
    nothing = [Detections([], [], [], dataset.labels)] * len(dataset)
    for some, found in ((dataset, nothing), (empty, [])):
        analysis = analyse(some, found, Rules(), bootstrap=5)
        text = write_evaluation_report(tmp_path / "p.html", some, analysis, None, [("data", "<b>")]).read_text()
        assert "<script" not in text
        assert "&lt;script&gt;" in text
        assert "<b>\n" not in text
    assert "no objects" in text


@needs_browser
def test_a_browser_opens_it_without_an_error_or_a_request(page, tmp_path):
    text, errors, requests = opened(page, tmp_path)
    assert "Errors by kind" in text
    assert errors == requests == []
