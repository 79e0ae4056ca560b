"""Tests of lookonce.evaluation.errors: by hand, and against a loop that mends the detections and matches them anew."""

import numpy as np
import pytest

from lookonce.evaluation.average_precision import Rules
from lookonce.evaluation.errors import BACKGROUND, BOTH, CLASS, DUPLICATE, KINDS, LOCATION, NEAR, find_errors
from lookonce.evaluation.matching import match
from matching_cases import dataset_of, found, loop_ap, loop_iou, random_case

RULES = Rules()


def errors_of(dataset, detections, rules=RULES):
    matched = match(dataset, detections, dataset.difficult, rules.iou_threshold)
    return matched, find_errors(dataset, matched, dataset.difficult, rules)


def kinds_of(objects, boxes, scores, labels):
    """Of one image: the kind of each detection by falling score, and {kind: (count, cost)}."""
    errors = errors_of(dataset_of([objects]), [found(boxes, scores, labels)])[1]
    return [KINDS[k] if k >= 0 else "" for k in errors.kind], {k.name: (k.count, k.cost) for k in errors.kinds}


CAT, DOG = ([0.0, 0, 10, 10], 0, False), ([50.0, 50, 60, 60], 1, False)


def test_a_wrong_class_is_mended_to_the_objects_own():
    kinds, costs = kinds_of([CAT, DOG], [[0, 0, 10, 10], [50, 50, 60, 60]], [0.9, 0.8], [1, 1])
    assert kinds == ["class", ""]
    # before: cat 0, dog 1/2 (a wrong one first); mended: both 1
    assert costs["class"] == (1, pytest.approx(1 - 0.25))
    assert costs["missed"] == (0, 0)  # the cat is covered by the error of class


def test_a_wrong_place_is_mended_and_the_object_is_not_missed():
    kinds, costs = kinds_of([CAT, DOG], [[0, 0, 10, 4.9], [50, 50, 60, 60]], [0.9, 0.8], [0, 1])
    assert kinds == ["location", ""]
    assert costs["location"] == (1, pytest.approx(0.5))
    assert costs["missed"][0] == 0


def test_beside_an_object_of_another_class_is_both_and_goes():
    kinds, costs = kinds_of([CAT, DOG], [[0, 0, 10, 4], [50, 50, 60, 60]], [0.9, 0.8], [1, 1])
    assert kinds == ["both", ""]
    assert costs["both"] == (1, pytest.approx((0 + 1) / 2 - (0 + 0.5) / 2))
    assert costs["missed"] == (1, pytest.approx(0.5 - 0.25))  # without the cat only the dog is left, at 1/2


def test_a_second_one_on_an_object_is_a_duplicate_and_goes():
    two = ([20.0, 20, 30, 30], 0, False)
    boxes = [[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]]
    kinds, costs = kinds_of([CAT, two], boxes, [0.9, 0.8, 0.7], [0, 0, 0])
    assert kinds == ["", "duplicate", ""]
    assert costs["duplicate"] == (1, pytest.approx(1 - (0.5 + 0.5 * 2 / 3)))


def test_near_nothing_is_background_and_goes():
    kinds, costs = kinds_of([CAT], [[30, 30, 40, 40], [0, 0, 10, 10], [9, 9, 19, 19]], [0.9, 0.8, 0.7], [0, 0, 0])
    assert kinds == ["background", "", "background"]
    assert costs["background"] == (2, pytest.approx(0.5))


def test_an_object_that_nothing_is_about_is_missed():
    other = ([20.0, 20, 30, 30], 0, False)
    _, costs = kinds_of([CAT, other], [[0, 0, 10, 10]], [0.9], [0])
    assert costs["missed"] == (1, pytest.approx(0.5))


def test_of_several_about_one_object_the_surest_is_mended_and_the_rest_go():
    boxes = [[0, 0, 10, 4], [0, 0, 10, 4.5], [0, 0, 10, 10]]
    kinds, costs = kinds_of([CAT], boxes, [0.9, 0.8, 0.7], [0, 0, 0])
    assert kinds == ["location", "location", ""]
    assert costs["location"] == (2, pytest.approx(1 - 1 / 3))  # the first is right, the right one of before goes too


def test_nothing_is_about_difficult_objects():
    hard = ([0.0, 0, 10, 10], 0, True)
    kinds, _ = kinds_of([hard, DOG], [[0, 0, 10, 4], [0, 0, 10, 10], [0, 0, 10, 10]], [0.9, 0.8, 0.7], [0, 1, 0])
    assert kinds == ["background", "background", ""]


def test_without_objects_nothing_costs_anything():
    _, costs = kinds_of([], [[0, 0, 10, 10]], [0.9], [0])
    assert costs["background"] == (1, None)


