"""What a person should know about a run: each finding one sentence that says what was seen and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lookonce.coverage import Coverage
from lookonce.data.record import Dataset

FEW_OBJECTS = 30
"""Training objects below which a class is called small. Our choice: a tenth of what VOC has of its rarest class."""
LOST = 0.02
"""Share of objects lost to a shared cell and anchor that is worth a word."""
UNFIT = 0.05
"""Share of objects that no anchor fits that is worth a word."""
PARTED = 1.1
"""Validation loss, of its lowest, from which on training and validation part."""

Curve = Sequence[tuple[float, float]]
"""(epoch, value), in order."""


def about_data(train_set: Dataset, covered: Sequence[Coverage]) -> list[str]:
    """Findings before the first step. covered: from coverage(), of all objects first."""
    found = []
    counts = np.bincount(train_set.classes, minlength=len(train_set.labels))
    few = [f"{name} ({n})" for name, n in zip(train_set.labels, counts, strict=True) if n < FEW_OBJECTS]
    if few:
        found.append(
            f"too few training objects of: {', '.join(few)}; below {FEW_OBJECTS} a class is learnt by chance: "
            "label more, or leave it out with --labels"
        )
    whole = covered[0]
    if whole.lost is not None and whole.lost > LOST:
        found.append(
            f"{whole.lost:.1%} of the training objects share cell and anchor with another of their picture and are "
            "lost to training: use a larger --size or more --anchors"
        )
    if whole.fit is not None and 1 - whole.fit > UNFIT:
        found.append(
            f"no anchor fits {1 - whole.fit:.1%} of the training objects (shape IoU below .5): use more --anchors"
        )
    return found


def about_curves(curves: Mapping[str, Curve], epochs: int) -> list[str]:
    """Findings from metrics.csv so far: of a run that parts from its validation, or that ends while it still gains."""
    found = []
    loss, best = curves.get("val/loss", ()), curves.get("val/mAP", ())
    if len(loss) >= 4:
        values = np.array([value for _, value in loss])
        lowest, last = int(values.argmin()), float(np.median(values[-3:]))
        train = [value for epoch, value in curves.get("loss_epoch", ()) if epoch >= loss[lowest][0]]
        if last > PARTED * values[lowest] and lowest < len(values) - 3 and len(train) > 1 and train[-1] < train[0]:
            found.append(
                f"training and validation part: the validation loss was lowest ({values[lowest]:.3g}) in epoch "
                f"{loss[lowest][0]:g} and is {last:.3g} now, while the training loss falls; the best model is kept: "
                "more pictures or stronger --augment would help, more epochs will not"
            )
    if len(best) >= 4 and best[-1][0] >= epochs:
        gain = best[-1][1] - max(value for _, value in best[: len(best) * 3 // 4])
        if gain > 0.02:
            found.append(
                f"validation mAP still rose by {gain:.3f} in the last quarter of the run: train longer with --steps"
            )
    return found
