"""Count objects at lines and in zones: events with exact times, counts by class and direction, times of stay.

Between two frames an object moves straight from point to point. It crosses a line when it was strictly on one side and
is strictly on the other, and left the line at a point of it, ends included: touching, standing or starting on a line
counts nothing. It enters or leaves a zone in the same way: the edge changes nothing. The time of an event is when the
object leaves the line or the edge, between frames as well.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from lookonce.inference.zones import Line, Point, Zone, Zones, meet, turn
from lookonce.model.detections import Detections

COLUMNS = ("time", "id", "class", "kind", "name", "direction")
"""Of a table of events: the time in seconds."""
Exact = tuple[Fraction, Fraction]


class Event(NamedTuple):
    """An object crosses a line, or enters or leaves a zone."""

    time: float  # seconds
    id: int
    label: str
    """Class name."""
    kind: Literal["line", "zone"]
    name: str
    """Of the line or zone."""
    direction: str
    """A direction of the line; enter or leave, appear (an object is first seen inside) or vanish (last seen inside)."""

    def to_json(self) -> dict[str, Any]:
        """Return the COLUMNS; the time to the microsecond."""
        return dict(zip(COLUMNS, (round(self.time, 6), *self[1:]), strict=True))


class Stay(NamedTuple):
    """How long an object stayed in a zone."""

    zone: str
    id: int
    label: str
    start: float  # seconds
    end: float


@dataclass
class _Walker:
    """One object."""

    label: str
    time: float
    point: Point
    sides: dict[str, int] = field(default_factory=dict)
    """By line: the side that it was strictly on last, 1 right or -1 left."""
    inside: dict[str, bool] = field(default_factory=dict)
    """By zone: whether it was strictly inside or outside last."""
    since: dict[str, float] = field(default_factory=dict)
    """By zone: since when it is inside."""


class ZoneCounter:
    """Follows numbered objects and finds what happens at lines and zones."""

    def __init__(self, zones: Zones) -> None:
        self.zones = zones
        self.counts: Counter[tuple[str, str, str]] = Counter()
        """By name of the line or zone, direction, class."""
        self.stays: list[Stay] = []
        self._walkers: dict[int, _Walker] = {}
        self._boxes = 0
        self._sum = (0.0, 0.0)  # of widths and heights

    def update(self, found: Detections, time: float, alive: set[int]) -> list[Event]:
        """Return the events of the next frame.

        Args:
            found: with ids.
            time:  of the frame, seconds.
            alive: the objects that may be seen again; others that are inside a zone vanish when they were last seen.
        """
        events: list[Event] = []
        for gone in self._walkers.keys() - alive:
            events += self._vanish(gone)
        for one in found:
            if one.id is not None:
                x1, y1, x2, y2 = one.box
                self._boxes += 1
                self._sum = self._sum[0] + x2 - x1, self._sum[1] + y2 - y1
                point = (x1 + x2) / 2, y2 if self.zones.anchor == "bottom" else (y1 + y2) / 2
                walker = self._walkers.setdefault(one.id, _Walker(one.name, time, point))
                events += self._move(one.id, walker, time, point)
        return self._counted(events)

    def finish(self) -> list[Event]:
        """Return the events of the end: objects inside a zone vanish when they were last seen."""
        return self._counted([event for number in list(self._walkers) for event in self._vanish(number)])

    def warnings(self, size: tuple[int, int]) -> list[str]:
        """Return a sentence for each line without events that a whole box can hardly cross. size: (width, height)."""
        if not self._boxes:
            return []
        wide, high = (total / self._boxes for total in self._sum)
        low, top = (high, size[1]) if self.zones.anchor == "bottom" else (high / 2, size[1] - high / 2)
        corners = [(x, y) for x in (wide / 2, size[0] - wide / 2) for y in (low, top)]
        anchor = "middle of the lower edge" if self.zones.anchor == "bottom" else "center"
        return [
            f"{line.name}: cannot count anything here: boxes are {wide:.0f} x {high:.0f} pixels on average, and the "
            f"{anchor} of a whole box is never beyond the line; move the line further into the image"
            for line in self.zones.lines
            if not any(name == line.name for name, _, _ in self.counts)
            and not {1, -1} <= {turn(line.start, line.end, corner) for corner in corners}
        ]

    def to_json(self) -> dict[str, Any]:
        """Return counts by line or zone, direction and class, and the stays of each zone in seconds."""
        shapes: dict[str, dict[str, Any]] = {zone.name: {} for zone in self.zones.zones}
        shapes |= {line.name: {direction: {} for direction in line.directions} for line in self.zones.lines}
        for (name, direction, label), number in sorted(self.counts.items()):
            shapes[name].setdefault(direction, {})[label] = number
        stays = [{"zone": stay.zone, "id": stay.id, "class": stay.label, "start": round(stay.start, 6),
                  "seconds": round(stay.end - stay.start, 6)} for stay in self.stays]  # fmt: skip
        return {"counts": shapes, "stays": stays}

    def _counted(self, events: list[Event]) -> list[Event]:
        events.sort(key=lambda event: event.time)
        for event in events:
            self.counts[event.name, event.direction, event.label] += 1
        return events

    def _move(self, number: int, walker: _Walker, time: float, point: Point) -> list[Event]:
        """Move an object to the place where it is seen now."""
        start, passed = walker.time, time - walker.time
        events: list[Event] = []
        for line in self.zones.lines:
            side = turn(line.start, line.end, point)
            before = walker.sides.get(line.name, side)
            if side and side != before and (part := crossing(line, walker.point, point)) is not None:
                direction = line.directions[0 if side > 0 else 1]
                events.append(Event(start + passed * part, number, walker.label, "line", line.name, direction))
            if side:
                walker.sides[line.name] = side
        for zone in self.zones.zones:
            known = zone.name in walker.inside
            for part, inside in passages(zone, walker.point, point, walker.inside.get(zone.name)):
                when = start + passed * part
                direction = "enter" if known and inside else "appear" if inside else "leave"
                if inside:
                    walker.since[zone.name] = when
                if inside or known:
                    events.append(Event(when, number, walker.label, "zone", zone.name, direction))
                if known and not inside:
                    self._stayed(walker, number, zone.name, when)
                walker.inside[zone.name], known = inside, True
        walker.time, walker.point = time, point
        return events

    def _vanish(self, number: int) -> list[Event]:
        walker = self._walkers.pop(number)
        events = []
        for name in list(walker.since):
            self._stayed(walker, number, name, walker.time)
            events.append(Event(walker.time, number, walker.label, "zone", name, "vanish"))
        return events

    def _stayed(self, walker: _Walker, number: int, zone: str, end: float) -> None:
        self.stays.append(Stay(zone, number, walker.label, walker.since.pop(zone), end))


def crossing(line: Line, p: Point, q: Point) -> float | None:
    """Return which part of the way from p to q lies before the line (0 to 1), or None if the way passes beside it.

    q is off the straight line through it, and p on it or on the other side.
    """
    if turn(p, q, line.start) * turn(p, q, line.end) > 0:
        return None
    before, after = (_area(line.start, line.end, point) for point in (p, q))
    return float(before / (before - after))


def passages(zone: Zone, p: Point, q: Point, inside: bool | None) -> list[tuple[float, bool]]:
    """Return the changes on the way from p to q: which part of the way lies before each, and whether it goes inside.

    inside: what it was last strictly; None: unknown, so that the first part off the edge counts as a change.
    """
    if inside is not None and not any(meet(p, q, a, b) for a, b in zone.edges):
        return []
    start = Fraction(p[0]), Fraction(p[1])
    way = Fraction(q[0]) - start[0], Fraction(q[1]) - start[1]
    if not any(way):
        place = _place(zone, start)
        return [(0.0, place > 0)] if place and (place > 0) != inside else []
    cuts = sorted({Fraction(0), Fraction(1), *(part for a, b in zone.edges for part in _cuts(p, q, a, b))})
    changes = []
    for low, high in pairwise(cuts):
        middle = (low + high) / 2
        place = _place(zone, (start[0] + middle * way[0], start[1] + middle * way[1]))
        if place and (place > 0) != inside:
            inside = place > 0
            changes.append((float(low), inside))
    return changes


def _area(a: Point, b: Point, p: Point | Exact) -> Fraction:
    """Return twice the signed area of a triangle: proportional to the distance of p from the line ab."""
    ax, ay, bx, by, px, py = (Fraction(v) for v in (*a, *b, *p))
    return (bx - ax) * (py - ay) - (by - ay) * (px - ax)


def _cuts(p: Point, q: Point, a: Point, b: Point) -> list[Fraction]:
    """Return the parts of the way from p to q (0 to 1) at which it meets the line through an edge, or its ends."""
    before, after = _area(a, b, p), _area(a, b, q)
    if before != after:
        found = [before / (before - after)]
    elif before == 0:  # along the edge
        k = 0 if p[0] != q[0] else 1
        found = [(Fraction(end[k]) - Fraction(p[k])) / (Fraction(q[k]) - Fraction(p[k])) for end in (a, b)]
    else:
        found = []
    return [part for part in found if 0 <= part <= 1]


def _place(zone: Zone, p: Exact) -> int:
    """Return 1 for a point inside a zone, -1 outside, 0 on its edge: whether a ray to the right meets an odd number."""
    x, y = p
    odd = False
    for a, b in zone.edges:
        area = _area(a, b, p)
        on_line = area == 0 and min(a[0], b[0]) <= x <= max(a[0], b[0]) and min(a[1], b[1]) <= y <= max(a[1], b[1])
        if on_line:
            return 0
        if (a[1] > y) != (b[1] > y) and (area > 0) == (b[1] > a[1]):
            odd = not odd
    return 1 if odd else -1
