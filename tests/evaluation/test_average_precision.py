"""Tests of lookonce.evaluation.average_precision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import SHARED, needs_shared
from lookonce.data.dataset import Dataset
from lookonce.errors import ConfigError
from lookonce.evaluation.average_precision import (
    ApProtocol,
    Rules,
    average_precision,
    best_point,
    best_thresholds,
    mean_average_precision,
    pr_points,
    score,
    score_sizes,
)
from lookonce.evaluation.matching import match
from lookonce.model.detections import Detections
from matching_cases import Objects, dataset_of, found, loop_ap, loop_match, random_case, read_voc100

VOC_SMALL = {  # IoU threshold: (11-point, all-point); shared/data/README.md
    0.1: (0.3333333333, 0.3371980676),
    0.3: (0.2683982683, 0.2456866804),
    0.5: (0.0303030303, 0.0222222222),
    0.75: (0.0, 0.0),
}
VOC100 = {  # (protocol, difficult): mAP in percent; shared/data/README.md
    ("voc2010", "ignore"): 61.39,
    ("voc2007", "ignore"): 60.75,
    ("voc2010", "count"): 61.09,
    ("voc2007", "count"): 59.90,
}


def read_voc_small() -> tuple[Dataset, list[Detections]]:
    """`x y w h` texts; boxes there hold both edge pixels, so w pixels lie between x and x + w + 1 as we count."""
    folder = SHARED / "data" / "metric_cases" / "voc_small"
    truth: list[Objects] = []
    detections = []
    for path in sorted((folder / "gts").glob("*.txt")):
        rows = [[float(v) for v in line.split()[1:]] for line in path.read_text().splitlines() if line.strip()]
        truth.append([([x, y, x + w + 1, y + h + 1], 0, False) for x, y, w, h in rows])
        text = (folder / "dets" / path.name).read_text()
        rows = [[float(v) for v in line.split()[1:]] for line in text.splitlines() if line.strip()]
        boxes = np.array([[x, y, x + w + 1, y + h + 1] for _, x, y, w, h in rows]).reshape(-1, 4)
        scores = np.array([row[0] for row in rows])
        detections.append(Detections(boxes, scores, np.zeros(len(rows)), ("object",)))
    return dataset_of(truth, ("object",)), detections


@needs_shared
@pytest.mark.parametrize("least", VOC_SMALL)
def test_ap_of_the_small_case_is_the_published_one(least: float) -> None:
    dataset, detections = read_voc_small()
    for protocol, expected in zip(("voc2007", "voc2010"), VOC_SMALL[least], strict=True):
        metrics = score(dataset, detections, Rules(protocol, least), bootstrap=0)  # type: ignore[arg-type]
        assert metrics.mean_ap == pytest.approx(expected, abs=1e-9)


@needs_shared
@pytest.mark.parametrize(("protocol", "difficult"), VOC100)
def test_map_of_100_voc_images_is_the_independent_one(protocol: ApProtocol, difficult: str) -> None:
    dataset, detections = read_voc100()
    metrics = score(dataset, detections, Rules(protocol, 0.5, difficult), bootstrap=200)  # type: ignore[arg-type]
    assert metrics.mean_ap is not None
    assert metrics.interval is not None
    assert 100 * metrics.mean_ap == pytest.approx(VOC100[protocol, difficult], abs=0.005)
    assert metrics.interval[0] < metrics.mean_ap < metrics.interval[1]
    assert sum(c.objects for c in metrics.classes) == (273 - 38 if difficult == "ignore" else 273)
    assert sum(c.detections for c in metrics.classes) == 452


@pytest.mark.parametrize("protocol", ["voc2007", "voc2010"])
@pytest.mark.parametrize("difficult", ["ignore", "count"])
@pytest.mark.parametrize("seed", range(6))
def test_ap_is_that_of_the_devkit_loop(protocol: ApProtocol, difficult: str, seed: int) -> None:
    dataset, detections = random_case(seed)
    metrics = score(dataset, detections, Rules(protocol, 0.4, difficult), bootstrap=0)  # type: ignore[arg-type]
    skip = dataset.difficult if difficult == "ignore" else np.zeros_like(dataset.difficult)
    for label, one in enumerate(metrics.classes):
        mine = [replace(d, **_of_class(d, label)) for d in detections]
        verdicts = [v == "tp" for v in loop_match(dataset, mine, skip, 0.4) if v != "ignored"]
        objects = int(((dataset.classes == label) & ~skip).sum())
        assert one.objects == objects
        assert one.ap == pytest.approx(loop_ap(verdicts, objects, protocol))
        assert one.recall == pytest.approx(sum(verdicts) / objects)


def _of_class(one: Detections, label: int) -> dict[str, NDArray[np.generic]]:
    keep = one.labels == label
    return {"boxes": one.boxes[keep], "scores": one.scores[keep], "labels": one.labels[keep]}


@pytest.mark.parametrize("protocol", ["voc2007", "voc2010"])
def test_a_resample_scores_as_a_data_set_of_the_drawn_images(protocol: ApProtocol) -> None:
    dataset, detections = random_case(3, images=9)
    for one in detections:  # equal scores have no order of their own: make all of them differ
        one.scores[:] = np.sort(np.random.default_rng(len(one)).random(len(one)))[::-1]
    metrics = score(dataset, detections, Rules(protocol, 0.4), bootstrap=25, seed=7)
    generator = np.random.default_rng(7)
    for resampled in metrics.resampled:
        drawn = np.sort(generator.integers(0, 9, 9))
        truth = [_objects(dataset, i) for i in drawn]
        again = score(dataset_of(truth), [detections[i] for i in drawn], Rules(protocol, 0.4), bootstrap=0)
        assert resampled == pytest.approx(again.mean_ap)


def _objects(dataset: Dataset, i: int) -> Objects:
    rows = range(int(dataset.first[i]), int(dataset.first[i + 1]))
    return [(dataset.boxes[n].tolist(), int(dataset.classes[n]), bool(dataset.difficult[n])) for n in rows]


def test_one_seed_draws_the_same_interval_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, detections = random_case(1)
    whole = score(dataset, detections, bootstrap=50, seed=4)
    monkeypatch.setattr("lookonce.evaluation.average_precision.BLOCK", 100)
    np.testing.assert_array_equal(whole.resampled, score(dataset, detections, bootstrap=50, seed=4).resampled)


def test_eleven_points_are_the_floats_of_voc_eval() -> None:
    tenths = np.arange(1, 11) / 10
    reached = [2, 3, 3, 5, 6, 6, 7, 9, 10, 11]  # .3, .6 and .7 fall short of 3 * .1, 6 * .1 and 7 * .1
    for k in range(1, 11):  # k of 10 objects found, all right
        assert average_precision(tenths[:k], np.ones(k), "voc2007") == pytest.approx(reached[k - 1] / 11)


def test_ap_of_no_detections_is_zero() -> None:
    for protocol in ("voc2007", "voc2010"):
        assert average_precision(np.zeros(0), np.zeros(0), protocol) == 0  # type: ignore[arg-type]


def test_a_class_without_objects_is_left_out_of_the_mean_and_says_so() -> None:
    dataset = dataset_of([[([0, 0, 10, 10], 0, False)]])
    metrics = score(dataset, [found([[0, 0, 10, 10], [0, 0, 9, 9]], [0.9, 0.8], [0, 1])], bootstrap=10)
    assert (metrics.mean_ap, metrics.classes[1].ap, metrics.classes[1].detections) == (1.0, None, 1)
    assert "no objects" in str(metrics)
    assert "nan" not in str(metrics)


@pytest.mark.parametrize("difficult", [False, True])
def test_no_objects_of_any_class_is_said_and_never_nan(difficult: bool) -> None:
    truth: Objects = [([0, 0, 10, 10], 0, True)] if difficult else []
    metrics = score(dataset_of([truth, []]), [found([[0, 0, 10, 10]], [0.9]), found([], [])], bootstrap=10)
    assert metrics.mean_ap is None
    assert metrics.interval is None
    assert "no objects" in str(metrics)
    assert "nan" not in str(metrics)
    assert best_thresholds(metrics).tolist() == [0.3, 0.3]


def test_objects_of_which_nothing_was_found_give_zero() -> None:
    metrics = score(dataset_of([[([0, 0, 10, 10], 0, False)]]), [found([], [])], bootstrap=10)
    assert (metrics.mean_ap, metrics.interval, metrics.classes[0].recall) == (0.0, (0.0, 0.0), 0.0)
    assert best_thresholds(metrics, default=0.25).tolist() == [0.25, 0.25]


def test_a_data_set_without_images_has_no_objects() -> None:
    assert score(dataset_of([]), [], bootstrap=10).mean_ap is None


@pytest.mark.parametrize("seed", range(6))
def test_the_threshold_is_the_highest_of_best_f1_by_trying_them_all(seed: int) -> None:
    dataset, detections = random_case(seed, images=40)
    metrics = score(dataset, detections, Rules(iou_threshold=0.3), bootstrap=0)
    for label, threshold in enumerate(best_thresholds(metrics)):
        best = metrics.classes[label].best
        assert best is not None
        tried = {}
        for limit in (*(np.arange(0, 8) / 8 + 1 / 16), threshold):  # scores are eighths
            mine = [replace(d, **_of_class(d, label)).above(limit) for d in detections]
            verdicts = [v == "tp" for v in loop_match(dataset, mine, dataset.difficult, 0.3) if v != "ignored"]
            tp, objects = sum(verdicts), metrics.classes[label].objects
            tried[limit] = (2 * tp / (objects + len(verdicts)), tp / max(len(verdicts), 1), tp / objects)
        assert tried[threshold] == pytest.approx((best.f1, best.precision, best.recall))
        assert best.f1 == max(f1 for f1, _, _ in tried.values())
        assert all(f1 < best.f1 for limit, (f1, _, _) in tried.items() if limit > threshold)


def test_of_equal_f1_the_higher_threshold_is_taken() -> None:
    dataset = dataset_of([[([0, 0, 10, 10], 0, False), ([50, 50, 60, 60], 0, False)]])
    boxes = [[0, 0, 10, 10], [20, 20, 30, 30], [20, 20, 30, 31], [50, 50, 60, 60]]  # F1 2/3 at .9, again at .2
    metrics = score(dataset, [found(boxes, [0.9, 0.6, 0.5, 0.2])], bootstrap=0)
    assert best_thresholds(metrics)[0] == pytest.approx(0.75)  # half-way to the next lower score


def test_rules_are_named_in_full() -> None:
    dataset = dataset_of([[([0, 0, 10, 10], 0, False)]])
    metrics = score(dataset, [found([[0, 0, 10, 10]], [0.9])], Rules("voc2007", 0.5, "count", 0.005), bootstrap=5)
    text = str(metrics)
    for part in ("VOC 2007 (11-point)", "IoU >= 0.5", "difficult objects counted", "scores > 0.005", "1 image\n"):
        assert part in text
    assert "1.000 [1.000, 1.000]" in text


@pytest.mark.parametrize(
    ("wrong", "place"),
    [({"protocol": "coco"}, "protocol"), ({"difficult": "drop"}, "difficult"), ({"iou_threshold": 0.0}, "iou")],
)
def test_a_rule_outside_its_law_is_an_error(wrong: dict[str, object], place: str) -> None:
    with pytest.raises(ConfigError, match=f"{place}.*expected"):
        Rules(**wrong)  # type: ignore[arg-type]


def test_scoring_leaves_its_input_alone() -> None:
    dataset, detections = random_case(2)
    before = [one.boxes.copy() for one in detections], dataset.boxes.copy()
    score(dataset, detections, bootstrap=3)
    assert all(np.array_equal(a, b.boxes) for a, b in zip(before[0], detections, strict=True))
    assert np.array_equal(before[1], dataset.boxes)


def test_one_size_is_scored_alone_and_the_other_sizes_do_not_count():
    small, large = [0.0, 0, 10, 10], [100.0, 100, 200, 200]
    dataset = dataset_of([[(small, 0, False), (large, 0, False)]])
    wrong_small, wrong_large = [50.0, 50, 60, 60], [300.0, 300, 400, 400]
    given = [found([large, wrong_small, small, wrong_large], [0.9, 0.8, 0.7, 0.6])]
    one = np.ones(1)
    given = match(dataset, given, dataset.difficult, 0.5)
    cat = score_sizes(dataset, given, 0, 32, one).classes[0]
    assert (cat.objects, cat.ap) == (1, 0.5)  # wrong_small at .8, then small
    cat = score_sizes(dataset, given, 32, np.inf, one).classes[0]
    assert (cat.objects, cat.ap) == (1, 1.0)
    doubled = score_sizes(dataset, given, 0, 32, one * 4).classes[0]
    assert doubled.objects == 0


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
