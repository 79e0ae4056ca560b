"""The page on which lines and zones are drawn over a still: one file, which saves them as inference/zones.py reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lookonce.inference.zones import Line, Zone, Zones
from lookonce.report.page import data_uri, write_page


@dataclass(frozen=True)
class ZonesPage:
    """What the page shows."""

    name: str
    """Of the video or image."""
    still: Image.Image
    zones: Zones
    """To begin with."""
    file: str
    """Name of the file that it saves."""
    command: str
    """What the user types then."""


def write_zones_page(path: Path, page: ZonesPage) -> Path:
    """Write the page."""
    width, height = page.still.size
    shapes = {"point": page.zones.anchor, "shapes": [_shape(each) for each in page.zones.shapes]}
    return write_page(
        path, "zones_page.html", "zones_page.js", name=page.name, size=page.still.size, ratio=f"{width / height:.4f}",
        size_json=json.dumps(page.still.size), zones_json=json.dumps(shapes), still=data_uri(page.still),
        file=page.file, command=page.command,
    )  # fmt: skip


def _shape(shape: Line | Zone) -> dict[str, Any]:
    """Return a line or zone as the script has it. Whole numbers have no decimal point."""
    return {
        "kind": "line" if isinstance(shape, Line) else "zone",
        "name": shape.name,
        "points": [[int(v) if v == int(v) else v for v in point] for point in shape.points],
        "directions": list(shape.directions) if isinstance(shape, Line) else ["in", "out"],
    }
