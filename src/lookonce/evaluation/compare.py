"""What a change of a detector costs in accuracy: before and after on the same images, compared by a paired bootstrap.

The same resamples of the images score both, so that what makes an image hard counts on both sides and falls out.
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
class Drop:
    """mAP before and after a change, 0..1."""

    before: float
    after: float
    interval: tuple[float, float]
    """95 %, about before - after."""
    images: int
    computed_by: str = ""
    """Backend, precision and device."""

    @property
    def drop(self) -> float:
        """What was lost; negative: gained."""
        return self.before - self.after

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"mAP {self.before:.4f} -> {self.after:.4f}: drop {self.drop:.4f} [{low:.4f}, {high:.4f}] "
            f"on {self.images} images" + (f" ({self.computed_by})" if self.computed_by else "")
        )


def measure_drop(dataset: Dataset, before: Sequence[Detections], after: Sequence[Detections],
                 rules: Rules = Rules(), computed_by: str = "") -> Drop:  # fmt: skip
    """Compare two detectors on the same images.

    Args:
        dataset: M images and their objects.
        before, after: M each, in the same order, cut at a low score.
        rules: by which both are scored.
        computed_by: what ran both detectors, for people to read.
    Raises:
        UserError: no objects to be found.
    """
    first, second = (score(dataset, found, rules) for found in (before, after))
    if first.mean_ap is None or second.mean_ap is None:
        raise UserError(f"{dataset.name}: no objects on its {len(dataset)} images; accuracy cannot be compared there")
    apart = first.resampled - second.resampled  # [R], each of one draw of images
    low, high = np.quantile(apart[np.isfinite(apart)], (0.025, 0.975))
    return Drop(first.mean_ap, second.mean_ap, (float(low), float(high)), len(dataset), computed_by)
