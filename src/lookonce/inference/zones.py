"""Lines and zones in an image, at which counting.py counts objects.

A file has named lines of two points and named zones (polygons) of three or more, in pixels of the upright image:

    point: bottom                          # of a box: center (default) or bottom, the middle of its lower edge
    lines:
      door: [[100, 200], [500, 200]]
      gate: {points: [[0, 0], [0, 90]], directions: [east, west]}
    zones:
      hall: [[10, 10], [400, 10], [400, 300]]

Looking from a line's first point to its second, "in" is from left to right, "out" from right to left; a line may name
them. All comparisons of points are exact: a sign that rounding could change is computed in fractions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from lookonce.choices import choose
from lookonce.errors import ConfigError
from lookonce.text import read_yaml

Point = tuple[float, float]
"""(x, y), pixels of the upright image."""
Anchor = Literal["center", "bottom"]
EXPECTED = "lines like 'door: [[100, 200], [500, 200]]' below 'lines:' or 'zones:'"
ROUNDING = 1e-14
"""Largest relative error of a difference of two products of differences, with room to spare."""


@dataclass(frozen=True)
class Line:
    """A line that counts who crosses it."""

    name: str
    start: Point
    end: Point
    directions: tuple[str, str] = ("in", "out")
    """Left to right, right to left, looking from start to end."""

    @property
    def points(self) -> tuple[Point, Point]:
        """Start and end."""
        return self.start, self.end


@dataclass(frozen=True)
class Zone:
    """A polygon that counts who enters and leaves, and how long they stay. Its edges do not cross."""

    name: str
    points: tuple[Point, ...]

    @property
    def edges(self) -> list[tuple[Point, Point]]:
        """The edges in order, the last one back to the first point."""
        return list(zip(self.points, (*self.points[1:], self.points[0]), strict=True))


@dataclass(frozen=True)
class Zones:
    """The lines and zones of a file."""

    lines: tuple[Line, ...] = ()
    zones: tuple[Zone, ...] = ()
    anchor: Anchor = "center"

    @property
    def shapes(self) -> tuple[Line | Zone, ...]:
        """All of them."""
        return (*self.lines, *self.zones)

    def check(self, size: tuple[int, int], source: str) -> None:
        """Raise ConfigError for a point outside an image of size (width, height). source: its name, for the message."""
        for shape in self.shapes:
            for x, y in shape.points:
                if not (0 <= x <= size[0] and 0 <= y <= size[1]):
                    raise ConfigError(
                        f"{shape.name}: the point ({x:g}, {y:g}) is outside the image; expected 0 to {size[0]} and "
                        f"0 to {size[1]}, as {source} is {size[0]} x {size[1]} pixels"
                    )


def turn(a: Point, b: Point, p: Point) -> int:
    """Return 1 if p is to the right of the line from a to b, as seen in the image, -1 to the left, 0 on the line."""
    right, left = (b[0] - a[0]) * (p[1] - a[1]), (b[1] - a[1]) * (p[0] - a[0])
    if abs(right - left) <= ROUNDING * (abs(right) + abs(left)):
        (ax, ay), (bx, by), (px, py) = ((Fraction(x), Fraction(y)) for x, y in (a, b, p))
        right, left = (bx - ax) * (py - ay), (by - ay) * (px - ax)  # type: ignore[assignment]
    return (right > left) - (right < left)


def meet(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Return whether the straight pieces ab and cd share a point, ends included."""
    apart = any(max(a[k], b[k]) < min(c[k], d[k]) or max(c[k], d[k]) < min(a[k], b[k]) for k in (0, 1))
    return not apart and turn(a, b, c) * turn(a, b, d) <= 0 and turn(c, d, a) * turn(c, d, b) <= 0


