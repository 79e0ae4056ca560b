"""Tests of the page of a run while it trains."""

from dataclasses import replace

import pytest

from lookonce import evaluate, read_dataset
from lookonce.model.model_file import load_model
from lookonce.report.run_page import write_run_page
from lookonce.training.advice import RunReport
from lookonce.training.config import RunConfig
from lookonce.training.validation import Validation


@pytest.fixture
def watch(run, squares, tmp_path):
    """Of a run that has just been validated."""
    from lookonce.evaluation.evaluate import detect_all
    from lookonce.inference.detector import Detector

    val = Validation(read_dataset(squares, "val"), (96, 96), "letterbox")
    val.metrics = evaluate(run, squares, split="val", bootstrap=0).metrics
    val.detections, _ = detect_all(Detector(run), val.dataset)
    train_set = read_dataset(squares, "train")
    plan = RunConfig.from_yaml((run / "config.yaml").read_bytes(), run)
    return RunReport(tmp_path, train_set, val, replace(plan, val_split="exam"), load_model(run).region.anchors,
                     write_page=write_run_page)  # fmt: skip


def test_pages_come_after_validations_but_not_more_often_than_one_looks(watch, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("lookonce.training.advice.time.monotonic", lambda: now[0])
    written = []
    monkeypatch.setattr(watch, "write", lambda whole: written.append((now[0], whole)))
    for passed in (0, 10, 30, 61, 62):
        now[0] = 1000.0 + passed
        watch.on_validation_end(None, None)
    assert written == [(1000.0, False), (1061.0, False)]


def test_the_page_names_sizes_and_shows_the_worst_images_first(watch):
    text = watch.write().read_text(encoding="utf-8")
    assert text.index("Worst validation images") < text.index(">Best<")
    assert "<td>medium</td>" in text
    for heading in ("Precision against recall", "Errors by kind", "What is taken for what", "scores to be believed"):
        assert heading in text
    assert "8 images of the split &ldquo;exam&rdquo;" in text
    shares = [float(part.split("F1 ")[1][:4]) for part in text.split("<figcaption>")[1:] if "F1 " in part[:60]]
    worst, best = shares[: len(shares) // 2], shares[len(shares) // 2 :]
    assert worst == sorted(worst)
    assert best == sorted(best, reverse=True)
    assert worst[0] <= best[0]


def test_an_image_that_is_gone_leaves_the_page_standing(watch, tmp_path, monkeypatch):
    from lookonce.errors import ImageError

    def gone(path, **_):
        raise ImageError(path, "gone")

    monkeypatch.setattr("lookonce.report.run_page.load_rgb", gone)
    monkeypatch.setattr("lookonce.report.evaluation_page.load_rgb", gone)
    assert "<figcaption>" not in watch.write().read_text(encoding="utf-8")


def test_without_validation_the_page_has_curves_alone(watch):
    watch.validation = None
    text = watch.write().read_text(encoding="utf-8")
    assert "mAP@" not in text
    assert "Worst" not in text
