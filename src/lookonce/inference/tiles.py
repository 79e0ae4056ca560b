"""One list of detections from those of an image's tiles, without doubles at the seams.

A detection that touches a side of its tile inside the image is cut: it may be a part only. One that is whole, from a
neighbour or from the whole image, counts more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lookonce.data.tiles import Tile
from lookonce.model.boxes import area, iou, relative_distance
from lookonce.model.detections import Detections
from lookonce.model.postprocess import Selection, survivors
from lookonce.model.tree import Tree

EDGE, EDGE_PART = 2.0, 0.03
"""A box counts as cut within so many pixels of its tile's side, or so much of the tile: a network's boxes are no more
exact than that."""
SAME_PART, BOTH_CUT = 0.5, 0.25
"""A cut box and one of another tile show one object if they share more than this of the smaller: less is needed if both
are cut, as two halves at a seam are."""
CUT_SCORE = 0.25
"""A cut box ranks as if it had this part of its score."""
Floats = NDArray[np.float64]


def merged(size: tuple[int, int], tiles: Sequence[Tile], found: Sequence[Detections],
           selection: Selection) -> Detections:  # fmt: skip
    """Return the detections of an image from those of its tiles, each object once.

    Best first, a box stays unless a better one of its class that stays overlaps it as in non-maximum suppression, or is
    of another tile, one of the two is cut, and they share enough of the smaller. In a tree, a class and its parents are
    one.

    Args:
        size:  (width, height) of the image, pixels.
        tiles: T tiles, the whole image among them or not.
        found: T detections, boxes in pixels of the tile.
        selection: of each tile's detections; its suppression holds here, too.
    """
    moved = [one.boxes.astype(np.float64) + (tile.x, tile.y) * 2 for tile, one in zip(tiles, found, strict=True)]
    cut = np.concatenate([_is_cut(one, tile, size) for one, tile in zip(moved, tiles, strict=True)])  # [N]
    scores = np.concatenate([one.scores for one in found])
    order = np.argsort(-scores * np.where(cut, CUT_SCORE, 1), kind="stable")
    boxes, cut = np.concatenate(moved)[order], cut[order]  # [N, 4], [N]
    scores, labels = scores[order], np.concatenate([one.labels for one in found])[order]
    better, worse = _near(boxes, labels, selection.tree)
    tile = np.repeat(np.arange(len(found)), [len(one) for one in found])[order]
    number = np.where(tile[better] == tile[worse], 0, cut[better].astype(int) + cut[worse])
    double = _are_double(boxes[better], boxes[worse], number, selection)
    keep = survivors(better[double], worse[double], len(boxes))
    backed_off = [one.backed_off for one in found]
    known = [one for one in backed_off if one is not None]
    children = np.concatenate(known)[order][keep] if len(known) == len(found) else None
    return replace(found[0], boxes=boxes[keep].astype(np.float32), scores=scores[keep], labels=labels[keep],
                   backed_off=children)  # fmt: skip


def _is_cut(boxes: Floats, tile: Tile, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which boxes [N, 4], image pixels, touch a side of their tile that is no side of the image."""
    low, high = np.array((tile.x, tile.y)), np.array((tile.x + tile.width, tile.y + tile.height))
    near = np.maximum(EDGE, EDGE_PART * (high - low))
    first = (low > 0) & (boxes[:, :2] < low + near)
    last = (high < size) & (boxes[:, 2:] > high - near)
    return np.asarray((first | last).any(1))


def _near(boxes: Floats, labels: NDArray[np.int64], tree: Tree | None
          ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """Return the pairs (better, worse) [P] of boxes [N, 4], best first, of one class, that share pixels."""
    distinct, place = np.unique(labels, return_inverse=True)
    paths = [(int(label),) if tree is None else tree.path(int(label)) for label in distinct]
    group = np.array([path[-1] for path in paths], np.float64)[place] if len(paths) else np.zeros(0)
    apart = group * (np.ptp(boxes) + 1 if boxes.size else 1)  # classes lie beside each other
    left, right = boxes[:, 0] + apart, boxes[:, 2] + apart
    order = np.argsort(left, kind="stable")
    following = np.searchsorted(left[order], right[order]) - np.arange(len(order)) - 1  # of each, those it may touch
    count = np.maximum(following, 0)
    first = np.repeat(np.arange(len(order)), count)
    second = first + 1 + np.arange(len(first)) - np.repeat(count.cumsum() - count, count)
    one, other = order[first], order[second]
    touch = np.minimum(boxes[one, 3], boxes[other, 3]) > np.maximum(boxes[one, 1], boxes[other, 1])
    if tree is not None:
        related = np.array([[a in b or c in d for b, c in zip(paths, distinct, strict=True)]
                            for a, d in zip(distinct, paths, strict=True)]).reshape(len(paths), len(paths))  # fmt: skip
        touch &= related[place[one], place[other]]
    one, other = one[touch], other[touch]
    return np.minimum(one, other), np.maximum(one, other)


def _are_double(boxes: Floats, others: Floats, number_cut: NDArray[np.int64], selection: Selection
                ) -> NDArray[np.bool_]:  # fmt: skip
    """Return which of P pairs of boxes [P, 4] show one object, [P]. number_cut: [P] of two tiles, how many are cut."""
    overlap = iou(boxes, others)
    part = overlap / (1 + overlap) * (area(boxes) + area(others))  # the shared area
    smaller = np.maximum(np.minimum(area(boxes), area(others)), 1e-9)
    if selection.distance_exponent is not None:
        overlap = overlap - relative_distance(boxes, others) ** selection.distance_exponent
    enough = np.array((np.inf, SAME_PART, BOTH_CUT))[number_cut] * smaller
    return np.asarray((overlap > selection.iou_threshold) | (part > enough))
