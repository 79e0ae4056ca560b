"""Comparison of a detector before and after a change on the same images, by a paired bootstrap.

Both are scored on the same resamples of the images, so that hard images affect both scores alike.
Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile intervals).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lookonce.data.dataset import Dataset
from lookonce.errors import UserError
from lookonce.evaluation.average_precision import Rules, score
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
    difference = first.resampled - second.resampled  # [R] resamples
    low, high = np.quantile(difference[np.isfinite(difference)], (0.025, 0.975))
    return Comparison(first.mean_ap, second.mean_ap, (float(low), float(high)), len(dataset), computed_by)
