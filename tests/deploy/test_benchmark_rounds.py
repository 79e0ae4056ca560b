"""Mirrors src/lookonce/speed/rounds.py. Clocks are counters, and cases are by hand."""

import itertools

import pytest

from lookonce.deploy.benchmark import Spent, interleave, p95, ratio, timed


def test_everything_runs_once_a_round_in_turn_and_warm_up_does_not_count():
    order, places = [], []

    def run(name):
        order.append(name)
        return len(order)

    found = interleave([lambda: run("a"), lambda: run("b")], rounds=2, warm_up=1, each=places.append)
    assert order == ["a", "b"] * 3
    assert places == [0, 1] * 3
    assert found.found == [[3, 4], [5, 6]]
    assert (found.of(0), found.of(1), found.stopped) == ([3, 5], [4, 6], False)


@pytest.mark.parametrize("calls, kept", [(2, []), (3, []), (4, [[3, 4]]), (5, [[3, 4]])])
def test_a_stop_keeps_the_whole_rounds_before_it(calls, kept):
    numbers = itertools.count(1)

    def run():
        if (number := next(numbers)) > calls:
            raise KeyboardInterrupt
        return number

    found = interleave([run, run], rounds=9, warm_up=1)
    assert found.found == kept
    assert found.stopped


def test_a_run_is_timed_by_both_clocks_and_nothing_else_of_it_is_kept():
    ticks, used = iter([10.0, 12.5]), iter([100.0, 103.0])
    took = timed(lambda: "thrown away", rest=0, clock=lambda: next(ticks), processor=lambda: next(used))()
    assert took == Spent(2.5, 3.0)


def test_p95_is_what_nineteen_in_twenty_do_not_exceed():
    assert p95(list(range(1, 22))) == pytest.approx(20)  # of 1..21 the place .95 * 20 is the twentieth
    assert p95([1.0, 2.0]) == pytest.approx(1.95)
    assert p95([7.0]) == 7


def test_a_ratio_is_the_median_within_rounds_not_the_ratio_of_medians():
    assert ratio([2, 9, 8], of=[1, 3, 2]) == 3  # 2, 3, 4; the medians' would be 8 / 2
    with pytest.raises(ValueError):
        ratio([1, 2], of=[1])
