"""Mirrors src/lookonce/data/voc_folder.py; reading is also tested through data/catalog.py."""

import numpy as np
import pytest

from lookonce.data import voc
from lookonce.data.catalog import read_dataset
from lookonce.data.voc_folder import find_voc, read_voc, write_voc
from lookonce.errors import UserError


def test_annotations_are_found_by_looking(tmp_path, squares):
    assert find_voc(squares) == squares / "Annotations"
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
