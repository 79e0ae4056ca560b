"""Tests of lookonce.data.formats.voc."""

import numpy as np
import pytest

from conftest import CASES
from lookonce.data.formats import voc
from lookonce.data.formats.voc import find_voc, read_voc, root_tag, write_voc
from lookonce.data.read import read_dataset
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
    (tmp_path / "l.txt").write_text("CAFE\u0301.jpg\n", encoding="utf-8")
    assert voc.read_list(tmp_path / "l.txt", {"caf\u00e9"}) == ["caf\u00e9"]
    (tmp_path / "l.txt").write_text("a" + " " * 1_000_000 + "b\n")  # a search for blanks before each would take hours
    assert [len(name) for name in voc.read_list(tmp_path / "l.txt")] == [1_000_002]


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


def test_annotations_are_found_by_looking(tmp_path, squares):
    assert list(find_voc(squares)) == [squares / "Annotations"]
    assert find_voc(tmp_path) == {}
    with pytest.raises(UserError, match="no annotations found"):
        read_voc(tmp_path, "drop")


def test_a_data_set_that_is_written_reads_back_the_same(tmp_path, squares):
    dataset = read_dataset(squares)
    names = [path.rpartition("/")[2] for path in dataset.paths.tolist()]
    write_voc(tmp_path, dataset, names, {"some": np.array([3, 1])})
    (tmp_path / "JPEGImages").mkdir()
    for name in names:
        (tmp_path / "JPEGImages" / name).touch()
    back = read_dataset(tmp_path)
    np.testing.assert_array_equal(back.boxes, dataset.boxes)
    np.testing.assert_array_equal(back.classes, dataset.classes)
    assert voc.read_list(tmp_path / "ImageSets" / "Main" / "some.txt") == [names[3][:-4], names[1][:-4]]


def test_an_xml_of_a_hundred_thousand_broken_objects_stays_small(tmp_path):
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "JPEGImages" / "a.jpg").touch()
    size = "<size><width>10</width><height>10</height></size>"
    (tmp_path / "a.xml").write_text(f"<annotation>{size}{'<object></object>' * 60_000}</annotation>")
    found = read_voc(tmp_path, "drop")
    assert len(found.problems) < 200
    assert sum(p.times for _, p in found.problems) == 60_000


@pytest.mark.parametrize("text, tag", [
    ("<annotation/>", "annotation"), ("\ufeff<?xml version='1.0'?>\n<!-- <a> --><annotation>", "annotation"),
    ("<!DOCTYPE a [<!ENTITY b 'c'>]><v:annotation xmlns:v='x'>", "annotation"), ("<annotations>", "annotations"),
    ("<!DOCTYPE html><html>", "html"), ("text", ""), ("", ""), ("<", ""), ("<!--", ""), ("<!-- -->" * 5000, ""),
])  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_the_root_element_is_found_without_parsing(tmp_path, text, tag, encoding):
    (tmp_path / "a.xml").write_text(text, encoding=encoding)
    assert root_tag(tmp_path / "a.xml") == tag


def test_a_stray_xml_makes_no_data_set(tmp_path):
    (tmp_path / "pom.xml").write_text("<project><annotation/></project>")
    assert find_voc(tmp_path) == {}


def test_annotations_of_one_name_in_two_folders_keep_their_own_images(tmp_path):
    for number, cam in enumerate(("cam0", "cam1")):
        box = np.array([[1 + number, 2, 9, 9]])
        voc.write_annotation(tmp_path / "Annotations" / cam / "a.xml", "a.jpg", (10, 10), box, ["cat"])
        (tmp_path / "JPEGImages" / cam).mkdir(parents=True)
        (tmp_path / "JPEGImages" / cam / "a.jpg").touch()
    voc.write_split(tmp_path / "ImageSets" / "Main" / "train.txt", ["cam1/a"])
    assert read_dataset(tmp_path, "train").boxes[:, 0].tolist() == [2]
    found = read_dataset(tmp_path)
    assert {str(r.path.parent.name): r.boxes[0, 0] for r in found.records} == {"cam0": 1, "cam1": 2}
    (tmp_path / "JPEGImages" / "cam1" / "a.jpg").unlink()
    found = read_dataset(tmp_path)
    assert [r.path.parent.name for r in found.records] == ["cam0"]
    assert [p.kind for p in found.problems] == ["image missing"]


