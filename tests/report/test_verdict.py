"""The verdict: what it says of a detector whose faults are known."""

import numpy as np
import pytest

from lookonce import Detections, read_dataset
from lookonce.evaluation.average_precision import Rules
from lookonce.evaluation.evaluate import analyse
from lookonce.report.verdict import verdict
from sets import write_squares


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return read_dataset(write_squares(tmp_path_factory.mktemp("s") / "s", {"test": 20}), "test")


def said(dataset, change, input_size=None):
    """The verdict on the ground truth after change(boxes, labels) of each image."""
    found = []
    for record in dataset.records:
        boxes, labels = change(record.boxes.copy(), record.labels.copy())
        found.append(Detections(boxes, np.full(len(boxes), 0.9), labels, dataset.labels))
    return verdict(dataset, analyse(dataset, found, Rules(), bootstrap=0), input_size)


def test_a_perfect_detector_is_good_at_everything(dataset):
    assert said(dataset, lambda boxes, labels: (boxes, labels)) == "Good at all 2 classes"


def test_moved_boxes_lose_to_box_placement(dataset):
    def moved(boxes, labels):
        width = boxes[:, 2] - boxes[:, 0]
        return boxes + 0.45 * width[:, None] * np.array([1, 0, 1, 0], np.float32) * (labels == 1)[:, None], labels

    text = said(dataset, moved)
    assert text.startswith(f"Good at {dataset.labels[0]}; loses 0.500 mAP to box placement; weakest is")


def test_a_class_that_is_missed_and_small_is_named_with_a_larger_size(dataset):
    def without(boxes, labels):
        return boxes[labels == 0], labels[labels == 0]

    weak = dataset.labels[1]
    assert f"; weakest is {weak} with an AP of 0.000" in said(dataset, without)
    text = said(dataset, without, (64, 64))  # squares of 28 to 60 px of 96
    assert f"; {weak} objects are small (median side " in text
    assert text.endswith("px at the input): try --size 96")
    assert "missed objects" in text


def test_nothing_found_and_nothing_there_are_said(dataset):
    assert said(dataset, lambda boxes, labels: (boxes[:0], labels[:0])).startswith("Finds none of the objects")
    empty = dataset.select(np.zeros(len(dataset), bool))
    assert verdict(empty, analyse(empty, [], Rules(), bootstrap=0)).startswith("No objects")
