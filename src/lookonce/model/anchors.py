"""Dimension clusters: anchors that fit the boxes of a data set.

k-means or k-medians of box shapes under the distance 1 - IoU(box, centroid), both on a common centre.
Shapes are (w, h) in grid cells of the network's input: the boxes as the network sees them after the resize.
Letters: N boxes, k clusters. Source: Redmon & Farhadi, YOLO9000 (2017), section 2, "Dimension Clusters".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lookonce.choices import choose
from lookonce.errors import ConfigError, UserError
from lookonce.model.layers import PlacedHead
from lookonce.model.zoo import AnchorSizes

log = logging.getLogger("lookonce")
Centre = Literal["mean", "median"]
"""How a cluster's centroid is computed: the mean (w, h) of its boxes, as in the paper, or the median of each side."""
Shapes = NDArray[np.floating]
Centroids = Callable[[NDArray[np.int16], NDArray[np.intp]], NDArray[np.float64]]
"""From the cluster of each box [N] and the sizes of the clusters [k] to centroids [k, 2]; any for an empty cluster."""
RECALL_IOU = 0.5
"""A box counts as found if its best anchor has at least this IoU."""
SAMPLE = 8192
"""Number of boxes that restarts use; the best restarts are then completed on all boxes."""
FINALISTS = 3
"""Number of restarts completed on all boxes, where there are more than SAMPLE."""
CANDIDATES = 4
"""Number of boxes tried for each centroid of an initial guess."""
ROUNDING = 1e-3
"""Sides that differ by less than this ratio are equal: labels are rounded."""
ROUNDS, PATIENCE = 100, 8
"""Maximum rounds of one restart, and maximum consecutive rounds without a better fit."""


@dataclass(frozen=True, repr=False)
class Anchors:
    """Anchor boxes, and how well they fit the boxes of a data set."""

    wh: tuple[tuple[float, float], ...]
    """(w, h) in cells, by growing area."""
    mean_iou: float
    """Mean over the boxes of the IoU with the best anchor, 0..1."""
    recall: float
    """Ratio of boxes whose best anchor has IoU >= .5."""
    counts: tuple[int, ...]
    """Number of boxes for which each anchor is the best; in the order of wh."""

    def __repr__(self) -> str:
        """Return one line: the sizes in cells, and how well they fit."""
        sizes = ", ".join(f"{w:.2f} x {h:.2f}" for w, h in self.wh)
        return f"Anchors({len(self.wh)}: {sizes} cells; mean IoU {self.mean_iou:.3f}, recall {self.recall:.3f})"


def measure(wh: Shapes, centroids: Shapes) -> Anchors:
    """Return how anchors [k, 2] fit the boxes wh [N, 2], both in one unit (cells); N above 0."""
    overlap = _overlaps(_columns(wh), centroids)  # [k, N]
    best = overlap.max(0)
    counts = np.bincount(_members(overlap, best), minlength=len(centroids))
    shapes = tuple((float(w), float(h)) for w, h in centroids)
    mean_iou, recall = float(best.mean(dtype=np.float64)), float((best >= RECALL_IOU).mean())
    return Anchors(shapes, mean_iou, recall, tuple(counts.tolist()))


