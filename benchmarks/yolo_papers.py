"""The networks of four papers on the demo's digits: YOLOv1, v2, v3 and v4 in their tiny forms, trained from scratch.

All have half of the filters of the published networks, 128 x 128 px of input, the same images in the same order, the
same number of steps, and the settings of the demo. YOLOv1-tiny has one pool less here: its cells are then those of
YOLOv2, 32 px wide, so that the papers differ by what they say and not by the number of cells.

python benchmarks/yolo_papers.py [--networks v1 v2 v3 v4] [--steps 1000] [--seed 0]: some 8 minutes of one core.
Prints mAP@0.5 on the 200 test pages, that of small and large digits, and the minutes of processor time in training.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from lookonce import evaluate, train
from lookonce.commands.demo import DIGITS
from lookonce.data.digits import write_digits
from lookonce.model.darknet.cfg import Cfg, write_cfg
from lookonce.model.layers import Connected, Conv, Detection, Layer, MaxPool, Region, Yolo
from lookonce.model.sizes import Shape, fitted, num_floats, num_operations
from lookonce.model.zoo import VOC_ANCHORS, YOLOV3_ANCHORS, yolov2_tiny, yolov3_tiny, yolov4_tiny

SIDE, CLASSES, STRIDE = 128, 10, 32


def yolov1() -> tuple[Layer, ...]:
    """Return YOLOv1-tiny with five pools in place of six: cells of 32 px."""
    grow = tuple(layer for filters in (16, 32, 64, 128, 256) for layer in (Conv(filters), MaxPool()))
    head = Detection(CLASSES, SIDE // STRIDE, 2, sqrt=True, rescore=True, noobject_scale=0.5, coord_scale=5)
    return (*grow, Conv(512), Conv(1024), Conv(256), Connected(head.channels, "linear"), head)


NETWORKS = {
    "v1": yolov1(),
    "v2": yolov2_tiny(CLASSES, VOC_ANCHORS[:3]),
    "v3": yolov3_tiny(CLASSES, YOLOV3_ANCHORS[:6]),
    "v4": yolov4_tiny(CLASSES, YOLOV3_ANCHORS[:6]),
}


def narrower(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Return layers with half of the filters, except in the convolutions that a head reads."""
    of_head = {n - 1 for n, layer in enumerate(layers) if isinstance(layer, Region | Yolo)}
    return tuple(replace(layer, filters=layer.filters // 2) if isinstance(layer, Conv) and n not in of_head else layer
                 for n, layer in enumerate(layers))  # fmt: skip


def main() -> None:
    """Train and score each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="the digits, if the demo made them already")
    given = parser.parse_args()
    logging.getLogger("lookonce").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = write_digits(given.data or root / "digits")
        for name in given.networks:
            layers = fitted(narrower(NETWORKS[name]), Shape(3, SIDE, SIDE))
            (root / f"{name}.cfg").write_text(write_cfg(Cfg(layers, SIDE, SIDE)))
            began = time.process_time()
            how = {**DIGITS, "epochs": None, "anchors": 3 if name in ("v1", "v2") else 6}
            run = train(data, network=root / f"{name}.cfg", weights="none", steps=given.steps, seed=given.seed,
                        out=root / "runs", **how)  # fmt: skip
            minutes = (time.process_time() - began) / 60
            report = evaluate(run, data, split="test")
            print(f"{name}: {num_floats(layers) / 1e6:.2f} million parameters, "
                  f"{num_operations(layers, (SIDE, SIDE)) / 1e9:.2f} GFLOP; mAP@0.5 {report.mean_ap:.3f}; "
                  f"{minutes:.1f} minutes of processor time", flush=True)  # fmt: skip
            print(report)


if __name__ == "__main__":
    main()
