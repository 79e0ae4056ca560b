"""Mirrors src/lookonce/data/yolo_text.py."""

import re

import numpy as np
import pytest

from lookonce.data.formats.builder import Builder
from lookonce.data.formats.yolo import read_labels, read_line, write_labels


def read(tmp_path, lines, size=(200, 100), keypoints=0):
    found = Builder(tmp_path, "drop", "yolo", ("cat", "dog"))
    found.add_image("p", "p.jpg", size, tmp_path / "p.txt")
    read_labels(found, "p", tmp_path / "p.txt", lines, size, keypoints)
    return found


def test_a_line_is_a_box_in_pixels(tmp_path):
    found = read(tmp_path, ["1 .5 .5 .5 .2", "", "0 0.25 0.5 0.5 1 "])
    assert found.boxes.tolist() == [50, 40, 150, 60, 0, 0, 100, 100]
    assert list(found.ids) == ["dog", "cat"]
    assert not found.problems


@pytest.mark.parametrize("line, kind, said", [
    ("0 .1 .1 .2 .1 .2 .2 .3", "object unreadable", "8 fields; expected .* or a polygon"),
    ("0.5 .1 .1 .2 .2", "object unreadable", "class 0.5; expected 0 to 1"),
    ("inf .1 .1 .2 .2", "object unreadable", "class inf"),
    ("0 10 10 20 10 20 20", "object unreadable", "pixels"),
    ("0 .5 .5 -inf .2", "object unreadable", "-inf"),
    ("0 .1 .1 .2", "object unreadable", "4 fields; expected 'class cx cy w h'"),
    ("0 .1 .1 .2 .2 .9", "object unreadable", "6 fields; expected"),
    ("cat .1 .1 .2 .2", "object unreadable", "'cat .1 .1 .2 .2'; expected"),
    ("2 .1 .1 .2 .2", "object unreadable", "class 2; expected 0 to 1"),
    ("-1 .1 .1 .2 .2", "object unreadable", "class -1"),
    ("0 nan .1 .2 .2", "object unreadable", "nan"),
    ("0 100 50 20 20", "object unreadable", "pixels"),
    ("0 .5 .5 0 .2", "box without area", "without area"),
    ("0 1.1 .5 .5 .2", "box outside", "outside the image of 200 x 100"),
])  # fmt: skip
def test_a_wrong_line_is_told_and_left_out(tmp_path, line, kind, said):
    found = read(tmp_path, ["0 .5 .5 .5 .5", line])
    assert len(found.names) == 1
    [(_, problem)] = found.problems
    assert (problem.kind, problem.place) == (kind, "p.txt:2")
    assert re.search(said, problem.found)


@pytest.mark.parametrize("line, box, kind", [
    ("1 .1 .1 .4 .1 .4 .6 .1 .6", [20, 10, 80, 60], "polygon"),
    ("1 .4 .6 .1 .1 .3 .2", [20, 10, 80, 60], "polygon"),
    ("1.0 .5 .5 .5 .2", [50, 40, 150, 60], "class id as a float"),
    ("1 .9 .5 .5 .2", [130, 40, 200, 60], "box over the edge"),
    ("1 -0.02 .5 .2 .2", None, "box outside"),
    ("1 .5 .5 -.5 .2", [50, 40, 150, 60], "corners exchanged"),
])  # fmt: skip
def test_a_box_that_is_clear_is_kept_and_counted_as_fixed(tmp_path, line, box, kind):
    found = read(tmp_path, ["0 .5 .5 .5 .5", line])
    np.testing.assert_allclose(found.boxes[4:], box or [], atol=1e-4)
    [(_, problem)] = found.problems
    assert (problem.kind, problem.place) == (kind, "p.txt:2")
    assert problem.action == ("fixed" if box else "dropped")


def test_polygons_of_a_file_are_said_in_one_line(tmp_path):
    found = read(tmp_path, ["0 .5 .5 .5 .5"] + ["1 .1 .1 .4 .1 .4 .6"] * 500)
    assert len(found.names) == 501
    [(_, problem)] = found.problems
    assert (problem.kind, problem.times, problem.place) == ("polygon", 500, "p.txt:2")


def test_keypoints_behind_a_box_are_no_polygon(tmp_path):
    line = "1 .5 .5 .5 .2 .1 .1 2 .9 .9 0 .2 .3 1 .4 .4 2"
    assert len(line.split()) == 5 + 4 * 3
    found = read(tmp_path, [line], keypoints=12)
    assert found.boxes.tolist() == [50, 40, 150, 60]
    assert not found.problems


def test_what_is_written_reads_back_within_a_thousandth_of_a_pixel(tmp_path):
    boxes = np.array([[0, 0, 4001, 2999], [17.5, 3.25, 19.125, 2001]], np.float32)
    write_labels(tmp_path / "p.txt", (4001, 2999), boxes, np.array([1, 0]))
    lines = (tmp_path / "p.txt").read_text().splitlines()
    back = [read_line(line.split(), 2, (4001, 2999))[1] for line in lines]
    np.testing.assert_allclose(back, boxes, atol=1e-3)
    write_labels(tmp_path / "e.txt", (10, 10), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    assert (tmp_path / "e.txt").read_text() == ""


def test_a_million_wrong_lines_stay_small(tmp_path):
    found = read(tmp_path, ["1"] * 1_000_000)
    assert len(found.problems) < 200
    assert sum(p.times for _, p in found.problems) == 1_000_000