def test_two_annotations_of_one_image_are_read_once_and_told(tmp_path):
    (tmp_path / "a.jpg").touch()
    for folder in ("Annotations", "annotations_old"):
        voc.write_annotation(tmp_path / folder / "a.xml", "a.jpg", (10, 10), np.array([[1, 2, 9, 9]]), ["cat"])
    found = read_dataset(tmp_path)
    assert (len(found), [p.kind for p in found.problems]) == (1, ["image annotated twice"])


def test_lists_beside_the_folders_are_splits(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / f"{name}.jpg").touch()
        voc.write_annotation(
            tmp_path / "xmls" / f"{name}.xml", f"{name}.jpg", (10, 10), np.array([[1, 2, 9, 9]]), ["x"]
        )
    (tmp_path / "train.txt").write_text("images/a.jpg xmls/a.xml\nimages/b.jpg xmls/b.xml\n")
    (tmp_path / "val_list.txt").write_text("c\n")
    (tmp_path / "labels.txt").write_text("x\n")
    assert [r.path.stem for r in read_dataset(tmp_path, "train").records] == ["a", "b"]
    assert [r.path.stem for r in read_dataset(tmp_path, "val").records] == ["c"]


def test_the_image_that_the_annotation_names_is_taken_of_two_with_its_stem():
    found = read_dataset(CASES / "17-same-stem-two-endings" / "same-stem-voc")
    assert [r.path.name for r in found.records] == ["p0.png", "p1.jpg", "p2.jpg", "p3.jpg"]
    [problem] = found.problems
    assert problem.kind == "two images for one annotation"
    assert "p0.png and p0.jpg" in problem.found


def test_names_with_blanks_are_whole_lines_of_lists():
    case = CASES / "18-voc-list-with-blanks" / "voc-spaces"
    assert [r.path.stem for r in read_dataset(case, "train").records] == [f"my photo {n}" for n in range(4)]
    assert read_dataset(case, "val").problems == ()


def test_boxes_that_are_clear_are_kept_and_counted_as_fixed():
    found = read_dataset(CASES / "45-boxes-partly-outside" / "swapped")
    np.testing.assert_allclose(found.boxes, [[9, 9, 40, 40], [9.6, 8.4, 40.25, 39.9], [0, 0, 40, 40], [9, 9, 96, 64]])
    assert [(p.kind, p.action) for p in found.problems] == [
        ("corners exchanged", "fixed"), ("box over the edge", "fixed"), ("box over the edge", "fixed"),
    ]  # fmt: skip
    with pytest.raises(UserError, match="corners exchanged"):
        read_dataset(CASES / "45-boxes-partly-outside" / "swapped", policy="error")


def test_polygons_and_encodings_are_said(tmp_path, squares):
    (tmp_path / "a.jpg").write_bytes(next((squares / "JPEGImages").iterdir()).read_bytes())
    points = "".join(f"<x{n}>{x}</x{n}><y{n}>{y}</y{n}>" for n, (x, y) in enumerate(((10, 10), (40, 12), (30, 45)), 1))
    body = f"<object><name>汽车</name><polygon>{points}</polygon></object>"
    size = "<size><width>64</width><height>48</height></size>"
    (tmp_path / "a.xml").write_bytes(f"<annotation>{size}{body}</annotation>".encode("gbk"))
    (tmp_path / "ImageSets").mkdir()
    (tmp_path / "ImageSets" / "train.txt").write_bytes("a\n汽车\n".encode("gbk"))
    found = read_dataset(tmp_path, "train")
    assert (found.labels, found.boxes.tolist()) == (("汽车",), [[9, 9, 40, 45]])
    assert sorted(p.kind for p in found.problems) == ["annotation missing", "encoding guessed", "encoding guessed",
                                                      "polygon"]  # fmt: skip