def read_zones(path: Path) -> Zones:
    """Return the lines and zones of a YAML file. Raises ConfigError for anything but what the module describes."""
    content = read_yaml(path, EXPECTED)
    if not isinstance(content, dict) or not (content.get("lines") or content.get("zones")):
        raise ConfigError(f"{path}: no lines and no zones; expected {EXPECTED}")
    if unknown := sorted(map(str, content.keys() - {"lines", "zones", "point"})):
        raise ConfigError(f"{path}: {unknown[0]!r}; expected lines, zones or point")
    anchor: Anchor = choose(content.get("point", "center"), ("center", "bottom"), f"{path}: point")
    lines = [_line(f"{path}: {name}", str(name), value) for name, value in _named(path, content, "lines")]
    zones = [_zone(f"{path}: {name}", str(name), value) for name, value in _named(path, content, "zones")]
    found = Zones(tuple(lines), tuple(zones), anchor)
    if twice := [name for name, n in Counter(shape.name for shape in found.shapes).items() if n > 1]:
        raise ConfigError(f"{path}: {twice[0]!r} is a line and a zone; give each a name of its own")
    return found


def _named(path: Path, content: dict[str, Any], kind: str) -> Iterable[tuple[Any, Any]]:
    named = content.get(kind) or {}
    if not isinstance(named, dict):
        raise ConfigError(f"{path}: {kind}: expected a name and points on each line, {EXPECTED}")
    return named.items()


def _line(place: str, name: str, value: Any) -> Line:
    directions: Any = ("in", "out")
    if isinstance(value, dict):
        if unknown := sorted(map(str, value.keys() - {"points", "directions"})):
            raise ConfigError(f"{place}: {unknown[0]!r}; expected points or directions")
        directions = value.get("directions", directions)
        value = value.get("points")
    points = _points(place, value, "2 points [x, y]")
    names = [str(each) for each in directions] if isinstance(directions, list | tuple) else []
    if len(names) != 2 or names[0] == names[1]:
        raise ConfigError(f"{place}: directions {directions!r}; expected two names, such as [north, south]")
    if len(points) != 2:
        raise ConfigError(f"{place}: {len(points)} points; a line has 2, and a zone is written below 'zones:'")
    if points[0] == points[1]:
        raise ConfigError(f"{place}: both points are ({points[0][0]:g}, {points[0][1]:g}); expected two places")
    return Line(name, points[0], points[1], (names[0], names[1]))


def _zone(place: str, name: str, value: Any) -> Zone:
    points = _points(place, value, "3 or more points [x, y]")
    if len(points) > 1 and points[0] == points[-1]:
        points = points[:-1]  # closed, as other programs write it
    if len(points) < 3:
        raise ConfigError(f"{place}: {len(points)} points; expected 3 or more, and a line is written below 'lines:'")
    zone = Zone(name, points)
    edges = zone.edges
    for i, (a, b) in enumerate(edges):
        for j in range(i + 1, len(edges)):
            c, d = edges[j]
            if b == c:
                crossing = _folded(a, b, d)
            elif d == a:
                crossing = _folded(c, d, b)
            else:
                crossing = meet(a, b, c, d)
            if crossing:
                raise ConfigError(
                    f"{place}: the edges from ({a[0]:g}, {a[1]:g}) and from ({c[0]:g}, {c[1]:g}) meet or cross; "
                    "expected points in order round the zone"
                )
    return zone


def _folded(a: Point, b: Point, c: Point) -> bool:
    """Return whether the way from a to b goes straight back towards c."""
    return turn(a, b, c) == 0 and (b[0] - a[0]) * (c[0] - b[0]) + (b[1] - a[1]) * (c[1] - b[1]) <= 0


def _points(place: str, value: Any, expected: str) -> tuple[Point, ...]:
    """Return a list of [x, y] as points."""
    points = []
    for point in value if isinstance(value, list) else [None]:
        pair: list[Any] = point if isinstance(point, list) and len(point) == 2 else [None, None]
        if not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e6 for v in pair):
            raise ConfigError(f"{place}: {point if isinstance(value, list) else value!r}; expected {expected}")
        points.append((float(pair[0]), float(pair[1])))
    return tuple(points)
