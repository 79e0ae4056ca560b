"""The page of an evaluation: what it shows, and which examples it chooses."""

import html
import json
import re

import numpy as np
import pytest

from browser import allow, needs_browser, opened
from lookonce import Detections, evaluate, read_dataset
from lookonce.evaluation.average_precision import Rules
from lookonce.evaluation.coco import score_coco
from lookonce.evaluation.evaluate import analyse
from lookonce.model.postprocess import LOWEST_THRESHOLD
from lookonce.report.evaluation_page import (
    SHOWN,
    by_f1,
    choose_examples,
    first_threshold,
    score_panel,
    whole_images,
    write_evaluation_report,
)
from sets import crowded, write_squares


@pytest.fixture(scope="module")
def page(run, squares, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "evaluation.html"
    report = evaluate(run, squares, split="all", bootstrap=20, report=path)
    assert report.page == path
    assert str(path) in str(report)
    return path


def test_the_page_needs_no_other_file_and_has_no_script_but_the_common_one(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("<script") == 1
    assert not re.search(r"""(?:src|href|action)=["'](?!data:|#)""", text)
    assert not re.search(r"url\((?!#|\"?data:)", text)


def test_the_page_says_everything(page, run):
    text = page.read_text(encoding="utf-8")
    for word in ("VOC 2010 (area under the curve), IoU &gt;= 0.5", "40 images", "--split</code> all", str(run),
                 "numpy ", ", fp32, ", "Precision-recall curves", "Errors by kind", "Confusion matrix",
                 "Calibration of scores", "Missed objects",
                 "True positives", "duplicate", "TIDE", "small"):  # fmt: skip
        assert word in text, word
    assert text.count('<image href="data:image/jpeg') >= 4
    assert text.count("<polyline") == 2  # a curve a class
    assert not re.search(r">\s*nan\b", text)
    marks = ('"sentence"', "<image href", ">Numbers</h2>", ">Confusion matrix</h2>")
    marks = ('"sentence"', "<image href", ">Numbers</h2>", ">Confusion matrix</h2>")
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)  # the verdict first, then images, then numbers


def test_coco_s_numbers_stand_on_the_page_and_many_classes_make_a_list(tmp_path):
    dataset, detections = crowded(0, classes=30)
    analysis = analyse(dataset, detections, Rules(difficult="count"), bootstrap=0)
    coco = score_coco(dataset, detections)
    text = write_evaluation_report(tmp_path / "p.html", dataset, analysis, coco, [("protocol", "COCO")]).read_text()
    for name, value in coco.numbers.items():
        assert f"<td>{name}</td><td>{value:.3f}</td>" in text
    assert "detected as</th>" in text
    assert 'class="matrix' not in text
    assert "<h2>True positives</h2>" not in text  # its images are not there


def test_names_cannot_break_the_page_and_nothing_to_say_is_no_error(squares, tmp_path):
    dataset = read_dataset(squares, "test", labels=("red",))
    object.__setattr__(dataset, "labels", ("<script>alert(1)</script>",))
    empty = dataset.select(np.zeros(len(dataset), bool))
    nothing = [Detections([], [], [], dataset.labels)] * len(dataset)
    for some, found in ((dataset, nothing), (empty, [])):
        analysis = analyse(some, found, Rules(), bootstrap=5)
        text = write_evaluation_report(tmp_path / "p.html", some, analysis, None, [("data", "<b>")]).read_text()
        assert text.count("<script") == 1
        assert "&lt;script&gt;" in text
        assert "<b>\n" not in text
    assert "no objects" in text


def test_costs_and_calibration_are_drawn_as_they_are(tmp_path):
    dataset, detections = crowded(3)
    analysis = analyse(dataset, detections, Rules(), bootstrap=0)
    text = write_evaluation_report(tmp_path / "p.html", dataset, analysis, None, []).read_text(encoding="utf-8")
    dearest = max(kind.cost for kind in analysis.errors.kinds)
    for kind in analysis.errors.kinds:
        row = re.search(f"<tr><td>{kind.name} <.*?</tr>", text)[0]
        assert f"<td>{kind.count:,}</td><td>{kind.cost:+.3f}</td>" in row
        assert f"width:{100 * max(kind.cost, 0) / dearest:.1f}%" in row
    found = analysis.calibration
    full = [k for k in range(len(found.counts)) if found.counts[k]]
    heights = re.findall(r'<rect x="([0-9.]+)" y="[0-9.]+" width="34" height="([0-9.]+)" fill="var\(--accent\)"', text)
    expected = [(400 * found.edges[k] + 3, 200 * found.precision[k]) for k in full]
    np.testing.assert_allclose(np.array(heights, float), expected, atol=0.06)


@needs_browser
def test_a_browser_moves_the_slider_and_enlarges_an_image_without_an_error_or_a_request(page, tmp_path):
    source = page.read_text(encoding="utf-8")
    all_classes = json.loads(html.unescape(re.search("data-groups='(.*?)'", source)[1]))[0]
    boxes, tp, objects = all_classes["boxes"][60], all_classes["tp"][60], all_classes["objects"]
    move = """{ const slider = document.querySelector("input[type=range]");
slider.value = 60;
slider.dispatchEvent(new Event("input"));
document.querySelector("main figure svg").dispatchEvent(new MouseEvent("click")); }"""
    allow(tmp_path / "p.html", source, move)
    text, errors, requests = opened(tmp_path / "p.html", tmp_path)
    assert f'<b class="precision">{tp / boxes:.3f}</b>' in text
    assert f'<b class="recall">{tp / objects:.3f}</b>' in text
    assert f'<b class="f1">{2 * tp / (boxes + objects):.3f}</b>' in text
    assert f'<span class="tp">{tp:,}</span>' in text
    assert re.search(r'<svg class="key tp"[^>]*><rect class="halo"', text)  # the key to the colours is left alone
    shown = re.findall(r'<g class="box (tp|fp)( off)?" data-score="([0-9.]+)"', text)
    assert {bool(off) for _, off, _ in shown} == {True, False}
    assert all(bool(off) == (float(score) <= 0.6) for _, off, score in shown)
    assert re.search(r'<dialog[^>]* open="">.*<svg class="view.*</dialog>', text, re.DOTALL)
    assert errors == requests == []


@needs_browser
def test_the_address_of_a_page_says_what_is_shown(page, tmp_path):
    text, _, _ = opened(page, tmp_path, "#score=0.9&class=red&image=1")
    assert '<output class="at">0.90</output>' in text
    assert 'data-class="red" tabindex="0" role="button" aria-pressed="true"' in text
    assert re.search('<dialog[^>]* open=""', text)
    blue = re.findall(r'<g class="box ([^"]*)" data-score="[^"]*" data-class="blue"', text)
    assert blue
    assert all("off" in classes.split() for classes in blue)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Squares; of every third image nothing is found, on every third something that is not there."""
    dataset = read_dataset(write_squares(tmp_path_factory.mktemp("s") / "s", {"test": 20}), "test")
    detections = []
    for n, record in enumerate(dataset.records):
        boxes = record.boxes if n % 3 else np.zeros((0, 4), np.float32)
        scores = np.linspace(0.9, 0.7, len(boxes))
        labels = record.labels if n % 3 else np.zeros(0)
        if n % 3 == 1:
            boxes = np.vstack((boxes, [[0, 0, 8, 8]]))
            scores, labels = np.append(scores, 0.95), np.append(labels, 1)
        detections.append(Detections(boxes, scores, labels, dataset.labels))
    return dataset, analyse(dataset, detections, Rules(), bootstrap=0)


def test_every_sort_is_shown_and_said(scored):
    dataset, analysis = scored
    examples = choose_examples(dataset, analysis, first_threshold(analysis))
    assert len(examples.true_positives) == SHOWN
    assert len(examples.missed) == sum(len(dataset.records[n].boxes) for n in range(0, 20, 3)) <= SHOWN
    assert 0 < len(examples.false_positives) <= SHOWN
    assert all(": background, test" in one.caption or ": both, test" in one.caption for one in examples.false_positives)
    assert all(one.kind in one.caption for one in examples.false_positives)
    missed = {f"test{n:03}.png" for n in range(0, 20, 3)}
    assert all(one.caption.rpartition(", ")[2] in missed for one in examples.missed)
    assert {one.label for one in examples.true_positives} == set(dataset.labels)  # the classes in turn


def test_what_is_found_missed_and_wrong_is_counted_on_each_image(scored):
    dataset, analysis = scored
    views = whole_images(dataset, analysis, 0.5, range(20), 20)
    for n, view in enumerate(views):
        objects = len(dataset.records[n].boxes)
        found, wrong = (objects if n % 3 else 0), int(n % 3 == 1)
        assert f" {found} of {objects} found, {wrong} false positive" in view.caption
    order = by_f1(dataset, analysis, 0.5)
    assert set(order[:7].tolist()) == set(range(0, 20, 3))  # nothing is found on them
    assert set(order[-6:].tolist()) == set(range(2, 20, 3))  # everything, and nothing else


def test_the_panel_counts_what_a_loop_counts(scored):
    dataset, analysis = scored
    panel, found = score_panel(dataset, analysis, 0.3), analysis.found
    assert [group["name"] for group in panel["groups"]] == ["all classes", *dataset.labels]
    for number, group in enumerate(panel["groups"]):
        mine = [k for k in range(len(found.score)) if number == 0 or found.label[k] == number - 1]
        for at in (0, 30, 72, 90, 95, 100):
            above = [k for k in mine if found.score[k] > at / 100]
            assert group["boxes"][at] == len(above)
            assert group["tp"][at] == sum(bool(found.true_positive[k]) for k in above)
    assert panel["objects"] == len(dataset.boxes) == sum(group["objects"] for group in panel["groups"][1:])
    assert panel["precision"] == panel["tp"] / panel["boxes"]


def test_a_weak_model_draws_no_carpet(scored, tmp_path):
    dataset, _ = scored
    weak = [Detections(record.boxes, np.full(len(record.boxes), 0.05), record.labels, dataset.labels)
            for record in dataset.records]  # fmt: skip
    assert (
        first_threshold(analyse(dataset, weak, Rules(), bootstrap=0)) < 0.05
    )  # nothing would be seen above LOWEST_THRESHOLD
    weak[0] = Detections(weak[0].boxes, np.full(len(weak[0]), 0.5), weak[0].labels, dataset.labels)
    assert first_threshold(analyse(dataset, weak, Rules(), bootstrap=0)) == LOWEST_THRESHOLD


def test_images_that_do_not_open_are_left_out(tmp_path):
    root = write_squares(tmp_path / "s", {"test": 3})
    dataset = read_dataset(root, "test")
    for file in (root / "JPEGImages").iterdir():
        file.write_text("text")
    nothing = [Detections([], [], [], dataset.labels)] * 3
    examples = choose_examples(dataset, analyse(dataset, nothing, Rules(), bootstrap=0), 0.1)
    assert examples.true_positives == examples.missed == examples.false_positives == []
