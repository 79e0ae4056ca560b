"""Tests of lookonce.evaluation.matching: against a loop written from the devkit's text."""

from __future__ import annotations

import numpy as np
import pytest

from lookonce.errors import UserError
from lookonce.evaluation import matching
from lookonce.evaluation.matching import image_f1, match
from lookonce.model.detections import Detections
from matching_cases import dataset_of, found, loop_match, random_case


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("least", [0.3, 0.5])
def test_every_detection_is_judged_as_the_devkit_loop_judges_it(
    seed: int, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "PAIRS", 7)  # many blocks
    dataset, detections = random_case(seed)
    for skip in (dataset.difficult, np.zeros_like(dataset.difficult)):
        matched = match(dataset, detections, skip, least)
        verdicts = np.where(matched.true_positive, "tp", np.where(matched.ignored, "ignored", "fp")).tolist()
        assert verdicts == loop_match(dataset, detections, skip, least)


def test_a_second_detection_of_one_object_is_wrong() -> None:
    dataset = dataset_of([[([0, 0, 10, 10], 0, False)]])
    matched = match(dataset, [found([[0, 0, 10, 10]] * 2, [0.5, 0.9])], dataset.difficult, 0.5)
    assert matched.true_positive.tolist() == [True, False]
    assert matched.score.tolist() == pytest.approx([0.9, 0.5])


def test_an_iou_of_just_the_threshold_is_enough() -> None:
    dataset = dataset_of([[([0, 0, 10, 10], 0, False)]])
    assert match(dataset, [found([[0, 0, 10, 5]], [0.9])], dataset.difficult, 0.5).true_positive.tolist() == [True]


def test_of_two_objects_overlapped_alike_the_first_is_taken() -> None:
    dataset = dataset_of([[([0, 0, 10, 10], 0, True), ([0, 0, 10, 10], 0, False)]])
    matched = match(dataset, [found([[0, 0, 10, 10]], [0.9])], dataset.difficult, 0.5)
    assert matched.ignored.tolist() == [True]


def test_class_names_in_another_order_are_matched_by_name() -> None:
    dataset = dataset_of([[([0, 0, 10, 10], 1, False)]])
    one = Detections(np.array([[0, 0, 10, 10]]), np.array([0.9]), np.array([0]), ("dog", "cat"))
    matched = match(dataset, [one], dataset.difficult, 0.5)
    assert (matched.label.tolist(), matched.true_positive.tolist()) == ([1], [True])


def test_a_misspelt_class_is_an_error_and_never_a_zero() -> None:
    one = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0), ("cat", "doog"))
    dataset = dataset_of([[]])
    with pytest.raises(UserError, match=r"only in the data \['dog'\], only in the detections \['doog'\]"):
        match(dataset, [one], dataset.difficult, 0.5)


def test_another_number_of_images_is_an_error() -> None:
    dataset = dataset_of([[], []])
    with pytest.raises(UserError, match="detections of 1 images; expected 2"):
        match(dataset, [found([], [])], dataset.difficult, 0.5)


def test_nothing_at_all_is_matched_to_nothing() -> None:
    dataset = dataset_of([])
    assert len(match(dataset, [], dataset.difficult, 0.5).true_positive) == 0
    dataset = dataset_of([[], []])
    assert len(match(dataset, [found([], [])] * 2, dataset.difficult, 0.5).true_positive) == 0


def test_images_are_judged_by_f1_of_what_was_found_on_them():
    box, other = [0.0, 0, 10, 10], [50.0, 50, 90, 90]
    dataset = dataset_of([[(box, 0, False), (other, 0, False)], [(box, 0, True)], [], [(box, 0, False)]])
    detections = [found([box, [20, 20, 30, 30]], [0.9, 0.8]), found([box], [0.9]), found([], []), found([], [])]
    judged = image_f1(dataset, match(dataset, detections, dataset.difficult, 0.5), dataset.difficult)
    np.testing.assert_allclose(judged, [2 * 1 / (2 + 2), 1, 1, 0], atol=1e-6)
