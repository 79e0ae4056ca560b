"""Tests of lookonce.training.history."""

import csv

import numpy as np
import pytest
import torch

from lookonce.data.anchors import Coverage
from lookonce.report.curves import curve_cards
from lookonce.training.history import History, Means, about_curves, about_data, read_curves
from matching_cases import dataset_of

BOX = [0.0, 0.0, 10.0, 10.0]
FINE = Coverage("all", 100, 1.0, 0.0)


def steps(file):
    with file.open(newline="", encoding="utf-8") as text:
        return [int(row["step"]) for row in csv.DictReader(text)]


def test_rows_are_appended_and_unknown_numbers_left_out(tmp_path):
    history = History(tmp_path / "metrics.csv")
    history.log_metrics({"val/mAP": 0.5, "epoch": 0, "odd": 1.0}, 3)
    History(tmp_path / "metrics.csv").log_metrics({"loss_epoch": 2.25, "epoch": 1}, 7)
    with (tmp_path / "metrics.csv").open(newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    assert [(r["epoch"], r["step"], r["val/mAP"], r["loss_epoch"]) for r in rows] == [
        ("0", "3", "0.5", ""), ("1", "7", "", "2.25")]  # fmt: skip
    assert "odd" not in rows[0]


def test_rows_wait_while_another_program_holds_the_file(tmp_path, caplog, monkeypatch):
    """Excel does on Windows; a training goes on, and no row is lost."""
    history = History(tmp_path / "metrics.csv")
    history.log_metrics({"epoch": 0}, 1)

    def held(*_, **__):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.open", held)
        for step in (2, 3):
            history.log_metrics({"epoch": 0}, step)
    assert caplog.text.count("metrics.csv: cannot be written: Permission denied; its rows wait until it can") == 1
    history.log_metrics({"epoch": 0}, 4)
    assert steps(history.file) == [1, 2, 3, 4]


def test_a_resumed_run_removes_the_rows_after_its_checkpoint(tmp_path):
    history = History(tmp_path / "metrics.csv")
    history.truncate(5)  # nothing there yet
    for step in (1, 4, 5, 9):
        history.log_metrics({"epoch": 0}, step)
    with history.file.open("a", encoding="utf-8") as text:
        text.write("0,4,")  # a kill in the middle of a row
    history.truncate(5)
    assert steps(history.file) == [1, 4]
    history.truncate(0)
    assert steps(history.file) == []


def test_rows_of_version_0_1_are_kept_under_the_columns_of_today(tmp_path):
    history = History(tmp_path / "metrics.csv")
    history.file.write_text("epoch,step,gone,loss_epoch\n0,1,5,2.5\n0,2,5,1.5\n", encoding="utf-8")
    history.truncate(2)
    history.log_metrics({"loss_epoch": 2.25, "ciou_epoch": 0.5, "epoch": 1}, 7)
    with history.file.open(newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    assert [(r["step"], r["loss_epoch"], r["ciou_epoch"]) for r in rows] == [("1", "2.5", ""), ("7", "2.25", "0.5")]
    assert "gone" not in rows[0]


def test_means_weight_each_step_by_its_images_and_leave_out_values_that_are_not_finite():
    draw, means = np.random.default_rng(0), Means()
    assert means.reset() == {}
    for _ in range(2):  # the second epoch starts anew
        values, recalls, weights = draw.random(7), draw.random(7), draw.integers(1, 5, 7)
        recalls[2] = recalls[6] = np.nan
        for value, recall, weight in zip(values, recalls, weights, strict=True):
            means.add({"loss": torch.tensor(value), "recall": torch.tensor(recall)}, int(weight))
        assert means.last == {"loss": torch.tensor(values[6])}
        seen = [i for i in range(7) if i not in (2, 6)]
        assert {name: value.item() for name, value in means.reset().items()} == pytest.approx({
            "loss": sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights),
            "recall": sum(recalls[i] * weights[i] for i in seen) / sum(weights[i] for i in seen),
        })  # fmt: skip


@pytest.mark.parametrize("content", [
    b"", b"\n", b"\xff\xfe\x00\n1,2\n", b"epoch,step\n", b"a,b\n1,2\n", b"epoch,step\n-1,-1\n0,nan\n",
    b"\0" * 99 + b"\n",
    b"epoch,step,loss_epoch\n0,1,2.5\n1,x,3\n1,2,1e308\n1,3,nan\n2,4,1\n3,5,4,9\n4,6,\n5",
    b"epoch,step\n0,1" + b"9" * 5000,
    b'"epoch,step\n0,1\n', b"step,epoch,step\n1,0,2\n", b"epoch,step,val/mAP\r\n0,1,0.5\r\n",
])  # fmt: skip
def test_any_metrics_file_is_cut_to_rows_that_a_page_can_show(content, tmp_path):
    history = History(tmp_path / "metrics.csv")
    history.file.write_bytes(content)
    history.truncate(100)
    history.log_metrics({"epoch": 6, "loss_epoch": 1.5, "seen": 10.0}, 7)
    curves = read_curves(history.file)
    assert curves["loss_epoch"][-1][1] == 1.5
    assert all(np.isfinite(point).all() for points in curves.values() for point in points)
    [losses] = [one for one in curve_cards(curves) if one["title"] == "Loss"]
    assert losses["lines"][0]["last"] == "1.5"
    if b"2.5" in content:
        assert [value for _, value in curves["loss_epoch"]] == [2.5, 1.0, 1.5]


def test_a_set_too_small_for_a_class_is_named_and_one_that_is_not_passes():
    small = dataset_of([[(BOX, 0, False)] * 40, [(BOX, 1, False)] * 7])
    assert [line for line in about_data(small, [FINE]) if "too few examples of these classes: dog (7)" in line]
    assert about_data(dataset_of([[(BOX, 0, False)] * 40, [(BOX, 1, False)] * 40]), [FINE]) == []


@pytest.mark.parametrize("covered, said", [
    (Coverage("all", 100, 1.0, 0.05), "5.0% of the training objects are lost to anchor collisions"),
    (Coverage("all", 100, 0.9, 0.0), "no anchor fits 10.0% of the training objects"),
])  # fmt: skip
def test_objects_lost_to_collisions_or_without_a_fitting_anchor_give_advice(covered, said):
    full = dataset_of([[(BOX, 0, False), (BOX, 1, False)] * 40])
    found = about_data(full, [covered])
    assert len(found) == 1
    assert found[0].startswith(said)


def curves(val, train, score):
    epochs = range(1, len(val) + 1)
    return {name: list(zip(epochs, values, strict=True))
            for name, values in (("val/loss", val), ("loss_epoch", train), ("val/mAP", score))}  # fmt: skip


def test_overfitting_gives_advice():
    falling = np.linspace(10, 1, 10).tolist()
    parted = curves([5, 4, 3, 2, 2.2, 2.5, 2.8, 3, 3.2, 3.4], falling, [0.5] * 10)
    found = about_curves(parted, 10)
    assert len(found) == 1
    assert "lowest (2) in epoch 4 and is 3.2 now" in found[0]
    assert about_curves(curves(falling, falling, [0.5] * 10), 10) == []
    assert about_curves({}, 10) == []


def test_a_run_that_ends_while_it_improves_gives_advice_and_one_under_way_does_not():
    flat = [1.0] * 8
    rising = curves(flat, flat, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    assert "still rose by 0.200" in about_curves(rising, 8)[0]
    assert about_curves(rising, 20) == []
