"""Inputs, IoU terms and the prior loss that the losses of all heads share.

Each head's own losses are in model/heads/. Letters: B images, A anchors, H x W cells, N objects, K objects among them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lookonce.model.boxes import cxcywh_to_xyxy, iou
from lookonce.model.tree import Tree

PRIOR_SCALE = 0.01
"""Weight of the prior loss. Source: darknet/src/region_layer.c, delta_region_box(..., .01, ...)."""
MAX_CENTRE, MIN_SIZE, MAX_SIZE = 1e8, 1e-6, 1e40
"""Limits of centres and sizes for CIoU, cells: their squares fit into double precision."""
MAX_SIZE_OF_32 = 1e18
"""The same where there is single precision only."""


class Objects(NamedTuple):
    """The labelled objects of a batch, on the host."""

    boxes: Tensor
    """[N, 4] xyxy, input pixels, positive width and height."""
    labels: Tensor
    """[N] class indices."""
    image: Tensor
    """[N] index of each object's image in the batch."""
    ignore: Tensor
    """[N] bool: neither object nor background."""
    image_labels: Tensor | None = None
    """[B] class of an image that is labelled as a whole and has no boxes, else -1; None: there are no such images."""


@dataclass(frozen=True)
class LossOptions:
    """Settings of a loss that the network's cfg does not contain."""

    name: str = "region"
    """One of the head's losses."""
    match_iou: float = 1.0
    """Assign an object also to other anchors whose shape IoU is above this; 1: to its best anchor only."""
    prior: bool = False
    """Add the prior loss, which pulls boxes without an object to their anchors."""
    class_weights: tuple[float, ...] | None = None
    """[C] weight of each class in the class term; 0 leaves it out. None: all 1. With a tree they are not used."""
    iou_gradient: bool | None = None
    """Let gradients flow through the IoU as objectness target; None: as the loss does."""
    tree: Tree | None = None
    """Tree of the classes."""


def prior_loss(txywh: Tensor, negative: Tensor) -> Tensor:
    """Return Darknet's squared distance of boxes without an object from the cell's centre and the anchor's size.

    txywh: [B, A, H, W, 4], the network's output; negative: [B, A, H, W] bool, predictors that hold no object.
    """
    offsets = (txywh[..., :2].sigmoid() - 0.5) ** 2 + txywh[..., 2:] ** 2  # [B, A, H, W, 2]
    return PRIOR_SCALE * torch.where(negative[..., None], offsets, 0).sum() / 2


def complete_iou(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return the CIoU of pairs of boxes [K, 4] cx, cy, w, h: [K], 1 for equal boxes, down to -2 for distant ones.

    IoU minus the squared distance of the centres over the squared diagonal of the hull, minus the difference in shape.
    Inputs are clamped (MAX_CENTRE, MIN_SIZE, MAX_SIZE): result and gradient are finite for every input but nan.
    Computed in float64; in float32 on Apple GPUs, which have no other.
    Source: Zheng et al., Distance-IoU Loss (2020), equations 8 to 11; no gradient flows through alpha.
    """
    dtype = predicted.dtype
    wide, largest = (torch.float32, MAX_SIZE_OF_32) if predicted.device.type == "mps" else (torch.float64, MAX_SIZE)
    predicted, truth = (
        torch.cat((b[:, :2].to(wide).clamp(-MAX_CENTRE, MAX_CENTRE), b[:, 2:].to(wide).clamp(MIN_SIZE, largest)), 1)
        for b in (predicted, truth)
    )
    a, b = cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(truth)
    overlap = iou(a, b)
    hull = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])  # [K, 2]
    distance = ((predicted[:, :2] - truth[:, :2]) ** 2).sum(-1) / (hull**2).sum(-1)
    angle, true_angle = (torch.atan(b[:, 2] / b[:, 3]) for b in (predicted, truth))
    shape = (4 / math.pi**2) * (true_angle - angle) ** 2
    with torch.no_grad():
        alpha = shape / (1 - overlap + shape).clamp_min(torch.finfo(shape.dtype).eps)
    return (overlap - distance - alpha * shape).to(dtype)


def best_iou(boxes: Tensor, truth: Tensor) -> Tensor:
    """Return the best IoU of every predicted box with any object of its image.

    boxes: [B, A, H, W, 4] cx, cy, w, h in cells; truth: [B, M, 4] xyxy in cells, empty boxes where an image has fewer
    objects. Returns [B, A, H, W]; 0 for images without objects.
    """
    if not truth.shape[1]:
        return boxes.new_zeros(boxes.shape[:-1])
    flat = cxcywh_to_xyxy(boxes.flatten(1, 3))  # [B, A*H*W, 4]
    return iou(truth[:, :, None], flat[:, None]).amax(1).view(boxes.shape[:-1])
