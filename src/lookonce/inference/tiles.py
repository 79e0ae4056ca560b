"""Large images in tiles: which parts to look at, and one list of detections without doubles at the seams.

Tiles have one size, lie evenly and cover the image; neighbours overlap. The whole image is looked at as well, for
objects larger than a tile. A detection that touches a side of its tile inside the image is cut: it may be a part only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lookonce.errors import ConfigError
from lookonce.model.boxes import area, iou
from lookonce.model.detections import Detections

EDGE = 2.0
"""Pixels from a side of the tile within which a box counts as cut."""
SAME_PART = 0.5
"""A cut box is part of another if that covers more than this of it."""
SMALLEST = 32
"""Shortest side of a tile, pixels."""


@dataclass(frozen=True)
class Tile:
    """A part of an image, or the whole of it; image pixels."""

    x: int
    y: int
    width: int
    height: int

    def crop(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return this part of an image [h, w, ...], as a view."""
        return image[self.y : self.y + self.height, self.x : self.x + self.width]


def tiles_of(size: tuple[int, int], tile: tuple[int, int], overlap: float = 0.2) -> list[Tile]:
    """Return the tiles of an image row by row, and after them the whole image.

    Args:
        size:    (width, height) of the image, pixels.
        tile:    (width, height) of a tile; an image that is not larger is one tile, the whole.
        overlap: smallest part of a tile that its neighbour shows too, 0 to below 1.
    Raises:
        ConfigError: a tile below 32 pixels, or an overlap outside its range.
    """
    if min(tile) < SMALLEST:
        raise ConfigError(f"tile: {tile[0]}x{tile[1]}; expected sides of {SMALLEST} pixels or more")
    if not 0 <= overlap < 1:
        raise ConfigError(f"overlap: {overlap}; expected a part of a tile, 0 to below 1")
    wide, high = min(tile[0], size[0]), min(tile[1], size[1])
    whole = Tile(0, 0, *size)
    if (wide, high) == size:
        return [whole]
    columns, rows = _starts(size[0], wide, overlap), _starts(size[1], high, overlap)
    return [*(Tile(x, y, wide, high) for y in rows for x in columns), whole]


def _starts(side: int, tile: int, overlap: float) -> list[int]:
    """Return where tiles begin on one axis: as few as cover it with the overlap, at even distances."""
    shared = math.ceil(overlap * tile - 1e-9)
    count = 1 + math.ceil((side - tile) / max(1, tile - shared))
    return [round(n * (side - tile) / max(1, count - 1)) for n in range(count)]


def merged(size: tuple[int, int], tiles: Sequence[Tile], found: Sequence[Detections],
           iou_threshold: float) -> Detections:  # fmt: skip
    """Return the detections of an image from those of its tiles, each object once.

    Best first, whole boxes before cut ones, a box stays unless a better one of its class has a higher IoU than the
    threshold, or either is cut and the better one covers most of it.

    Args:
        size:  (width, height) of the image, pixels.
        tiles: T tiles, the whole image among them or not.
        found: T detections, boxes in pixels of the tile.
        iou_threshold: as in non-maximum suppression.
    """
    moved = [one.boxes.astype(np.float64) + (tile.x, tile.y) * 2 for tile, one in zip(tiles, found, strict=True)]
    boxes = np.concatenate(moved)  # [N, 4]
    cut = np.concatenate([_is_cut(one, tile, size) for one, tile in zip(moved, tiles, strict=True)])  # [N]
    scores, labels = (np.concatenate([getattr(one, name) for one in found]) for name in ("scores", "labels"))
    order = np.lexsort((-scores, cut))
    kept: list[int] = []
    for n in order:
        others = np.array([m for m in kept if labels[m] == labels[n]], np.int64)
        if len(others) and _is_double(boxes[n], boxes[others], cut[n] | cut[others], iou_threshold):
            continue
        kept.append(int(n))
    best = np.array(kept, np.int64)
    backed_off = [one.backed_off for one in found]
    known = [one for one in backed_off if one is not None]
    children = np.concatenate(known)[best] if len(known) == len(found) else None
    return replace(found[0], boxes=boxes[best].astype(np.float32), scores=scores[best], labels=labels[best],
                   backed_off=children)  # fmt: skip


def _is_cut(boxes: NDArray[np.float64], tile: Tile, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which boxes [N, 4], image pixels, touch a side of their tile that is no side of the image."""
    low, high = np.array((tile.x, tile.y)), np.array((tile.x + tile.width, tile.y + tile.height))
    first = (low > 0) & (boxes[:, :2] < low + EDGE)
    last = (high < size) & (boxes[:, 2:] > high - EDGE)
    return np.asarray((first | last).any(1))


def _is_double(
    box: NDArray[np.float64], others: NDArray[np.float64], either_cut: NDArray[np.bool_], iou_threshold: float
) -> bool:
    """Return whether a box [4] shows the object of one of the better boxes [M, 4]. either_cut: [M]."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.clip(sides, 0, None).prod(1) / max(float(area(box)), 1e-9)
    return bool(((iou(box, others) > iou_threshold) | (either_cut & (shared > SAME_PART))).any())
