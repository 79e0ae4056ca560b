"""Oracle of the interval: a loop that makes each resample a data set of its own and scores it."""

from dataclasses import replace

import numpy as np
import pytest

from lookonce.errors import UserError
from lookonce.evaluation.average_precision import score
from lookonce.evaluation.compare import Change, Comparison, changes, compare_detections
from lookonce.model.detections import Detections
from matching_cases import dataset_of, random_case


def weakened(found, generator):
    """The same detections with a third of them gone."""
    kept = []
    for one in found:
        stays = generator.random(len(one)) > 0.33
        kept.append(Detections(one.boxes[stays], one.scores[stays], one.labels[stays], one.class_names))
    return kept


def apart_in_score(found):
    """The same detections, no two of one score."""
    generator = np.random.default_rng(2)
    return [Detections(one.boxes, one.scores + generator.random(len(one)) / 100, one.labels, one.class_names)
            for one in found]  # fmt: skip


def test_the_interval_is_that_of_resampling_the_same_images_for_both():
    dataset, found = random_case(5)
    found = apart_in_score(found)
    worse = weakened(found, np.random.default_rng(1))
    comparison = compare_detections(dataset, found, worse)
    apart = []
    generator = np.random.default_rng(0)
    for _ in range(1000):  # a slow loop: each resample is a data set of its own
        drawn = generator.integers(0, len(dataset), len(dataset))
        many = dataset.select(drawn)
        first, second = (score(many, [each[i] for i in drawn], bootstrap=0) for each in (found, worse))
        if first.mean_ap is not None:
            apart.append(first.mean_ap - second.mean_ap)
    assert comparison.drop == pytest.approx(score(dataset, found).mean_ap - score(dataset, worse).mean_ap)
    assert comparison.interval == pytest.approx(np.quantile(apart, (0.025, 0.975)), abs=1e-6)
    assert comparison.images == len(dataset)


def test_the_same_detections_lose_nothing():
    dataset, found = random_case(3)
    comparison = compare_detections(dataset, found, found)
    assert comparison.drop == 0
    assert comparison.interval == (0, 0)


def test_the_paired_interval_is_narrower_than_that_of_one_detector():
    """One detection more or less on one image: far less than the spread from image to image."""
    dataset, found = random_case(5)
    less = list(found)
    less[0] = found[0].above(np.full(len(dataset.labels), 0.5))
    low, high = compare_detections(dataset, found, less).interval
    alone = score(dataset, found).interval
    assert high - low < (alone[1] - alone[0]) / 2


def test_images_without_objects_cannot_be_compared():
    with pytest.raises(UserError, match="none of its 1 images has an object"):
        compare_detections(dataset_of([[]]), [none()], [none()])


def none():
    return Detections([], [], [], ("cat", "dog"))


def test_the_text_gives_both_scores_the_drop_and_its_interval():
    text = str(Comparison(0.8134, 0.8101, (-0.001, 0.0075), 73))
    assert text == "mAP 0.8134 -> 0.8101: drop 0.0033 [-0.0010, 0.0075] on 73 images"
    assert str(Comparison(0.8, 0.8, (0.0, 0.0), 73, "torch 2, fp32, cpu")).endswith("on 73 images (torch 2, fp32, cpu)")


def test_the_change_of_each_class_is_that_of_scoring_it_alone():
    dataset, found = random_case(5)
    worse = weakened(found, np.random.default_rng(1))
    mean, *classes = changes(score(dataset, found, bootstrap=200), score(dataset, worse, bootstrap=200))
    both = compare_detections(dataset, found, worse)
    assert mean.difference == pytest.approx(-both.drop)
    for label, change in enumerate(classes):
        rows = np.flatnonzero(dataset.classes == label)
        assert change.name == dataset.labels[label]
        if not len(rows[~dataset.difficult[rows]]):
            assert change == Change(change.name, None, None, None)
            continue
        others = replace(dataset, difficult=dataset.difficult | (dataset.classes != label))
        alone = [score(others, some, bootstrap=200) for some in (found, worse)]
        assert change.difference == pytest.approx(alone[1].mean_ap - alone[0].mean_ap)
        difference = alone[1].resampled - alone[0].resampled
        assert change.interval == pytest.approx(np.quantile(difference[np.isfinite(difference)], (0.025, 0.975)))


def test_a_change_is_clear_if_its_interval_excludes_0():
    assert Change("a", 0.5, 0.75, (0.125, 0.5)).clear
    assert Change("a", 0.5, 0.25, (-0.5, -0.125)).clear
    assert not Change("a", 0.5, 0.75, (-0.125, 0.5)).clear
    assert not Change("a", None, None, None).clear
    assert Change("a", None, None, None).difference is None
