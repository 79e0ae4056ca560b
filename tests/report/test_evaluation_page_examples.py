"""Mirrors src/lookonce/view/examples.py."""

import numpy as np
import pytest

from lookonce import read_dataset
from lookonce.evaluation.average_precision import Rules
from lookonce.evaluation.evaluate import analyse
from lookonce.model.detections import Detections
from lookonce.report.evaluation_page import SHOWN, SIDE, choose_examples, window
from sets import write_squares


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Squares; of every third image nothing is found, on every third something that is not there."""
    dataset = read_dataset(write_squares(tmp_path_factory.mktemp("s") / "s", {"test": 20}), "test")
    detections = []
    for n, record in enumerate(dataset.records):
        boxes = record.boxes if n % 3 else np.zeros((0, 4), np.float32)
        scores = np.linspace(0.9, 0.7, len(boxes))
        labels = record.labels if n % 3 else np.zeros(0)
        if n % 3 == 1:
            boxes = np.vstack((boxes, [[0, 0, 8, 8]]))
            scores, labels = np.append(scores, 0.95), np.append(labels, 1)
        detections.append(Detections(boxes, scores, labels, dataset.labels))
    return dataset, analyse(dataset, detections, Rules(), bootstrap=0)


def test_every_sort_is_shown_and_said(scored):
    dataset, analysis = scored
    told = choose_examples(dataset, analysis)
    assert len(told.hits) == SHOWN
    assert len(told.misses) == sum(len(dataset.records[n].boxes) for n in range(0, 20, 3)) <= SHOWN
    assert 0 < len(told.alarms) <= SHOWN
    assert all(": background, test" in one.caption or ": both, test" in one.caption for one in told.alarms)
    missed = {f"test{n:03}.png" for n in range(0, 20, 3)}
    assert all(one.caption.rpartition(", ")[2] in missed for one in told.misses)
    assert {one.caption.split()[0] for one in told.hits} == set(dataset.labels)  # the classes in turn
    for one in (*told.hits, *told.misses, *told.alarms):
        assert one.there.size == one.found.size
        assert max(one.there.size) == SIDE


def test_what_is_there_and_what_was_found_are_drawn_apart(scored):
    dataset, analysis = scored
    told = choose_examples(dataset, analysis)
    assert any(np.any(np.asarray(one.there) != np.asarray(one.found)) for one in told.misses)


def test_images_that_do_not_open_are_left_out(tmp_path):
    root = write_squares(tmp_path / "s", {"test": 3})
    dataset = read_dataset(root, "test")
    for file in (root / "JPEGImages").iterdir():
        file.write_text("text")
    nothing = [Detections([], [], [], dataset.labels)] * 3
    told = choose_examples(dataset, analyse(dataset, nothing, Rules(), bootstrap=0))
    assert told.hits == told.misses == told.alarms == []


@pytest.mark.parametrize("seed", range(20))
def test_a_window_holds_its_box_and_stays_in_the_image(seed):
    draw = np.random.default_rng(seed)
    size = int(draw.integers(20, 500)), int(draw.integers(20, 500))
    corner = draw.uniform(0, np.array(size) - 2)
    box = np.concatenate((corner, corner + draw.uniform(1, np.array(size) - corner)))
    left, top, right, bottom = window(box, size)
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]
    assert left <= box[0] + 1
    assert top <= box[1] + 1
    assert right >= box[2] - 1
    assert bottom >= box[3] - 1
    beyond = window(box + 1000, size)  # a detection may lie outside
    assert 0 <= beyond[0] < beyond[2] <= size[0]
