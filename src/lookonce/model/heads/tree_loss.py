"""The classes of a tree in the region loss: what an object teaches, and images that are labelled as a whole.

Source: YOLO9000, section 4; darknet/src/region_layer.c, delta_region_class and the truths with x, y > 100000.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lookonce.model.boxes import sigmoid
from lookonce.model.device import to_device
from lookonce.model.tree import Tree


def taught(tree: Tree, rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return (row, class) for each group of siblings that objects teach.

    An object teaches the group of its class and those of its ancestors; of several objects in one row the last teaches
    the groups that they share.

    Args:
        rows: [R] row of each object's predictor, on the host.
        labels: [R] class of each object.
    """
    last = {}
    for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
        last.update({(row, tree.groups[node]): node for node in tree.path(label)})
    return torch.tensor([row for row, _ in last], dtype=torch.long), torch.tensor([*last.values()], dtype=torch.long)


def path_loss(logits: Tensor, tree: Tree, taught: tuple[Tensor, Tensor], weight: Tensor) -> Tensor:
    """Return the cross-entropy, summed over the groups that are taught.

    logits: [K, C]; taught: (rows of logits, classes); weight: [K].
    """
    rows, nodes = taught
    return -(weight[rows] * tree.log_softmax(logits)[rows, nodes]).sum()


class Surest(NamedTuple):
    """For M images that are labelled as a whole, the predictor that is surest of the label."""

    place: tuple[Tensor, ...]  # each [M]: image, anchor, row, col
    taught: tuple[Tensor, Tensor]  # rows of the M, and the classes on the path of each label


def surest(raw: Tensor, tree: Tree, image_labels: Tensor, num_anchors: int) -> Surest | None:
    """Return the predictors of highest objectness times probability along the path; None: no image has a label.

    raw: [B, A*(5+C), H, W]; image_labels: [B] class or -1, on the host.
    """
    images = (image_labels >= 0).nonzero()[:, 0]  # [M]
    if not len(images):
        return None
    rows, nodes = taught(tree, torch.arange(len(images)), image_labels[images])
    rows, nodes = to_device(rows, raw.device), to_device(nodes, raw.device)
    height, width = raw.shape[2:]
    maps = raw.detach()[to_device(images, raw.device)].reshape(len(images), num_anchors, -1, height, width)
    cells = maps.movedim(2, -1)  # [M, A, H, W, 5+C]
    steps = tree.log_softmax(cells[..., 5:]).movedim(-1, 1)[rows, nodes]  # [R, A, H, W] log probability of each step
    path = torch.zeros_like(cells[..., 4]).index_add_(0, rows, steps)  # [M, A, H, W]
    best = (sigmoid(cells[..., 4]) * path.exp()).flatten(1).argmax(1)  # [M]
    place = (best // (height * width), best // width % height, best % width)
    return Surest((to_device(images, raw.device), *place), (rows, nodes))
