"""The page of an evaluation: what it shows, and which examples it chooses."""

import re

import numpy as np
import pytest

from browser import needs_browser, opened
from lookonce import Detections, evaluate, read_dataset
from lookonce.evaluation.average_precision import Rules
from lookonce.evaluation.coco import score_coco
from lookonce.evaluation.evaluate import analyse
from lookonce.report.evaluation_page import SHOWN, SIDE, choose_examples, window, write_evaluation_report
from sets import crowded, write_squares


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
                 ", fp32, ", "Precision-recall curves", "Errors by kind", "Confusion matrix", "Calibration of scores",
                 "Missed objects", "True positives", "duplicate", "TIDE", "small"):  # fmt: skip
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
        assert "<script" not in text
        assert "&lt;script&gt;" in text
        assert "<b>\n" not in text
    assert "no objects" in text


@needs_browser
def test_a_browser_opens_it_without_an_error_or_a_request(page, tmp_path):
    text, errors, requests = opened(page, tmp_path)
    assert "Errors by kind" in text
    assert errors == requests == []


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
    examples = choose_examples(dataset, analysis)
    assert len(examples.true_positives) == SHOWN
    assert len(examples.missed) == sum(len(dataset.records[n].boxes) for n in range(0, 20, 3)) <= SHOWN
    assert 0 < len(examples.false_positives) <= SHOWN
    assert all(": background, test" in one.caption or ": both, test" in one.caption for one in examples.false_positives)
    missed = {f"test{n:03}.png" for n in range(0, 20, 3)}
    assert all(one.caption.rpartition(", ")[2] in missed for one in examples.missed)
    assert {one.caption.split()[0] for one in examples.true_positives} == set(dataset.labels)  # the classes in turn
    for one in (*examples.true_positives, *examples.missed, *examples.false_positives):
        assert one.truth.size == one.detections.size
        assert max(one.truth.size) == SIDE


def test_what_is_there_and_what_was_found_are_drawn_apart(scored):
    dataset, analysis = scored
    examples = choose_examples(dataset, analysis)
    assert any(np.any(np.asarray(one.truth) != np.asarray(one.detections)) for one in examples.missed)


def test_images_that_do_not_open_are_left_out(tmp_path):
    root = write_squares(tmp_path / "s", {"test": 3})
    dataset = read_dataset(root, "test")
    for file in (root / "JPEGImages").iterdir():
        file.write_text("text")
    nothing = [Detections([], [], [], dataset.labels)] * 3
    examples = choose_examples(dataset, analyse(dataset, nothing, Rules(), bootstrap=0))
    assert examples.true_positives == examples.missed == examples.false_positives == []


@pytest.mark.parametrize("seed", range(20))
def test_a_window_holds_its_box_and_stays_in_the_image(seed):
    draw = np.random.default_rng(seed)
    size = int(draw.integers(20, 500)), int(draw.integers(20, 500))
    corner = draw.uniform(0, np.array(size) - 2)
    box = np.concatenate((corner, corner + draw.uniform(1, np.array(size) - corner)))
    left, top, right, bottom = window(box, size)
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]
    assert left <= box[0] + 1
    assert top <= box[1] + 1
    assert right >= box[2] - 1
    assert bottom >= box[3] - 1
    beyond = window(box + 1000, size)  # a detection may lie outside
    assert 0 <= beyond[0] < beyond[2] <= size[0]
