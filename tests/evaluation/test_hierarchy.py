"""Tests of lookonce.evaluation.hierarchy. Oracles: a loop over sets of classes, and cases counted by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lookonce.data.dataset import Record, pack
from lookonce.evaluation.average_precision import Rules, score
from lookonce.evaluation.hierarchy import in_use, roll_up, score_hierarchy
from lookonce.model.detections import Detections
from lookonce.model.tree import read_tree

TREE = read_tree("animal\n    dog\n        terrier\n        hound\n    cat\ncar\n")
NAMES = TREE.names  # animal, car, dog, cat, terrier, hound
BOX = [10.0, 10, 50, 50]
FAR = [60.0, 60, 90, 90]


def images(*objects):
    """A data set: for each image a list of (class name, box)."""
    records = []
    for n, own in enumerate(objects):
        boxes = np.array([box for _, box in own], np.float32).reshape(-1, 4)
        labels = np.array([NAMES.index(name) for name, _ in own], np.int64)
        records.append(Record(Path(f"{n}.jpg"), (100, 100), boxes, labels, np.zeros(len(own), bool)))
    return pack("n", Path(), NAMES, records)


def found(*given):
    """Detections of one image: (class name, box, score) each."""
    return Detections(np.array([box for _, box, _ in given], np.float32).reshape(-1, 4),
                      np.array([value for _, _, value in given]),
                      np.array([NAMES.index(name) for name, _, _ in given], np.int64), NAMES)  # fmt: skip


def test_an_object_stands_for_its_ancestors_too():
    rolled = roll_up(images([("terrier", BOX), ("car", FAR)]), TREE)
    assert [NAMES[n] for n in rolled.classes] == ["terrier", "dog", "animal", "car"]
    assert rolled.first.tolist() == [0, 4]
    assert not rolled.difficult.any()


def test_an_object_of_a_parent_class_is_ignored_where_it_may_be_a_child():
    rolled = roll_up(images([("dog", BOX)], [("terrier", BOX)]), TREE)
    assert [NAMES[n] for n in rolled.classes] == ["dog", "animal", "terrier", "terrier", "dog", "animal"]
    assert rolled.difficult.tolist() == [False, False, True, False, False, False]
    assert rolled.crowd.tolist() == rolled.difficult.tolist()  # so also where difficult objects count


def test_a_terrier_found_as_a_hound_is_right_as_a_dog():
    dataset = images([("terrier", BOX)])
    result = score_hierarchy(dataset, [found(("animal", BOX, 0.9), ("dog", BOX, 0.8), ("hound", BOX, 0.7))], TREE)
    assert [(one.depth, one.classes, one.objects, one.mean_ap) for one in result.depths] == [
        (0, 1, 1, 1.0), (1, 1, 1, 1.0), (2, 1, 1, 0.0)]  # fmt: skip
    assert result.best.precision == 1.0  # animal and dog of animal, dog, terrier, at a score above the hound's
    assert result.best.recall == pytest.approx(2 / 3)
    assert result.best.f1 == pytest.approx(0.8)
    assert 0.7 <= result.best.threshold < 0.8


def test_precision_and_recall_are_those_of_sets_of_ancestors():
    draw = np.random.default_rng(0)
    leaves = ["terrier", "hound", "cat", "car"]
    truth, guesses, scores = [], [], []
    for _ in range(60):
        truth.append(str(draw.choice(leaves)))
        guesses.append(str(draw.choice([*leaves, "dog", "animal"])))
        scores.append(float(draw.random()))
    paths = [[NAMES[n] for n in TREE.path(NAMES.index(name))] for name in guesses]
    detections = [found(*((name, BOX, value) for name in path)) for path, value in zip(paths, scores, strict=True)]
    result = score_hierarchy(images(*[[(name, BOX)] for name in truth]), detections, TREE)
    predicted = right = 0
    for name, path, value in zip(truth, paths, scores, strict=True):
        if value > result.best.threshold:
            predicted += len(path)
            right += len(set(path) & {NAMES[n] for n in TREE.path(NAMES.index(name))})
    asked = sum(len(TREE.path(NAMES.index(name))) for name in truth)
    assert result.best.precision == pytest.approx(right / predicted)
    assert result.best.recall == pytest.approx(right / asked)


def test_with_leaves_alone_the_depth_of_the_leaves_has_their_map():
    flat = read_tree("\n".join(f"{name} -1" for name in NAMES))
    dataset = images([("cat", BOX), ("car", FAR)], [("cat", BOX)])
    detections = [found(("cat", BOX, 0.9), ("car", BOX, 0.8)), found(("cat", FAR, 0.7), ("cat", BOX, 0.6))]
    [depth] = score_hierarchy(dataset, detections, flat).depths
    assert depth.mean_ap == pytest.approx(score(dataset, detections, Rules(), bootstrap=0).mean_ap)


def test_nothing_found_is_said():
    result = score_hierarchy(images([("cat", BOX)]), [found()], TREE)
    assert result.best is None
    assert "no true positives" in str(result)
    assert [one.mean_ap for one in result.depths] == [0.0, 0.0]


def test_classes_in_use_are_those_with_objects():
    dataset = images([("cat", BOX), ("terrier", FAR)])
    detections = [found(("cat", BOX, 0.9), ("animal", BOX, 0.95), ("hound", BOX, 0.1))]
    part, left = in_use(dataset, detections, TREE)
    assert part.labels == left[0].class_names == ("cat", "terrier")
    assert left[0].names == ("cat",)
    assert in_use(dataset, detections, None)[0] is dataset
    assert score(*in_use(dataset, detections, TREE), bootstrap=0).mean_ap == 0.5


def test_an_image_labelled_as_a_whole_is_no_negative():
    dataset = replace(images([("cat", BOX)], []), image_labels=np.array([-1, 3]))
    detections = [found(("cat", BOX, 0.5)), found(("cat", BOX, 0.9))]
    assert score(dataset, detections, bootstrap=0).mean_ap == 1.0
    assert score(replace(dataset, image_labels=None), detections, bootstrap=0).mean_ap == 0.5
