"""Dimension clusters: anchors that fit the boxes of a data set.

k-means or k-medians of box shapes under the distance 1 - IoU(box, centroid), both laid on one centre.
Shapes are (w, h) in grid cells of the network's input: as the network sees the boxes after the resize.
Source: Redmon & Farhadi, YOLO9000 (2017), section 2, "Dimension Clusters".
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lookonce.choices import choose
from lookonce.errors import UserError

log = logging.getLogger("lookonce")
Centre = Literal["mean", "median"]
"""What a cluster's boxes become: their mean (w, h), as in the paper, or the median of each."""
Shapes = NDArray[np.floating]
STRIDE = 32
"""Input pixels a cell, of YOLOv2 and its tiny forms."""
RECALL_IOU = 0.5
"""A box counts as found by the anchors from this IoU on."""
SAMPLE = 8192
"""Boxes that the restarts look at; the best restarts are then finished on all boxes."""
FINALISTS = 3
"""Restarts finished on all boxes, where there are more than SAMPLE."""
CANDIDATES = 4
"""Boxes tried for each place of a first guess."""
ALIKE = 1e-3
"""Sides that differ by less than this part are one size: labels are rounded."""
ROUNDS, PATIENCE = 100, 8
"""Most rounds of one restart, and most of them in a row without a better fit than before."""


@dataclass(frozen=True)
class Anchors:
    """Anchor boxes found on a data set, and how well they fit its boxes."""

    wh: tuple[tuple[float, float], ...]
    """(w, h) in cells, by growing area."""
    mean_iou: float
    """Mean over the boxes of the IoU with the best anchor, 0..1."""
    recall: float
    """Share of boxes whose best anchor has IoU >= .5."""
    counts: tuple[int, ...]
    """Boxes for which each anchor is the best; in the order of wh."""


def measure(wh: Shapes, centroids: Shapes) -> Anchors:
    """Anchors [k, 2] with how they fit the boxes wh [N, 2], one unit (cells)."""
    overlap = _overlaps(_columns(wh), centroids)  # [k, N]
    best = overlap.max(0)
    counts = np.bincount(_members(overlap, best), minlength=len(centroids))
    shapes = tuple((float(w), float(h)) for w, h in centroids)
    mean_iou, recall = float(best.mean(dtype=np.float64)), float((best >= RECALL_IOU).mean())
    return Anchors(shapes, mean_iou, recall, tuple(counts.tolist()))


def describe(wh: Shapes, anchors: Shapes) -> tuple[float, float]:
    """(mean best IoU, recall at .5) of anchors [k, 2] on boxes wh [N, 2], one unit, N above 0."""
    fit = measure(wh, np.asarray(anchors, np.float64))
    return fit.mean_iou, fit.recall


def cluster(
    wh: Shapes, k: int, centre: Centre = "mean", restarts: int = 20, seed: int = 0
) -> tuple[NDArray[np.float64], float]:
    """Cluster box shapes under 1 - IoU.

    Args:
        wh: [N, 2], any one unit, above 0.
        k: clusters.
        restarts: first guesses; each takes boxes far from those taken, as k-means++ does.
    Returns:
        (centroids [k, 2] by growing area, mean over all boxes of the IoU with the best of them). Fewer than k where
        the boxes have fewer distinct shapes, which is logged.
        No cluster is left empty while a box fits worse than perfectly: it starts anew at the worst-fitted box.
    Raises:
        UserError: no boxes, sizes that are not above 0, no clusters, or an unknown centre.
    """
    centre = choose(centre, get_args(Centre), "centre")
    distinct = _check(wh, k, restarts)
    if k > distinct:
        log.info("anchors: %d instead of %d, since the %d boxes have %d distinct %s", distinct, k, len(wh), distinct,
                 "shape" if distinct == 1 else "shapes")  # fmt: skip
        k = distinct
    rng = np.random.default_rng(seed)
    boxes = part = _columns(wh)  # [2, N]
    if len(wh) > SAMPLE:
        part = boxes[:, rng.choice(len(wh), SAMPLE, replace=False)]
        if distinct < SAMPLE and len(np.unique(part, axis=1).T) < k:
            part = boxes
    tries = [_descend(part, _first_guess(part, k, rng), centre) for _ in range(restarts)]
    tries.sort(key=lambda found: -found[1])
    if part is not boxes:
        tries = [_descend(boxes, centroids, centre) for centroids, _ in tries[:FINALISTS]]
    centroids, mean_iou = max(tries, key=lambda found: found[1])
    return centroids[np.argsort(centroids.prod(1), kind="stable")], mean_iou


def _check(wh: Shapes, k: int, restarts: int) -> int:
    """Number of distinct shapes in wh. Raises UserError where they cannot be clustered."""
    if restarts < 1:
        raise UserError(f"restarts: {restarts}; expected at least 1")
    if not len(wh):
        raise UserError("anchors: there are no boxes to cluster; expected at least one")
    wrong = np.flatnonzero(~(np.isfinite(wh) & (np.asarray(wh) > 0)).all(1))
    if len(wrong):
        w, h = wh[wrong[0]]
        raise UserError(f"anchors: box {wrong[0]} measures {w:g} x {h:g} ({len(wrong)} such); expected sizes above 0")
    if k < 1:
        raise UserError(f"anchors: {k}; expected at least 1")
    return distinct_shapes(wh)