def slow_kind(dataset, label, image, box, least):
    """TIDE, section 2.2, one wrong detection at a time: (kind, object)."""
    own, other = (-1.0, -1), (-1.0, -1)
    for n in range(int(dataset.first[image]), int(dataset.first[image + 1])):
        if dataset.difficult[n]:
            continue
        overlap = loop_iou(box, dataset.boxes[n])
        if dataset.classes[n] == label and overlap > own[0]:
            own = (overlap, n)
        if dataset.classes[n] != label and overlap > other[0]:
            other = (overlap, n)
    if NEAR <= own[0] < least:
        return LOCATION, own[1]
    if other[0] >= least:
        return CLASS, other[1]
    if own[0] >= least:
        return DUPLICATE, -1
    return (BACKGROUND if max(own[0], other[0]) < NEAR else BOTH), -1


def slow_mean(rows, objects):
    """rows: (score, image, rank, label, right), any order."""
    aps = []
    for label, many in enumerate(objects):
        mine = [row[4] for row in sorted(rows, key=lambda r: (-r[0], r[1], r[2])) if row[3] == label]
        if many:
            aps.append(loop_ap(mine, many, "voc2010"))
    return sum(aps) / len(aps)


@pytest.mark.parametrize("seed", range(12))
def test_kinds_and_costs_are_those_of_the_slow_loop(seed):
    dataset, detections = random_case(seed, images=15)
    least = 0.5
    matched, errors = errors_of(dataset, detections)
    rows = []  # (score, image, rank, label, right, kind, object)
    for k in range(len(matched.score)):
        right, kind, about = (
            bool(matched.true_positive[k]),
            -1,
            int(matched.object[k]) if matched.true_positive[k] else -1,
        )
        if not right and not matched.ignored[k]:
            kind, about = slow_kind(dataset, matched.label[k], matched.image[k], matched.boxes[k], least)
        assert errors.kind[k] == kind
        if not matched.ignored[k]:
            rows.append((matched.score[k], matched.image[k], k, int(matched.label[k]), right, kind, about))
    objects = [int(((dataset.classes == c) & ~dataset.difficult).sum()) for c in range(2)]
    base = slow_mean(rows, objects)
    for number, kind in enumerate(errors.kinds[:-1]):
        fixed = []
        for row in rows:
            if number in (CLASS, LOCATION):
                rivals = [r for r in rows if r[6] == row[6] >= 0 and (r[5] == number or r[4])]
                mended = any(r[5] == number for r in rivals)
                if row in rivals and mended:
                    if row == min(rivals, key=lambda r: (-r[0], r[1], r[2])):
                        fixed.append((*row[:3], int(dataset.classes[row[6]]), True))
                    continue
            if row[5] != number:
                fixed.append(row[:5])
        assert kind.count == sum(row[5] == number for row in rows)
        assert kind.cost == pytest.approx(slow_mean(fixed, objects) - base), kind.name
    covered = {row[6] for row in rows if row[4] or row[5] in (CLASS, LOCATION)}
    missed = [n for n in range(len(dataset.boxes)) if not dataset.difficult[n] and n not in covered]
    assert np.flatnonzero(errors.missed).tolist() == missed
    left = [objects[c] - sum(dataset.classes[n] == c for n in missed) for c in range(2)]
    assert errors.kinds[-1].count == len(missed)
    assert errors.kinds[-1].cost == pytest.approx(slow_mean(rows, left) - base)


@pytest.mark.parametrize("seed", range(4))
def test_mended_detections_are_right_when_they_are_matched_anew(seed):
    """Without a rival on the object: give the detection the object's class, or its box, and AP must be what it says."""
    draw = np.random.default_rng(seed)
    objects, boxes, labels, mended_boxes, mended_labels = [], [], [], [], []
    for i in range(20):
        x, label, what = 100.0 * i, int(draw.integers(0, 2)), draw.choice(["right", "class", "location", "none"])
        box = [x, 0.0, x + 10, 10.0]
        objects.append((box, label, False))
        if what != "none":
            boxes.append([x, 0.0, x + 10, 10.0 if what != "location" else 3.0])
            labels.append(label if what != "class" else 1 - label)
            mended_boxes.append(box)
            mended_labels.append(label)
    scores = draw.random(len(boxes)).tolist()
    dataset = dataset_of([objects])
    _, errors = errors_of(dataset, [found(boxes, scores, labels)])
    costs = {kind.name: kind.cost for kind in errors.kinds}

    def ap(boxes, labels):
        _, again = errors_of(dataset, [found(boxes, scores, labels)])
        matched = match(dataset, [found(boxes, scores, labels)], dataset.difficult, 0.5)
        rows = [(s, 0, k, int(c), bool(r)) for k, (s, c, r) in
                enumerate(zip(matched.score, matched.label, matched.true_positive, strict=True))]  # fmt: skip
        assert len(again.kinds) == len(KINDS)
        return slow_mean(rows, np.bincount(dataset.classes, minlength=2).tolist())

    assert costs["class"] == pytest.approx(ap(boxes, mended_labels) - ap(boxes, labels))
    assert costs["location"] == pytest.approx(ap(mended_boxes, labels) - ap(boxes, labels))
