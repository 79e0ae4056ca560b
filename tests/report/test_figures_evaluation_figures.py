"""Mirrors src/lookonce/view/evaluation_figures.py."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from lookonce.evaluation.average_precision import average_precision, pr_points
from lookonce.evaluation.confusion import calibrate
from lookonce.evaluation.errors import KINDS, Kind
from lookonce.report.figures import POINTS, calibration_figure, cost_figure, curve_points


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


def test_figures_are_svg_with_their_numbers():
    kinds = tuple(Kind(name, 3, cost) for name, cost in zip(KINDS, (0.1, 0.25, 0, None, -0.01, 0.5), strict=True))
    text = cost_figure(kinds)
    assert all(word in text for word in (*KINDS, "+0.250", "-0.010", "var(--accent)"))
    assert ElementTree.fromstring(text).tag.endswith("svg")
    draw = np.random.default_rng(0).random(500)
    drawn = calibration_figure(calibrate(draw, draw > 0.5))
    assert "as it should be" in drawn
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert calibration_figure(calibrate(np.ones(1), np.ones(1, bool)))
