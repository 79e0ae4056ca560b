"""Mirrors src/lookonce/data/voc.py."""

import numpy as np
import pytest

from conftest import GOLDEN
from lookonce.data import voc
from lookonce.errors import UserError

BOX = "<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
OBJECT = "<object><name>{name}</name>{extra}" + BOX + "</object>"
SIZE = "<size><width>64</width><height>48</height></size>"


def page(tmp_path, body, encoding="utf-8", newline="\n"):
    text = f"<annotation>\n<filename>p.jpg</filename>\n{SIZE}\n{body}\n</annotation>"
    (tmp_path / "p.xml").write_bytes(text.replace("\n", newline).encode(encoding))
    return voc.parse(tmp_path / "p.xml")


def test_objects_come_with_their_line(tmp_path):
    found = page(tmp_path, OBJECT.format(name="cat", extra="") + "\n" + OBJECT.format(name="dog", extra=""))
    assert [(t.line, t.text["name"]) for t in found.objects] == [(4, "cat"), (5, "dog")]
    assert voc.read_box(found.objects[0]) == (10, 20, 30, 40)
    assert (found.width, found.height, found.filename) == ("64", "48", "p.jpg")


@pytest.mark.parametrize("encoding, newline", [("utf-8-sig", "\r\n"), ("utf-16", "\n"), ("utf-8", "\r\n")])
def test_windows_files_read_like_others(tmp_path, encoding, newline):
    found = page(tmp_path, OBJECT.format(name=" cat ", extra=""), encoding, newline)
    assert [t.text["name"] for t in found.objects] == ["cat"]


def test_a_part_is_not_an_object_and_leaks_nothing_into_one(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    found = page(tmp_path, OBJECT.format(name="person", extra=part))
    assert len(found.objects) == 1
    assert found.objects[0].text["name"] == "person"
    assert voc.read_box(found.objects[0]) == (10, 20, 30, 40)


@pytest.mark.parametrize("content, message", [
    ("<annotation><object>", r"p.xml:1: not whole XML"),
    ("", "not whole XML"),
    ('<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>', "declares entities"),
    ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>', "declares entities"),
    ('<!DOCTYPE z [<!ENTITY a "aa"><!ENTITY b "&a;&a;&a;">]><annotation>&b;</annotation>', "declares entities"),
    ('<?xml version="1.0" encoding="klingon"?><annotation/>', "p.xml"),
])  # fmt: skip
def test_broken_and_hostile_files_are_refused(tmp_path, content, message):
    (tmp_path / "p.xml").write_text(content)
    with pytest.raises(UserError, match=message):
        voc.parse(tmp_path / "p.xml")


@pytest.mark.parametrize("corner, message", [
    ("", "without xmin"), ("<xmin>a</xmin>", "expected four numbers"), ("<xmin>nan</xmin>", "finite"),
    ("<xmin>inf</xmin>", "finite"),
])  # fmt: skip
def test_a_box_that_is_none_says_why(tmp_path, corner, message):
    rest = "<ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
    found = page(tmp_path, f"<object><name>a</name><bndbox>{corner}{rest}</bndbox></object>")
    assert message in voc.read_box(found.objects[0])


@pytest.mark.parametrize("box, policy, expected, kind", [
    ((1, 1, 64, 48), "drop", (0, 0, 64, 48), ""),
    ((0, 0, 65, 49), "drop", (0, 0, 64, 48), ""),
    ((10, 10, 10, 20), "clip", None, "box without area"),
    ((20, 10, 10, 20), "drop", None, "box without area"),
    ((10, 10, 70, 20), "drop", None, "box outside"),
    ((10, 10, 70, 20), "clip", (9, 9, 64, 20), "box outside"),
    ((100, 10, 170, 20), "clip", None, "box outside"),
    ((-5, 10, 20, 20), "clip", (0, 9, 20, 20), "box outside"),
])  # fmt: skip
def test_boxes_are_placed_by_the_policy(box, policy, expected, kind):
    found = voc.place_box(box, (64, 48), policy)
    assert found[:2] == (expected, kind)


def test_the_blogs_truncation_is_the_golden_one():
    golden = np.load(GOLDEN / "seed_encode_bccd.npz")
    for image, size in enumerate(golden["image_wh"]):
        raw = golden["voc_boxes"][golden["voc_boxes"][:, 0] == image, 1:5]
        expected = golden["scaled_boxes"][golden["scaled_boxes"][:, 0] == image, 1:5]
        found, kept = voc.scale_as_blog(raw, tuple(size), 416)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(kept, (expected[:, 2] > expected[:, 0]) & (expected[:, 3] > expected[:, 1]))


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbfa\r\nb  \r\n\r\n", "a\nb\n".encode("utf-16"), b"a 1\nb -1\na 1\n", b"a.jpg\nb.xml"]
)
def test_lists_are_read_through_bom_blanks_and_columns(tmp_path, content):
    (tmp_path / "l.txt").write_bytes(content)
    assert voc.read_list(tmp_path / "l.txt") == ["a", "b"]


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", "C:\\a"])
def test_a_list_cannot_leave_its_folder(tmp_path, name):
    (tmp_path / "l.txt").write_text(f"ok\n{name}\n")
    with pytest.raises(UserError, match=r"l.txt:2: .* leaves the data set's folder"):
        voc.read_list(tmp_path / "l.txt")


def test_what_is_written_reads_back_the_same(tmp_path):
    boxes = np.array([[0, 0, 64, 48], [10.25, 3.5, 20.125, 30]], np.float32)
    voc.write_annotation(tmp_path / "s" / "A" / "p.xml", "p.jpg", (64, 48), boxes, ["a & b", "c"], [False, True])
    found = voc.parse(tmp_path / "s" / "A" / "p.xml")
    back = [voc.place_box(voc.read_box(t), (64, 48), "drop")[0] for t in found.objects]
    np.testing.assert_array_equal(np.array(back, np.float32), boxes)
    assert [t.text["name"] for t in found.objects] == ["a & b", "c"]
    assert [t.text["difficult"] for t in found.objects] == ["0", "1"]
