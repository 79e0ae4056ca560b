"""Tests of lookonce.commands.anchors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import SHARED, needs_shared
from lookonce.commands.anchors import anchors, read_anchors
from lookonce.data.anchors import cluster_anchors, shapes_in_cells
from lookonce.data.formats.voc import write_annotation, write_split
from lookonce.data.read import read_dataset
from lookonce.errors import UserError
from lookonce.model import zoo
from lookonce.model.anchors import measure

BCCD = SHARED / "data" / "bccd"


@pytest.fixture(scope="module")
def voc(tmp_path_factory) -> Path:
    """Twelve images of 320 x 200, six distinct box shapes, two classes."""
    root = tmp_path_factory.mktemp("voc")
    rng = np.random.default_rng(0)
    shapes = np.array(((20, 40), (60, 60), (150, 70), (200, 180), (30, 30), (90, 160)))
    (root / "JPEGImages").mkdir()
    for i in range(12):
        Image.new("RGB", (320, 200)).save(root / "JPEGImages" / f"{i}.jpg")
        wh = shapes[rng.integers(6, size=3)] if i else shapes[:3]
        wh = shapes[3:] if i == 1 else wh
        boxes = np.concatenate((np.zeros_like(wh), wh), 1).astype(np.float32)
        write_annotation(root / "Annotations" / f"{i}.xml", f"{i}.jpg", (320, 200), boxes, ["nut", "bolt", "nut"])
    write_split(root / "ImageSets" / "Main" / "train.txt", [str(i) for i in range(12)])
    return root


def test_the_report_has_the_fit_for_every_k_and_for_those_to_compare(voc):
    report = anchors(voc, k=3, plot=None)
    data = read_dataset(voc, "train")
    wh = shapes_in_cells(data)
    assert report.chosen == cluster_anchors(data, 3)
    assert [len(found.wh) for found in report.curve] == [1, 2, 3, 4, 5, 6], "no more anchors than distinct shapes"
    assert report.compared.wh == zoo.VOC_ANCHORS
    assert report.compared == measure(wh, np.array(zoo.VOC_ANCHORS))
    text = str(report)
    assert f"{report.chosen.mean_iou:.4f}" in text
    assert f"{report.compared.recall:.4f}" in text
    assert "yolov2-voc.cfg (5)" in text
    assert report.cfg_line in text
    assert "36 boxes on 12 images" in text
    w, h = report.chosen.wh[0]
    assert f"{w:.4f} x {h:.4f}" in text
    assert f"{32 * w:.1f} x {32 * h:.1f}" in text


def test_the_cfg_line_is_darknets_and_gives_the_anchors_back(voc):
    line = anchors(voc, k=4, plot=None).cfg_line
    key, _, values = line.partition(" = ")
    numbers = [float(v) for v in values.split(",")]
    assert key == "anchors"
    assert len(numbers) == 8
    np.testing.assert_allclose(np.reshape(numbers, (4, 2)), anchors(voc, k=4, plot=None).chosen.wh, rtol=5e-4)


def test_the_plot_is_written_where_it_is_asked_for(voc, tmp_path):
    report = anchors(voc, k=2, plot=tmp_path / "fit.png")
    assert report.plot == tmp_path / "fit.png"
    assert f"plot: {report.plot}" in str(report)
    with Image.open(tmp_path / "fit.png") as image:
        assert image.format == "PNG"


def test_anchors_to_compare_are_measured_and_the_verdict_says_which_fit_better(voc):
    found = anchors(voc, k=6, plot=None).chosen
    good = anchors(voc, k=2, compare=tuple(v for wh in found.wh for v in wh), plot=None)
    assert good.compared.mean_iou == pytest.approx(1, abs=1e-6)
    assert "no better than --compare (6)" in str(good)
    assert "better than --compare (1): mean best IoU +" in str(anchors(voc, k=2, compare=(1.0, 1.0), plot=None))


def test_labels_choose_the_classes(voc):
    assert sum(anchors(voc, labels=("bolt",), k=1, plot=None).chosen.counts) == 12


def test_fractions_are_refused_with_their_cells():
    wh = np.array(((6.5, 6.5), (2.6, 5.2)))
    with pytest.raises(UserError, match=r"0\.5 0\.5 0\.2 0\.4 look like fractions of .*give 6\.5 6\.5 2\.6 5\.2$"):
        read_anchors((0.5, 0.5, 0.2, 0.4), wh, 416)


def test_pixels_are_refused_with_their_cells():
    wh = np.array(((2.0, 3.0), (1.0, 1.0)))
    with pytest.raises(UserError, match=r"64 96 32 32 look like pixels .*at most 13: give 2 3 1 1$"):
        read_anchors((64, 96, 32, 32), wh, 416)


def test_small_objects_may_have_anchors_below_one_cell_and_large_ones_beyond_a_small_grid():
    assert read_anchors((0.5, 0.5), np.array(((0.4, 0.5),)), 416) == ((0.5, 0.5),)
    assert read_anchors((1.0, 2.0, 5.5, 4.0), np.array(((1.0, 2.0), (4.5, 4.5))), 160) == ((1, 2), (5.5, 4))


@pytest.mark.parametrize("wrong", [(), (1.0, 2.0, 3.0), (1.0, 0.0), (1.0, float("nan"))])
def test_numbers_that_are_no_pairs_are_refused(wrong):
    with pytest.raises(UserError, match="expected pairs of width and height, all above 0, in cells"):
        read_anchors(wrong, np.ones((1, 2)), 416)


def test_more_anchors_than_shapes_give_one_a_shape(voc, caplog):
    with caplog.at_level("INFO", "lookonce"):
        report = anchors(voc, k=7, plot=None)
    assert caplog.messages[-1] == "anchors: 6 instead of 7, since the 36 boxes have 6 distinct shapes"
    assert [len(found.wh) for found in report.curve] == [1, 2, 3, 4, 5, 6]
    assert "6  <- k" in str(report)


def test_boxes_of_one_size_give_one_anchor(tmp_path, caplog):
    (tmp_path / "JPEGImages").mkdir()
    for i in range(4):
        Image.new("RGB", (64, 64)).save(tmp_path / "JPEGImages" / f"{i}.png")
        write_annotation(tmp_path / "Annotations" / f"{i}.xml", f"{i}.png", (64, 64), np.array([[8, 8, 24, 24]]), ["a"])
    write_split(tmp_path / "ImageSets" / "Main" / "train.txt", list("0123"))
    with caplog.at_level("INFO", "lookonce"):
        report = anchors(tmp_path, plot=None)
    assert "anchors: 1 instead of 5, since the 4 boxes have 1 distinct shape" in caplog.messages
    assert report.cfg_line == "anchors = 3.25,3.25"
    assert "the new anchor fits these boxes better" in str(report)


@needs_shared
def test_blood_cells_fit_their_own_anchors_far_better_than_those_of_voc(tmp_path):
    report = anchors(BCCD, split="trainval", plot=tmp_path / "anchors.png")
    assert report.chosen.mean_iou > 0.84 > 0.7 > report.compared.mean_iou
    assert report.chosen.recall > 0.98
    assert "better than yolov2-voc.cfg (5)" in str(report)


def test_a_plot_replaces_nothing(squares, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "anchors.png").write_text("the user's")
    assert anchors(squares, k=2).plot == Path("anchors-2.png")
    assert (tmp_path / "anchors.png").read_text() == "the user's"
    with pytest.raises(UserError, match=r"anchors-2\.png: already exists"):
        anchors(squares, k=2, plot=Path("anchors-2.png"))
    image = sorted((squares / "JPEGImages").iterdir())[0]
    before = image.read_bytes()
    for plot in (image, image.with_name("new.png")):
        with pytest.raises(UserError, match=r"already exists|is inside the data set"):
            anchors(squares, k=2, plot=plot)
    assert image.read_bytes() == before
    anchors(squares, k=2, overwrite=True)
    assert (tmp_path / "anchors.png").read_bytes().startswith(b"\x89PNG")
