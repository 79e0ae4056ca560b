"""Images with their boxes over them: ground truth, true positives, false positives and missed objects.

A page draws the boxes as SVG over the image, so that they stay sharp when the image is enlarged, and can be hidden by
score and by class. The result of a box shows in its line and in the mark of its tag, not only in its colour:
ground truth is dashed, a missed object has long thick dashes and "?", a true positive is solid with a check mark, a
false positive is dotted with a cross. A tag has the colour of its class.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookonce.data.dataset import Dataset
from lookonce.data.images import load_rgb
from lookonce.errors import ImageError
from lookonce.evaluation.errors import KINDS
from lookonce.evaluation.evaluate import Analysis
from lookonce.inference.draw import class_colour
from lookonce.report.page import data_uri

SIDE = 640  # longest side of a view, in the units of its boxes
WHOLE_PIXELS = 640  # longest side of a whole image in the page, px
PART_PIXELS = 320  # of a part of an image
MARGIN = 2.2  # side of a part, relative to the longest side of its box ...
LEAST = 0.4  # ... but at least this fraction of the image's shorter side
MOST_BOXES = 40  # detections drawn on an image: those of the highest scores
FEW = 6  # detections and missed objects up to which their tags are shown without enlarging the image
IGNORED = 2.0  # "score" at which an object that need not be found is found: always

Result = Literal["truth", "tp", "fp"]
"""Ground truth, true positive, false positive."""


@dataclass(frozen=True)
class Box:
    """A box on a shown image."""

    result: Result
    name: str
    """Class."""
    colour: str
    """Of the class, as #rrggbb."""
    xywh: tuple[float, float, float, float]
    """Left, top, width, height, in units of the view."""
    score: float
    """Of the detection; of ground truth that of the detection that finds it, -1 if there is none."""
    shown: bool
    """Whether a detection's score is above the page's first threshold; of ground truth, whether it is found there."""
    meaning: str
    """What the box is, for whoever points at it."""


@dataclass(frozen=True)
class View:
    """An image, or a part of one, and its boxes."""

    caption: str
    uri: str
    size: tuple[float, float]
    """(width, height); the longer one is SIDE."""
    boxes: tuple[Box, ...]
    label: str = ""
    """The class of a part's box, to filter by; empty: a whole image."""
    kind: str = ""
    """The kind of error of a part's box, to filter by."""
    focus: tuple[float, float, float, float] | None = None
    """The box in question: left, top, width, height."""

    @property
    def few(self) -> bool:
        """Whether the tags have room on a small image."""
        return sum((b.result == "truth") != b.shown for b in self.boxes) <= FEW


