"""Localization analysis: which objects a detector's strongest detections overlap, whatever their scores.

It explains why a detector finds nothing: the boxes may be displaced, the classes permuted, or the scores too low.
Letters: N ground-truth objects, D detections, C classes. Boxes are xyxy, image px.
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
"""Detections analysed for each object of an image: few, so that few overlap an object by chance."""
ON_OBJECT = 0.5
"""IoU from which a detection is on an object, as in mAP@.5."""
OVERLAPS = 0.05
"""IoU from which a detection overlaps an object."""
ENOUGH = 0.25
"""Ratio of the objects that makes a result; a run of mAP 0 is far below it, one that works far above."""
MOST = 0.5
"""Fraction of objects on which boxes must be displaced alike: on a few, those of an untrained network are by chance."""
SAME_SCALE = 0.2
"""Boxes are displaced alike if the middle half of log(predicted size / true size) is no wider than this."""
DISPLACED = 0.2
"""Median shift in object sizes, or median log of the size ratio, from which such boxes count as displaced."""
SCORE_BINS = (0.0, 0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Edges of the histogram of scores. mAP counts detections from .005."""


@dataclass(frozen=True)
class Histogram:
    """One or more histograms over the same bins."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int, ...]], ...]
    """Lower edge of the bin -> one count for each column."""


@dataclass(frozen=True, eq=False)
class Localization:
    """Ground-truth objects with the strongest detections of their images."""

    label: NDArray[np.int64]  # [N] class of the object
    own_iou: NDArray[np.float64]  # [N] best IoU with a detection of its class
    best_iou: NDArray[np.float64]  # [N] best IoU with a detection of any class
    predicted: NDArray[np.int64]  # [N] class of the strongest detection on the object; -1: none
    score: NDArray[np.float64]  # [N] score of that detection; 0: none
    offset: NDArray[np.float64]  # [N, 4] of the detection of best IoU: shift x, y in object sizes, log of w, h ratios
    scores: NDArray[np.float64]  # [D]
    labels: NDArray[np.int64]  # [D]

    @property
    def true_positive(self) -> NDArray[np.bool_]:
        """[N] whether the strongest detection on the object has its class."""
        return np.asarray(self.predicted == self.label)

    def histograms(self) -> tuple[Histogram, Histogram]:
        """Return the histograms of the scores and of the best IoU."""
        edges = np.linspace(0, 1, 11)
        own, any_class = (np.histogram(values, edges)[0].tolist() for values in (self.own_iou, self.best_iou))
        counts = np.histogram(self.scores, SCORE_BINS)[0].tolist()
        return (
            Histogram("score from", ("strongest detections",),
                      tuple((f"{low:g}", (n,)) for low, n in zip(SCORE_BINS[:-1], counts, strict=True))),
            Histogram("best IoU from", ("objects: own class", "objects: any class"),
                      tuple((f"{low:.1f}", (n, m)) for low, n, m in zip(edges[:-1], own, any_class, strict=True))),
        )  # fmt: skip


def localize(dataset: Dataset, detections: Sequence[Detections]) -> Localization:
    """Compare ground truth with the strongest detections of each image. Difficult objects are ignored.

    Args:
        dataset: M images.
        detections: M, in the same order, the highest score first; classes as dataset.labels.
    """
    parts = []
    for record, found in zip(dataset.records, detections, strict=True):
        kept = np.flatnonzero(~record.difficult)
        top = slice(STRONGEST * len(kept))
        boxes, labels, scores = found.boxes[top], found.labels[top], found.scores[top].astype(np.float64)
        parts.append(_localize_image(record.boxes[kept], record.labels[kept], boxes, labels, scores))
    return Localization(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Localization)))


def _localize_image(objects: NDArray[np.float32], label: NDArray[np.int64], boxes: NDArray[np.float32],
                    labels: NDArray[np.int64], scores: NDArray[np.float64]) -> Localization:  # fmt: skip
    """Compare objects [n, 4] of classes [n] with detections [d, 4] of classes and scores [d] on one image."""
    count = len(label)
    if not len(boxes) or not count:
        zero = np.zeros(count)
        return Localization(label, zero, zero, np.full(count, -1), zero, np.zeros((count, 4)), scores, labels)
    truth, predicted = (torch.from_numpy(part).double() for part in (objects, boxes))
    overlap = iou(truth[:, None], predicted).numpy()  # [n, d]
    best, on = overlap.argmax(1), overlap >= ON_OBJECT
    first, any_on = on.argmax(1), on.any(1)
    a, b = xyxy_to_cxcywh(truth).numpy(), xyxy_to_cxcywh(predicted).numpy()[best]
    offset = np.concatenate(((b[:, :2] - a[:, :2]) / a[:, 2:], np.log(np.maximum(b[:, 2:], 1e-6) / a[:, 2:])), 1)
    own = np.where(labels == label[:, None], overlap, 0).max(1)
    return Localization(label, own, overlap[np.arange(count), best], np.where(any_on, labels[first], -1),
                        np.where(any_on, scores[first], 0.0), offset, scores, labels)  # fmt: skip


def explain(found: Localization, names: Sequence[str], thresholds: NDArray[np.float64]) -> tuple[bool, str]:
    """Return whether the detections are sound, and a message: what they lie on and what to change.

    Args:
        found: N objects, at least one.
        names: C class names.
        thresholds: [C] scores recommended for detection.
    """
    count, correct = len(found.label), int(found.true_positive.sum())
    if not len(found.scores):
        return False, f"nothing found: there are no detections of {count:,} objects. Train longer."
    above = int((found.scores > thresholds[found.labels]).sum())
    strongest = (f"{above:,} of the {len(found.scores):,} strongest detections score above the model's thresholds, "
                 f"and the highest score is {found.scores.max():.2g}")  # fmt: skip
    on_object = int((found.best_iou >= ON_OBJECT).sum())
    displaced = _explain_displaced(found) if on_object < count / 2 else ""
    if displaced:
        return False, displaced
    if on_object < ENOUGH * count:
        return False, (f"nothing found: detections lie on {on_object:,} of {count:,} objects. {strongest}. Train "
                       "longer, or at a larger --size if the objects are small.")  # fmt: skip
    misclassified = _explain_misclassified(found, names)
    if misclassified:
        return False, misclassified
    confident = int((found.true_positive & (found.score > thresholds[found.label])).sum())
    if confident < ENOUGH * correct:
        return False, (f"scores too low: the strongest detections lie on {correct:,} of {count:,} objects, but only "
                       f"{strongest} (thresholds: {thresholds.min():.2g} to {thresholds.max():.2g}). Detect with a "
                       "lower --threshold, or train longer.")  # fmt: skip
    return True, f"{correct:,} of {count:,} objects are found with their class; {strongest}"


def _explain_displaced(found: Localization) -> str:
    """Return a message if boxes overlap most objects, and all are displaced in the same way, else ""."""
    overlapping = found.best_iou >= OVERLAPS
    if overlapping.mean() < MOST:
        return ""
    low, middle, high = np.quantile(found.offset[overlapping], (0.25, 0.5, 0.75), axis=0)
    if (high - low)[2:].max() > SAME_SCALE or np.abs(middle).max() < DISPLACED:
        return ""
    width, height = np.exp(middle[2:])
    return (f"predicted boxes are {_scale(width, 'wide', 'narrow')} and {_scale(height, 'tall', 'short')} "
            f"({overlapping.sum():,} of {len(overlapping):,} objects), shifted by {middle[0]:+.2f} object widths and "
            f"{middle[1]:+.2f} object heights. The anchors or the resize mode differ from training: use the run's own "
            "model file.")  # fmt: skip


def _scale(ratio: float, larger: str, smaller: str) -> str:
    """Return a ratio of predicted to true size in words: "1.20x too wide", "2.00x too narrow", "not too wide"."""
    if abs(np.log(ratio)) < 0.01:
        return f"not too {larger}"
    return f"{ratio:.2f}x too {larger}" if ratio >= 1 else f"{1 / ratio:.2f}x too {smaller}"


def _explain_misclassified(found: Localization, names: Sequence[str]) -> str:
    """Return a message if the detections on objects are mostly of other classes, else ""."""
    on = found.predicted >= 0
    table = np.zeros((len(names), len(names)), np.int64)  # [C, C] true class, predicted class
    np.add.at(table, (found.label[on], found.predicted[on]), 1)
    usual, most, total = table.argmax(1), table.max(1), table.sum(1)
    confused = {a: int(usual[a]) for a in np.flatnonzero(2 * most > total).tolist() if usual[a] != a}
    permuted = bool(confused) and set(confused) == set(confused.values())
    if not permuted and 2 * found.true_positive.sum() >= on.sum():
        return ""
    pairs = [f"{names[a]} is predicted as {names[b]} ({most[a]} of {total[a]})" for a, b in confused.items()]
    examples = (", ".join(pairs[:3]) or "at random") + (f" and {len(pairs) - 3} more" if len(pairs) > 3 else "")
    if permuted:
        return (f"correct boxes, permuted classes: {examples}. The class names are not in the order of training: "
                "restore that order in the data or in the model file.")  # fmt: skip
    return (f"correct boxes, wrong classes on {on.sum() - found.true_positive.sum():,} of {on.sum():,}: {examples}. "
            "Compare the order of the class names with training's; if they agree, train longer.")  # fmt: skip
