"""Tests of lookonce.evaluation.tiling."""

import json

import pytest

from lookonce import Detector, read_dataset
from lookonce.data.tiles import Tiling
from lookonce.evaluation.average_precision import Rules, score
from lookonce.evaluation.evaluate import detect_all
from lookonce.evaluation.tiling import Seen, TilingScore, score_tiling, timed


def test_both_ways_are_scored_and_timed(run, squares):
    dataset, rules = read_dataset(squares, "test"), Rules(score_threshold=0.005)
    detector = Detector(run, precision="fp32", tile=(48, 96), overlap=0)
    found, skipped, seconds = timed(detector, dataset)
    assert (skipped, seconds > 0) == (0, True)
    one = score_tiling(detector, dataset, (found, 0.5), rules, coco=False)
    whole, _ = detect_all(Detector(run, precision="fp32"), dataset)
    assert one.whole.ap == score(dataset, whole, rules, bootstrap=0).mean_ap
    assert one.tiled.ap == score(dataset, found, rules, bootstrap=0).mean_ap
    assert one.tiled.milliseconds == 1000 * 0.5 / 8
    assert one.parts == 2 + 1
    assert sum(one.objects.values()) == len(dataset.boxes)


def test_a_tree_is_scored_by_the_classes_in_use(tree_run, squares):
    detector = Detector(tree_run, precision="fp32", tile=(64, 64))
    labels = detector.labels
    dataset = read_dataset(squares, "test")
    assert set(dataset.labels) < set(labels)
    from lookonce.data.class_tree import read_for

    [own] = read_for(labels, detector.about.tree, squares, ["test"], None)
    found, _, seconds = timed(detector, own)
    assert score_tiling(detector, own, (found, seconds), Rules(score_threshold=0.005), coco=False).tiled.ap > 0


def test_it_is_a_table_and_json():
    ways = Seen(0.5, {"small": None, "medium": 0.25, "large": 0.75}, 10), Seen(0.625, {"small": None}, 52.04)
    one = TilingScore(Tiling((640, 480)), 5.0, {"small": 0, "medium": 1200, "large": 3}, *ways)
    lines = str(one).splitlines()
    assert lines[0] == "tiles of 640 x 480 px, overlap 0.2; 5.0 parts an image, the whole among them"
    assert lines[1].split("  ")[-1].strip() == "ms an image"
    assert "medium (1,200)" in lines[1]
    assert lines[3].split() == ["whole", "images", "0.500", "-", "0.250", "0.750", "10.0"]
    assert lines[4].split()[-1] == "52.0"
    told = json.loads(json.dumps(one.to_json()))
    assert told["tiled"] == {"ap": 0.625, "by_size": {"small": None}, "milliseconds": 52.04}
    assert told["tile"] == [640, 480]
    assert told["parts"] == pytest.approx(5)
