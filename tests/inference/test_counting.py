"""Tests of lookonce.inference.counting."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from lookonce.inference.counting import ZoneCounter
from lookonce.inference.zones import Line, Point, Zone, Zones
from lookonce.model.detections import Detections

DOOR = Line("door", (4, 2), (4, 8))
SLANTED = Line("slanted", (1, 1), (9, 5))
SQUARE = Zone("square", ((2, 2), (7, 2), (7, 7), (2, 7)))
Walk = list[Point]


def at(point: Point, number: int = 1, half: float = 0.5) -> Detections:
    x, y = point
    return Detections([[x - half, y - half, x + half, y + half]], [0.9], [0], ("cat",), ids=[number])


def walked(walk: Walk, zones: Zones) -> tuple[ZoneCounter, list[tuple[float, str, str]]]:
    counter, events = ZoneCounter(zones), []
    for time, point in enumerate(walk):
        events += counter.update(at(point), float(time), {1})
    events += counter.finish()
    return counter, [(event.time, event.name, event.direction) for event in events]


def random_walks(number: int) -> list[Walk]:
    """Walks on a grid so small that they touch, return, stop on lines and corners, and start on them."""
    rng = np.random.default_rng(7)
    walks = []
    for _ in range(number):
        steps = rng.integers(-3, 4, (8, 2)) * (rng.uniform(size=(8, 1)) < 0.8)
        places = np.clip(rng.integers(0, 11, 2) + np.cumsum(steps, 0), 0, 10)
        walks.append([(float(x), float(y)) for x, y in places])
    return walks


def crossings_by_coordinates(walk: Walk, line: Line) -> list[tuple[float, str]]:
    """The same in coordinates along (u, 0 to 1) and across (v) the line: sign changes of v, with u where v is 0."""
    (ax, ay), (bx, by) = line.start, line.end
    along = (Fraction(bx - ax), Fraction(by - ay))
    length = along[0] ** 2 + along[1] ** 2
    places = [
        (((x - ax) * along[0] + (y - ay) * along[1]) / length, (along[0] * (y - ay) - along[1] * (x - ax)) / length)
        for x, y in ((Fraction(x), Fraction(y)) for x, y in walk)
    ]
    events, last = [], 0
    for time in range(len(places)):
        u, v = places[time]
        if v == 0:
            continue
        if last and (v > 0) != (last > 0):
            u0, v0 = places[time - 1]
            part = abs(v0) / (abs(v0) + abs(v))
            if 0 <= u0 + part * (u - u0) <= 1:
                events.append((float(time - 1 + part), "in" if v > 0 else "out"))
        last = 1 if v > 0 else -1
    return events


def visits_of_square(walk: Walk) -> list[tuple[float, bool]]:
    """Times at which the walk goes strictly inside (True) or outside, from the coordinates' own comparisons."""
    state, changes = None, []
    for step, ((x0, y0), (x1, y1)) in enumerate(zip([walk[0], *walk[:-1]], walk, strict=True)):
        way = Fraction(x1 - x0), Fraction(y1 - y0)
        times = {Fraction(0), Fraction(1)}
        for side in (2, 7):
            times |= {(side - Fraction(s)) / d for s, d in ((x0, way[0]), (y0, way[1])) if d}
        ordered = sorted(t for t in times if 0 <= t <= 1)
        for low, high in pairwise(ordered):
            x, y = (Fraction(s) + (low + high) / 2 * d for s, d in zip((x0, y0), way, strict=True))
            inside = 2 < x < 7 and 2 < y < 7
            outside = not (2 <= x <= 7 and 2 <= y <= 7)
            if (inside or outside) and inside != state:
                state = inside
                changes.append((float(step - 1 + low) if step else 0.0, inside))
    return changes


def test_crossings_of_1000_random_walks_are_exact() -> None:
    kinds = {"starts on": 0, "ends on": 0, "stops on": 0, "touches": 0, "crosses": 0}
    for walk in random_walks(1000):
        for line in (DOOR, SLANTED):
            _, events = walked(walk, Zones((line,)))
            expected = crossings_by_coordinates(walk, line)
            assert [direction for *_, direction in events] == [direction for _, direction in expected], walk
            assert [time for time, *_ in events] == pytest.approx([time for time, _ in expected])
            kinds["crosses"] += bool(expected)
        on = [x == 4 and 2 <= y <= 8 for x, y in walk]  # of the door
        kinds["starts on"] += on[0]
        kinds["ends on"] += on[-1]
        kinds["stops on"] += any(on[n] and walk[n] == walk[n + 1] for n in range(len(walk) - 1))
        kinds["touches"] += any(
            on[n] and (walk[n - 1][0] - 4) * (walk[n + 1][0] - 4) > 0 for n in range(1, len(walk) - 1)
        )
    assert min(kinds.values()) > 25, kinds


