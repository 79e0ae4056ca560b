"""Tests of lookonce.report.explain_encoding."""

import shutil

import numpy as np
import pytest
import torch

from lookonce.data.read import read_dataset
from lookonce.errors import ImageError
from lookonce.model.layers import PlacedHead, Region
from lookonce.report.explain_encoding import example, first_example, most_instructive

HEAD = PlacedHead(Region(((1.0, 1.0), (1.6, 1.5)), 2), 32)


def test_targets_say_what_the_boxes_say(squares):
    dataset = read_dataset(squares)
    n = most_instructive(dataset)[0]
    shown = example(dataset, n, (96, 96), "letterbox")
    record = dataset.records[n]
    assert shown.name == record.path.name
    for t, box, label in zip(shown.targets(HEAD), record.boxes.tolist(), record.labels, strict=True):
        x, y, w, h = t.box
        assert (x, y, x + w, y + h) == pytest.approx(box)
        assert t.name == dataset.labels[label]
        assert (t.col, t.row) == (int((box[0] + box[2]) / 2 // 32), int((box[1] + box[3]) / 2 // 32))
        anchor = np.array(HEAD.anchors_px[t.anchor - 1])
        assert t.anchor_box[2:] == pytest.approx(anchor)
        assert (t.anchor_box[0] + anchor[0] / 2, t.anchor_box[1] + anchor[1] / 2) == pytest.approx(t.centre)
        assert np.exp(t.twh) * anchor == pytest.approx((w, h), rel=1e-5)
        assert (32 * (t.txy[0] + t.col), 32 * (t.txy[1] + t.row)) == pytest.approx(t.centre, rel=1e-5)


def test_the_input_is_what_detection_sees(squares):
    shown = first_example(read_dataset(squares), (96, 96), "letterbox")
    assert shown.input_size == (96, 96)
    assert shown.batch.shape == (1, 3, 96, 96)
    x, y, w, h = (round(v) for v in shown.targets(HEAD)[0].box)
    inside = shown.pixels[:, y + 2 : y + h - 2, x + 2 : x + w - 2]
    colours = {"red": (220, 40, 40), "blue": (40, 60, 220)}
    np.testing.assert_allclose(255 * inside.mean((1, 2)), colours[shown.targets(HEAD)[0].name], atol=1)


def test_of_two_objects_on_one_anchor_the_first_is_a_collision(squares):
    shown = first_example(read_dataset(squares), (96, 96), "letterbox")
    boxes = torch.tensor([[2.0, 2, 30, 30], [1, 1, 29, 29], [40, 40, 60, 60]])
    objects = shown.objects._replace(boxes=boxes, labels=torch.tensor([0, 1, 0]), image=torch.zeros(3).long(),
                                     ignore=torch.tensor([False, False, True]))  # fmt: skip
    notes = [t.note for t in type(shown)("n", shown.labels, shown.size, shown.pixels, objects).targets(HEAD)]
    assert notes == ["anchor collision", "", "difficult: ignored"]


def test_images_that_cannot_be_opened_are_passed_over(squares, tmp_path):
    shutil.copytree(squares, tmp_path / "s")
    dataset = read_dataset(tmp_path / "s")
    first, second = most_instructive(dataset)[:2]
    dataset.records[first].path.write_text("text")
    assert first_example(dataset, (96, 96), "stretch").name == dataset.records[second].path.name
    with pytest.raises(ImageError):
        example(dataset, first, (96, 96), "stretch")
    for file in (tmp_path / "s" / "JPEGImages").iterdir():
        file.write_text("text")
    assert first_example(dataset, (96, 96), "stretch") is None
