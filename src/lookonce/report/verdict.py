"""The verdict of an evaluation: one sentence on what a detector is good at, what it loses most to, and what to try."""

from __future__ import annotations

import numpy as np

from lookonce.data.dataset import Dataset
from lookonce.evaluation.average_precision import ClassScore
from lookonce.evaluation.evaluate import Analysis
from lookonce.model.zoo import STRIDE

GOOD, FAIR = 0.75, 0.4  # AP from which a class is said to be good, or fair
NAMED = 3  # classes named in the sentence, at most
WORTH_FIXING = 0.02  # mAP that a kind of error costs, from which it is named
BEHIND = 0.05  # AP below the mean from which a class is said to be weak
LARGEST_SIZE = 608
SMALL = 1.5 * STRIDE  # px at the input: objects of a smaller median side are small
LOST_TO = {
    "class": "wrong classes", "location": "box placement", "both": "wrong classes and box placement",
    "duplicate": "duplicate boxes", "background": "false positives on background", "missed": "missed objects",
}  # fmt: skip


def verdict(dataset: Dataset, analysis: Analysis, input_size: tuple[int, int] | None = None) -> str:
    """Return the verdict as one sentence. input_size: (width, height) of the network's input, px; None: unknown."""
    scored = [(c, c.ap) for c in analysis.metrics.classes if c.ap is not None]
    if not scored:
        return "No objects, so there is nothing to score"
    if not analysis.found.true_positive.any():
        return "Finds none of the objects: run lookonce diagnose to learn why"
    parts = [_strength(scored)]
    dearest = analysis.errors.dearest[0]
    if dearest.cost is not None and dearest.cost >= WORTH_FIXING:
        parts.append(f"loses {dearest.cost:.3f} mAP to {LOST_TO[dearest.name]}")
    weak, ap = min(scored, key=lambda entry: entry[1])
    mean = analysis.metrics.mean_ap or 0.0
    if ap < GOOD and (ap <= mean - BEHIND or len(scored) == 1):
        parts.append(_weakness(dataset, weak, ap, input_size))
    return "; ".join(parts)


def _strength(scored: list[tuple[ClassScore, float]]) -> str:
    """Return the classes that are found best."""
    order = sorted(scored, key=lambda entry: -entry[1])
    for least, word in ((GOOD, "Good"), (FAIR, "Fair")):
        names = [c.name for c, ap in order if ap >= least]
        if len(names) == len(scored) > 1:
            return f"{word} at all {len(names)} classes"
        if names:
            more = f" and {len(names) - NAMED} more classes" if len(names) > NAMED else ""
            return f"{word} at {', '.join(names[:NAMED])}{more}"
    best, ap = order[0]
    return f"Weak: the best class, {best.name}, has an AP of {ap:.3f}" if len(scored) > 1 else f"Weak at {best.name}"


def _weakness(dataset: Dataset, weak: ClassScore, ap: float, input_size: tuple[int, int] | None) -> str:
    """Return the weakest class, and what to try if its objects are small at the network's input."""
    rows = dataset.classes == dataset.labels.index(weak.name)
    boxes, sizes = dataset.boxes[rows].astype(np.float64), dataset.sizes[dataset.image_of_box[rows]]
    if input_size is not None and len(boxes):
        scale = (np.array(input_size) / sizes).min(1)  # the longer side of an image fills the input
        side = float(np.median(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1)) * scale))
        larger = min(LARGEST_SIZE, -(-round(max(input_size) * 1.2) // STRIDE) * STRIDE)
        if side < SMALL and larger > max(input_size):
            return f"{weak.name} objects are small (median side {side:.0f} px at the input): try --size {larger}"
    return f"weakest is {weak.name} with an AP of {ap:.3f}"
