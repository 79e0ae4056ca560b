"""The region layer: what the last feature map means, and back.

decode: raw network output -> boxes in input pixels.   encode: boxes -> grid targets.
Letters: B images, A anchors, C classes, H x W cells, N objects. Anchors are (w, h) in cells.
torch is imported where labels become targets: reading a map needs none of it.
Source: Redmon & Farhadi, YOLO9000 (2017), section 2; darknet/src/region_layer.c.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic

import numpy as np
from numpy.typing import NDArray

from lookonce.model import boxes as arrays
from lookonce.model.boxes import Array, cxcywh_to_xyxy, library, shape_iou, sigmoid, xyxy_to_cxcywh
from lookonce.model.tree import Tree

if TYPE_CHECKING:
    from torch import Tensor


MAX_LOG_SIZE = 80.0
"""t_w and t_h are cut here before exp: Darknet has no limit; beyond e^80 float32 would overflow."""


@dataclass(frozen=True)
class Predictions(Generic[Array]):
    """Every prediction of a batch; N = A*H*W, anchor-major."""

    boxes: Array  # [B, N, 4] xyxy, input pixels, not clipped
    objectness: Array  # [B, N] in (0, 1)
    class_prob: Array  # [B, N, C], sums to 1 under softmax and with a tree

    def numpy(self) -> Predictions[NDArray[Any]]:
        """The same as numpy arrays, float32."""
        return Predictions(*(
            value if isinstance(value, np.ndarray) else value.detach().float().cpu().numpy()
            for value in (self.boxes, self.objectness, self.class_prob)
        ))  # fmt: skip


def split(raw: Array, num_anchors: int) -> tuple[Array, Array, Array]:
    """Raw [B, A*(5+C), H, W] as txywh [B,A,H,W,4], objectness [B,A,H,W], classes [B,A,H,W,C]."""
    cells = raw.reshape(raw.shape[0], num_anchors, -1, *raw.shape[2:])
    cells = library(raw).moveaxis(cells, 2, -1)  # [B, A, H, W, 5+C]
    return cells[..., :4], cells[..., 4], cells[..., 5:]


def cell_boxes(txywh: Array, anchors: Array) -> Array:
    """Where predictors put their boxes: txywh [B, A, H, W, 4] to cx, cy, w, h in cells, same shape."""
    lib, (rows, cols) = library(txywh), txywh.shape[2:4]
    col = lib.arange(cols, device=txywh.device, dtype=txywh.dtype)  # [W]
    row = lib.arange(rows, device=txywh.device, dtype=txywh.dtype)[:, None]  # [H, 1]
    xy = lib.stack((sigmoid(txywh[..., 0]) + col, sigmoid(txywh[..., 1]) + row), -1)
    wh = lib.exp(lib.clip(txywh[..., 2:], None, MAX_LOG_SIZE)) * anchors[:, None, None]  # [A, 1, 1, 2] spreads
    found: Array = lib.concat((xy, wh), -1)
    return found


def decode(
    raw: Array, anchors: Array, stride: int, softmax: bool = True, tree: Tree | None = None
) -> Predictions[Array]:
    """Read the network's output. Pure algebra without a branch on values, so it exports; of arrays and tensors alike.

    Args:
        raw:     [B, A*(5+C), H, W], before any activation.
        anchors: [A, 2] (w, h) in cells.
        stride:  input pixels a cell.
        softmax: classes exclude each other; else each class has its own sigmoid.
        tree:    classes contain each other: the one class that the tree names has probability 1, the others 0.
    """
    txywh, objectness, classes = split(raw, len(anchors))
    boxes = cxcywh_to_xyxy(cell_boxes(txywh, anchors)) * stride  # [B, A, H, W, 4]
    alone = arrays.softmax(classes) if softmax else sigmoid(classes)
    class_prob = alone if tree is None else tree.top_only(classes)
    batch = raw.shape[0]
    return Predictions(boxes.reshape(batch, -1, 4), sigmoid(objectness).reshape(batch, -1),
                       class_prob.reshape(batch, -1, classes.shape[-1]))  # fmt: skip


@dataclass(frozen=True)
class Targets:
    """What the labels of a batch ask of the cells they fall in; N objects, in their order."""

    image: Tensor  # [N] which image of the batch
    anchor: Tensor  # [N]
    row: Tensor  # [N]
    col: Tensor  # [N]
    boxes: Tensor  # [N, 4] cx, cy, w, h in cells
    txy: Tensor  # [N, 2] offset in the cell, [0, 1)
    twh: Tensor  # [N, 2] log of size over anchor
    label: Tensor  # [N]
    ignore: Tensor  # [N] bool: neither to be found nor background (difficult objects)
    winner: Tensor  # [N] index of the object that holds this one's anchor and cell; -1: nobody
    weight: Tensor  # [N] what this one counts for in region_loss; below 1 at several anchors (see further)

    @property
    def wins(self) -> Tensor:
        """[N] bool: False where a later object took the same anchor and cell, or the object is ignored."""
        import torch

        return self.winner == torch.arange(len(self.winner), device=self.winner.device)


def encode(
    boxes: Tensor,
    labels: Tensor,
    image_index: Tensor,
    anchors: Tensor,
    grid: tuple[int, int],
    stride: int,
    ignore: Tensor | None = None,
) -> Targets:
    """Assign the objects of a batch to cells and anchors; the inverse of decode.

    Args:
        boxes:       [N, 4] xyxy, input pixels, positive width and height. N may be 0.
        labels:      [N] class indices.
        image_index: [N] which image of the batch each box is on.
        anchors:     [A, 2] (w, h) in cells.
        grid:        (H, W) cells.
        stride:      input pixels a cell.
        ignore:      [N] bool, objects that are neither targets nor background; none if absent.
    Returns:
        Targets, one row an object. The anchor is the one of best shape IoU, the first of equals.
        Of several objects on one anchor and cell the last wins whole, as in Darknet.
    Source: region_layer.c, forward_region_layer, the loop over truths (bias_match=1).
    """
    import torch

    in_cells = xyxy_to_cxcywh(boxes) / stride  # [N, 4]
    rows, cols = grid
    col = in_cells[:, 0].long().clamp(0, cols - 1)
    row = in_cells[:, 1].long().clamp(0, rows - 1)
    none = torch.zeros_like(labels)
    txy = in_cells[:, :2] - torch.stack((col, row), -1)
    ignored = none.bool() if ignore is None else ignore
    targets = Targets(
        image_index, none, row, col, in_cells, txy, in_cells[:, 2:], labels, ignored, none, torch.ones_like(txy[:, 0])
    )
    return assign(targets, shape_iou(in_cells[:, None, 2:], anchors).argmax(1), anchors)


def assign(targets: Targets, anchor: Tensor, anchors: Tensor) -> Targets:
    """The same objects given to other anchors [N], of anchors [A, 2] in cells: who wins is settled anew."""
    import torch

    slot = ((targets.image * 4096 + targets.row) * 4096 + targets.col) * len(anchors) + anchor  # [N]
    unique, member = torch.unique(slot, return_inverse=True)
    order = torch.arange(len(slot), device=slot.device).masked_fill(targets.ignore, -1)
    last = order.new_full((len(unique),), -1).scatter_reduce(0, member, order, "amax")  # [slots]
    twh = (targets.boxes[:, 2:] / anchors[anchor]).log()
    return replace(targets, anchor=anchor, twh=twh, winner=last[member])


def further(targets: Targets, anchors: Tensor, match_iou: float) -> Targets:
    """The same objects, each given also to those other anchors of its cell whose shape IoU is above match_iou.

    Returns Targets of M >= N rows: the further pairs of object and anchor, then the N objects as they were.
    Where two meet on one anchor and cell, an object's best anchor goes before another's further one.
    The rows that win share their object's weight, so that all objects count alike, whatever their shape.
    Source: AlexeyAB's darknet, region and yolo layers, iou_thresh.
    """
    import torch

    fits = shape_iou(targets.boxes[:, None, 2:], anchors) > match_iou  # [N, A]
    count = torch.arange(len(fits), device=fits.device)
    fits[count, targets.anchor] = False
    which, anchor = fits.nonzero(as_tuple=True)
    rows = torch.cat((which, count))  # [M]
    wide = Targets(**{name: value[rows] for name, value in vars(targets).items()})
    given = assign(wide, torch.cat((anchor, targets.anchor)), anchors)
    share = torch.bincount(rows[given.wins], minlength=len(fits)).clamp(min=1)  # [N]
    return replace(given, weight=given.weight / share[rows])
