"""Tests of lookonce.evaluation.confusion: by hand, and against a loop over all pairs."""

import numpy as np
import pytest

from lookonce.evaluation.confusion import calibrate, confuse
from lookonce.evaluation.matching import match
from matching_cases import dataset_of, found, loop_iou, random_case


def confusion_of(dataset, detections, least=0.5):
    matched = match(dataset, detections, dataset.difficult, least)
    return matched, confuse(dataset, matched, dataset.difficult, least)


def test_by_hand():
    cat, dog, other = [0.0, 0, 10, 10], [50.0, 50, 60, 60], [80.0, 80, 90, 90]
    dataset = dataset_of([[(cat, 0, False), (dog, 1, False), (other, 0, False)]])
    one = found([cat, cat, dog, [20, 20, 30, 30]], [0.9, 0.8, 0.7, 0.6], [0, 0, 0, 1])
    _, told = confusion_of(dataset, [one])
    assert told.at.threshold == pytest.approx(0.85)  # F1 2/4; at the lower ones 2/5, 2/6, 2/7
    assert told.counts.tolist() == [[1, 0, 1], [0, 0, 1], [0, 0, 0]]
    more = found([cat, dog, other], [0.9, 0.8, 0.7], [0, 0, 0])
    _, told = confusion_of(dataset, [more])
    assert told.counts.tolist() == [[2, 0, 0], [1, 0, 0], [0, 0, 0]]  # the dog is taken for a cat


def slow_counts(dataset, matched, threshold, least):
    """All pairs of what is left, the highest IoU first."""
    counts = np.zeros((3, 3), int)
    shown = [k for k in range(len(matched.score)) if matched.score[k] > threshold and not matched.ignored[k]]
    objects = {n for n in range(len(dataset.boxes)) if not dataset.difficult[n]}
    wrong = []
    for k in shown:
        if matched.true_positive[k]:
            counts[matched.label[k], matched.label[k]] += 1
            objects.remove(matched.object[k])
        else:
            wrong.append(k)
    image = dataset.image_of_box
    pairs = [(loop_iou(matched.boxes[k], dataset.boxes[n]), k, n) for k in wrong for n in objects
             if image[n] == matched.image[k] and dataset.classes[n] != matched.label[k]]  # fmt: skip
    for overlap, k, n in sorted(pairs, key=lambda p: -p[0]):
        if overlap >= least and k in wrong and n in objects:
            counts[dataset.classes[n], matched.label[k]] += 1
            wrong.remove(k)
            objects.remove(n)
    for k in wrong:
        counts[2, matched.label[k]] += 1
    for n in objects:
        counts[dataset.classes[n], 2] += 1
    return counts


@pytest.mark.parametrize("seed", range(10))
def test_counts_are_those_of_the_loop_over_all_pairs(seed):
    dataset, detections = random_case(seed, images=20)
    draw = np.random.default_rng(seed)
    dataset.boxes[:] += draw.uniform(0, 0.2, dataset.boxes.shape)  # no two IoU the same
    matched, told = confusion_of(dataset, detections, 0.2)
    np.testing.assert_array_equal(told.counts, slow_counts(dataset, matched, told.at.threshold, 0.2))
    sought = np.bincount(dataset.classes[~dataset.difficult], minlength=2)
    np.testing.assert_array_equal(told.counts[:2].sum(1), sought)  # rows sum to objects
    given = matched.label[(matched.score > told.at.threshold) & ~matched.ignored]
    np.testing.assert_array_equal(told.counts[:, :2].sum(0), np.bincount(given, minlength=2))  # columns to detections
    right = told.counts[:2, :2].trace()
    assert told.at.precision == pytest.approx(right / len(given))
    assert told.at.recall == pytest.approx(right / sought.sum())


def test_without_anything_right_there_is_no_matrix():
    dataset = dataset_of([[([0.0, 0, 10, 10], 0, False)]])
    assert confusion_of(dataset, [found([[20, 20, 30, 30]], [0.9])])[1] is None
    assert confusion_of(dataset_of([[]]), [found([[20, 20, 30, 30]], [0.9])])[1] is None


def test_calibration_by_hand():
    told = calibrate(np.array([0.05, 0.15, 0.1, 1.0, 0.95]), np.array([False, True, False, True, True]))
    assert told.counts.tolist() == [1, 2, 0, 0, 0, 0, 0, 0, 0, 2]
    assert told.score[[0, 1, 9]].tolist() == pytest.approx([0.05, 0.125, 0.975])
    assert told.precision[[0, 1, 9]].tolist() == [0, 0.5, 1]
    assert np.isnan(told.precision[5])
    assert told.error == pytest.approx((1 * 0.05 + 2 * 0.375 + 2 * 0.025) / 5)


def test_scores_that_are_drawn_from_are_to_be_believed():
    draw = np.random.default_rng(0)
    score = draw.random(200_000)
    assert calibrate(score, draw.random(len(score)) < score).error < 0.01
    assert calibrate(score, draw.random(len(score)) < score**2).error == pytest.approx(1 / 6, abs=0.01)


def test_scores_that_are_no_shares_have_no_calibration():
    assert calibrate(np.array([3.0, 0.5]), np.array([True, False])) is None
    assert calibrate(np.zeros(0), np.zeros(0, bool)) is None