def distinct_shapes(wh: Shapes) -> int:
    """Number of box shapes [N, 2] that differ by more than rounding; so many anchors there can be."""
    return len(np.unique(np.rint(np.log(wh) / ALIKE), axis=0))


def _columns(wh: Shapes) -> NDArray[np.float32]:
    """[N, 2] as contiguous columns [2, N], float32: a third of the time of float64 rows."""
    return np.ascontiguousarray(np.asarray(wh, np.float32).T)


def _overlaps(boxes: NDArray[np.float32], centroids: Shapes) -> NDArray[np.float32]:
    """IoU of shapes: boxes [2, N] and centroids [k, 2] give [k, N].

    boxes.shape_iou in numpy (a test holds them equal), since it is called some 10,000 times on small arrays:
    5 times as fast as torch with one thread, and torch's threads wait for each other on a busy machine.
    """
    w, h = np.asarray(centroids, np.float32).T[:, :, None]  # [k, 1] each
    inter = np.minimum(boxes[0], w) * np.minimum(boxes[1], h)  # [k, N]
    iou: NDArray[np.float32] = inter / (boxes[0] * boxes[1] + w * h - inter)
    return iou


def _members(overlap: NDArray[np.float32], best: NDArray[np.float32]) -> NDArray[np.int16]:
    """overlap.argmax(0) of [k, N] whose overlap.max(0) is known: [N], the first of equals. 5 times as fast."""
    member = np.zeros(overlap.shape[1], np.int16)
    for j in range(len(overlap) - 1, -1, -1):
        np.copyto(member, j, where=overlap[j] == best)
    return member


def _first_guess(boxes: NDArray[np.float32], k: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """k distinct boxes [k, 2] of [2, N]: each the best of some drawn with their distance 1 - IoU to those before.

    Source: Arthur & Vassilvitskii, k-means++ (2007), the greedy form, with the distance that is minimised here.
    """
    chosen = [int(rng.integers(boxes.shape[1]))]
    distance = 1 - _overlaps(boxes, boxes[:, chosen].T)[0]  # [N]
    while len(chosen) < k:
        distance[distance < np.finfo(np.float32).eps] = 0  # those taken, and their like
        total = distance.cumsum(dtype=np.float64)
        drawn = np.searchsorted(total, rng.random(CANDIDATES) * total[-1], side="right").clip(max=len(total) - 1)
        after = np.minimum(distance, 1 - _overlaps(boxes, boxes[:, drawn].T))  # [CANDIDATES, N]
        best = int(after.sum(1, dtype=np.float64).argmin())
        chosen.append(int(drawn[best]))
        distance = after[best]
    return boxes[:, chosen].T.astype(np.float64)


def _descend(
    boxes: NDArray[np.float32], centroids: NDArray[np.float64], centre: Centre
) -> tuple[NDArray[np.float64], float]:
    """Lloyd's rounds on boxes [2, N] from centroids [k, 2]: the best centroids met, and their mean IoU.

    The best, not the last: under this distance a cluster's mean may fit it worse than what it replaces.
    """
    middle = _Means(boxes) if centre == "mean" else _Medians(boxes)
    best, score, since = centroids, -1.0, 0
    last = np.full(boxes.shape[1], -1, np.int16)
    for number in range(ROUNDS):
        overlap = _overlaps(boxes, centroids)  # [k, N]
        fit = overlap.max(0)
        member = _members(overlap, fit)
        mean_iou = float(fit.mean(dtype=np.float64))
        if mean_iou > score:
            best, score, since = centroids, mean_iou, number
        if number - since == PATIENCE or np.array_equal(member, last):
            break
        last = member
        counts = np.bincount(member, minlength=len(centroids))
        centroids = middle(member, counts)
        empty = np.flatnonzero(counts == 0)
        if len(empty):
            centroids[empty] = boxes[:, np.argsort(fit, kind="stable")[: len(empty)]].T
    return best, score


class _Means:
    """Mean (w, h) of each cluster of boxes [2, N]."""

    def __init__(self, boxes: NDArray[np.float32]) -> None:
        self.boxes = boxes

    def __call__(self, member: NDArray[np.int16], counts: NDArray[np.intp]) -> NDArray[np.float64]:
        """member [N], counts [k]: [k, 2]; anything for an empty cluster."""
        totals = np.stack([np.bincount(member, side, len(counts)) for side in self.boxes], 1)  # [k, 2]
        return totals / np.maximum(counts, 1)[:, None]


class _Medians:
    """Median w and median h of each cluster of boxes [2, N]; each side is sorted once, not in every round."""

    def __init__(self, boxes: NDArray[np.float32]) -> None:
        self.order = np.argsort(boxes, axis=1)
        self.ranked = np.take_along_axis(boxes, self.order, 1).astype(np.float64)

    def __call__(self, member: NDArray[np.int16], counts: NDArray[np.intp]) -> NDArray[np.float64]:
        """member [N], counts [k]: [k, 2]; anything for an empty cluster."""
        first = counts.cumsum() - counts
        low = np.minimum(first + np.maximum(counts - 1, 0) // 2, len(member) - 1)
        high = np.minimum(first + counts // 2, len(member) - 1)
        sides = []
        for order, ranked in zip(self.order, self.ranked, strict=True):
            grouped = ranked[np.argsort(member[order], kind="stable")]  # [N] by cluster, each in order
            sides.append((grouped[low] + grouped[high]) / 2)
        return np.stack(sides, 1)
