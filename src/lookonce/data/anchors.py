"""Anchors against the boxes of a data set: clustering, how many objects an anchor fits, and anchor collisions.

Sizes are those at the network's input: an object's side is the square root of its area there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from lookonce.choices import choose
from lookonce.data.dataset import Dataset
from lookonce.errors import UserError
from lookonce.model.anchors import STRIDE, Anchors, Centre, cluster, measure
from lookonce.model.boxes import shape_iou
from lookonce.model.heads.region import Targets, encode
from lookonce.model.resize import ResizeMode, fitted, geometry

FITS = 0.5
"""Least shape IoU of an anchor that fits an object."""
SIZES = (("small", 0.0, 32.0), ("medium", 32.0, 96.0), ("large", 96.0, math.inf))
"""Sides at the input, pixels: below a cell of YOLOv2, up to three cells, above. Source of the limits: COCO."""


@dataclass(frozen=True)
class Coverage:
    """How well the anchors cover the objects of one size."""

    size: str
    objects: int
    fit: float | None
    """Ratio of objects that an anchor fits; None: no objects."""
    lost: float | None
    """Ratio of objects in a collision: another object of the image takes their cell and anchor; None: no objects."""


def coverage(dataset: Dataset, anchors: tuple[tuple[float, float], ...], input_size: tuple[int, int],
             mode: ResizeMode, stride: int = 32) -> tuple[Coverage, ...]:  # fmt: skip
    """Return how well anchors (cells) cover a data set's objects as the network sees them: all, then by size.

    input_size: (W, H) of the input, pixels; stride: input pixels per cell.
    """
    boxes = torch.from_numpy(input_boxes(dataset, input_size, mode))
    wh = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)
    fit = (shape_iou(wh[:, None] / stride, torch.tensor(anchors)).amax(1) >= FITS).numpy()
    lost = is_lost(encoded(dataset, anchors, input_size, mode, stride))
    side = wh.prod(1).sqrt().numpy()
    found = []
    for size, low, high in (("all", 0.0, math.inf), *SIZES):
        these = (side >= low) & (side < high)
        some = bool(these.any())
        found.append(Coverage(size, int(these.sum()), float(fit[these].mean()) if some else None,
                              float(lost[these].mean()) if some else None))  # fmt: skip
    return tuple(found)


def encoded(dataset: Dataset, anchors: tuple[tuple[float, float], ...], input_size: tuple[int, int],
            mode: ResizeMode, stride: int = 32) -> Targets:  # fmt: skip
    """Return the training targets of every object [N] of a data set, without augmentation. Arguments as coverage."""
    boxes = input_boxes(dataset, input_size, mode)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1e-3)  # a box with no area must have a shape
    return encode(
        torch.from_numpy(boxes), torch.from_numpy(dataset.classes), torch.from_numpy(dataset.image_of_box).long(),
        torch.tensor(anchors), (input_size[1] // stride, input_size[0] // stride), stride,
        torch.from_numpy(dataset.difficult),
    )  # fmt: skip


def is_lost(targets: Targets) -> NDArray[np.bool_]:
    """Return which objects [N] count as ground truth and lose their cell and anchor to a later one."""
    return np.asarray((~targets.wins & ~targets.ignore).numpy())


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
    """Find k anchors for the boxes of a data set. Difficult boxes count, too; equal seeds give equal anchors.

    Args:
        dataset: labelled images.
        k: number of anchors; there are fewer if the boxes have fewer distinct shapes.
        size: size of the network's input, px: a side or (width, height).
        resize: how images are resized to the input.
        centre: centre of a cluster: mean or median.
        stride: input px per cell.
        restarts: number of first guesses; the best mean IoU wins.
        seed: seed of the first guesses.
    Raises:
        UserError: no boxes, or an invalid setting.
    """
    wh = shapes_in_cells(dataset, size, resize, stride)
    return measure(wh, cluster(wh, k, centre, restarts, seed)[0])


def shapes_in_cells(
    dataset: Dataset,
    size: int | tuple[int, int] = 416,
    resize: ResizeMode = "letterbox_antialias",
    stride: int = STRIDE,
) -> NDArray[np.float64]:
    """Return (w, h) of every box of a data set as the network sees it: [N, 2] cells.

    Args:
        size: size of the network's input, px: a side or (width, height), multiples of the stride.
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
