"""YOLO text labels: one line a box, `class cx cy w h` as fractions of the picture. Parser and writer of one file.

The only module in which normalised numbers exist.
Source: darknet/src/data.c, read_boxes and fill_truth_detection.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lookonce.data.gathering import Box, Gathering, short
from lookonce.files import write_text

LAW = "'class cx cy w h', all four in [0, 1] of the picture, size above 0"


def read_labels(found: Gathering, key: str, file: Path, lines: Sequence[str], size: tuple[int, int]) -> None:
    """The boxes of one label file, added to the picture begun last; each line that is none is noted.

    Args:
        found: has the classes' names.
        key: of the picture.
        file: of the lines.
        size: (width, height) of the picture, px.
    """
    names = found.class_names or ()
    for number, text in enumerate(lines, start=1):
        fields = text.split()
        if not fields:
            continue
        box = read_line(fields, len(names), size)
        if isinstance(box, str):
            kind = "polygon line" if "polygon" in box else "object unreadable"
            found.problem(key, (file, number), kind, box, "dropped")
        elif placed := found.settled(key, (file, number), box, size):
            found.add(names[int(fields[0])], placed, number)


def read_line(fields: Sequence[str], classes: int, size: tuple[int, int]) -> Box | str:
    """The fields of a line as xyxy image px, or what is wrong with them. size: (width, height) of the picture, px."""
    if len(fields) != 5:
        polygon = " (a polygon? only boxes are read)" if len(fields) >= 7 and len(fields) % 2 else ""
        return f"{len(fields)} fields{polygon}; expected {LAW}"
    try:
        label = int(fields[0])
        cx, cy, w, h = (float(value) for value in fields[1:])
    except ValueError:
        return f"{' '.join(fields)[:80]!r}; expected {LAW}"
    if not 0 <= label < classes:
        return f"class {str(label)[:20]}; expected 0 to {classes - 1}, as many as the names file has"
    box = (cx, cy, w, h)
    if not all(math.isfinite(value) and 0 <= value <= 1.01 for value in box):
        return f"{short(box)}; expected {LAW}" + (": pixels?" if max(box) > 2 else "")
    width, height = size
    return (cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height


def write_labels(path: Path, size: tuple[int, int], boxes: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    """Write the labels of one picture. boxes: [N, 4] xyxy image px; labels: [N]; size: (width, height) px."""
    scale = np.array([*size, *size], np.float64)
    x1, y1, x2, y2 = (boxes.astype(np.float64) / scale).T
    rows = np.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), -1)  # [N, 4]
    text = "".join(f"{label} {cx:.8f} {cy:.8f} {w:.8f} {h:.8f}\n"
                   for label, (cx, cy, w, h) in zip(labels.tolist(), rows.tolist(), strict=True))  # fmt: skip
    write_text(path, text)
