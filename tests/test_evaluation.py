"""Mirrors src/lookonce/evaluation.py."""

import pytest

from lookonce import Detector, evaluate, read_dataset
from lookonce.errors import UserError
from lookonce.evaluation import detect_all
from lookonce.metrics import Rules, score
from sets import write_squares


def test_a_report_is_the_score_of_the_detections(run, squares):
    report = evaluate(run, squares, bootstrap=50)
    dataset = read_dataset(squares, "test")
    found, skipped = detect_all(Detector(run), dataset)
    assert skipped == 0
    assert report.mean_ap == score(dataset, found, Rules(score_threshold=0.005), bootstrap=0).mean_ap
    assert report.mean_ap > 0.5
    low, high = report.metrics.interval
    assert low <= report.mean_ap <= high
    said = str(report)
    assert "VOC 2010" in said
    assert "IoU >= 0.5" in said
    assert "difficult objects ignored" in said


def test_protocol_split_and_classes_are_chosen(run, squares):
    report = evaluate(run, squares, split="all", labels=("red",), protocol="voc2007", difficult="count", bootstrap=0)
    assert [c.name for c in report.metrics.classes] == ["red"]
    assert report.metrics.images == 40
    assert "11-point" in str(report)
    assert report.__rich__().columns


def test_classes_that_do_not_agree_are_an_error_and_no_zero(run, tmp_path):
    root = write_squares(tmp_path / "s", {"test": 2})
    for file in (root / "Annotations").iterdir():
        file.write_text(file.read_text().replace("red", "crimson").replace("blue", "crimson"))
    with pytest.raises(UserError, match="'blue'"):
        evaluate(run, root)
    with pytest.raises(UserError, match="class 'crimson' is not one the detector knows"):
        evaluate(run, root, labels=("crimson",))


def test_a_picture_that_cannot_be_read_counts_as_missed(run, tmp_path):
    root = write_squares(tmp_path / "s", {"test": 3})
    (root / "JPEGImages" / "test000.png").write_text("no picture")
    report = evaluate(run, root, bootstrap=0)
    assert report.skipped == 1
    assert report.metrics.images == 3
