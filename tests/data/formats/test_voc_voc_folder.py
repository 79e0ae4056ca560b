"""Mirrors src/lookonce/data/voc_folder.py; reading is also tested through data/catalog.py."""

import numpy as np
import pytest

from conftest import CASES
from lookonce.data.formats import voc
from lookonce.data.formats.voc import find_voc, read_voc, root_tag, write_voc
from lookonce.data.read import read_dataset
from lookonce.errors import UserError


def test_annotations_are_found_by_looking(tmp_path, squares):
    assert list(find_voc(squares)) == [squares / "Annotations"]
    assert find_voc(tmp_path) == {}
    with pytest.raises(UserError, match="no annotations found"):
        read_voc(tmp_path, "drop")


def test_what_is_written_reads_back_the_same(tmp_path, squares):
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
