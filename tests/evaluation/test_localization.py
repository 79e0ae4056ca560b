"""Ground truth is changed in one known way to make detections, and the message must name that defect."""

import re

import numpy as np
import pytest

from lookonce.evaluation.localization import SCORE_BINS, STRONGEST, explain, localize
from lookonce.model.detections import Detections
from matching_cases import dataset_of

NAMES = ("ant", "bee", "cat")
HALF = np.full(3, 0.5)


def scene(images=12, seed=0):
    """Return images with one to three objects far apart, of three classes and many sizes."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(images):
        columns = draw.choice(3, draw.integers(1, 4), replace=False)
        corners = np.array([(50 + 150 * c + draw.uniform(0, 20), draw.uniform(50, 300)) for c in columns])
        sizes = draw.uniform(20, 90, (len(columns), 2))
        boxes = np.concatenate((corners, corners + sizes), 1)
        made.append([(box.tolist(), int(draw.integers(3)), False) for box in boxes])
    return dataset_of(made, NAMES)


def detected(dataset, boxes=lambda b: b, labels=lambda c: c, score=0.9):
    """Return the objects, changed, as detections."""
    return [Detections(boxes(r.boxes), np.full(len(r.labels), score), labels(r.labels), NAMES) for r in dataset.records]


def grown(by, shift=(0.0, 0.0)):
    def change(boxes):
        centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
        centre = centre + np.array(shift) * half * 2
        return np.concatenate((centre - half * by, centre + half * by), 1)

    return change


def noise(dataset, seed=1):
    draw = np.random.default_rng(seed)
    found = []
    for record in dataset.records:
        corners, count = draw.uniform(0, 420, (20, 2)), 20
        boxes = np.concatenate((corners, corners + draw.uniform(20, 90, (count, 2))), 1)
        found.append(Detections(boxes, draw.uniform(0, 0.02, count), draw.integers(0, 3, count), NAMES))
        assert len(record.labels)
    return found


DEFECTS = {
    "permuted": ({"labels": lambda c: (c + 1) % 3}, "correct boxes, permuted classes: ant is predicted as bee"),
    "two exchanged": ({"labels": lambda c: np.array([1, 0, 2])[c]}, "ant is predicted as bee"),
    "one name for all": (
        {"labels": lambda c: c * 0},
        "wrong classes on .* of .*: bee is predicted as ant .*train longer",
    ),
    "scaled": ({"boxes": grown(1.8)}, "boxes are 1.80x too wide and 1.80x too tall"),
    "shrunk": ({"boxes": grown(0.5)}, "boxes are 2.00x too narrow and 2.00x too short"),
    "shifted": (
        {"boxes": grown(1, (0.4, -0.3))},
        r"not too wide.*\+0.40 object widths and -0.30 object heights",
    ),
    "faint": ({"score": 0.002}, "scores too low.*the highest score is 0.002"),
}


@pytest.mark.parametrize("changes, expected", DEFECTS.values(), ids=DEFECTS)
def test_each_defect_has_its_own_message(changes, expected):
    dataset = scene()
    sound, message = explain(localize(dataset, detected(dataset, **changes)), NAMES, HALF)
    assert not sound
    assert re.search(expected, message)
    assert "\n" not in message


def test_correct_detections_are_sound_and_counted():
    dataset = scene()
    sound, message = explain(localize(dataset, detected(dataset)), NAMES, HALF)
    count = len(dataset.boxes)
    assert sound
    assert message.startswith(
        f"{count} of {count} objects are found with their class; {count} of the {count} strongest"
    )


def test_random_boxes_and_no_boxes_count_as_nothing_found():
    dataset = scene()
    for detections in (noise(dataset), [Detections([], [], [], NAMES)] * len(dataset)):
        sound, message = explain(localize(dataset, detections), NAMES, HALF)
        assert not sound
        assert message.startswith("nothing found")


@pytest.mark.parametrize("share, expected", [(0.4, "nothing found"), (0.6, "predicted boxes are 4.00x too narrow")])
def test_displaced_boxes_on_few_objects_say_nothing_of_the_anchors(share, expected):
    dataset = scene(20)
    few = detected(dataset, boxes=grown(0.25))
    far = detected(dataset, boxes=lambda b: b + 1000)
    found = [few[i] if i < share * len(few) else far[i] for i in range(len(few))]
    assert abs(np.mean(localize(dataset, found).best_iou > 0.05) - share) < 0.08
    sound, message = explain(localize(dataset, found), NAMES, HALF)
    assert not sound
    assert message.startswith(expected)


def test_random_classes_are_reported():
    dataset, draw = scene(40), np.random.default_rng(2)
    sound, message = explain(
        localize(dataset, detected(dataset, labels=lambda c: draw.integers(0, 3, len(c)))), NAMES, HALF
    )
    assert not sound
    assert message.startswith("correct boxes, wrong classes on ")


def test_one_confused_class_is_no_permutation():
    dataset = scene()
    sound, _ = explain(localize(dataset, detected(dataset, labels=lambda c: np.array([0, 1, 0])[c])), NAMES, HALF)
    assert sound  # cats are called ants, but ants are ants


def test_only_the_strongest_detections_count_and_difficult_objects_are_ignored():
    box, far = [10.0, 10, 60, 60], [200.0, 200, 260, 260]
    dataset = dataset_of([[(box, 0, False), (far, 1, True)]])
    boxes = np.array([far] * STRONGEST + [box])
    weak = Detections(boxes, np.linspace(0.9, 0.1, len(boxes)), np.zeros(len(boxes)), ("cat", "dog"))
    found = localize(dataset, [weak])
    assert found.label.tolist() == [0]
    assert found.best_iou.tolist() == [0.0]
    assert len(found.scores) == STRONGEST


def test_histograms_count_every_object_and_every_detection():
    dataset = scene()
    found = localize(dataset, detected(dataset, labels=lambda c: (c + 1) % 3, score=1.0))
    scores, overlaps = found.histograms()
    assert sum(n for _, (n,) in scores.rows) == len(found.scores) == scores.rows[-1][1][0]
    assert len(scores.rows) == len(SCORE_BINS) - 1
    own, any_class = np.array([counts for _, counts in overlaps.rows]).T
    assert own.sum() == any_class.sum() == len(dataset.boxes)
    assert (own[0], any_class[-1]) == (len(dataset.boxes), len(dataset.boxes))
