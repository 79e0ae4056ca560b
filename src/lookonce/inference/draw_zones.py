"""Draw lines and zones with their counts on a frame."""

from __future__ import annotations

from collections import Counter

from PIL import Image, ImageDraw

from lookonce.inference.draw import BLACK, WHITE, font, lettering
from lookonce.inference.zones import Zones


def draw_zones(image: Image.Image, zones: Zones, counts: Counter[tuple[str, str, str]]) -> None:
    """Draw on an image, in black and white: each line with its counts, each zone with how many are inside.

    counts: by (name, direction, class), as ZoneCounter has them.
    """
    pen, line_width = ImageDraw.Draw(image), max(2, round(min(image.size) / 200))
    letters = max(10, round(min(image.size) / 36))
    for shape in zones.shapes:
        points = [*shape.points, shape.points[0]]
        pen.line(points, BLACK, line_width + 2)
        pen.line(points, WHITE, line_width)
        words, file = lettering(f"{shape.name}: {_counted(shape.name, counts)}")
        wide, high = int(pen.textlength(words, font(file, letters))) + 4, letters + 4
        left = max(0, min(round(points[0][0]), image.width - wide))
        top = max(0, min(round(points[0][1]) + line_width, image.height - high))
        pen.rectangle((left, top, left + wide, top + high), fill=BLACK)
        pen.text((left + 2, top + 1), words, WHITE, font(file, letters))


def _counted(name: str, counts: Counter[tuple[str, str, str]]) -> str:
    """Return "in 2, out 1" of a line, or "3 inside" of a zone."""
    totals: Counter[str] = Counter()
    for (shape, direction, _), number in counts.items():
        if shape == name:
            totals[direction] += number
    gone = totals.pop("leave", 0) + totals.pop("vanish", 0)
    came = totals.pop("enter", 0) + totals.pop("appear", 0)
    if came or gone:
        return f"{came - gone} inside"
    return ", ".join(f"{direction} {number}" for direction, number in sorted(totals.items())) or "0"
