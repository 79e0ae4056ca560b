"""Mirrors src/lookonce/training/schedule.py."""

import pytest

from lookonce.training.recipes import Settings, learning_rate_factor


def curve(steps, **given):
    return [learning_rate_factor(step, steps, Settings(**given)) for step in range(steps)]


@pytest.mark.parametrize("schedule", ["constant", "steps", "cosine", "one_cycle"])
def test_every_schedule_climbs_to_one_and_stays_above_nothing(schedule):
    for steps in (1, 7, 1000):
        found = curve(steps, schedule=schedule, burn_in=100)
        assert 0 < min(found) <= max(found) <= 1 + 1e-9
    assert max(found) == pytest.approx(1)
    assert found[0] < 0.02


def test_burn_in_is_darknets_fourth_power():
    found = curve(2000, schedule="constant", burn_in=100)
    assert found[49] == pytest.approx(0.5**4)
    assert found[100:] == [1.0] * 1900


def test_steps_fall_tenfold_at_their_milestones():
    found = curve(160, schedule="steps", burn_in=0, milestones=(0.375, 0.5625))
    assert [found[59], found[60], found[89], found[90]] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_one_cycle_ends_near_nothing():
    found = curve(500, schedule="one_cycle")
    assert found.index(max(found)) == 49
    assert found[-1] == pytest.approx(0.01)


def test_a_burn_in_longer_than_the_run_takes_a_tenth_of_it():
    assert curve(100, schedule="constant", burn_in=1000)[10] == 1.0
