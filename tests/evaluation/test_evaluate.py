"""Tests of lookonce.evaluation.evaluate: its parts are those of the modules it asks."""

import numpy as np
import pytest

from lookonce.evaluation.average_precision import Rules, score
from lookonce.evaluation.evaluate import analyse
from sets import crowded


@pytest.mark.parametrize("difficult", ["ignore", "count"])
def test_the_parts_agree_with_each_other(difficult):
    dataset, detections = crowded(1)
    rules = Rules("voc2010", 0.5, difficult)
    told = analyse(dataset, detections, rules, bootstrap=10)
    assert told.metrics.mean_ap == score(dataset, detections, rules, bootstrap=0).mean_ap
    assert told.metrics.interval is not None
    np.testing.assert_array_equal(told.ignore, dataset.crowd)  # crowds need never be found
    objects = sum(c.objects for c in told.metrics.classes)
    assert sum(size.objects for size in told.sizes) == objects == int((~dataset.crowd).sum())
    wrong = sum(kind.count for kind in told.errors.kinds[:-1])
    assert wrong + told.found.true_positive.sum() + told.found.ignored.sum() == sum(map(len, detections))
    assert told.calibration.counts.sum() == (~told.found.ignored).sum()
    assert told.confusion.counts[:-1].sum() == objects
