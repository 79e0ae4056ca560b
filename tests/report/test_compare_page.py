"""The page of two runs: which images it shows, and which settings it says differ."""

import numpy as np
import pytest

from browser import needs_browser, opened
from lookonce import Detections, read_dataset
from lookonce.evaluation.average_precision import Rules
from lookonce.evaluation.compare import changes
from lookonce.evaluation.evaluate import analyse
from lookonce.report.compare_page import (
    SHOWN,
    Side,
    differing_images,
    differing_settings,
    write_compare_page,
)


def found_on(dataset, images):
    """A perfect analysis of these images, nothing on the others."""
    found = []
    for n, record in enumerate(dataset.records):
        keep = slice(None) if n in images else slice(0)
        scores = np.full(len(record.boxes), 0.9)
        found.append(Detections(record.boxes[keep], scores[keep], record.labels[keep], dataset.labels))
    return analyse(dataset, found, Rules(), bootstrap=20)


@pytest.fixture(scope="module")
def pair(squares):
    dataset = read_dataset(squares, "train")
    return dataset, found_on(dataset, range(20)), found_on(dataset, range(10, 24))


def test_images_are_those_that_one_run_finds_and_the_other_does_not(pair):
    dataset, a, b = pair
    galleries = dict(differing_images(dataset, a, b))
    names = {heading: [view.caption.split(", ")[1] for view, _ in pairs] for heading, pairs in galleries.items()}
    assert set(names) == {"A is better", "B is better"}
    assert set(names["B is better"]) == {dataset.records[n].path.name for n in range(20, 24)}
    assert set(names["A is better"]) < {dataset.records[n].path.name for n in range(10)}
    assert len(names["A is better"]) == SHOWN
    one, other = galleries["B is better"][0]
    assert (one.caption[:10], other.caption[:10]) == ("A: F1 0.00", "B: F1 1.00")


def test_only_settings_that_differ_are_listed():
    a = {"epochs": 3, "batch_size": 8, "augment": {"flip": 0.5, "zoom": [0.8, 1.2]}, "labels": None}
    b = {"epochs": 3, "batch_size": 16, "augment": {"flip": 0.0, "zoom": [0.8, 1.2]}, "labels": ["cat"], "new": 1}
    assert differing_settings(a, b) == [
        ("batch-size", "8", "16"), ("augment", "flip 0.5, zoom 0.8, 1.2", "flip 0.0, zoom 0.8, 1.2"),
        ("labels", "none", "cat"), ("new", "none", "1"),
    ]  # fmt: skip
    assert differing_settings(a, {}) == []


@needs_browser
def test_a_browser_opens_it_and_a_run_without_files_or_with_damaged_ones_has_a_page(pair, tmp_path):
    dataset, a, b = pair
    damaged = tmp_path / "<run>"
    damaged.mkdir()
    (damaged / "config.yaml").write_bytes(b"\xff[")
    (damaged / "metrics.csv").write_bytes(b"epoch,step\n\xff,1e400\n")
    sides = Side.of(damaged, a), Side.of(tmp_path / "none.onnx", b)
    told = changes(a.metrics, b.metrics)
    page = write_compare_page(tmp_path / "c.html", dataset, sides, told, "No <b>clear</b> difference")
    text, errors, requests = opened(page, tmp_path)
    assert errors == requests == []
    assert "A: &lt;run&gt;, B: none.onnx" in text
    assert "No &lt;b&gt;clear&lt;/b&gt; difference." in text
    assert "Settings that differ" not in text
    assert text.count('class="interval"') == 3
