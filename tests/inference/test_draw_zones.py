"""Tests of lookonce.inference.draw_zones."""

from __future__ import annotations

from collections import Counter

import numpy as np
from PIL import Image

from lookonce.inference.draw_zones import _counted, draw_zones
from lookonce.inference.zones import Line, Zone, Zones


def test_lines_and_zones_are_white_with_a_black_edge() -> None:
    image = Image.new("RGB", (200, 100), (90, 90, 90))
    draw_zones(
        image, Zones((Line("door", (20, 50), (180, 50)),), (Zone("hall", ((10, 10), (60, 10), (60, 40))),)), Counter()
    )
    pixels = np.asarray(image)
    assert pixels[50, 170].tolist() == pixels[25, 60].tolist() == [255, 255, 255]
    assert [0, 0, 0] in pixels[46:50, 170].tolist()
    assert [0, 0, 0] in pixels[51:55, 170].tolist()
    assert pixels[90, 190].tolist() == [90, 90, 90]


def test_counts_of_all_classes_are_added() -> None:
    counts = Counter(
        {("door", "in", "cat"): 2, ("door", "in", "dog"): 1, ("door", "out", "dog"): 1, ("x", "in", "cat"): 9}
    )
    assert _counted("door", counts) == "in 3, out 1"
    assert _counted("nothing", counts) == "0"


def test_a_zone_shows_how_many_are_inside() -> None:
    counts = Counter({("hall", "appear", "cat"): 2, ("hall", "enter", "cat"): 3, ("hall", "leave", "cat"): 1,
                      ("hall", "vanish", "cat"): 1})  # fmt: skip
    assert _counted("hall", counts) == "3 inside"
