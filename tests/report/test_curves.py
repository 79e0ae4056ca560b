"""Charts of curves: lines where their numbers say, and round numbers at the axes."""

import math

import pytest

from lookonce.report.curves import BOTTOM, LEFT, MOST_POINTS, RIGHT, TOP, chart, curve_cards, log_ticks, nice_ticks


def points(line):
    return [tuple(map(float, point.split(","))) for point in line["points"].split()]


def test_a_line_starts_and_ends_where_its_numbers_lie():
    drawn = chart("mAP", {"": [(0, 0.0), (5, 0.5), (10, 1.0)]}, top=1.0)
    middle = (LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2
    assert points(drawn["lines"][0]) == [(LEFT, BOTTOM), pytest.approx(middle, abs=0.06), (RIGHT, TOP)]
    assert [text for _, text in drawn["y_ticks"]] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]


def test_on_a_logarithmic_scale_equal_factors_are_equally_far_and_zero_is_left_out():
    drawn = chart("loss", {"": [(1, 100.0), (2, 10.0), (3, 1.0), (4, 0.0)]}, log=True)
    ys = [y for _, y in points(drawn["lines"][0])]
    assert ys == pytest.approx([TOP, (TOP + BOTTOM) / 2, BOTTOM], abs=0.06)


def test_lines_differ_without_colour():
    drawn = chart("terms", {str(n): [(1, n + 1.0)] for n in range(7)}, log=True)
    assert len({line["dash"] for line in drawn["lines"]}) == len({line["colour"] for line in drawn["lines"]}) == 7


def test_very_long_curves_are_thinned_but_keep_their_end():
    drawn = chart("rate", {"": [(k / 100, float(k)) for k in range(50_001)]})
    line = points(drawn["lines"][0])
    assert len(line) <= MOST_POINTS + 1
    assert line[-1][0] == RIGHT
    assert drawn["lines"][0]["last"] == "5e+04"


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.0015), (0, 37), (0, 8e6), (0, 0)])
def test_ticks_are_few_round_and_hold_the_values(low, high):
    ticks = nice_ticks(low, high, 5)
    assert ticks[0] == low
    assert ticks[-1] >= high
    assert 2 <= len(ticks) <= 7
    step = ticks[1] - ticks[0]
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5)


@pytest.mark.parametrize(("low", "high"), [(1, 2), (0.03, 7), (2.08, 10.3), (1e-6, 1e6), (5, 5)])
def test_logarithmic_ticks_hold_the_values(low, high):
    ticks = log_ticks(low, high)
    assert ticks[0] <= low * 1.000001
    assert ticks[-1] >= high * 0.999999
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(set(ticks))


def test_a_run_has_a_chart_of_each_curve_that_it_has():
    curves = {"val/mAP": [(1.0, 0.5)], "loss_epoch": [(1.0, 9.0)], "xy_epoch": [(1.0, 3.0)]}
    assert [one["title"] for one in curve_cards(curves)] == [
        "Validation mAP@0.5",
        "Loss",
        "Loss terms, mean of an epoch",
    ]
    assert curve_cards({}) == []
