"""What a detector's strongest detections lie on: the right objects, other classes, beside them, or nothing.

Scores are not asked to be high, so that it can be told why nothing is found. Letters: N objects, D detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from lookonce.data.dataset import Dataset
from lookonce.model.boxes import iou, xyxy_to_cxcywh
from lookonce.model.detections import Detections

STRONGEST = 2
"""Detections of an image that are looked at, of its objects: few, so that chance does not find much."""


HIT = 0.5
"""IoU from which on a detection lies on an object, as in mAP@.5."""


BESIDE = 0.05
"""IoU from which on it lies beside one."""


ENOUGH = 0.25
"""Share of the objects that makes a finding; a run of mAP 0 is far below, one that works far above."""


SAME = 0.2
"""Boxes are moved all alike if the middle half of their sizes, of the objects', is within this of its logarithm."""


MOVED = 0.2
"""Such boxes are displaced if the median is off by more: of an object's size, or the logarithm of the size."""


SCORES = (0.0, 0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Steps of the histogram of scores; mAP counts from .005 on."""


@dataclass(frozen=True, eq=False)
class Sightings:
    """The objects of some images beside the strongest detections there."""

    label: NDArray[np.int64]  # [N] class of the object
    own: NDArray[np.float64]  # [N] best IoU with a detection of its class
    best: NDArray[np.float64]  # [N] best IoU with a detection of any class
    called: NDArray[np.int64]  # [N] class of the strongest detection on it; -1: none
    score: NDArray[np.float64]  # [N] that one's score; 0: none
    moved: NDArray[np.float64]  # [N, 4] of the detection of best IoU: shift x, y in sizes of the object, log of w, h
    scores: NDArray[np.float64]  # [D]
    labels: NDArray[np.int64]  # [D]

    @property
    def right(self) -> NDArray[np.bool_]:
        """[N] whether the strongest detection on the object is of its class."""
        return np.asarray(self.called == self.label)

    def bars(self) -> tuple[Bars, Bars]:
        """Histograms of the scores, and of the best IoU."""
        steps = np.linspace(0, 1, 11)
        own, any_class = (np.histogram(values, steps)[0].tolist() for values in (self.own, self.best))
        counts = np.histogram(self.scores, SCORES)[0].tolist()
        return (
            Bars("score from", ("strongest detections",),
                 tuple((f"{low:g}", (n,)) for low, n in zip(SCORES[:-1], counts, strict=True))),
            Bars("best IoU from", ("objects: its class", "objects: any class"),
                 tuple((f"{low:.1f}", (n, m)) for low, n, m in zip(steps[:-1], own, any_class, strict=True))),
        )  # fmt: skip


def sight(dataset: Dataset, detections: Sequence[Detections]) -> Sightings:
    """Compare what is there with the strongest detections. detections: of each image, classes as dataset.labels."""
    parts = []
    for record, found in zip(dataset.records, detections, strict=True):
        sought = np.flatnonzero(~record.difficult)
        top = slice(STRONGEST * len(sought))
        boxes, labels, scores = found.boxes[top], found.labels[top], found.scores[top].astype(np.float64)
        parts.append(_sight(record.boxes[sought], record.labels[sought], boxes, labels, scores))
    return Sightings(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Sightings)))


def _sight(objects: NDArray[np.float32], label: NDArray[np.int64], boxes: NDArray[np.float32],
           labels: NDArray[np.int64], scores: NDArray[np.float64]) -> Sightings:  # fmt: skip
    """One image: objects [n, 4] of classes [n]; detections [d, 4] of classes and scores [d], the best first."""
    count = len(label)
    if not len(boxes) or not count:
        zero = np.zeros(count)
        return Sightings(label, zero, zero, np.full(count, -1), zero, np.zeros((count, 4)), scores, labels)
    there, seen = (torch.from_numpy(part).double() for part in (objects, boxes))
    overlap = iou(there[:, None], seen).numpy()  # [n, d]
    best, rows = overlap.argmax(1), np.arange(count)
    hit = overlap >= HIT
    first = hit.argmax(1)
    a, b = xyxy_to_cxcywh(there).numpy(), xyxy_to_cxcywh(seen).numpy()[best]
    moved = np.concatenate(((b[:, :2] - a[:, :2]) / a[:, 2:], np.log(np.maximum(b[:, 2:], 1e-6) / a[:, 2:])), 1)
    own = np.where(labels == label[:, None], overlap, 0).max(1)
    return Sightings(label, own, overlap[rows, best], np.where(hit.any(1), labels[first], -1),
                     np.where(hit.any(1), scores[first], 0.0), moved, scores, labels)  # fmt: skip


def verdict(seen: Sightings, names: Sequence[str], thresholds: NDArray[np.float64]) -> tuple[bool, str]:
    """(whether it is as it should be, what was found and what to change). thresholds: [C] recommended scores."""
    count, right = len(seen.label), int(seen.right.sum())
    highest = seen.scores.max(initial=0.0)
    above = int((seen.scores > thresholds[seen.labels]).sum())
    told = (f"{above:,} of the {len(seen.scores):,} strongest detections are above the model's thresholds, the highest "
            f"score is {highest:.2g}")  # fmt: skip
    if not len(seen.scores):
        return False, f"nothing found: not one detection; {count} objects are there: train longer"
    placed = int((seen.best >= HIT).sum())
    displaced = _displaced(seen) if placed < count / 2 else ""
    if displaced:
        return False, displaced
    if placed < ENOUGH * count:
        return False, (f"nothing found: {placed:,} of {count:,} objects have a detection on them, {told}: train "
                       "longer, or at a larger --size for small objects")  # fmt: skip
    misnamed = _misnamed(seen, names)
    if misnamed:
        return False, misnamed
    loud = int((seen.right & (seen.score > thresholds[seen.label])).sum())
    if loud < ENOUGH * right:
        return False, (f"scores too low: the strongest detections lie on {right} of {count} objects, but {told} "
                       f"({thresholds.min():.2g} to {thresholds.max():.2g}): detect with a lower --threshold, or train "
                       "longer")  # fmt: skip
    return True, f"{right} of {count} objects are found as what they are, {told}"


def _displaced(seen: Sightings) -> str:
    """Boxes that lie beside their objects, all in one way; empty: they do not."""
    beside = seen.best >= BESIDE
    if beside.mean() < ENOUGH:
        return ""
    low, middle, high = np.quantile(seen.moved[beside], (0.25, 0.5, 0.75), axis=0)
    if (high - low)[2:].max() > SAME or np.abs(middle).max() < MOVED:
        return ""
    wide, tall = np.exp(middle[2:])
    return (
        f"predicted boxes are {_scale(wide, 'wide', 'narrow')} and {_scale(tall, 'tall', 'short')} "
        f"({beside.sum():,} of {len(beside):,} objects), shifted by {middle[0]:+.2f} object widths and "
        f"{middle[1]:+.2f} object heights: the anchors or the resize differ from training; use the run's own model file"
    )


def _scale(ratio: float, larger: str, smaller: str) -> str:
    """A ratio of predicted to true size in words: "1.20x too wide", "2.00x too narrow", "not too wide"."""
    if abs(np.log(ratio)) < 0.01:
        return f"not too {larger}"
    return f"{ratio:.2f}x too {larger}" if ratio >= 1 else f"{1 / ratio:.2f}x too {smaller}"


def _misnamed(seen: Sightings, names: Sequence[str]) -> str:
    """Classes that are called by other names; empty: most are called what they are."""
    on = seen.called >= 0
    table = np.zeros((len(names), len(names)), np.int64)
    np.add.at(table, (seen.label[on], seen.called[on]), 1)
    called, most, all_of = table.argmax(1), table.max(1), table.sum(1)
    other = {a: int(called[a]) for a in np.flatnonzero(2 * most > all_of).tolist() if called[a] != a}
    permuted = bool(other) and set(other) == set(other.values())
    if not permuted and 2 * seen.right.sum() >= on.sum():
        return ""
    told = [f"{names[a]} is called {names[b]} ({most[a]} of {all_of[a]})" for a, b in other.items()]
    said = (", ".join(told[:3]) or "by chance") + (f" and {len(told) - 3} more" if len(told) > 3 else "")
    if permuted:
        return (f"boxes right, classes permuted: {said}: the order of the class names is not the training's; write "
                "them in its order, in the data or the model file")  # fmt: skip
    return (f"boxes right, classes wrong on {on.sum() - seen.right.sum():,} of {on.sum():,}: {said}: compare the order "
            "of the class names with the training's; if it agrees, train longer")  # fmt: skip


@dataclass(frozen=True)
class Bars:
    """A histogram, or several over the same steps."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int, ...]], ...]
    """Step -> one count for each column."""
