"""Mirrors src/lookonce/view/data_figures.py."""

import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest

from lookonce.model.anchors import measure
from lookonce.report import figures
from lookonce.report.page import PAGE

WH = np.random.default_rng(0).uniform(0.3, 9, (5000, 2))
ANCHORS = measure(WH, np.array([(1.0, 2.0), (5.0, 4.0)]))
MADE = {
    "bars": lambda: figures.class_bars({f"class {n}": (n, 1) for n in range(90)}),
    "one bar": lambda: figures.class_bars({"<b>& \u732b": (0, 0)}),
    "objects": lambda: figures.objects_histogram(np.array([0, 3, 3, 900])),
    "shapes": lambda: figures.shape_cloud(WH, ANCHORS),
    "centres": lambda: figures.centre_map(WH / 10, 0.75),
    "aspects": lambda: figures.aspect_histogram(WH),
    "sizes": lambda: figures.size_histogram(WH, 416),
    "one box": lambda: figures.aspect_histogram(WH[:1]) + "",
}


@pytest.mark.parametrize("what", MADE)
def test_each_figure_is_svg_in_the_pages_colours(what):
    before = dict(matplotlib.rcParams)
    svg = MADE[what]()
    ElementTree.fromstring(svg)
    assert not set(re.findall(r"#[0-9a-f]{6}", svg)) & set(PAGE)
    assert "currentColor" in svg
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|rdf:\w+="[^"]*"', "", svg).replace("http://www.w3.org", "")
    assert dict(matplotlib.rcParams) == before


def test_the_same_boxes_draw_the_same():
    assert figures.shape_cloud(WH, ANCHORS) == figures.shape_cloud(WH, ANCHORS)


def test_very_many_classes_share_a_bar():
    svg = figures.class_bars({f"class {n}": (n, 1) for n in range(90)})
    assert f"{90 - figures.MOST_CLASSES} more" in svg
    assert "class 89" in svg
    assert "class 3<" not in svg


MARKUP = ["$a$", "$", "$\\frac$", "a_b^c", "\\frac", "<b>", "&amp;", "кот", "\u732b", "a\nb\x1b[1m"]


def test_class_names_are_never_read_as_formulas():
    svg = figures.class_bars({name: (n + 1, 1) for n, name in enumerate(MARKUP)})
    texts = ["".join(element.itertext()).strip() for element in ElementTree.fromstring(svg).iter()
             if element.tag.endswith("}text")]  # fmt: skip
    assert {"$a$", "$", "$\\frac$", "a_b^c", "\\frac", "<b>", "&amp;", "кот", "\u732b", r"a\nb\x1b[1m"} <= set(texts)
