"""Figures: what they show, in the page's colours, and that no name in them is read as a formula."""

import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from lookonce.errors import UserError
from lookonce.evaluation.average_precision import average_precision, pr_points
from lookonce.inference.draw import lettering
from lookonce.model.anchors import cluster, measure
from lookonce.report import figures
from lookonce.report.figures import (
    POINTS,
    SHOWN,
    Bar,
    anchors_figure,
    channels_figure,
    curve_points,
    rates_figure,
    results_figure,
    save_figure,
)
from lookonce.report.page import PALETTE

MARKUP = ["$a$", "$", "$\\frac$", "a_b^c", "\\frac", "<b>", "&amp;", "кот", "\u732b", "a\nb\x1b[1m"]
WH = np.random.default_rng(0).uniform(0.3, 9, (5000, 2))
ANCHORS = measure(WH, np.array([(1.0, 2.0), (5.0, 4.0)]))
MADE = {
    "bars": lambda: figures.class_bars({f"class {n}": (n, 1) for n in range(90)}),
    "one bar": lambda: figures.class_bars({"<b>& \u732b": (0, 0)}),
    "objects": lambda: figures.objects_histogram(np.array([0, 3, 3, 900])),
    "shapes": lambda: figures.shape_cloud(WH, ANCHORS),
    "clusters": lambda: figures.cluster_cloud(WH, ANCHORS),
    "fit": lambda: figures.fit_curve([measure(WH, WH[:k]) for k in (1, 2, 3)], 2),
    "precision and recall": lambda: figures.precision_recall(np.array([0.3, 0.3, 0.6]), np.array([1, 0.5, 0.7])),
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
    assert not set(re.findall(r"#[0-9a-f]{6}", svg)) & {light for light, _ in PALETTE.values()}
    assert "var(--ink)" in svg
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|rdf:\w+="[^"]*"', "", svg).replace("http://www.w3.org", "")
    assert dict(matplotlib.rcParams) == before


def test_the_same_boxes_draw_the_same():
    assert figures.shape_cloud(WH, ANCHORS) == figures.shape_cloud(WH, ANCHORS)


def test_very_many_classes_share_a_bar():
    svg = figures.class_bars({f"class {n}": (n, 1) for n in range(90)})
    assert f"{90 - figures.MOST_CLASSES} more" in svg
    assert "class 89" in svg
    assert "class 3<" not in svg


def test_class_names_of_bars_are_never_read_as_formulas():
    svg = figures.class_bars({name: (n + 1, 1) for n, name in enumerate(MARKUP)})
    texts = ["".join(element.itertext()).strip() for element in ElementTree.fromstring(svg).iter()
             if element.tag.endswith("}text")]  # fmt: skip
    assert {"$a$", "$", "$\\frac$", "a_b^c", "\\frac", "<b>", "&amp;", "кот", "\u732b", r"a\nb\x1b[1m"} <= set(texts)


@pytest.fixture(scope="module")
def figure():
    wh = np.exp(np.random.default_rng(0).normal(1, 0.5, (SHOWN + 500, 2)))
    curve = [cluster(wh, k, restarts=2) for k in (1, 2, 3)]
    return anchors_figure(wh, curve, curve[1], measure(wh, np.ones((4, 2))), "given (4)")


def test_the_curve_and_the_given_anchors_are_drawn_with_their_numbers(figure):
    left, _ = figure.axes
    lines = {line.get_label(): line for line in left.lines}
    assert lines["mean best IoU"].get_xdata().tolist() == [1, 2, 3]
    assert lines["mean best IoU"].get_ydata().tolist() == sorted(lines["mean best IoU"].get_ydata())
    assert sum(label.startswith("given (4): ") for label in lines) == 2


def test_chosen_anchors_are_numbered_and_the_cloud_is_bounded(figure):
    _, right = figure.axes
    assert [text.get_text() for text in right.texts] == ["1", "2"]
    assert len(right.patches) == 2
    assert len(right.collections[0].get_offsets()) == SHOWN


