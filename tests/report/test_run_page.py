"""The page of a run: curves, scores, advice and drawn images."""

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from lookonce import evaluate, read_dataset
from lookonce.errors import ImageError, UserError
from lookonce.evaluation.evaluate import detect_all
from lookonce.files import write_text
from lookonce.inference.detector import Detector
from lookonce.model.layers import PlacedHead, Region
from lookonce.model.model_file import load_model
from lookonce.report.evaluation_page import sections
from lookonce.report.run_page import BATCH, Page, SizeRow, duration, facts, write_report, write_run_page
from lookonce.training.config import RunConfig
from lookonce.training.history import RunReport, RunState, read_curves
from lookonce.training.validation import Validation


class Outside(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [v for k, v in attrs if k in ("src", "href", "action") and not v.startswith(("data:", "#"))]


def test_the_page_is_one_file_that_needs_no_other(run, squares, tmp_path):
    report = evaluate(run, squares, bootstrap=20)
    rows = facts({"network": "nano", "size": 96}, "squares", 24, [PlacedHead(Region(((1.0, 2.0),), 2), 32)])
    sizes = [SizeRow("small", 0, None, None, None), SizeRow("large", 7, 0.5, 0.25, 0.125)]
    found = sections(read_dataset(squares, "test"), report.analysis)
    page = Page(run, "<test>", rows, advice=["take <care>"], sizes=sizes, found=found, images_note="<note>")
    text = write_report(tmp_path / "r.html", page).read_text(encoding="utf-8")
    outside = Outside()
    outside.feed(text)
    assert outside.found == []
    for said in ("&lt;test&gt;", "&lt;note&gt;", "Take &lt;care&gt;.", f"{report.mean_ap:.3f}", "VOC 2010",
                 "32 x 64", "<td>large</td><td>0.125</td><td>7</td><td>0.500</td><td>0.250</td>",
                 "<td>small</td><td>-</td><td>0</td><td>-</td><td>-</td>"):  # fmt: skip
        assert said in text
    assert re.search(r"<svg.*</svg>", text, re.DOTALL)
    assert not re.search(r">\s*nan\b", text)
    assert 'http-equiv="refresh"' not in text


def test_a_run_without_a_score_or_curves_has_a_page_too(tmp_path):
    text = write_report(tmp_path / "r.html", Page(tmp_path, "val", [])).read_text(encoding="utf-8")
    assert "mAP@" not in text
    assert "<svg" not in text


def test_before_the_first_step_the_page_shows_settings_the_first_batch_and_loads_itself_again(run_report):
    run_report.validation.metrics = None
    run_report.state = RunState(epochs=20)
    Image.new("RGB", (40, 30), (200, 0, 0)).save(run_report.folder / BATCH)
    run_report.on_train_batch_start()
    text = (run_report.folder / "report.html").read_text(encoding="utf-8")
    assert '<meta http-equiv="refresh" content="30">' in text
    assert "<b>0 of 20</b>" in text
    assert "Not validated yet." in text
    assert 'alt="the first augmented batch"' in text
    assert "24 images of squares" in text
    assert "random numbers" in text
    write_text(run_report.folder / "start.json", '{"name": "coco", "sha256": "0123abcd"}')
    run_report.write()
    assert "coco, sha256 0123abcd" in (run_report.folder / "report.html").read_text(encoding="utf-8")
    (run_report.folder / "start.json").unlink()
    counts = Counter(run_report.train_set.labels[label] for label in run_report.train_set.classes)
    assert f"{counts.total()}: {', '.join(f'{name} {count}' for name, count in counts.most_common())}" in text


def test_while_it_trains_the_page_says_how_far_it_is_and_at_the_end_no_longer_reloads(run_report):
    state = RunState(4, 20, 8.61, 750.0, 0.6149, 3, parameters=11_000_000, gflop=5.4321, device="cpu", precision="bf16")
    run_report.state = state
    text = run_report.write(whole=False).read_text(encoding="utf-8")
    for said in ("<b>4 of 20</b>", "<b>12 min</b>left", "<b>8.6</b>images/s", "<b>0.615</b>best mAP@0.5, epoch 3",
                 "<b>11.0 M</b>parameters", "<b>5.43</b>GFLOP", "<b>cpu</b>device, bf16"):  # fmt: skip
        assert said in text, said
    assert "Confusion matrix" not in text  # takes seconds
    run_report.state = replace(state, epoch=20, finished=True)
    text = run_report.write().read_text(encoding="utf-8")
    assert "refresh" not in re.sub("<script>.*</script>", "", text, flags=re.DOTALL)
    assert "epochs, finished" in text
    assert "left</div>" not in text


@pytest.mark.parametrize(("seconds", "said"), [(42.4, "42 s"), (100, "2 min"), (12_000, "3 h 20 min"),
                                               (187_200, "2 d 4 h")])  # fmt: skip
def test_a_duration_has_two_units_at_most(seconds, said):
    assert duration(seconds) == said


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
    assert "first the worst by F1, then the best" in text
    assert "<td>medium</td>" in text
    for heading in ("Precision-recall curves", "Errors by kind", "Confusion matrix", "Calibration of scores"):
        assert heading in text
    assert "8 images of the split &ldquo;exam&rdquo;" in text
    f1s = [float(part.split("F1 ")[1][:4]) for part in text.split("<figcaption>")[1:] if "F1 " in part[:60]]
    assert len(f1s) == 8
    worst, best = f1s[: len(f1s) // 2], f1s[len(f1s) // 2 :]
    assert worst == sorted(worst)
    assert best == sorted(best, reverse=True)
    assert worst[0] <= best[0]


def test_an_image_that_is_gone_leaves_the_page_standing(run_report, tmp_path, monkeypatch):
    def gone(path, *_, **__):
        raise ImageError(path, "gone")

    monkeypatch.setattr("lookonce.report.overlay.load_rgb", gone)
    monkeypatch.setattr("lookonce.report.filmstrip.load_rgb", gone)
    assert "<figcaption>" not in run_report.write().read_text(encoding="utf-8")


def test_without_validation_the_page_has_curves_alone(run_report):
    run_report.validation = None
    text = run_report.write().read_text(encoding="utf-8")
    assert "mAP@" not in text
    assert "<figcaption>" not in text


def test_the_anchors_of_each_head_are_listed():
    heads = [PlacedHead(Region(((1.0, 2.0), (3.0, 4.0)), 2), 32), PlacedHead(Region(((0.5, 0.5),), 2), 16)]
    assert dict(facts({}, "squares", 24, heads))["anchors (input pixels)"] == "32 x 64, 96 x 128; 8 x 8"
