"""Tests of lookonce.inference.zones."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lookonce.errors import ConfigError
from lookonce.inference.zones import Line, Zone, Zones, meet, read_zones, turn

GOOD = """
point: bottom
lines:
  door: [[100, 200], [500, 200]]
  gate: {points: [[0, 0], [0, 90.5]], directions: [east, west]}
zones:
  hall: [[10, 10], [400, 10], [400, 300], [10, 10]]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "zones.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_has_lines_zones_and_the_point_of_a_box(tmp_path: Path) -> None:
    found = read_zones(written(tmp_path, GOOD))
    assert found == Zones(
        (Line("door", (100, 200), (500, 200)), Line("gate", (0, 0), (0, 90.5), ("east", "west"))),
        (Zone("hall", ((10, 10), (400, 10), (400, 300))),),
        "bottom",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lines:", "no lines and no zones"),
        ("[1]", "no lines and no zones"),
        ("line: {a: [[0, 0], [1, 1]]}", "no lines and no zones"),
        ("lines: {a: [[0, 0], [1, 1]]}\nzone: {}", "'zone'; expected lines, zones or point"),
        ("lines: {a: [[0, 0], [1, 1]]}\npoint: top", "point: 'top'; expected one of center, bottom"),
        ("lines: [[0, 0], [1, 1]]", "lines: expected a name"),
        ("lines: {a: [[0, 0], [0, 0]]}", r"a: both points are \(0, 0\)"),
        ("lines: {a: [[0, 0], [1, 1], [2, 2]]}", "a: 3 points; a line has 2"),
        ("lines: {a: [[0, 0], [1, .nan]]}", "a: .*expected 2 points"),
        ("lines: {a: [[0, 0], [1, true]]}", "a: .*expected 2 points"),
        ("lines: {a: 3}", "a: 3; expected 2 points"),
        ("lines: {a: {points: [[0, 0], [1, 1]], directions: [x, x]}}", "a: directions"),
        ("lines: {a: {points: [[0, 0], [1, 1]], way: 1}}", "a: 'way'; expected points or directions"),
        ("zones: {a: [[0, 0], [1, 1]]}", "a: 2 points; expected 3 or more"),
        ("zones: {a: [[0, 0], [9, 9], [9, 0], [0, 9]]}", "a: the edges .* meet or cross"),
        ("zones: {a: [[0, 0], [9, 0], [5, 0]]}", "a: the edges .* meet or cross"),
        ("zones: {a: [[0, 0], [9, 0], [9, 9], [9, 3]]}", "a: the edges .* meet or cross"),
        ("zones: {a: [[0, 0], [9, 0], [9, 0], [9, 9]]}", "a: the edges .* meet or cross"),
        ("lines: {a: [[0, 0], [1, 1]]}\nzones: {a: [[0, 0], [9, 0], [9, 9]]}", "'a' is a line and a zone"),
    ],
)
def test_what_is_no_line_and_no_zone_is_an_error_with_its_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_zones(written(tmp_path, text))


def test_a_point_on_an_edge_is_no_fold(tmp_path: Path) -> None:
    found = read_zones(written(tmp_path, "zones: {a: [[0, 0], [5, 0], [9, 0], [9, 9]]}"))
    assert len(found.zones[0].points) == 4


def test_a_point_outside_the_image_is_an_error(tmp_path: Path) -> None:
    found = read_zones(written(tmp_path, GOOD))
    found.check((500, 300), "clip.mp4")
    with pytest.raises(ConfigError, match=r"door: the point \(500, 200\) is outside the image; expected 0 to 499 .*"):
        found.check((499, 300), "clip.mp4")


def test_the_side_of_a_point_is_exact_where_rounding_would_change_it() -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(300):
        ax, ay, bx, by = rng.uniform(0, 1000, 4).tolist()
        part = rng.uniform()
        px, py = ax + part * (bx - ax), ay + part * (by - ay)  # on the line but for rounding
        a, b, p = (tuple(map(Fraction, each)) for each in ((ax, ay), (bx, by), (px, py)))
        exact = (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])
        rounded = (bx - ax) * (py - ay) - (by - ay) * (px - ax)
        wrong += np.sign(rounded) != np.sign(float(exact))
        assert turn((ax, ay), (bx, by), (px, py)) == (exact > 0) - (exact < 0)
    assert wrong > 10  # so that the fractions are needed


def test_right_and_left_are_those_of_the_image() -> None:
    assert turn((0, 0), (10, 0), (5, 5)) == 1  # walking to the right of the image, its lower part is to the right
    assert turn((0, 0), (10, 0), (5, -5)) == -1


def test_pieces_that_touch_at_an_end_meet_and_parallel_ones_do_not() -> None:
    assert meet((0, 0), (4, 4), (4, 4), (8, 0))
    assert meet((0, 0), (4, 4), (2, 2), (9, 9))
    assert not meet((0, 0), (4, 4), (5, 5), (9, 9))
    assert not meet((0, 0), (4, 4), (0, 1), (4, 5))
    assert not meet((0, 0), (4, 0), (5, -1), (5, 1))
