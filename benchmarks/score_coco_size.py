"""Seconds of all metrics on a set of COCO's size: 36,000 objects and 500,000 detections on 5,000 images, 80 classes.

Synthetic and seeded: 40 % of the detections lie about an object, mostly of its class; the rest anywhere. The COCO part
is timed beside pycocotools in the same run, both without loading. Wall and processor time, since a machine may be busy.
Usage: python benchmarks/score_coco_size.py [--profile]
"""

import contextlib
import cProfile
import io
import os
import pstats
import sys
import time
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lookonce.data.dataset import Dataset
from lookonce.evaluation.average_precision import Rules, ignored_objects, score_matched
from lookonce.evaluation.coco import NAMES, index_boxes, judge, score_coco
from lookonce.evaluation.confusion import calibrate, confuse
from lookonce.evaluation.errors import find_errors
from lookonce.evaluation.evaluate import analyse
from lookonce.evaluation.matching import match
from lookonce.model.detections import Detections

IMAGES, OBJECTS, DETECTIONS, CLASSES, SIDE = 5_000, 36_000, 500_000, 80, 640


def make(seed: int = 0) -> tuple[Dataset, list[Detections]]:
    draw = np.random.default_rng(seed)
    image, label = np.sort(draw.integers(0, IMAGES, OBJECTS)), draw.integers(0, CLASSES, OBJECTS)
    wh = np.exp(draw.uniform(np.log(8), np.log(400), (OBJECTS, 2)))
    xy = draw.uniform(0, 1, (OBJECTS, 2)) * (SIDE - wh)
    near, source = draw.random(DETECTIONS) < 0.4, draw.integers(0, OBJECTS, DETECTIONS)
    on = np.where(near, image[source], draw.integers(0, IMAGES, DETECTIONS))
    same = near & (draw.random(DETECTIONS) < 0.85)
    of = np.where(same, label[source], draw.integers(0, CLASSES, DETECTIONS))
    corner = xy[source] + draw.normal(0, 0.12, (DETECTIONS, 2)) * wh[source]
    boxes = np.hstack((corner, corner + wh[source] * np.exp(draw.normal(0, 0.15, (DETECTIONS, 2)))))
    scores = np.where(near, draw.beta(2, 2, DETECTIONS), draw.beta(1, 6, DETECTIONS))
    names = tuple(f"class{n}" for n in range(CLASSES))
    dataset = Dataset(
        "synthetic", Path("nowhere"), names, np.array([f"{n}.jpg" for n in range(IMAGES)]),
        np.full((IMAGES, 2), SIDE, np.int32), np.searchsorted(image, np.arange(IMAGES + 1)).astype(np.int64),
        np.hstack((xy, xy + wh)).astype(np.float32), label, np.zeros(OBJECTS, bool),
    )  # fmt: skip
    order = np.argsort(on, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(on, minlength=IMAGES))[:-1])
    return dataset, [Detections(boxes[rows], scores[rows], of[rows], names) for rows in parts]


def timed(name: str, call, *arguments, **options):
    wall, processor = time.perf_counter(), time.process_time()
    result = call(*arguments, **options)
    seconds = time.perf_counter() - wall, time.process_time() - processor
    print(f"{name:42} {seconds[0]:7.2f} s {seconds[1]:7.2f} s processor", flush=True)
    return result, *seconds


def by_pycocotools(truth: COCO, given: COCO) -> np.ndarray:
    reference = COCOeval(truth, given, "bbox")
    reference.evaluate()
    reference.accumulate()
    reference.summarize()
    return reference.stats


def main() -> None:
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    (dataset, detections), *_ = timed("(made up)", make)
    if "--profile" in sys.argv:
        profile = cProfile.Profile()
        profile.runcall(analyse, dataset, detections, Rules())
        profile.runcall(score_coco, dataset, detections)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        return
    rules, skip = Rules(), ignored_objects(dataset, Rules())
    found, *_ = timed("match", match, dataset, detections, skip, 0.5)
    timed("AP, P, R, F1, 1000 resamples", score_matched, dataset, found, rules, bootstrap=1000)
    timed("errors by kind and cost", find_errors, dataset, found, skip, rules)
    timed("confusion", confuse, dataset, found, skip, 0.5)
    timed("calibration", calibrate, found.score, found.true_positive)
    _, wall, processor = timed("all of these, and AP by size", analyse, dataset, detections, rules)
    told, coco_wall, coco_processor = timed("COCO's twelve numbers, loading included", score_coco, dataset, detections)
    print(f"ALL METRICS {wall + coco_wall:.2f} s, {processor + coco_processor:.2f} s processor", flush=True)

    truth, given = index_boxes(dataset, detections)
    _, wall, processor = timed("COCO part, loading excluded", judge, truth, given)
    both = [COCO(), COCO()]
    with contextlib.redirect_stdout(io.StringIO()):
        for mine, theirs in zip(both, (truth, given), strict=True):
            mine.dataset = theirs.dataset
            mine.createIndex()
    silent = contextlib.redirect_stdout(io.StringIO())
    began = time.perf_counter(), time.process_time()
    with silent:
        reference = by_pycocotools(*both)
    slow = time.perf_counter() - began[0], time.process_time() - began[1]
    print(f"{'pycocotools, loading excluded':42} {slow[0]:7.2f} s {slow[1]:7.2f} s processor")
    print(f"COCO part {slow[0] / wall:.1f} times faster by wall, {slow[1] / processor:.1f} by processor")
    print("largest difference of the twelve:", max(abs(told.numbers[n] - r) for n, r in zip(NAMES, reference)))


if __name__ == "__main__":
    main()
