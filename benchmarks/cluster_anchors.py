"""How long the clustering of 40,000 box shapes takes, k = 1 to 10 together, 20 restarts each: prints seconds.

The shapes are drawn from the clusters of yolov2-voc.cfg's anchors, with a wide spread, in whole pixels of a
416 input: about what the 40,000 objects of PASCAL VOC 2007 + 2012 look like.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from lookonce.model.anchors import Centre, cluster
from lookonce.model.zoo import VOC_ANCHORS

BOXES = 40_000


def shapes(seed: int = 0) -> NDArray[np.float64]:
    """[BOXES, 2] (w, h) in cells."""
    rng = np.random.default_rng(seed)
    middle = np.array(VOC_ANCHORS)[rng.integers(len(VOC_ANCHORS), size=BOXES)]
    pixels = middle * 32 * np.exp(rng.normal(0, 0.4, middle.shape))
    return np.round(pixels).clip(2, 416) / 32


def main() -> None:
    wh = shapes()
    rules: tuple[Centre, ...] = ("mean", "median")
    for rule in rules:
        began = time.perf_counter()
        found = [cluster(wh, k, rule)[1] for k in range(1, 11)]
        print(f"{rule}: {time.perf_counter() - began:.1f} s for {BOXES} boxes, k = 1 to 10; mean IoU", end=" ")
        print(" ".join(f"{iou:.3f}" for iou in found))


if __name__ == "__main__":
    main()
