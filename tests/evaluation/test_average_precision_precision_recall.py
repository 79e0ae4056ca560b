"""Mirrors src/lookonce/precision_recall.py: by hand, and by trying every threshold. AP itself: test_metrics.py."""

import numpy as np
import pytest

from lookonce.evaluation.average_precision import average_precision, best_point, mean_average_precision, pr_points
from matching_cases import loop_ap


def test_the_curve_by_hand():
    found = pr_points(np.array([0.9, 0.8, 0.8]), np.array([True, False, True]), 4)
    np.testing.assert_allclose(found, [[0.9, 0.25, 1], [0.8, 0.25, 0.5], [0.8, 0.5, 2 / 3]])
    assert pr_points(np.zeros(0), np.zeros(0, bool), 0).shape == (0, 3)


@pytest.mark.parametrize("protocol", ["voc2007", "voc2010"])
@pytest.mark.parametrize("seed", range(4))
def test_the_mean_is_that_of_the_classes_one_by_one(protocol, seed):
    draw = np.random.default_rng(seed)
    label, right = draw.integers(0, 4, 60), draw.random(60) < 0.5
    objects = np.bincount(label[right], minlength=4) + np.array([1, 3, 0, 2])
    objects[3] = 0
    aps = [loop_ap(right[label == c].tolist(), int(objects[c]), protocol) for c in range(3)]
    assert mean_average_precision(label, right, objects, protocol) == pytest.approx(np.mean(aps))
    assert mean_average_precision(label, right, objects * 0, protocol) is None
    assert average_precision(np.zeros(0), np.zeros(0), protocol) == 0


@pytest.mark.parametrize("seed", range(6))
def test_no_threshold_gives_a_better_f1(seed):
    draw = np.random.default_rng(seed)
    score = np.sort(draw.integers(1, 9, 40) / 8)[::-1]
    right = draw.random(40) < 0.4
    best = best_point(score, np.cumsum(right), 25, 0.0)
    tried = {limit: right[score > limit].sum() * 2 / (25 + (score > limit).sum()) for limit in np.arange(0, 1, 1 / 16)}
    above = score > best.threshold
    assert best.f1 == pytest.approx(max(tried.values()))
    assert best.f1 == pytest.approx(2 * right[above].sum() / (25 + above.sum()))
    assert (best.precision, best.recall) == pytest.approx((right[above].mean(), right[above].sum() / 25))
    assert all(f1 < best.f1 for limit, f1 in tried.items() if limit > best.threshold + 1 / 16)
