"""YOLO text labels: one line a box, `class cx cy w h` as fractions of the image. Parser and writer of one file.

The only module in which normalised numbers exist. A line `class x1 y1 x2 y2 x3 y3 ...` is a polygon (or an oriented
box) and is read as its bounding box.
Source: darknet/src/data.c, read_boxes and fill_truth_detection.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lookonce.data.gathering import FIXED, Box, Gathering
from lookonce.files import write_text

LAW = "'class cx cy w h' as fractions of the image, or a polygon 'class x1 y1 x2 y2 x3 y3 ...'"
FARTHEST = 2.0
"""Fractions of an image beyond this are none: pixels, most likely."""


def read_labels(found: Gathering, key: str, file: Path, lines: Sequence[str], size: tuple[int, int],
                keypoints: int = 0) -> None:  # fmt: skip
    """The boxes of one label file, added to the image begun last; each line that is none is noted.

    Args:
        found: has the classes' names.
        key: of the image.
        file: of the lines.
        size: (width, height) of the image, px.
        keypoints: numbers of keypoints that may follow a box; they are not read.
    """
    names = found.class_names or ()
    polygons, floats = [], []
    for number, text in enumerate(lines, start=1):
        fields = text.split()
        if not fields:
            continue
        if len(fields) == 5 + keypoints:
            fields = fields[:5]
        read = read_line(fields, len(names), size)
        if isinstance(read, str):
            found.problem(key, (file, number), "object unreadable", read, "dropped")
            continue
        label, box = read
        if len(fields) > 5:
            polygons.append(number)
        if not fields[0].isdecimal():
            floats.append(number)
        if placed := found.settled(key, (file, number), box, size):
            found.add(names[label], placed, number)
    if polygons:
        said = "a polygon; read as its bounding box"
        found.problem(key, (file, polygons[0]), "polygon", said, FIXED, len(polygons))
    if floats:
        said = f"class {lines[floats[0] - 1].split()[0][:20]!r}; expected a whole number"
        found.problem(key, (file, floats[0]), "class id as a float", said, FIXED, len(floats))


def read_line(fields: Sequence[str], classes: int, size: tuple[int, int]) -> tuple[int, Box] | str:
    """(class, xyxy image px) of the fields of a line, or what is wrong. size: (width, height) of the image, px."""
    if len(fields) != 5 and (len(fields) < 7 or len(fields) % 2 == 0):
        return f"{len(fields)} fields; expected {LAW}"
    try:
        label, *numbers = (float(value) for value in fields)
    except ValueError:
        return f"{' '.join(fields[:20])[:80]!r}; expected {LAW}"
    if not label.is_integer() or not 0 <= label < classes:
        return f"class {fields[0][:20]}; expected 0 to {classes - 1}, as many as there are names"
    if not all(-FARTHEST <= value <= FARTHEST for value in numbers):  # also refuses nan
        pixels = ": pixels?" if max(numbers) > FARTHEST else ""
        return f"{' '.join(fields[1:9])[:80]}; expected {LAW}{pixels}"
    width, height = size
    if len(numbers) > 4:
        xs, ys = numbers[::2], numbers[1::2]
        return int(label), (min(xs) * width, min(ys) * height, max(xs) * width, max(ys) * height)
    cx, cy, w, h = numbers
    return int(label), ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)


def write_labels(path: Path, size: tuple[int, int], boxes: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    """Write the labels of one image. boxes: [N, 4] xyxy image px; labels: [N]; size: (width, height) px."""
    scale = np.array([*size, *size], np.float64)
    x1, y1, x2, y2 = (boxes.astype(np.float64) / scale).T
    rows = np.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), -1)  # [N, 4]
    text = "".join(f"{label} {cx:.8f} {cy:.8f} {w:.8f} {h:.8f}\n"
                   for label, (cx, cy, w, h) in zip(labels.tolist(), rows.tolist(), strict=True))  # fmt: skip
    write_text(path, text)