def test_a_saved_figure_is_an_image_and_matplotlib_keeps_no_state(figure, tmp_path):
    save_figure(figure, tmp_path / "deep" / "anchors.png")
    with Image.open(tmp_path / "deep" / "anchors.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 400
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["anchors.png"]
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


def test_an_ending_that_is_no_format_is_refused_and_nothing_is_left(figure, tmp_path):
    with pytest.raises(UserError, match=r"anchors\.doc: ending 'doc'; expected one of .*png"):
        save_figure(figure, tmp_path / "anchors.doc")
    assert list(tmp_path.iterdir()) == []


def test_rates_are_bars_from_top_to_bottom_with_their_numbers(tmp_path):
    panels = {
        "one, batch 1": [Bar("a", 12.34, "  2.00 x", True), Bar("b", 6.17, "", False)],
        "two": [Bar("c", 1, "", 1)],
    }
    figure = rates_figure(panels, "a processor")
    first, second = figure.axes
    assert [bar.get_width() for bar in first.patches] == [12.34, 6.17]
    assert [label.get_text() for label in first.get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in first.texts] == ["12.3  2.00 x", "6.2"]
    assert first.get_ylim()[0] > first.get_ylim()[1]  # the first row stands on top
    assert first.patches[0].get_facecolor() != first.patches[1].get_facecolor()
    assert (first.get_title(loc="left"), second.get_title(loc="left")) == ("one, batch 1", "two")
    save_figure(figure, tmp_path / "speed.png")
    with Image.open(tmp_path / "speed.png") as image:
        assert image.width == 1100


def test_channels_are_full_bars_in_hollow_ones():
    (axes,) = channels_figure([(0, 16, 8), (4, 64, 64)], "what it cost").axes
    hollow, full = axes.patches[::2], axes.patches[1::2]
    assert [bar.get_width() for bar in hollow] == [16, 64]
    assert [bar.get_width() for bar in full] == [8, 64]
    assert hollow[0].get_facecolor() != full[0].get_facecolor()
    assert [text.get_text() for text in axes.texts] == ["8 of 16", "64 of 64"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["layer 0", "layer 4"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert axes.get_title(loc="left") == "what it cost"


@pytest.mark.parametrize("name", MARKUP)
def test_names_are_never_read_as_formulas(name, tmp_path):
    figure = rates_figure({name: [Bar(name, 3.0, "", ours=True)]}, name)
    save_figure(figure, tmp_path / "p.png")
    [axes] = figure.axes
    texts = [figure.get_suptitle(), axes.get_title(loc="left"), axes.get_yticklabels()[0].get_text()]
    assert set(texts) == {lettering(name, own=True)[0]}
    assert not axes.get_yticklabels()[0].get_parse_math()
    save_figure(channels_figure([(0, 4, 2)], name), tmp_path / "c.png")


@pytest.mark.parametrize("many", [1, 30, 5000])
def test_the_curve_on_the_page_holds_the_area_that_is_said(many):
    draw = np.random.default_rng(many)
    right = draw.random(many) < np.linspace(1, 0.2, many)
    curve = pr_points(np.linspace(1, 0, many), right, int(right.sum() * 1.25) + 1)
    points = np.array(curve_points(curve))
    assert len(points) <= POINTS + 2
    assert (np.diff(points[:, 0]) >= 0).all()
    assert (np.diff(points[:, 1]) <= 0).all()
    area = float((np.diff(points[:, 0]) * points[1:, 1]).sum())
    assert area == pytest.approx(float(average_precision(curve[:, 1], curve[:, 2], "voc2010")), abs=0.02)


def test_without_anything_right_there_is_no_curve():
    assert curve_points(np.zeros((0, 3))) == []
    assert curve_points(pr_points(np.array([0.5]), np.array([False]), 3)) == []


def test_a_run_is_drawn_with_both_losses_and_a_panel_for_each_number():
    curves = {"loss_epoch": [(1, 9.0), (2, 4.0)], "val/loss": [(1, 8.0), (2, 5.0)], "val/mAP": [(2, 0.5)]}
    figure = results_figure(curves, "cells-1")
    losses, score, rate, _ = figure.axes
    assert [line.get_xydata().tolist() for line in losses.lines] == [[[1, 9], [2, 4]], [[1, 8], [2, 5]]]
    assert [text.get_text() for text in losses.get_legend().get_texts()] == ["training (augmented)", "validation"]
    assert score.lines[0].get_xydata().tolist() == [[2, 0.5]]
    assert not rate.lines
