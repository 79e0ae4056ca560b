"""Comparison of a detector before and after a change on the same images, by a paired bootstrap.

Both are scored on the same resamples of the images, so that hard images affect both scores alike.
Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile intervals).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lookonce.data.dataset import Dataset
from lookonce.errors import UserError
from lookonce.evaluation.average_precision import Metrics, Rules, score
from lookonce.model.detections import Detections


@dataclass(frozen=True)
class Comparison:
    """mAP of a detector before and after a change, in 0..1."""

    before: float
    after: float
    interval: tuple[float, float]
    """95 % confidence interval of before - after."""
    images: int
    computed_by: str = ""
    """Backend, precision and device, or empty."""

    @property
    def drop(self) -> float:
        """mAP lost; negative if the change improved it."""
        return self.before - self.after

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"mAP {self.before:.4f} -> {self.after:.4f}: drop {self.drop:.4f} [{low:.4f}, {high:.4f}] "
            f"on {self.images} images" + (f" ({self.computed_by})" if self.computed_by else "")
        )


def compare_detections(dataset: Dataset, before: Sequence[Detections], after: Sequence[Detections],
                       rules: Rules = Rules(), computed_by: str = "") -> Comparison:  # fmt: skip
    """Compare two detectors on the same images.

    Args:
        dataset: M images and their objects.
        before, after: detections of the M images, in the same order, down to a low score.
        rules: how both are scored.
        computed_by: backend that ran both detectors, printed with the result.
    Raises:
        UserError: the images have no objects to score.
    """
    first, second = (score(dataset, found, rules) for found in (before, after))
    if first.mean_ap is None or second.mean_ap is None:
        raise UserError(
            f"{dataset.name}: none of its {len(dataset)} images has an object, so accuracy cannot be compared"
        )
    interval = _middle(first.resampled - second.resampled)
    assert interval is not None  # some resample has objects
    return Comparison(first.mean_ap, second.mean_ap, interval, len(dataset), computed_by)


@dataclass(frozen=True)
class Change:
    """AP of one class, or the mean of all, with two detectors; 0..1."""

    name: str
    before: float | None
    """None: no objects."""
    after: float | None
    interval: tuple[float, float] | None
    """95 % confidence interval of after - before; None: no objects, or no resamples."""

    @property
    def difference(self) -> float | None:
        """AP gained; negative: lost; None: no objects."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


def changes(before: Metrics, after: Metrics) -> tuple[Change, ...]:
    """Compare two scores of the same images, resampled with the same seed: the mean, then each class."""
    found = [Change("mean", before.mean_ap, after.mean_ap, _middle(after.resampled - before.resampled))]
    apart = after.resampled_ap - before.resampled_ap  # [C, R]
    for one, other, difference in zip(before.classes, after.classes, apart, strict=True):
        found.append(Change(one.name, one.ap, other.ap, _middle(difference)))
    return tuple(found)


def _middle(differences: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the middle 95 % of the resamples [R] that have objects."""
    known = differences[np.isfinite(differences)]
    if not len(known):
        return None
    low, high = np.quantile(known, (0.025, 0.975))
    return float(low), float(high)
