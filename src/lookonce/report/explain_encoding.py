"""How one image is encoded: as the network's input, with its grid, and with the target of each object.

The pages of `check` and `explain` and the tutorial draw these numbers. Boxes are input pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lookonce.data.dataset import Dataset
from lookonce.data.images import load_rgb
from lookonce.errors import ImageError
from lookonce.model.boxes import shape_iou
from lookonce.model.heads import encode
from lookonce.model.layers import PlacedHead
from lookonce.model.losses import Objects
from lookonce.model.resize import ResizeMode, boxes_to_input, to_input
from lookonce.report.overlay import hex_colour
from lookonce.report.page import data_uri

CANDIDATES = 400
"""Images among which the one to explain is chosen."""
BEST_COUNT = 5
"""Objects that fill its grid and can still be targets apart."""
LTWH = tuple[float, float, float, float]
"""Left, top, width, height of a box, input px."""


class Target(NamedTuple):
    """One object and what the network is trained to predict for it."""

    number: int
    """Position in the label file, from 1."""
    name: str
    colour: str
    box: LTWH
    centre: tuple[float, float]
    """Input px."""
    row: int
    col: int
    anchor: int
    """From 1."""
    anchor_box: LTWH
    """The anchor on the object's centre."""
    iou: float
    """Shape IoU with the anchor."""
    txy: tuple[float, float]
    """Position of the centre in its cell, 0 to 1."""
    twh: tuple[float, float]
    """Logarithm of width and height over the anchor's."""
    note: str
    """Why the object is no target; empty: it is one."""


@dataclass(frozen=True, eq=False)
class Example:
    """One labelled image as the network sees it."""

    name: str
    labels: tuple[str, ...]
    """Class names."""
    size: tuple[int, int]
    """(width, height) of the image, image px."""
    pixels: NDArray[np.float32]
    """[3, H, W] the network's input, 0..1."""
    objects: Objects
    """Its labelled objects, input px."""

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height) of the input, px."""
        return self.pixels.shape[2], self.pixels.shape[1]

    @property
    def batch(self) -> torch.Tensor:
        """The input as a batch of one image [1, 3, H, W]."""
        return torch.from_numpy(self.pixels)[None]

    @property
    def uri(self) -> str:
        """The input as an image for a page."""
        return data_uri(Image.fromarray(np.rint(self.pixels.transpose(1, 2, 0) * 255).astype(np.uint8)))

    def targets(self, head: PlacedHead) -> list[Target]:
        """Return each object with its cell, its anchor and its targets at a head."""
        (found,) = encode(self.objects, [head], self.input_size)
        anchors = torch.tensor(head.anchors_px)[found.anchor]  # [N, 2] px
        sides = self.objects.boxes[:, 2:] - self.objects.boxes[:, :2]
        overlap = shape_iou(sides, anchors)
        rows = []
        for n, label in enumerate(self.objects.labels.tolist()):
            (x1, y1, x2, y2), (w, h) = self.objects.boxes[n].tolist(), anchors[n].tolist()
            cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
            note = "difficult: ignored" if found.ignore[n] else ""
            if not note and found.winner[n] != n:
                note = "anchor collision" if found.winner[n] >= 0 else "found by another head"
            rows.append(Target(
                n + 1, self.labels[label], hex_colour(self.labels[label], self.labels), (x1, y1, x2 - x1, y2 - y1),
                (cx, cy), int(found.row[n]), int(found.col[n]), int(found.anchor[n]) + 1,
                (cx - w / 2, cy - h / 2, w, h),
                float(overlap[n]), tuple(found.txy[n].tolist()), tuple(found.twh[n].tolist()), note,
            ))  # fmt: skip
        return rows


def example(dataset: Dataset, n: int, input_size: tuple[int, int], mode: ResizeMode) -> Example:
    """Return image n of a data set as the network sees it. Raises ImageError if it cannot be opened."""
    record = dataset.records[n]
    image = load_rgb(record.path, pixel_range=dataset.pixel_range)
    boxes = boxes_to_input(torch.from_numpy(record.boxes), record.size, input_size, mode)
    labels = torch.from_numpy(record.labels)
    objects = Objects(boxes, labels, torch.zeros_like(labels), torch.from_numpy(record.difficult))
    return Example(record.path.name, dataset.labels, record.size, to_input(image, input_size, mode), objects)


def first_example(dataset: Dataset, input_size: tuple[int, int], mode: ResizeMode) -> Example | None:
    """Return the most instructive image of a data set; None: none can be opened."""
    for n in most_instructive(dataset):
        try:
            return example(dataset, n, input_size, mode)
        except ImageError:
            continue  # check reports it
    return None


def most_instructive(dataset: Dataset) -> list[int]:
    """Return image indices, most instructive first: several classes and shapes, but not too many objects."""
    several = np.flatnonzero(np.diff(dataset.first))[:CANDIDATES].tolist()

    def value(n: int) -> float:
        record = dataset.records[n]
        shapes = np.log2(record.boxes[:, 2:] - record.boxes[:, :2]).round()
        kinds = len(np.unique(record.labels)) + len(np.unique(shapes, axis=0))
        return min(kinds, 2 * BEST_COUNT) - abs(len(record.labels) - BEST_COUNT)

    return sorted(several, key=lambda n: -value(n))
