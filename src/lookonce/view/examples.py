"""Hits, misses and false alarms cut from their pictures: what is there on the left, what was found on the right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lookonce.analysis import Analysis
from lookonce.data.pictures import load_rgb
from lookonce.data.record import Dataset
from lookonce.error_kinds import KINDS
from lookonce.errors import PictureError
from lookonce.view.draw import draw

SHOWN = 8
"""Of each sort."""
SIDE = 280
"""Longest side of a cutting on the page, px."""
ROOM = 2.2
"""Side of a cutting, of the longest side of its box; of a picture at least LEAST of its shorter side."""
LEAST = 0.4


@dataclass(frozen=True)
class Example:
    """One cutting, twice."""

    caption: str
    there: Image.Image
    found: Image.Image


@dataclass(frozen=True)
class Examples:
    """Some of each sort, at one threshold."""

    threshold: float
    hits: list[Example]
    misses: list[Example]
    alarms: list[Example]


def choose_examples(dataset: Dataset, analysis: Analysis) -> Examples:
    """The surest hits and false alarms and the largest misses, the classes in turn, on pictures that open."""
    found, errors = analysis.found, analysis.errors
    threshold = analysis.confusion.at.threshold if analysis.confusion else 0.0
    shown = found.score > threshold
    hits, alarms = np.flatnonzero(shown & found.right), np.flatnonzero(shown & ~found.right & ~found.ignored)
    unfound = ~analysis.skip
    unfound[found.object[hits]] = False
    area = np.prod(dataset.boxes[:, 2:] - dataset.boxes[:, :2], axis=1)
    misses = np.argsort(-area, kind="stable")
    misses = misses[unfound[misses]]
    cut = _Cut(dataset, analysis, threshold)

    def name(row: int) -> str:
        return f"{dataset.labels[found.label[row]]} {found.score[row]:.2f}"

    def alarm(row: int) -> str:
        about = int(errors.about[row])
        what = "" if about < 0 else f" (a {dataset.labels[dataset.classes[about]]} is there)"
        return f"{name(row)}: {KINDS[errors.kind[row]]}{what}"

    return Examples(
        threshold,
        list(cut.some(hits, found.image, found.label, found.boxes, name)),
        list(cut.some(misses, dataset.image_of_box, dataset.classes, dataset.boxes, cut.missed)),
        list(cut.some(alarms, found.image, found.label, found.boxes, alarm)),
    )


class _Cut:
    """Cuts examples from the pictures of a data set."""

    def __init__(self, dataset: Dataset, analysis: Analysis, threshold: float) -> None:
        self.dataset, self.analysis, self.threshold = dataset, analysis, threshold

    def missed(self, n: int) -> str:
        """What to say of a missed object."""
        wide, high = self.dataset.boxes[n, 2:] - self.dataset.boxes[n, :2]
        return f"{self.dataset.labels[self.dataset.classes[n]]}, {wide:.0f} x {high:.0f} px"

    def some(self, rows: NDArray[np.int64], image: NDArray[np.int64], label: NDArray[np.int64],
             boxes: NDArray[np.floating], caption: Callable[[int], str]) -> Iterator[Example]:  # fmt: skip
        """Examples of rows, the first of each class, then the second, ... caption: row -> text."""
        turn = np.zeros(len(rows), np.int64)
        for one in np.unique(label[rows]):
            mine = np.flatnonzero(label[rows] == one)
            turn[mine] = np.arange(len(mine))
        given = 0
        for row in rows[np.argsort(turn, kind="stable")].tolist():
            n = int(image[row])
            try:
                picture = load_rgb(self.dataset.records[n].path, pixel_range=self.dataset.pixel_range)
            except PictureError:
                continue
            there, found = self.cuttings(picture, n, boxes[row].astype(float))
            yield Example(f"{caption(row)}, {self.dataset.records[n].path.name}", there, found)
            given += 1
            if given == SHOWN:
                return

    def cuttings(
        self, picture: NDArray[np.uint8], n: int, box: NDArray[np.floating]
    ) -> tuple[Image.Image, Image.Image]:
        """Picture n around a box, with its objects and with what was found."""
        left, top, right, bottom = window(box, (picture.shape[1], picture.shape[0]))
        scale = SIDE / max(right - left, bottom - top)
        size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
        small = Image.fromarray(picture[top:bottom, left:right]).resize(size, Image.Resampling.BILINEAR)
        corner, record, found = np.array([left, top, left, top]), self.dataset.records[n], self.analysis.found
        _frame(small, (box - corner) * scale)
        part = np.asarray(small)
        rows = np.flatnonzero((found.image == n) & (found.score > self.threshold))
        labels = self.dataset.labels
        inside = [k for k in range(len(record.boxes)) if _within(record.boxes[k], (left, top, right, bottom))]
        objects = (record.boxes[inside] - corner) * scale, [labels[record.labels[k]] for k in inside]
        rows = rows[[_within(found.boxes[k], (left, top, right, bottom)) for k in rows]] if len(rows) else rows
        seen = (found.boxes[rows] - corner) * scale, [labels[k] for k in found.label[rows]], found.score[rows].tolist()
        return draw(part, (np.zeros((0, 4)), [], []), objects), draw(part, seen)


def window(box: NDArray[np.floating], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The part of a picture (left, top, right, bottom) around a box, with room about it, px. size: (width, height)."""
    side = max(ROOM * float((box[2:] - box[:2]).max()), LEAST * min(size))
    corners = []
    for axis in range(2):
        long = min(round(side), size[axis])
        start = int(np.clip(round((box[axis] + box[axis + 2] - long) / 2), 0, size[axis] - long))
        corners.append((start, start + max(long, 1)))
    (left, right), (top, bottom) = corners
    return left, top, right, bottom


def _frame(picture: Image.Image, box: NDArray[np.floating]) -> None:
    """A white frame with black edges around a box, clear of it."""
    pen = ImageDraw.Draw(picture)
    for away, width, colour in ((8, 4, "black"), (7, 2, "white")):
        pen.rectangle((*(box[:2] - away), *(box[2:] + away)), outline=colour, width=width)


def _within(box: NDArray[np.floating], frame: tuple[int, int, int, int]) -> bool:
    """Whether at least a quarter of the box lies in the frame."""
    inner = np.minimum(box[2:], frame[2:]) - np.maximum(box[:2], frame[:2])
    return bool((inner > 0).all() and inner.prod() >= (box[2:] - box[:2]).prod() / 4)
