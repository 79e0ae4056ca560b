"""Mirrors src/lookonce/data/voc.py."""

import numpy as np
import pytest

from lookonce.data.formats import voc
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


POINTS = "<polygon><x1>10</x1><y1>12</y1><x2>30.5</x2><y2>11</y2><x3>20</x3><y3>40</y3></polygon>"
PTS = "<polygon><pt><x>10</x><y>12</y></pt><pt><x>30.5</x><y>11</y></pt><pt><x>20</x><y>40</y></pt></polygon>"


@pytest.mark.parametrize("body, box", [
    (POINTS, (10, 11, 30.5, 40)), (PTS, (10, 11, 30.5, 40)), (POINTS + BOX, (10, 20, 30, 40)),
    (PTS.replace("<pt><x>20</x><y>40</y></pt>", ""), "at least three points"),
    (POINTS.replace("<y3>40</y3>", ""), "at least three points"), (POINTS.replace("40", "x"), "expected four numbers"),
    (POINTS.replace("20", "nan"), "finite"), ("<polygon><username>u</username></polygon>", "without xmin"),
])  # fmt: skip
def test_an_object_with_a_polygon_alone_has_the_box_around_it(tmp_path, body, box):
    found = page(tmp_path, f"<object><name>a</name>{body}</object>")
    read = voc.read_box(found.objects[0])
    assert read == box if isinstance(box, tuple) else box in read


def test_namespaces_hide_nothing(tmp_path):
    text = f'<annotation xmlns="http://v.org/x" xmlns:v="http://v.org/y">{SIZE}' + OBJECT.format(name="cat", extra="")
    (tmp_path / "p.xml").write_text(text.replace("<object>", "<v:object>").replace("</object>", "</v:object>")
                                    + "<filename>p.jpg</filename></annotation>")  # fmt: skip
    found = voc.parse(tmp_path / "p.xml")
    assert (found.width, found.filename, found.objects[0].text["name"]) == ("64", "p.jpg", "cat")
    assert voc.read_box(found.objects[0]) == (10, 20, 30, 40)


@pytest.mark.parametrize("declared, encoding, guessed", [
    ("gb2312", "gb2312", 0), ("GBK", "gbk", 0), ("shift_jis", "shift_jis", 0), ("windows-1251", "cp1251", 0),
    ("ISO-8859-1", "latin-1", 0), (None, "gbk", 1), ("utf-8", "gbk", 1), ("klingon", "utf-8", 0),
])  # fmt: skip
def test_names_are_read_in_the_encoding_of_their_file(tmp_path, declared, encoding, guessed):
    name = {"cp1251": "кошка", "latin-1": "café"}.get(encoding, "自転車" if encoding == "shift_jis" else "汽车")
    head = f'<?xml version="1.0" encoding="{declared}"?>\n' if declared else ""
    text = f"{head}<annotation>{SIZE}\n{OBJECT.format(name=name, extra='')}</annotation>"
    (tmp_path / "p.xml").write_bytes(text.encode(encoding))
    notes = []
    if declared == "klingon":
        with pytest.raises(UserError, match=r"p\.xml"):
            voc.parse(tmp_path / "p.xml", notes.append)
    else:
        [thing] = voc.parse(tmp_path / "p.xml", notes.append).objects
        assert thing.text["name"] == name
        assert thing.line == 2 + bool(declared)
    assert len(notes) == guessed


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbfa\r\nb  \r\n\r\n", "a\nb\n".encode("utf-16"), b"a 1\nb -1\na 1\n", b"a.jpg\nb.xml"]
)
def test_lists_are_read_through_bom_blanks_and_columns(tmp_path, content):
    (tmp_path / "l.txt").write_bytes(content)
    assert voc.read_list(tmp_path / "l.txt") == ["a", "b"]


@pytest.mark.parametrize("line, name", [
    ("my photo 0", "my photo 0"), ("my photo 1", "my photo"), ("my photo  -1", "my photo"), ("a.b.jpg 1", "a.b"),
    ("JPEGImages/a.b.JPG", "a.b"), ("C:\\VOC\\JPEGImages\\my photo.png", "my photo"), ("/data/a.b.xml", "a.b"),
    ("0", "0"), ("my  photo", "my  photo"), ("other 7", "other 7"), ("../x/other 1", "../x/other"),
])  # fmt: skip
def test_a_line_of_a_list_is_a_whole_name_where_an_annotation_has_it(tmp_path, line, name):
    (tmp_path / "l.txt").write_text(f"{line} \n\n")
    assert voc.read_list(tmp_path / "l.txt", {"my photo", "my photo 0", "a.b"}) == [name]


def test_what_is_written_reads_back_the_same(tmp_path):
    boxes = np.array([[0, 0, 64, 48], [10.25, 3.5, 20.125, 30]], np.float32)
    voc.write_annotation(tmp_path / "s" / "A" / "p.xml", "p.jpg", (64, 48), boxes, ["a & b", "c"], [False, True])
    found = voc.parse(tmp_path / "s" / "A" / "p.xml")
    back = [np.subtract(voc.read_box(t), [1, 1, 0, 0]) for t in found.objects]
    np.testing.assert_array_equal(np.array(back, np.float32), boxes)
    assert [t.text["name"] for t in found.objects] == ["a & b", "c"]
    assert [t.text["difficult"] for t in found.objects] == ["0", "1"]
