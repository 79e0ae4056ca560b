"""Tests of lookonce.evaluation.coco: published numbers, and pycocotools on seeded random cases."""

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from conftest import SHARED, needs_shared
from lookonce.data.read import read_whole
from lookonce.errors import UserError
from lookonce.evaluation.coco import NAMES, score_coco
from lookonce.evaluation.result_files import read_detections
from matching_cases import dataset_of, found
from sets import crowded

SAMPLE = {  # shared/data/README.md
    "AP": 0.503647, "AP50": 0.696973, "AP75": 0.571667, "AP small": 0.593252, "AP medium": 0.557991,
    "AP large": 0.489363, "AR1": 0.386813, "AR10": 0.593680, "AR100": 0.595353, "AR small": 0.654764,
    "AR medium": 0.603130, "AR large": 0.553744,
}  # fmt: skip


def judged_by_pycocotools(dataset, detections):
    """The twelve numbers of the reference implementation, and the AP of each class."""
    area = (dataset.boxes[:, 2:] - dataset.boxes[:, :2]).astype(float).prod(1)
    area = area if dataset.area is None else np.where(dataset.area > 0, dataset.area, area)
    crowd = np.zeros(len(area)) if dataset.crowd is None else dataset.crowd
    rows = zip(dataset.image_of_box, dataset.classes, dataset.boxes.astype(float), area, crowd, strict=True)
    truth, given = COCO(), []
    truth.dataset = {
        "images": [{"id": n + 1} for n in range(len(dataset))],
        "categories": [{"id": n + 1} for n in range(len(dataset.labels))],
        "annotations": [{"id": n, "image_id": int(i) + 1, "category_id": int(c) + 1, "area": float(a),
                         "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]], "iscrowd": int(w)}
                        for n, (i, c, b, a, w) in enumerate(rows, 1)],
    }  # fmt: skip
    for i, one in enumerate(detections):
        given += [{"image_id": i + 1, "category_id": int(c) + 1, "score": float(s),
                   "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]]}
                  for c, s, b in zip(one.labels, one.scores, one.boxes.astype(float), strict=True)]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(given), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    precision = judge.eval["precision"][:, :, :, 0, 2]
    return judge.stats, [precision[:, :, c].mean() for c in range(len(dataset.labels))]


@needs_shared
def test_the_sample_scores_what_is_published():
    folder = SHARED / "data" / "metric_cases" / "coco_sample"
    whole = read_whole(folder / "gt.json", images_optional=True)
    detections = read_detections(folder / "dets.json", whole, None)
    assert sum(map(len, detections)) == 734
    told = score_coco(whole.dataset, detections)
    for name, expected in SAMPLE.items():
        assert told.numbers[name] == pytest.approx(expected, abs=1.1e-6), name


@needs_shared
def test_the_voc_images_score_what_is_published():
    """Those numbers take VOC's corners, from 1, for plain pixels: boxes a pixel narrower than the devkit's."""
    whole, later = read_whole(SHARED / "data" / "voc100"), np.array([1, 1, 0, 0], np.float32)
    dataset = replace(whole.dataset, boxes=whole.dataset.boxes + later)
    detections = read_detections(SHARED / "data" / "voc100" / "detections", whole, None)
    told = score_coco(dataset, [replace(one, boxes=one.boxes + later) for one in detections])
    assert [round(told.numbers[name], 3) for name in NAMES[:3]] == [0.347, 0.610, 0.354]


@pytest.mark.parametrize("seed", range(3))
def test_a_random_case_scores_as_by_pycocotools(seed):
    dataset, detections = crowded(seed)
    told = score_coco(dataset, detections)
    numbers, classes = judged_by_pycocotools(dataset, detections)
    assert list(told.numbers.values()) == pytest.approx(numbers, abs=1e-9)
    assert [ap for _, ap, _ in told.classes] == pytest.approx(classes, abs=1e-9)
    assert told.numbers["AR1"] < told.numbers["AR10"] < told.numbers["AR100"]
    assert len({round(told.numbers[name], 4) for name in NAMES[3:6]}) == 3


def test_crowds_and_areas_count_as_the_file_says():
    dataset, detections = crowded(0)
    told = score_coco(dataset, detections).numbers
    assert score_coco(replace(dataset, crowd=None), detections).numbers["AP"] != told["AP"]
    other = score_coco(replace(dataset, area=None), detections).numbers
    assert other["AP"] == told["AP"]
    assert other["AP small"] != told["AP small"]


def test_difficult_objects_are_objects_like_others():
    box = [0.0, 0, 10, 10]
    one = [found([box], [0.9])]
    hard, plain = (score_coco(dataset_of([[(box, 0, d), ([50.0, 50, 90, 90], 0, d)]]), one) for d in (True, False))
    assert hard.numbers == plain.numbers
    assert plain.numbers["AP"] == pytest.approx(51 / 101)  # recalls 0, .01 ... .5 are reached
    assert plain.numbers["AP medium"] == 0
    assert plain.numbers["AP large"] is None
    assert plain.classes == (("cat", plain.numbers["AP"], plain.numbers["AP50"]), ("dog", None, None))
    assert "no objects" in str(plain)


def test_nothing_at_all_scores_nothing():
    for dataset, given in ((dataset_of([]), []), (dataset_of([[]]), [found([], [])])):
        assert set(score_coco(dataset, given).numbers.values()) == {None}
    with pytest.raises(UserError, match="expected 1"):
        score_coco(dataset_of([[]]), [])
