"""Tests of lookonce.commands.check; the rules are tested in tests/data/test_check.py."""

import json
import time

import numpy as np
import pytest
from PIL import Image

from conftest import SHARED, needs_shared
from lookonce.cli import main
from lookonce.commands.check import check
from lookonce.errors import UserError
from lookonce.model import zoo
from lookonce.model.darknet.cfg import Cfg, write_cfg
from lookonce.text import clean_name
from photographs import CAT, DOG, add

COLLISION = "anchor collision (two objects share a cell and an anchor)"
LEAK = "nearly identical image in two splits (data leak)"


def test_a_sound_set_ends_with_0_and_a_harmed_one_with_1(tmp_path, capsys):
    for n in range(12):
        add(tmp_path, f"p{n}", [CAT, DOG], seed=n)
    assert main(["check", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "12 images, 24 objects of 2 classes" in said
    assert "Found nothing that harms training" in said
    add(tmp_path, "q", [CAT, ("dog", [30, 30, 30, 80])], seed=20)
    assert main(["check", str(tmp_path)]) == 1
    assert "Annotations/q.xml:10: a box with no area" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "nowhere")]) == 2


def test_json_says_the_same(tmp_path, capsys):
    for n in range(12):
        add(tmp_path, f"p{n}", [CAT, DOG], seed=n)
    add(tmp_path, "q", [CAT, ("dog", [30, 30, 30, 80])], seed=20)
    assert main(["check", str(tmp_path), "--json", "--no-images"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["harms"], told["looked"], told["counted"]["images"]) == (True, False, 13)
    [finding] = [one for one in told["findings"] if one["kind"] == "box with no area"]
    assert finding["count"] == 1
    assert finding["places"][0].startswith("Annotations/q.xml:10: ")
    assert "draw the box again" in finding["remedy"]


@pytest.mark.parametrize("options, message", [
    ({"size": 400}, "size: 400"), ({"anchors": -1}, "anchors: -1"), ({"labels": ("cow",)}, "no object is a 'cow'"),
    ({"format": "x"}, "format: 'x'"),
])  # fmt: skip
def test_wrong_options_are_told(squares, options, message):
    with pytest.raises(UserError, match=message):
        check(squares, images=False, **options)


def test_a_page_needs_its_ending(squares, tmp_path):
    with pytest.raises(UserError, match=r"ends in \.html"):
        check(squares, report=tmp_path / "page.pdf")


def test_anchor_collisions_are_counted_by_anchor(tmp_path):
    for n in range(4):
        add(tmp_path, f"p{n}", [CAT, ("cat", [11, 11, 59, 59]), DOG], seed=n)
    report = check(tmp_path, anchors=2, images=False)
    [finding] = [
        one for one in report.findings if one.kind == "anchor collision (two objects share a cell and an anchor)"
    ]
    assert finding.count == sum(report.lost) == 4
    assert finding.places[0].startswith(
        "Annotations/p0.xml:5: cat, collides with the cat of Annotations/p0.xml:10; anchor "
    )
    assert report.exit_code == 0


CROWD = [("cat", [x + n, 12, x + w + n, 12 + w]) for x, w in ((12, 30), (120, 90)) for n in range(3)]
"""Two heaps of three cats in an image of 224 px, small ones and large ones."""


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    root = tmp_path_factory.mktemp("crowd")
    for n in range(4):
        add(root, f"p{n}", CROWD, (224, 224), seed=n)
    return root


def test_for_a_network_collisions_are_those_of_all_its_heads(crowd, tmp_path, capsys):
    page = tmp_path / "p.html"
    report = check(crowd, network="yolov3_tiny", images=False, report=page)
    [finding] = [one for one in report.findings if one.kind == COLLISION]
    assert finding.count == sum(report.lost) == 16  # four of each six
    assert finding.places[0].endswith(" px")
    assert "Annotations/p0.xml:5: cat, collides with the cat of Annotations/p0.xml:15" in finding.places[0]
    assert len(report.anchors.wh) == len(report.strides)
    assert report.strides[-1] == "32"
    assert "network: yolov3_tiny" in str(report)
    assert "head of stride" in str(report)
    text = page.read_text()
    assert text.count("Head of stride ") == len({*report.strides})
    assert "<th>stride</th>" in text


def test_the_cells_of_a_detection_layer_hold_one_object_each(crowd, tmp_path):
    page = tmp_path / "p.html"
    report = check(crowd, network="yolov1_tiny", images=False, report=page)
    assert (report.size, report.anchors, report.lost) == (448, None, ())
    [finding] = [one for one in report.findings if one.kind == "cell collision (two objects share a cell)"]
    assert finding.count == 16
    assert finding.places[0].endswith("Annotations/p0.xml:5")  # the first of a cell is learnt
    assert "<h3>Anchors</h3>" not in page.read_text()
    with pytest.raises(UserError, match="one input size, 448 x 448"):
        check(crowd, network="yolov1_tiny", size=416, images=False)


def test_an_anchor_that_no_head_has_is_told(crowd, tmp_path):
    layers = zoo.yolov4_tiny(1, ((0.9, 0.9), *zoo.TINY_ANCHORS[1:]), fine_mask=(1, 2, 3))
    (tmp_path / "tiny.cfg").write_text(write_cfg(Cfg(layers)))
    report = check(crowd, network=str(tmp_path / "tiny.cfg"), anchors=0, size=224, images=False)
    [finding] = [one for one in report.findings if one.kind == "object of an anchor that no head has"]
    assert (finding.count, finding.harms, report.exit_code) == (12, True, 1)
    assert report.strides == ("none", "16", "16", "16, 32", "32", "32")
    assert finding.places[0] == "Annotations/p0.xml:5: cat"
    with pytest.raises(UserError, match="network: 'yolo5'; expected one of"):
        check(crowd, network="yolo5", images=False)


def test_darknets_anchors_and_few_shapes(squares, tmp_path):
    assert len(check(squares, anchors=0, images=False).anchors.wh) == 5
    add(tmp_path, "p", [CAT], seed=0)
    assert len(check(tmp_path, images=False).anchors.wh) == 1


@needs_shared
def test_bccd_has_two_boxes_without_area_and_one_field_in_train_and_val():
    report = check(SHARED / "data" / "bccd")
    told = {one.kind: one for one in report.findings}
    assert set(told) == {
        "box with no area",
        "nearly identical image in two splits (data leak)",
        "anchor collision (two objects share a cell and an anchor)",
    }
    assert told["box with no area"].count == 2
    [place] = told[LEAK].places
    assert "BloodImage_00038.jpg (in train): same as JPEGImages/BloodImage_00037.jpg (in val)" in place
    assert report.counted.classes == {"Platelets": (361, 201), "RBC": (4153, 349), "WBC": (372, 358)}
    assert report.counted.splits["test"] == (72, 945)
    assert report.exit_code == 1


@needs_shared
@pytest.mark.parametrize("format, difficult", [("voc", 38), ("coco", 0), ("yolo", 0)])
def test_voc_photographs_are_sound_in_each_format(format, difficult):
    report = check(SHARED / "data" / "voc100", format=format)
    assert not report.harms
    assert report.format == format
    counted = report.counted
    assert (counted.images, counted.objects, counted.empty, counted.difficult) == (100, 273, 0, difficult)
    assert np.isclose(report.anchors.mean_iou, 0.63, atol=0.03)


HOSTILE = ["[red]", "[/]", "[bold]b[/bold]", "e\x1b[31msc", "new\nline", "\u202eright", "$a$", "<script>x</script>",
           "&amp;", "\u732b", "кот", ":cat:"]  # fmt: skip


@pytest.fixture
def hostile(tmp_path):
    """A COCO set whose class names and file names hold markup, escape sequences and ends of lines."""
    images, boxes = [], []
    for n in range(len(HOSTILE)):
        file = f"{n} [red] $x$.png"
        Image.new("RGB", (96, 96), (n, 99, 99)).save(tmp_path / file)
        images.append({"id": n, "file_name": file, "width": 96, "height": 96})
        boxes.append({"id": n, "image_id": n, "category_id": n, "bbox": [5, 5, 30 + n, 40]})
    cats = [{"id": n, "name": name} for n, name in enumerate(HOSTILE)]
    file = tmp_path / "set.json"
    file.write_text(json.dumps({"images": images, "annotations": boxes, "categories": cats}))
    return file


def test_names_take_no_effect_in_tables_json_and_pages(hostile, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["check", str(hostile), "--report", str(page)]) in (0, 1)
    text = capsys.readouterr().out
    assert main(["check", str(hostile), "--json"]) in (0, 1)
    shown = capsys.readouterr().out
    assert list(json.loads(shown)["counted"]["classes"]) == list(map(clean_name, HOSTILE))
    for out in (text, shown):
        assert not set(out) & {"\x1b", "\u202e"}
    for name in (
        "[red]",
        "[/]",
        "[bold]b[/bold]",
        r"e\x1b[31msc",
        r"new\nline",
        r"\u202eright",
        "$a$",
        ":cat:",
        "\u732b",
    ):
        assert name in text
    html = page.read_text(encoding="utf-8")
    assert html.count("<script") == 1  # the page's own
    assert "&lt;script&gt;" in html


def test_detections_of_hostile_names_are_scored_and_shown(hostile, tmp_path, capsys):
    found = [{"image_id": n, "category_id": n, "bbox": [5, 5, 30 + n, 40], "score": 0.9} for n in range(len(HOSTILE))]
    (tmp_path / "found.json").write_text(json.dumps(found))
    page = tmp_path / "page.html"
    words = ["evaluate", str(tmp_path / "found.json"), str(hostile), "--split", "all", "--bootstrap", "0"]
    assert main([*words, "--protocol", "coco", "--report", str(page)]) == 0
    text = capsys.readouterr().out
    assert "[red]" in text
    assert r"e\x1b[31msc" in text
    assert not set(text) & {"\x1b", "\u202e"}
    html = page.read_text(encoding="utf-8")
    assert html.count("<script") == 1  # the page's own
    assert "&lt;script&gt;" in html


def test_thousands_of_classes_give_a_short_table(tmp_path, capsys):
    names = [f"class {n}" for n in range(9418)]
    for n in range(95):
        Image.new("RGB", (320, 320), (n, 0, 0)).save(tmp_path / f"{n}.png")
    images = [{"id": n, "file_name": f"{n}.png", "width": 320, "height": 320} for n in range(95)]
    boxes = [{"id": n, "image_id": n // 100, "category_id": n, "bbox": [n % 10 * 28, n // 10 % 10 * 28, 20 + n % 7, 25]}
             for n in range(9418)]  # fmt: skip
    cats = [{"id": n, "name": name} for n, name in enumerate(names)]
    (tmp_path / "s.json").write_text(json.dumps({"images": images, "annotations": boxes, "categories": cats}))
    began = time.process_time()
    assert main(["check", str(tmp_path / "s.json"), "--report", str(tmp_path / "p.html")]) in (0, 1)
    assert time.process_time() - began < 30  # on a busy machine; it takes four
    text = capsys.readouterr().out
    assert "9388 more" in text
    assert len(text.splitlines()) < 80
    assert (tmp_path / "p.html").stat().st_size < 2_000_000


def test_a_page_replaces_nothing_and_stays_out_of_the_data(squares, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("the user's")
    with pytest.raises(UserError, match=r"page\.html: already exists; give another name, or --overwrite"):
        check(squares, images=False, report=page)
    assert page.read_text() == "the user's"
    with pytest.raises(UserError, match=r"new\.html: is inside the data set"):
        check(squares, images=False, report=squares / "new.html")
    check(squares, images=False, report=page, overwrite=True)
    assert "<html" in page.read_text(encoding="utf-8")
