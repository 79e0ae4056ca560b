"""The losses of YOLOv2, named by where they come from; all read Targets and the raw output.

region_loss:      Darknet's region layer. Its gradient is, to the bit of float error, minus Darknet's delta.
region_ciou_loss: the same, and what each object's box lacks of it.
keras_yolo2_loss: the blog's (and keras-yolo2's), with its own masks, counts and warm-up.
Letters: B images, A anchors, C classes, H x W cells, N objects, K winners among them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lookonce.model.boxes import cxcywh_to_xyxy, iou, shape_iou
from lookonce.model.heads.region import Targets, assign, cell_boxes, split
from lookonce.model.layers import Region

Slot = tuple[Tensor, Tensor, Tensor, Tensor]


WARM_UP_IMAGES = 12_800
"""Darknet pulls every predictor towards its anchor while it has seen fewer images. Source: region_layer.c."""


WARM_UP_SCALE = 0.01
"""Weight of that pull. Source: region_layer.c, delta_region_box(..., .01, ...)."""


FARTHEST, SMALLEST, LARGEST = 1e8, 1e-6, 1e40
"""Centres and sizes, in cells, between which CIoU is computed: double precision tells them apart and holds squares."""


def region_loss(
    raw: Tensor, targets: Targets, region: Region, warm_up: bool = False, ciou_scale: float = 0.0
) -> dict[str, Tensor]:
    """Darknet's region loss, for each image on average.

    Args:
        raw:     [B, A*(5+C), H, W], the network's output.
        targets: the objects of the batch, from region.encode with this region's anchors.
        region:  anchors, scales and switches.
        warm_up: also pull every idle predictor to its cell's centre and its anchor's size.
        ciou_scale: weight of 1 - CIoU of each object's predicted box; 0: Darknet's loss, which has no such term.
    Returns:
        Scalars: xy, wh, objectness, background, class, ciou, warm_up, their sum `total`, and (without
        gradient) `recall`: the share of objects whose predictor has an IoU above .5; nan: no objects.
    Source: region_layer.c, forward_region_layer. The IoU as objectness target is no path for gradients.
    """
    anchors = raw.new_tensor(region.anchors)  # [A, 2]
    txywh, objectness, _ = split(raw, len(anchors))
    confidence = objectness.sigmoid()  # [B, A, H, W]
    with torch.no_grad():
        boxes = cell_boxes(txywh, anchors)  # [B, A, H, W, 4]
        if not region.bias_match:
            targets = assign(targets, _best_predicted_shape(boxes, targets), anchors)
        busy = _mask(targets, confidence.shape)
        idle = (best_iou(boxes, targets) <= region.thresh) & ~busy
        slot = _slot(targets, targets.wins)
        fit = iou(cxcywh_to_xyxy(boxes[slot]), cxcywh_to_xyxy(targets.boxes[targets.wins]))  # [K]
    image, anchor, row, col = slot
    by_anchor = raw.reshape(len(raw), len(anchors), -1, *raw.shape[2:])  # [B, A, 5+C, H, W]
    at = by_anchor[image, anchor, :, row, col]  # [K, 5+C], in one step: so is its gradient
    t, wins = at[:, :4], targets.wins  # [K, 4]
    weight, cells = targets.weight[wins], raw.shape[2] * raw.shape[3]
    scale = region.coord_scale * weight[:, None] * (2 - targets.boxes[wins, 2:].prod(-1, keepdim=True) / cells)
    sought = fit if region.rescore else torch.ones_like(fit)
    terms = {
        "xy": (scale * (t[:, :2].sigmoid() - targets.txy[wins]) ** 2).sum() / 2,
        "wh": (scale * (t[:, 2:] - targets.twh[wins]) ** 2).sum() / 2,
        "objectness": region.object_scale * (weight * (at[:, 4].sigmoid() - sought) ** 2).sum() / 2,
        "background": region.noobject_scale * (confidence**2 * idle).sum() / 2,
        "class": region.class_scale * _class_loss(at[:, 5:], targets, region.softmax),
    }
    if ciou_scale:
        lack = 1 - complete_iou(cell_boxes(txywh, anchors)[slot], targets.boxes[wins])  # [K]
        terms["ciou"] = ciou_scale * (weight * lack).sum()
    if warm_up:
        prior = (txywh[..., :2].sigmoid() - 0.5) ** 2 + txywh[..., 2:] ** 2  # [B, A, H, W, 2]
        terms["warm_up"] = WARM_UP_SCALE * prior[~_mask(targets, confidence.shape, winners=True)].sum() / 2
    terms = {name: value / len(raw) for name, value in terms.items()}
    return {**terms, "total": torch.stack(list(terms.values())).sum(), "recall": (fit > 0.5).to(raw).mean()}


def region_ciou_loss(raw: Tensor, targets: Targets, region: Region, warm_up: bool = False) -> dict[str, Tensor]:
    """region_loss, and 1 - CIoU of each object's box beside its squares. Arguments and terms as there.

    Weight 1 is our choice, by what docs/results.md shows.
    """
    return region_loss(raw, targets, region, warm_up, ciou_scale=1.0)


@dataclass(frozen=True)
class KerasYolo2Scales:
    """Weights of the blog's loss. Source: the blog's part on the loss, LAMBDA values of its training."""

    object_scale: float = 5.0
    noobject_scale: float = 1.0
    coord_scale: float = 1.0
    class_scale: float = 1.0
    class_weights: tuple[float, ...] | None = None
    """One weight a class; a class of weight 0 counts nowhere. None: all 1."""
    iou_gradient: bool = True
    """Objectness also moves boxes, through its IoU target, as in the blog (no stop_gradient there)."""


def keras_yolo2_loss(
    raw: Tensor,
    targets: Targets,
    region: Region,
    warm_up: bool = False,
    scales: KerasYolo2Scales | None = None,
) -> dict[str, Tensor]:
    """The blog's loss: each term is divided by the number of predictors it speaks of in the whole batch.

    Args:
        raw:     [B, A*(5+C), H, W], the network's output.
        targets: the objects of the batch, from region.encode with this region's anchors.
        region:  only its anchors are read.
        warm_up: teach every idle predictor its cell's centre and its anchor's size, all with weight 1.
        scales:  5/1/1/1 by default.
    Returns:
        Scalars: xy, wh, objectness, class, their sum `total`, and (without gradient) `recall`.
    Source: FairyOnIce, "Object Detection using YOLOv2 on Pascal VOC2012", custom_loss.
    """
    scales = scales or KerasYolo2Scales()
    anchors = raw.new_tensor(region.anchors)  # [A, 2]
    txywh, objectness, logits = split(raw, len(anchors))
    boxes, confidence = cell_boxes(txywh, anchors), objectness.sigmoid()
    wins = targets.wins
    slot, truth, label = _slot(targets, wins), targets.boxes[wins], targets.label[wins]
    fit = iou(cxcywh_to_xyxy(boxes[slot]), cxcywh_to_xyxy(truth))  # [K]
    idle = (best_iou(boxes.detach(), targets) < 0.6) & ~_mask(targets, confidence.shape)
    sought = fit if scales.iou_gradient else fit.detach()
    off = (boxes[slot] - truth) ** 2  # [K, 4] cells
    weight = raw.new_tensor(scales.class_weights or (1.0,) * logits.shape[-1])[label] * scales.class_scale  # [K]
    found = scales.object_scale * ((confidence[slot] - sought) ** 2).sum()
    missed = scales.noobject_scale * (confidence[idle] ** 2).sum()
    heard = idle.sum().to(raw) * (scales.noobject_scale > 0) + len(fit) * (scales.object_scale > 0)
    classified = (weight > 0).sum().to(raw)
    coord, placed = off * scales.coord_scale, raw.new_tensor(len(fit) * (scales.coord_scale > 0))
    if warm_up:
        centre = cell_boxes(torch.zeros_like(txywh), anchors)  # the cell's centre, the anchor's size
        free = ~_mask(targets, confidence.shape, winners=True)
        coord, placed = torch.cat((off, (boxes[free] - centre[free]) ** 2)), raw.new_tensor(confidence.numel())
    terms = {
        "xy": coord[:, :2].sum() / (placed + 1e-6) / 2,
        "wh": coord[:, 2:].sum() / (placed + 1e-6) / 2,
        "objectness": (found + missed) / (heard + 1e-6) / 2,
        "class": (weight * F.cross_entropy(logits[slot], label, reduction="none")).sum() / (classified + 1e-6),
    }
    recall = ((fit > 0.5) & (confidence[slot] > 0.3)).to(raw).mean().detach()
    return {**terms, "total": torch.stack(list(terms.values())).sum(), "recall": recall}


def complete_iou(found: Tensor, truth: Tensor) -> Tensor:
    """CIoU of boxes [K, 4] cx, cy, w, h, pair by pair: [K], 1 for equals, down to below -1 for what lies far away.

    IoU, less the squared distance of the centres over that of the hull's corners, less what the shapes differ by.
    Centres and sizes beyond FARTHEST, SMALLEST and LARGEST are cut to these, so that the result and its gradient are
    finite for every input but nan.
    Source: Zheng et al., Distance-IoU Loss (2020), equations 8 to 11; alpha is no path for gradients, as there.
    """
    kind = found.dtype
    found, truth = (
        torch.cat((each[:, :2].double().clamp(-FARTHEST, FARTHEST), each[:, 2:].double().clamp(SMALLEST, LARGEST)), 1)
        for each in (found, truth)
    )
    a, b = cxcywh_to_xyxy(found), cxcywh_to_xyxy(truth)
    overlap = iou(a, b)
    hull = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])  # [K, 2]
    distance = ((found[:, :2] - truth[:, :2]) ** 2).sum(-1) / (hull**2).sum(-1)
    shape = (4 / math.pi**2) * (torch.atan(truth[:, 2] / truth[:, 3]) - torch.atan(found[:, 2] / found[:, 3])) ** 2
    with torch.no_grad():
        alpha = shape / (1 - overlap + shape).clamp_min(torch.finfo(shape.dtype).eps)
    return (overlap - distance - alpha * shape).to(kind)


def best_iou(boxes: Tensor, targets: Targets) -> Tensor:
    """Best IoU of every predicted box with any object of its image, ignored ones too.

    boxes: [B, A, H, W, 4] cx, cy, w, h in cells. Returns [B, A, H, W]; 0 for images without objects.
    """
    images = len(boxes)
    count = torch.bincount(targets.image, minlength=images)  # [B]
    most = int(count.max()) if len(targets.image) else 0
    if most == 0:
        return boxes.new_zeros(boxes.shape[:-1])
    order = targets.image.argsort(stable=True)
    image = targets.image[order]
    place = torch.arange(len(order), device=order.device) - (count.cumsum(0) - count)[image]
    truth = boxes.new_zeros(images, most, 4)
    truth[image, place] = cxcywh_to_xyxy(targets.boxes[order]).to(boxes)
    flat = cxcywh_to_xyxy(boxes.flatten(1, 3))  # [B, P, 4]
    return iou(truth[:, :, None], flat[:, None]).amax(1).view(boxes.shape[:-1])  # [B, most, P] within


def _slot(targets: Targets, which: Tensor) -> Slot:
    """Where the chosen objects [N] bool stand in a map [B, A, H, W]."""
    return targets.image[which], targets.anchor[which], targets.row[which], targets.col[which]


def _mask(targets: Targets, shape: torch.Size, winners: bool = False) -> Tensor:
    """[B, A, H, W] bool: predictors that hold an object; with winners, those of ignored objects left out."""
    mask = torch.zeros(shape, dtype=torch.bool, device=targets.row.device)
    mask[_slot(targets, targets.wins if winners else torch.ones_like(targets.ignore))] = True
    return mask


def _best_predicted_shape(boxes: Tensor, targets: Targets) -> Tensor:
    """[N] the anchor whose predicted shape, in the object's cell, fits the object best (bias_match=0)."""
    shapes = boxes[targets.image, :, targets.row, targets.col, 2:]  # [N, A, 2]
    return shape_iou(shapes, targets.boxes[:, None, 2:]).argmax(1)


def _class_loss(logits: Tensor, targets: Targets, softmax: bool) -> Tensor:
    """Cross-entropy of the winners' logits [K, C]. Logistic: every object that shares the slot adds its class.

    Source: region_layer.c, delta_region_class.
    """
    if softmax:
        each = F.cross_entropy(logits, targets.label[targets.wins], reduction="none")  # [K]
        return (targets.weight[targets.wins] * each).sum()
    place = targets.wins.cumsum(0) - 1  # [N] row of each winner
    real = ~targets.ignore
    sought = torch.zeros_like(logits)
    sought[place[targets.winner[real]], targets.label[real]] = 1
    each = F.binary_cross_entropy_with_logits(logits, sought, reduction="none")  # [K, C]
    return (targets.weight[targets.wins, None] * each).sum()
