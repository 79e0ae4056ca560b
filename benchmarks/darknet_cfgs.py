"""Every detector cfg of Darknet as a table: is it read, what its weights hold, does another reader compute the same.

    python benchmarks/darknet_cfgs.py [FOLDER ...]       # folders of .cfg files; without one: the networks below

Each network gets random weights and statistics of its own, is written as .cfg and .weights, read again (equal layers,
equal bytes), and runs on a small input beside OpenCV 4, the last that reads such files, with OpenCV's constant of batch
norm. Prints Markdown; ends with 1 where a network differs. OpenCV reads no [detection], [local], [batchnorm],
[Gaussian_yolo], and takes xnor=1 for an ordinary convolution: tests hold these to Darknet's own numbers or to a loop.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from lookonce import Network, load_darknet, save_darknet
from lookonce.errors import UserError
from lookonce.model import zoo
from lookonce.model.darknet.cfg import Cfg, read_cfg, write_cfg
from lookonce.model.darknet.files import read_text
from lookonce.model.darknet.weights import Header
from lookonce.model.heads import decode
from lookonce.model.layers import (
    Batchnorm,
    Connected,
    Conv,
    Crop,
    Detection,
    Dropout,
    Layer,
    Local,
    MaxPool,
    Route,
    Shortcut,
    Upsample,
    Yolo,
)
from lookonce.model.network import Sigma
from lookonce.model.sizes import Shape, fitted, heads_of, num_floats, shapes, stride

NINE_THOUSAND = ((0.77871, 1.14074), (3.00525, 4.31277), (9.22725, 9.61974))
TOLERANCE = 1e-4
"""Of boxes, as a fraction of the input or of their side, and of scores."""
Layers = tuple[Layer, ...]


def without_dropout(layers: Layers) -> Layers:
    return tuple(layer for layer in layers if not isinstance(layer, Dropout))


def plain(layers: Layers) -> Layers:
    """Without batch norm, as the first cfgs of YOLOv1."""
    return tuple(replace(layer, batch_normalize=False) if isinstance(layer, Conv) else layer for layer in layers)


def binary(layers: Layers, indices: tuple[int, ...]) -> Layers:
    return tuple(replace(layer, xnor=True) if i in indices and isinstance(layer, Conv) else layer
                 for i, layer in enumerate(layers))  # fmt: skip


def yolo_small() -> Layers:
    """Three connected layers behind the convolutions, on a crop of the image."""
    *trunk, _, _, connected, head = plain(zoo.yolov1(20, boxes=2))
    layers = (Crop(448, 448), *trunk, Connected(512), Connected(4096), Dropout(), replace(connected, inputs=0), head)
    return fitted(tuple(replace(layer, output=1470) if layer is layers[-2] else layer for layer in layers),
                  Shape(3, 448, 448))  # fmt: skip


def xyolo() -> Layers:
    """YOLOv1-tiny with binary convolutions, each behind a batch norm of its own."""
    first, pool, *rest = zoo.yolov1_tiny(20)
    found: list[Layer] = [first, pool]
    for layer in rest:
        binary = isinstance(layer, Conv)
        found += [Batchnorm(), replace(layer, batch_normalize=False, xnor=True)] if binary else [layer]  # type: ignore[type-var, call-arg]
    return tuple(found)


def yolov3_spp(classes: int) -> Layers:
    """YOLOv3 with pools of three sizes in the neck of its coarse head."""
    layers = list(zoo.yolov3(classes, zoo.YOLOV3_ANCHORS))
    neck = next(i for i, layer in enumerate(layers) if isinstance(layer, Yolo)) - 4  # after its third convolution
    pools = (MaxPool(5, 1), Route((-2,)), MaxPool(9, 1), Route((-4,)), MaxPool(13, 1), Route((-1, -3, -5, -6)), Conv(512, 1))
    return (*layers[:neck], *pools, *layers[neck:])


def tiny_more(classes: int, version: int) -> Layers:
    """The tiny networks of v3 and v4 with a third head, of stride 8."""
    two = zoo.yolov3_tiny if version == 3 else zoo.yolov4_tiny
    layers, skip = list(two(classes, zoo.YOLOV3_ANCHORS)), 6 if version == 3 else 15
    anchors = zoo.in_pixels(zoo.YOLOV3_ANCHORS)
    for head, mask in zip(heads_of(tuple(layers)), ((6, 7, 8), (3, 4, 5)), strict=True):
        layers[head.index] = yolo = replace(head.layer, all_anchors=anchors, mask=mask)  # type: ignore[call-arg]
        layers[head.index - 1] = replace(layers[head.index - 1], filters=yolo.channels)  # type: ignore[call-arg]
    third = zoo.yolo_head(replace(yolo, mask=(0, 1, 2)))  # type: ignore[arg-type]
    return (*layers, Route((-3,)), Conv(64, 1), Upsample(), Route((-1, skip)), Conv(128), *third)


def tiny_prn(classes: int) -> Layers:
    """YOLOv3-tiny with shortcuts in place of the last route."""
    *_, coarse, _ = [x for x in zoo.yolov3_tiny(classes, zoo.TINY_ANCHORS) if isinstance(x, Yolo)] + [None]
    trunk = zoo.yolov3_tiny(classes, zoo.TINY_ANCHORS)[:13]
    fine, coarse = (zoo.yolo_head(Yolo(zoo.in_pixels(zoo.TINY_ANCHORS), mask, classes, ignore_thresh=0.7))
                    for mask in ((0, 1, 2), (3, 4, 5)))  # fmt: skip
    up = (Route((-4,)), Conv(128, 1), Upsample(), Shortcut(8), Conv(128), Shortcut(-3), Shortcut(8))
    return (*trunk, Conv(256, 1), Conv(256), Shortcut(-2), *coarse, *up, *fine)
