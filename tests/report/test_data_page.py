"""The page of a data set."""

import re
import shutil
from dataclasses import replace

import pytest

from browser import needs_browser, opened
from conftest import SHARED, needs_shared
from lookonce.commands.check import check
from lookonce.data.check import Finding
from lookonce.data.read import read_dataset
from lookonce.model.layers import PlacedHead, Region
from lookonce.report.data_page import IMAGES, contact, evidence, write_data_report
from sets import write_squares

HEADS = (PlacedHead(Region(((1.0, 1.0), (1.5, 1.5)), 2), 32),)


@pytest.fixture(scope="module")
def page(squares, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "data.html"
    report = check(squares, size=96, anchors=2, report=path)
    assert report.page == path
    return path


def test_the_page_needs_no_other_file_and_has_no_script_but_the_common_one(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("<script") == 1
    assert not re.search(r"""(?:src|href|action)=["'](?!data:|#)""", text)
    assert not re.search(r"url\((?!#|\"?data:)", text)
    assert "Ready for training" in text
    assert text.count('<img src="data:image/jpeg') == IMAGES


def test_names_cannot_break_the_page(squares, tmp_path):
    report = check(squares, size=96, anchors=2, images=False)
    evil = Finding("image missing", 1, ("<script>alert(1)</script>.jpg",))
    text = write_data_report(
        tmp_path / "p.html", replace(report, findings=(evil,)), read_dataset(squares), HEADS, "letterbox"
    ).read_text(encoding="utf-8")
    assert text.count("<script") == 1
    assert "Fix before training" in text
    assert "&lt;script&gt;" in text


def test_every_class_is_on_the_contact_sheet(squares):
    dataset = read_dataset(squares)
    names = [caption.partition(":")[0] for caption, _ in contact(dataset)]
    shown = {dataset.labels[n] for record in dataset.records if record.path.name in names for n in record.labels}
    assert shown == set(dataset.labels)
    assert len(set(names)) == len(names) == IMAGES


def test_unreadable_images_are_left_out(squares, tmp_path):
    shutil.copytree(squares, tmp_path / "s")
    for file in (tmp_path / "s" / "JPEGImages").iterdir():
        file.write_text("text")
    dataset = read_dataset(tmp_path / "s")
    assert contact(dataset) == []
    report = check(tmp_path / "s", size=96, anchors=2, report=tmp_path / "p.html")
    assert "Training targets" not in (tmp_path / "p.html").read_text(encoding="utf-8")
    assert report.exit_code == 1


@needs_browser
def test_a_browser_opens_it_without_an_error(page, tmp_path):
    text, errors, requests = opened(page, tmp_path)
    assert "Labelled images" in text
    assert errors == requests == []


@needs_shared
def test_the_page_of_bccd_stays_below_two_megabytes(tmp_path):
    check(SHARED / "data" / "bccd", report=tmp_path / "p.html", images=False)
    assert (tmp_path / "p.html").stat().st_size < 2_000_000


def test_duplicates_stand_side_by_side_and_a_box_without_area_is_marked(tmp_path):
    root = write_squares(tmp_path / "s", {"train": 12, "test": 2})
    images, labels = root / "JPEGImages", root / "Annotations"
    shutil.copy(images / "train000.png", images / "test000.png")
    file = labels / "train001.xml"
    text = file.read_text(encoding="utf-8")
    file.write_text(re.sub("<xmax>.*?</xmax>", "<xmax>3</xmax>", re.sub("<xmin>.*?</xmin>", "<xmin>4</xmin>", text)))
    report = check(root, size=96, anchors=1, report=tmp_path / "p.html")
    found = {one.kind: one for one in report.findings}
    same = found["identical image in two splits (data leak)"].evidence
    assert {*same[0].images} == {"JPEGImages/train000.png", "JPEGImages/test000.png"}
    flat = found["box with no area"].evidence
    assert flat[0].images == ("JPEGImages/train001.png",)
    assert flat[0].box[0] == 4
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    pair = re.search('<div class="pair">(.*?)</div>', page, re.DOTALL)[1]
    assert pair.count("<image href") == 2
    assert page.count('class="focus"') == len(flat)
    for image in images.iterdir():
        image.write_text("text")  # the page stands without them
    assert evidence(found["box with no area"], read_dataset(root)) == []
