"""Tests of lookonce.data.moving_digits."""

from __future__ import annotations

import numpy as np
import pytest

from lookonce.data import moving_digits as m
from lookonce.data.digits import divide, load_scans


@pytest.fixture(scope="module")
def clip() -> m.Clip:
    return m.make_clip(0)


@pytest.fixture(scope="module")
def frames(clip: m.Clip) -> list[m.ClipFrame]:
    return list(clip.frames())


def test_the_same_seed_makes_the_same_clip_and_another_seed_another(clip: m.Clip, frames: list[m.ClipFrame]) -> None:
    again, other = m.make_clip(0), m.make_clip(1)
    assert again.times == clip.times != other.times
    middle = len(frames) // 2
    assert np.array_equal(next(f for n, f in enumerate(again.frames()) if n == middle).pixels, frames[middle].pixels)


def test_a_box_is_tight_around_the_pixels_that_differ_from_the_page(clip: m.Clip, frames: list[m.ClipFrame]) -> None:
    checked = 0
    for frame in frames:
        on_screen = [d for d in clip.digits if d.times[0] <= frame.time <= d.times[-1]]
        inside = ((frame.boxes > 0) & (frame.boxes < m.SIDE)).all()
        if len(on_screen) == len(frame.ids) == 1 and inside:
            changed = np.abs(frame.pixels / 255 - clip.page).max(-1) > 0.01
            rows, columns = (np.flatnonzero(changed.any(axis)) for axis in (1, 0))
            tight = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            assert frame.boxes[0].tolist() == list(tight)
            checked += 1
    assert checked > 10


def test_crossings_are_those_of_the_centres_at_each_millisecond(clip: m.Clip) -> None:
    counts = {"left": 0, "right": 0}
    for digit in clip.digits:
        times = np.arange(digit.times[0], digit.times[-1], 0.001)
        sides = np.sign(np.interp(times, digit.times, digit.points[:, 0]) - m.LINE)
        steps = np.diff(sides[sides != 0])
        counts["right"] += int((steps > 0).sum())
        counts["left"] += int((steps < 0).sum())
    assert clip.crossings() == counts
    assert min(counts.values()) > 3


def test_digits_enter_leave_turn_round_and_cover_each_other(clip: m.Clip, frames: list[m.ClipFrame]) -> None:
    assert {n for frame in frames for n in frame.ids.tolist()} == set(range(m.DIGITS))
    assert all(not m.MovingDigit.corner(digit, digit.times[-1] + 0.01) for digit in clip.digits)
    assert any(len(digit.times) == 3 for digit in clip.digits)
    pairs = [frame.boxes.astype(float) for frame in frames if len(frame.ids) == 2]
    shared = [np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod() for a, b in pairs]
    assert max(area / (a[2:] - a[:2]).prod() for area, (a, _) in zip(shared, pairs, strict=True)) > 0.3


def test_frames_come_at_uneven_times_in_whole_tenths_of_a_millisecond(clip: m.Clip) -> None:
    gaps = np.diff(clip.times)
    assert m.GAPS[0] - 1e-4 < gaps.min() < 0.6 * gaps.max() < 0.6 * (m.GAPS[1] + 1e-4)
    assert np.array(clip.times) * 1e4 == pytest.approx(np.rint(np.array(clip.times) * 1e4), abs=1e-6)


def test_digits_are_of_the_scans_that_no_training_page_has(monkeypatch: pytest.MonkeyPatch) -> None:
    scans, labels = load_scans()
    test = {scans[n].tobytes() for n in divide(labels, 5)[2]}
    used, draw = [], m.shape_digit
    monkeypatch.setattr(m, "shape_digit", lambda scan, *rest: (used.append(scan.tobytes()), draw(scan, *rest))[1])
    m.make_clip(5)
    assert len(used) == m.DIGITS
    assert set(used) <= test