def cluster(wh: Shapes, k: int, centre: Centre = "mean", restarts: int = 20, seed: int = 0) -> Anchors:
    """Cluster box shapes under 1 - IoU.

    Args:
        wh: [N, 2], in one unit, above 0.
        k: number of clusters. There are fewer if the boxes have fewer distinct shapes; a log line says so.
        centre: centre of a cluster: mean or median.
        restarts: number of initial guesses; each takes boxes far from those already taken, as k-means++ does.
        seed: seed of the initial guesses.
    Returns:
        Centroids by growing area, and their fit to all boxes. A cluster that becomes empty restarts at the box of
        worst fit.
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
    boxes = sample = _columns(wh)  # [2, N]
    if len(wh) > SAMPLE:
        sample = boxes[:, rng.choice(len(wh), SAMPLE, replace=False)]
        if distinct < SAMPLE and len(np.unique(sample, axis=1).T) < k:
            sample = boxes
    found = [_descend(sample, _initial_guess(sample, k, rng), centre) for _ in range(restarts)]
    found.sort(key=lambda each: -each[1])
    if sample is not boxes:
        found = [_descend(boxes, centroids, centre) for centroids, _ in found[:FINALISTS]]
    centroids, _ = max(found, key=lambda each: each[1])
    return measure(wh, centroids[np.argsort(centroids.prod(1), kind="stable")])


def _check(wh: Shapes, k: int, restarts: int) -> int:
    """Return the number of distinct shapes in wh. Raises UserError for boxes that cannot be clustered."""
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
    """Return how many box shapes [N, 2] differ by more than rounding: the maximum number of anchors."""
    return len(np.unique(np.rint(np.log(wh) / ROUNDING), axis=0))


def _columns(wh: Shapes) -> NDArray[np.float32]:
    """Return [N, 2] as contiguous columns [2, N], float32: three times as fast as float64 rows."""
    return np.ascontiguousarray(np.asarray(wh, np.float32).T)


def _overlaps(boxes: NDArray[np.float32], centroids: Shapes) -> NDArray[np.float32]:
    """Return the IoU of shapes, boxes [2, N] with centroids [k, 2]: [k, N]. As boxes.shape_iou, but faster."""
    w, h = np.asarray(centroids, np.float32).T[:, :, None]  # [k, 1] each
    inter = np.minimum(boxes[0], w) * np.minimum(boxes[1], h)  # [k, N]
    iou: NDArray[np.float32] = inter / (boxes[0] * boxes[1] + w * h - inter)
    return iou


def _members(overlap: NDArray[np.float32], best: NDArray[np.float32]) -> NDArray[np.int16]:
    """Return overlap.argmax(0) of [k, N], given best = overlap.max(0): [N]. 5 times as fast as argmax."""
    member = np.zeros(overlap.shape[1], np.int16)
    for j in range(len(overlap) - 1, -1, -1):
        np.copyto(member, j, where=overlap[j] == best)
    return member


def _initial_guess(boxes: NDArray[np.float32], k: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return k distinct boxes [k, 2] of [2, N]: each the best of some drawn by their distance 1 - IoU to those before.

    Source: Arthur & Vassilvitskii, k-means++ (2007), the greedy form, with the distance that is minimised here.
    """
    chosen = [int(rng.integers(boxes.shape[1]))]
    distance = 1 - _overlaps(boxes, boxes[:, chosen].T)[0]  # [N]
    while len(chosen) < k:
        distance[distance < np.finfo(np.float32).eps] = 0  # boxes already taken, and equal ones
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
    """Run Lloyd's algorithm on boxes [2, N] from centroids [k, 2]; return the best centroids and their mean IoU.

    The last ones may be worse: under this distance a cluster's mean may fit it worse than its predecessor.
    """
    update = _means(boxes) if centre == "mean" else _medians(boxes)
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
        centroids = update(member, counts)
        empty = np.flatnonzero(counts == 0)
        if len(empty):
            centroids[empty] = boxes[:, np.argsort(fit, kind="stable")[: len(empty)]].T
    return best, score


def _means(boxes: NDArray[np.float32]) -> Centroids:
    def means(member: NDArray[np.int16], counts: NDArray[np.intp]) -> NDArray[np.float64]:
        totals = np.stack([np.bincount(member, side, len(counts)) for side in boxes], 1)  # [k, 2]
        return totals / np.maximum(counts, 1)[:, None]

    return means


def _medians(boxes: NDArray[np.float32]) -> Centroids:
    orders = np.argsort(boxes, axis=1)  # each side is sorted once, not in every round
    ranked = np.take_along_axis(boxes, orders, 1).astype(np.float64)

    def medians(member: NDArray[np.int16], counts: NDArray[np.intp]) -> NDArray[np.float64]:
        first = counts.cumsum() - counts
        low = np.minimum(first + np.maximum(counts - 1, 0) // 2, len(member) - 1)
        high = np.minimum(first + counts // 2, len(member) - 1)
        sides = []
        for order, side in zip(orders, ranked, strict=True):
            grouped = side[np.argsort(member[order], kind="stable")]  # [N] by cluster, each in order
            sides.append((grouped[low] + grouped[high]) / 2)
        return np.stack(sides, 1)

    return medians


def anchors_by_head(wh: AnchorSizes, stride: int, heads: Sequence[PlacedHead]) -> list[AnchorSizes]:
    """Distribute anchors over the heads of a network: the finer the stride of a head, the smaller its anchors.

    Args:
        wh: (w, h) by growing area, in cells of `stride` input pixels.
        heads: in layer order.
    Returns:
        (w, h) in cells of each head.
    Raises:
        ConfigError: fewer anchors than heads.
    """
    if len(wh) < len(heads):
        raise ConfigError(f"anchors: {len(wh)}; expected at least {len(heads)}, one for each head of the network")
    order = sorted(range(len(heads)), key=lambda n: heads[n].stride)
    parts = np.array_split(np.arange(len(wh)), len(heads))
    by_head: dict[int, AnchorSizes] = {}
    for n, part in zip(order, parts, strict=True):
        scale = stride / heads[n].stride
        by_head[n] = tuple((wh[i][0] * scale, wh[i][1] * scale) for i in part)
    return [by_head[n] for n in range(len(heads))]
