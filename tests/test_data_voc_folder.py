"""Mirrors src/lookonce/data/voc_folder.py; reading is also tested through data/catalog.py."""

import numpy as np
import pytest

from conftest import CASES
from lookonce.data import voc
from lookonce.data.catalog import read_dataset
from lookonce.data.voc_folder import find_voc, read_voc, write_voc
from lookonce.errors import UserError


def test_annotations_are_found_by_looking(tmp_path, squares):
    assert list(find_voc(squares)) == [squares / "Annotations"]
    assert find_voc(tmp_path) is None
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