def test_visits_of_1000_random_walks_are_exact() -> None:
    visits = 0
    for walk in random_walks(1000):
        counter, events = walked(walk, Zones(zones=(SQUARE,)))
        changes = visits_of_square(walk)
        names = ["enter" if inside else "leave" for _, inside in changes]
        if changes and changes[0][1]:
            names[0] = "appear"
        elif changes:  # it begins outside, which is no event
            names, changes = names[1:], changes[1:]
        if changes and changes[-1][1]:
            names.append("vanish")
            changes.append((len(walk) - 1.0, False))
        assert [direction for *_, direction in events] == names, walk
        assert [time for time, *_ in events] == pytest.approx([time for time, _ in changes])
        times = [time for time, _ in changes]
        assert [stay.end - stay.start for stay in counter.stays] == pytest.approx(
            [end - start for start, end in zip(times[::2], times[1::2], strict=True)]
        )
        visits += len(counter.stays)
    assert visits > 300


@pytest.mark.parametrize(
    ("walk", "expected"),
    [
        ([(2, 5), (6, 5)], [(0.5, "door", "out")]),
        ([(6, 5), (2, 5)], [(0.5, "door", "in")]),
        ([(2, 5), (4, 5), (2, 5)], []),  # it touches
        ([(2, 5), (4, 5), (4, 5), (6, 5)], [(2.0, "door", "out")]),  # it stands on the line, and goes on
        ([(4, 5), (6, 5)], []),  # it starts on the line
        ([(2, 9), (6, 9)], []),  # beside the line
        ([(2, 8), (6, 8)], [(0.5, "door", "out")]),  # through its end
        ([(2, 5), (4, 5), (4, 9), (6, 9)], []),  # along it and past its end
        ([(2, 9), (6, 9), (2, 5)], [(1.5, "door", "in")]),
    ],
)
def test_hand_made_walks(walk: Walk, expected: list[tuple[float, str, str]]) -> None:
    assert walked(walk, Zones((DOOR,)))[1] == expected


def test_a_step_through_a_corner_of_a_concave_zone_is_entered_and_left_between_frames() -> None:
    hook = Zone("hook", ((0, 0), (10, 0), (10, 10), (8, 10), (8, 2), (0, 2)))
    _, events = walked([(0, 6), (20, 6)], Zones(zones=(hook,)))
    assert events == [(pytest.approx(0.4), "hook", "enter"), (pytest.approx(0.5), "hook", "leave")]
    _, events = walked([(4, 8), (9, 3), (4, -2)], Zones(zones=(hook,)))
    assert [direction for *_, direction in events] == ["enter", "leave"]


def test_counts_are_by_class_and_direction() -> None:
    counter = ZoneCounter(Zones((DOOR,), (SQUARE,)))
    for time, x in enumerate((1.0, 5.0)):
        boxes = [[x - 0.5, 4.5, x + 0.5, 5.5], [5.5 - x, 4.5, 6.5 - x, 5.5], [x, 4.5, x + 1, 5.5]]
        found = Detections(boxes, [0.9, 0.8, 0.7], [0, 1, 0], ("cat", "dog"), ids=[1, 2, -1])  # the third has no number
        counter.update(found, float(time), {1, 2})
    counter.finish()
    assert counter.to_json() == {
        "counts": {
            "square": {"appear": {"dog": 1}, "enter": {"cat": 1}, "leave": {"dog": 1}, "vanish": {"cat": 1}},
            "door": {"in": {"dog": 1}, "out": {"cat": 1}},
        },
        "stays": [
            {"zone": "square", "id": 2, "class": "dog", "start": 0.0, "seconds": 0.75},
            {"zone": "square", "id": 1, "class": "cat", "start": 0.25, "seconds": 0.75},
        ],
    }


def test_an_object_that_is_forgotten_vanishes_when_it_was_last_seen() -> None:
    counter = ZoneCounter(Zones(zones=(SQUARE,)))
    nothing = Detections([], [], [], ("cat",), ids=[])
    assert [event.direction for event in counter.update(at((5, 5)), 1.0, {1})] == ["appear"]
    assert counter.update(nothing, 2.0, {1}) == []
    [event] = counter.update(nothing, 3.0, set())
    assert (event.time, event.direction, counter.stays[0].end) == (1.0, "vanish", 1.0)


def test_a_line_that_no_whole_box_can_pass_is_reported_unless_it_counts() -> None:
    near, middle = Line("near", (0, 20), (100, 20)), Line("middle", (0, 50), (100, 50))
    counter = ZoneCounter(Zones((near, middle)))
    counter.update(at((50, 45), half=25), 0.0, {1})
    [message] = counter.warnings((100, 100))
    assert message.startswith("near: cannot count anything here: boxes are 50 x 50 pixels on average")
    counter.update(at((50, 10), half=25), 1.0, {1})
    assert counter.warnings((100, 100)) == []


def test_the_point_of_a_box_may_be_the_middle_of_its_lower_edge() -> None:
    line = Line("line", (0, 50), (100, 50))
    counter = ZoneCounter(Zones((line,), anchor="bottom"))
    assert counter.update(at((50, 35), half=10), 0.0, {1}) == []
    assert [event.direction for event in counter.update(at((50, 45), half=10), 1.0, {1})] == ["in"]
