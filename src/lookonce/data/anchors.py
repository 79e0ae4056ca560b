"""Anchors for the boxes of a data set: clustering, recall by object size, and anchor collisions.

Sizes are those at the network's input: the side of an object is the square root of its area there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from lookonce.choices import choose
from lookonce.data.dataset import Dataset
from lookonce.errors import UserError
from lookonce.model.anchors import RECALL_IOU, Anchors, Centre, cluster
from lookonce.model.boxes import shape_iou
from lookonce.model.heads import encode
from lookonce.model.heads.region import Targets
from lookonce.model.layers import PlacedHead, Yolo
from lookonce.model.losses import Objects
from lookonce.model.resize import ResizeMode, fitted, geometry
from lookonce.model.zoo import STRIDE, AnchorSizes

SIZES = (("small", 0.0, 32.0), ("medium", 32.0, 96.0), ("large", 96.0, math.inf))
"""Sides at the input, pixels: below a cell of YOLOv2, up to three cells, above. Source of the limits: COCO."""


@dataclass(frozen=True)
class Coverage:
    """How well the anchors of a network cover the objects of one size."""

    size: str
    objects: int
    recall: float | None
    """Ratio of objects with an anchor of shape IoU >= .5; None: no objects, or no anchors (YOLOv1)."""
    collisions: float | None
    """Ratio of objects in an anchor collision; None: no objects."""


class Collisions(NamedTuple):
    """Objects that no head learns."""

    objects: NDArray[np.int64]
    """[L] index in the data set: another object of the image takes their cell and anchor (of a detection layer the
    cell) in every head in which they have one."""
    winners: NDArray[np.int64]
    """[L] index of that object, in the first such head."""
    anchors: NDArray[np.int64]
    """[L] index of that anchor in every_anchor(); 0 for a detection layer, which has none."""
    unassigned: NDArray[np.int64]
    """[U] index in the data set: objects whose best anchor is in the mask of no head."""


def every_anchor(heads: Sequence[PlacedHead]) -> tuple[list[tuple[float, float]], list[list[int]]]:
    """Return all anchors (w, h) of a network, input pixels, and for each head which of them it has, in its order.

    Yolo layers share one list, also of anchors that no head has; a region layer has a list of its own.
    """
    shapes: list[tuple[float, float]] = []
    starts: dict[AnchorSizes, int] = {}
    own: list[list[int]] = []
    for head in heads:
        start, listed, mask = len(shapes), tuple(head.anchors_px), tuple(range(len(head.layer.anchors)))
        if isinstance(head.layer, Yolo):
            listed, mask = head.layer.all_anchors, head.layer.mask
            start = starts.setdefault(listed, start)
        shapes += listed if start == len(shapes) else ()
        own.append([start + index for index in mask])
    return shapes, own


def coverage(
    dataset: Dataset, heads: Sequence[PlacedHead], input_size: tuple[int, int], mode: ResizeMode
) -> tuple[Coverage, ...]:
    """Return how well the anchors of all heads cover a data set's objects as the network sees them: all, then by size.

    input_size: (W, H) of the input, pixels.
    """
    boxes = input_boxes(dataset, input_size, mode)
    wh = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3)
    anchors = np.array([shape for head in heads for shape in head.anchors_px], np.float32)
    recalled = shape_iou(wh[:, None], anchors).max(1) >= RECALL_IOU if len(anchors) else None
    collides = np.zeros(len(wh), np.bool_)
    collides[collisions(dataset, heads, input_size, mode).objects] = True
    side = np.sqrt(wh.prod(1))
    found = []
    for size, low, high in (("all", 0.0, math.inf), *SIZES):
        these = (side >= low) & (side < high)
        recall, lost = (None if each is None or not these.any() else float(each[these].mean())
                        for each in (recalled, collides))  # fmt: skip
        found.append(Coverage(size, int(these.sum()), recall, lost))
    return tuple(found)


def collisions(
    dataset: Dataset, heads: Sequence[PlacedHead], input_size: tuple[int, int], mode: ResizeMode
) -> Collisions:
    """Return the objects of a data set that are a target of no head, without augmentation.

    Difficult objects do not count. Arguments as for coverage.
    """
    targets = encoded(dataset, heads, input_size, mode)
    wins, ignore = torch.stack([each.wins for each in targets]).any(0), targets[0].ignore
    winner = torch.stack([each.winner for each in targets])  # [heads, N]
    anchor = torch.stack([torch.tensor(own or [0])[each.anchor] for own, each in
                          zip(every_anchor(heads)[1], targets, strict=True)])  # fmt: skip
    first = (winner >= 0).to(torch.uint8).argmax(0)  # [N] the first head that has an anchor for it
    taken = (winner >= 0).any(0)
    lost = (~wins & ~ignore & taken).nonzero()[:, 0]  # [L]
    unassigned = (~wins & ~ignore & ~taken).nonzero()[:, 0]
    found = lost, winner[first[lost], lost], anchor[first[lost], lost], unassigned
    return Collisions(*(each.numpy() for each in found))


def encoded(
    dataset: Dataset, heads: Sequence[PlacedHead], input_size: tuple[int, int], mode: ResizeMode
) -> list[Targets]:
    """Return the training targets of every object of a data set at each head. Arguments as for coverage."""
    boxes = input_boxes(dataset, input_size, mode)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1e-3)  # a box with no area must have a shape
    image = dataset.image_of_box.astype(np.int64)
    objects = Objects(*map(torch.from_numpy, (boxes, dataset.classes, image, dataset.difficult)))
    return encode(objects, heads, input_size)


def input_scale(dataset: Dataset, input_size: tuple[int, int], mode: ResizeMode) -> NDArray[np.float64]:
    """Return input pixels per image pixel [M], the geometric mean of both directions."""
    return np.asarray(np.sqrt(geometry(dataset.sizes, input_size, mode)[:, :2].prod(-1)))


def input_boxes(dataset: Dataset, input_size: tuple[int, int], mode: ResizeMode) -> NDArray[np.float32]:
    """Return the boxes [N, 4] in input pixels, as resize.boxes_to_input does for one image."""
    maps = geometry(dataset.sizes, input_size, mode)[dataset.image_of_box]  # [N, 4]
    return np.asarray(dataset.boxes * maps[:, [0, 1, 0, 1]] + maps[:, [2, 3, 2, 3]], np.float32)


def cluster_anchors(
    dataset: Dataset,
    k: int = 5,
    *,
    size: int | tuple[int, int] = 416,
    resize: ResizeMode = "letterbox_antialias",
    centre: Centre = "mean",
    stride: int = STRIDE,
    restarts: int = 20,
    seed: int = 0,
) -> Anchors:
    """Cluster k anchors for the boxes of a data set, difficult ones included. Equal seeds give equal anchors.

    Args:
        dataset: labelled images.
        k: number of anchors; there are fewer if the boxes have fewer distinct shapes.
        size: size of the network's input, pixels: a side or (width, height).
        resize: how images are resized to the input.
        centre: centre of a cluster: mean or median.
        stride: input pixels a cell.
        restarts: number of initial guesses; the best mean IoU wins.
        seed: seed of the initial guesses.
    Raises:
        UserError: no boxes, or an invalid setting.
    """
    wh = shapes_in_cells(dataset, size, resize, stride)
    return cluster(wh, k, centre, restarts, seed)


def shapes_in_cells(
    dataset: Dataset,
    size: int | tuple[int, int] = 416,
    resize: ResizeMode = "letterbox_antialias",
    stride: int = STRIDE,
) -> NDArray[np.float64]:
    """Return (w, h) of every box of a data set as the network sees it: [N, 2] cells.

    Args:
        size: size of the network's input, pixels: a side or (width, height), multiples of the stride.
    Raises:
        UserError: no boxes; a size that is not a multiple of the stride.
    """
    input_size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    if stride < 1 or any(side < stride or side % stride for side in input_size):
        raise UserError(
            f"size: {input_size[0]} x {input_size[1]}; expected positive multiples of the stride, {stride} px"
        )
    resize = choose(resize, get_args(ResizeMode), "resize")
    if not len(dataset.boxes):
        raise UserError(
            f"{dataset.root}: no boxes on its {len(dataset)} images, so there is nothing to cluster; "
            "expected at least one: check the split and the labels"
        )
    scale = fitted(dataset.sizes.astype(np.int64), input_size, resize) / dataset.sizes  # [M, 2]
    boxes = dataset.boxes.astype(np.float64)
    return (boxes[:, 2:] - boxes[:, :2]) * scale[dataset.image_of_box] / stride