class Overlay:
    """Draws the images of a data set with what a detector found on them.

    Args:
        dataset: the images.
        analysis: of the detections.
        threshold: detections with higher scores are shown first.
    """

    def __init__(self, dataset: Dataset, analysis: Analysis, threshold: float) -> None:
        self.dataset, self.analysis, self.threshold = dataset, analysis, threshold
        found = analysis.found
        self.found_at = np.where(analysis.ignore, IGNORED, -1.0)  # [N]
        self.found_at[found.object[found.true_positive]] = found.score[found.true_positive]

    def whole(self, n: int, caption: str) -> View | None:
        """Return image n; None: it cannot be opened."""
        record = self.dataset.records[n]
        try:
            pixels = load_rgb(record.path, WHOLE_PIXELS, self.dataset.pixel_range)
        except ImageError:
            return None
        return self._view(n, pixels, (0, 0, *record.size), WHOLE_PIXELS, caption)

    def part(self, n: int, box: NDArray[np.floating], caption: str, *, label: str = "", kind: str = "") -> View | None:
        """Return the part of image n around a box (xyxy, image px); None: the image cannot be opened."""
        record = self.dataset.records[n]
        try:
            pixels = load_rgb(record.path, pixel_range=self.dataset.pixel_range)
        except ImageError:
            return None
        frame = window(box, record.size)
        view = self._view(n, pixels, frame, PART_PIXELS, caption)
        focus = placed(box, frame, SIDE / max(frame[2] - frame[0], frame[3] - frame[1]))
        return replace(view, label=label, kind=kind, focus=focus)

    def _view(self, n: int, pixels: NDArray[np.uint8], frame: tuple[int, int, int, int], most: int,
              caption: str) -> View:  # fmt: skip
        """Return the frame (left, top, right, bottom; image px) of image n, as at most `most` pixels a side."""
        left, top, right, bottom = frame
        wide, high = right - left, bottom - top
        reduced = min(1.0, most / max(wide, high))  # the browser enlarges as well as we would
        size = max(1, round(wide * reduced)), max(1, round(high * reduced))
        loaded = pixels.shape[1] / self.dataset.records[n].size[0]  # a large image is loaded smaller
        cut = (left * loaded, top * loaded, right * loaded, bottom * loaded)
        image = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, box=cut)
        scale = SIDE / max(wide, high)
        return View(caption, data_uri(image), (wide * scale, high * scale), tuple(self._boxes(n, frame, scale)))

    def _boxes(self, n: int, frame: tuple[int, int, int, int], scale: float) -> list[Box]:
        """Return the boxes in a frame of image n: ground truth first, then detections, the best last and on top."""
        dataset, found, errors = self.dataset, self.analysis.found, self.analysis.errors
        boxes = []
        for k in range(int(dataset.first[n]), int(dataset.first[n + 1])):
            if _within(dataset.boxes[k], frame):
                name, score = dataset.labels[dataset.classes[k]], float(self.found_at[k])
                place = placed(dataset.boxes[k], frame, scale)
                meaning = f"ground truth: {name}" + (", ignored in the score" if score == IGNORED else "")
                boxes.append(Box("truth", name, self._colour(name), place, score, score > self.threshold, meaning))
        rows = np.flatnonzero((found.image == n) & ~found.ignored)[:MOST_BOXES]  # by descending score
        for k in rows[::-1].tolist():
            if _within(found.boxes[k], frame):
                name, score = dataset.labels[found.label[k]], float(found.score[k])
                correct = bool(found.true_positive[k])
                meaning = "true positive" if correct else f"false positive ({KINDS[errors.kind[k]]})"
                boxes.append(
                    Box("tp" if correct else "fp", name, self._colour(name), placed(found.boxes[k], frame, scale),
                        score, score > self.threshold, f"{meaning}: {name} {score:.2f}")
                )  # fmt: skip
        return boxes

    def _colour(self, name: str) -> str:
        return hex_colour(name, self.dataset.labels)


def hex_colour(name: str, class_names: tuple[str, ...]) -> str:
    """Return the colour of a class as #rrggbb, the same as on drawn images."""
    return "#{:02x}{:02x}{:02x}".format(*class_colour(name, class_names))


def window(box: NDArray[np.floating], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the part of an image (left, top, right, bottom) around a box, px. size: (width, height)."""
    side = max(MARGIN * float((box[2:] - box[:2]).max()), LEAST * min(size))
    corners = []
    for axis in range(2):
        long = min(round(side), size[axis])
        start = int(np.clip(round((box[axis] + box[axis + 2] - long) / 2), 0, size[axis] - long))
        corners.append((start, start + max(long, 1)))
    (left, right), (top, bottom) = corners
    return left, top, right, bottom


def placed(box: NDArray[np.floating], frame: tuple[int, int, int, int],
            scale: float) -> tuple[float, float, float, float]:  # fmt: skip
    """Return a box (xyxy, image px) as left, top, width, height in units of the view."""
    x1, y1, x2, y2 = (float(v) for v in box)
    return (x1 - frame[0]) * scale, (y1 - frame[1]) * scale, (x2 - x1) * scale, (y2 - y1) * scale


def _within(box: NDArray[np.floating], frame: tuple[int, int, int, int]) -> bool:
    """Return whether at least a quarter of the box lies in the frame."""
    inner = np.minimum(box[2:], frame[2:]) - np.maximum(box[:2], frame[:2])
    return bool((inner > 0).all() and inner.prod() >= (box[2:] - box[:2]).prod() / 4)
