"""The region layer (YOLOv2): decode, encode and losses.

decode: raw map -> boxes in input pixels. encode: boxes -> targets on the grid. The losses compare raw map and targets.
Letters: B images, A anchors, C classes, H x W cells, N objects, K winners among them. Anchors are (w, h) in cells.
torch is imported inside functions: decoding numpy arrays needs none of it.
Source: Redmon & Farhadi, YOLO9000 (2017), section 2; darknet/src/region_layer.c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lookonce.model import boxes as formulas
from lookonce.model.boxes import Array, cxcywh_to_xyxy, iou, library, like, shape_iou, sigmoid, xyxy_to_cxcywh
from lookonce.model.detections import Predictions
from lookonce.model.layers import PlacedHead, Region
from lookonce.model.tree import Tree

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lookonce.model.losses import LossOptions, Objects

MAX_LOG_SIZE = 80.0
"""t_w and t_h are clamped to this before exp: beyond e^80 float32 overflows. Darknet has no limit."""


def split(raw: Array, num_anchors: int) -> tuple[Array, Array, Array]:
    """Split raw [B, A*(5+C), H, W] into txywh [B,A,H,W,4], objectness [B,A,H,W] and classes [B,A,H,W,C]."""
    cells = raw.reshape(raw.shape[0], num_anchors, -1, *raw.shape[2:])
    cells = library(raw).moveaxis(cells, 2, -1)  # [B, A, H, W, 5+C]
    return cells[..., :4], cells[..., 4], cells[..., 5:]


def cell_boxes(txywh: Array, anchors: Array) -> Array:
    """Return the predicted boxes cx, cy, w, h in cells. txywh: [B, A, H, W, 4]; anchors: [A, 2]. Same shape."""
    lib, (rows, cols) = library(txywh), txywh.shape[2:4]
    col = lib.arange(cols, device=txywh.device, dtype=txywh.dtype)  # [W]
    row = lib.arange(rows, device=txywh.device, dtype=txywh.dtype)[:, None]  # [H, 1]
    xy = lib.stack((sigmoid(txywh[..., 0]) + col, sigmoid(txywh[..., 1]) + row), -1)
    wh = lib.exp(lib.clip(txywh[..., 2:], None, MAX_LOG_SIZE)) * anchors[:, None, None]  # [A, 1, 1, 2] spreads
    boxes: Array = lib.concat((xy, wh), -1)
    return boxes


def decode(raw: Array, head: PlacedHead, tree: Tree | None = None) -> Predictions[Array]:
    """Read the raw map of a region layer, of arrays and tensors alike. No branch on values, so it exports.

    Args:
        raw:  [B, A*(5+C), H, W], before any activation.
        head: the region layer and its stride. Without softmax, each class has its own sigmoid.
        tree: tree of the classes: each class has the probability of its path. None: no tree.
    """
    assert isinstance(head.layer, Region)
    anchors = like(head.layer.anchors, raw)  # [A, 2]
    txywh, objectness, classes = split(raw, len(anchors))
    boxes = cxcywh_to_xyxy(cell_boxes(txywh, anchors)) * head.stride  # [B, A, H, W, 4]
    if tree is None:
        class_prob = formulas.softmax(classes) if head.layer.softmax else sigmoid(classes)
    else:
        class_prob = tree.absolute(classes)
    batch = raw.shape[0]
    return Predictions(boxes.reshape(batch, -1, 4), sigmoid(objectness).reshape(batch, -1),
                       class_prob.reshape(batch, -1, classes.shape[-1]))  # fmt: skip


@dataclass(frozen=True)
class Targets:
    """The objects of a batch, each assigned to an anchor and a cell; N objects, in their order.

    Which objects win depends on values, so targets are made on the host, where reading values costs nothing.
    """

    image: Tensor  # [N] index of the image in the batch
    anchor: Tensor  # [N]
    row: Tensor  # [N]
    col: Tensor  # [N]
    boxes: Tensor  # [N, 4] cx, cy, w, h in cells
    txy: Tensor  # [N, 2] offset in the cell, [0, 1)
    twh: Tensor  # [N, 2] log of size over anchor
    label: Tensor  # [N]
    ignore: Tensor  # [N] bool: neither object nor background (difficult objects)
    winner: Tensor  # [N] index of the object that takes this one's anchor and cell; -1: none
    weight: Tensor  # [N] weight in region_loss; below 1 for an object at several anchors
    image_labels: Tensor | None = None  # [B] class of an image that is labelled as a whole and has no boxes; else -1

    @property
    def wins(self) -> Tensor:
        """[N] bool: False where a later object took the same anchor and cell, or the object is ignored."""
        import torch

        return self.winner == torch.arange(len(self.winner), device=self.winner.device)

    def to(self, device: torch.device) -> Targets:
        """Return the targets on a device, for losses that choose predictors by value there."""
        return replace(self, **{name: value.to(device) for name, value in vars(self).items() if value is not None})

    @property
    def index(self) -> Tensor:
        """[4, N] indices of the objects' predictors in a map [B, A, H, W]."""
        import torch

        return torch.stack((self.image, self.anchor, self.row, self.col))


@dataclass(frozen=True)
class Winners:
    """The targets of a batch on the device of its raw map, in shapes that are known without reading from it.

    K objects that win, in their order; N objects in all.
    """

    index: tuple[Tensor, ...]  # each [K]: image, anchor, row, col
    boxes: Tensor  # [K, 4] cx, cy, w, h in cells
    txy: Tensor  # [K, 2]
    twh: Tensor  # [K, 2]
    weight: Tensor  # [K]
    label: Tensor  # [K]
    occupied: tuple[Tensor, ...]  # each [N]: image, anchor, row, col of every object, ignored ones too
    classes: tuple[Tensor, Tensor]  # rows of the winners, and labels that objects on the same anchor and cell have
    truth: Tensor  # [B, M, 4] xyxy in cells: all objects of each image, then empty boxes

    def __len__(self) -> int:
        return len(self.label)

    def free(self, confidence: Tensor, ignored: bool = True) -> Tensor:
        """Return [B, A, H, W] bool: predictors without an object. ignored: ignored objects are objects."""
        import torch

        mask = torch.ones_like(confidence, dtype=torch.bool)
        return mask.index_put_(self.occupied if ignored else self.index, mask.new_zeros(()))


def truth_of(targets: Targets, images: int) -> Tensor:
    """Return the boxes of each image [B, M, 4] xyxy in cells, ignored ones included, then empty boxes."""
    import torch

    count = torch.bincount(targets.image, minlength=images)  # [B]
    order = targets.image.argsort(stable=True)
    image = targets.image[order]
    number = torch.arange(len(order), device=order.device) - (count.cumsum(0) - count)[image]  # within its image
    truth = targets.boxes.new_zeros(images, int(count.max()) if len(order) else 0, 4)
    truth[image, number] = cxcywh_to_xyxy(targets.boxes[order])
    return truth


def winners(targets: Targets, raw: Tensor, tree: Tree | None = None) -> Winners:
    """Return what the losses of a raw map [B, A*(5+C), H, W] need of its targets, on its device.

    tree: classes then holds the classes of their paths as well.
    """
    import torch

    from lookonce.model.device import to_device

    wins, real = targets.wins, ~targets.ignore
    rows = (wins.cumsum(0) - 1)[targets.winner[real]]  # of the winner on each object's anchor and cell
    numbers = torch.cat((targets.boxes, targets.txy, targets.twh, targets.weight[:, None]), 1)[wins].to(raw.dtype)
    integers = torch.cat((targets.index[:, wins], targets.label[None, wins]))  # [5, K]
    numbers, integers = to_device(numbers, raw.device), to_device(integers, raw.device)
    occupied = to_device(targets.index, raw.device).unbind()
    labels = targets.label[real]
    if tree is not None:
        from lookonce.model.heads.tree_loss import taught

        rows, labels = taught(tree, rows, labels)
    classes = to_device(torch.stack((rows, labels)), raw.device).unbind()
    return Winners(
        integers[:4].unbind(), numbers[:, :4], numbers[:, 4:6], numbers[:, 6:8], numbers[:, 8], integers[4],
        occupied, (classes[0], classes[1]), to_device(truth_of(targets, len(raw)).to(raw.dtype), raw.device),
    )  # fmt: skip


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
        image_index: [N] index of each object's image in the batch.
        anchors:     [A, 2] (w, h) in cells.
        grid:        (H, W) cells.
        stride:      input pixels a cell.
        ignore:      [N] bool, objects that are neither targets nor background; None: none.
    Returns:
        Targets, one row an object. The anchor is the one of best shape IoU, the first of equals.
        Of several objects on one anchor and cell the last wins, as in Darknet.
    Source: region_layer.c, forward_region_layer, the loop over truths (bias_match=1).
    """
    import torch

    in_cells = xyxy_to_cxcywh(boxes) / stride  # [N, 4]
    rows, cols = grid
    col = in_cells[:, 0].long().clamp(0, cols - 1)
    row = in_cells[:, 1].long().clamp(0, rows - 1)
    zeros = torch.zeros_like(labels)
    txy, wh = in_cells[:, :2] - torch.stack((col, row), -1), in_cells[:, 2:]
    ignored = zeros.bool() if ignore is None else ignore
    weight = torch.ones_like(txy[:, 0])
    targets = Targets(image_index, zeros, row, col, in_cells, txy, wh, labels, ignored, zeros, weight)
    return assign(targets, shape_iou(wh[:, None], anchors).argmax(1), anchors)


def encode_objects(objects: Objects, head: PlacedHead, grid: tuple[int, int]) -> Targets:
    """Return the targets of a batch's objects at a region layer. grid: (H, W) cells."""
    anchors = objects.boxes.new_tensor(head.layer.anchors)
    targets = encode(objects.boxes, objects.labels, objects.image, anchors, grid, head.stride, objects.ignore)
    return replace(targets, image_labels=objects.image_labels)


def assign(targets: Targets, anchor: Tensor, anchors: Tensor) -> Targets:
    """Assign the objects to anchors and find the winners. anchor: [N] index into anchors [A, 2], cells."""
    import torch

    index = ((targets.image * 4096 + targets.row) * 4096 + targets.col) * len(anchors) + anchor  # [N]
    unique, member = torch.unique(index, return_inverse=True)
    order = torch.arange(len(index), device=index.device).masked_fill(targets.ignore, -1)
    last = order.new_full((len(unique),), -1).scatter_reduce(0, member, order, "amax")  # [unique]
    twh = (targets.boxes[:, 2:] / anchors[anchor]).log()
    return replace(targets, anchor=anchor, twh=twh, winner=last[member])


def assign_to_several(targets: Targets, anchors: Tensor, match_iou: float) -> Targets:
    """Assign each object also to the other anchors whose shape IoU is above match_iou: multi-anchor assignment.

    Returns Targets of M >= N rows: the added pairs of object and anchor, then the N objects, unchanged.
    On one anchor and cell, an object with its best anchor wins over another object with an added one.
    The rows that win share their object's weight, so that all objects have equal weight.
    Source: AlexeyAB's darknet, region and yolo layers, iou_thresh.
    """
    import torch

    matches = shape_iou(targets.boxes[:, None, 2:], anchors) > match_iou  # [N, A]
    objects = torch.arange(len(matches), device=matches.device)
    matches[objects, targets.anchor] = False
    added, anchor = matches.nonzero(as_tuple=True)
    rows = torch.cat((added, objects))  # [M]
    each = {name: value[rows] for name, value in vars(targets).items() if name != "image_labels"}
    repeated = replace(targets, **each)
    assigned = assign(repeated, torch.cat((anchor, targets.anchor)), anchors)
    wins = torch.bincount(rows[assigned.wins], minlength=len(matches)).clamp(min=1)  # [N]
    return replace(assigned, weight=assigned.weight / wins[rows])


def loss(raw: Tensor, head: PlacedHead, objects: Objects, options: LossOptions) -> dict[str, Tensor]:
    """Return the terms of the loss that the options name, for the raw map [B, A*(5+C), H, W] of a region layer."""
    assert isinstance(head.layer, Region)
    targets = encode_objects(objects, head, (raw.shape[2], raw.shape[3]))
    if options.match_iou < 1:
        targets = assign_to_several(targets, objects.boxes.new_tensor(head.layer.anchors), options.match_iou)
    return LOSSES[options.name](raw, targets, head.layer, options)


def region_loss(
    raw: Tensor, targets: Targets, region: Region, options: LossOptions | None = None, ciou_scale: float = 0.0
) -> dict[str, Tensor]:
    """Return Darknet's region loss, averaged over images. Its gradient is minus Darknet's delta.

    Args:
        raw:     [B, A*(5+C), H, W], the network's output.
        targets: the objects of the batch, from encode with this region's anchors.
        region:  anchors, scales and switches.
        options: prior (Darknet adds it for its first 12,800 images), class weights, IoU gradient (Darknet has none),
            and tree; None: none of them. With a tree, an object teaches the group of its class and those of its
            ancestors, and an image with a label of its own the predictor that is surest of it.
        ciou_scale: weight of 1 - CIoU of each object's predicted box; 0: no such term, as in Darknet.
    Returns:
        Scalars: xy, wh, objectness, background, class, ciou, prior, their sum `total`, and (without gradient)
        `recall`: the fraction of objects whose predictor has an IoU above .5; nan without objects.
    Source: region_layer.c, forward_region_layer.
    """
    import torch

    from lookonce.model.device import to_device
    from lookonce.model.heads.tree_loss import path_loss, surest
    from lookonce.model.losses import LossOptions, best_iou, complete_iou, prior_loss

    options = options or LossOptions("region")
    tree, image_labels = options.tree, targets.image_labels
    anchors = like(region.anchors, raw)  # [A, 2]
    txywh, objectness, _ = split(raw, len(anchors))
    confidence = objectness.sigmoid()  # [B, A, H, W]
    with torch.no_grad():
        boxes = cell_boxes(txywh, anchors)  # [B, A, H, W, 4]
        if not region.bias_match:
            targets = assign(targets, _best_predicted_shape(boxes, targets), targets.boxes.new_tensor(region.anchors))
        won = winners(targets, raw, tree)
        negative = (best_iou(boxes, won.truth) <= region.thresh) & won.free(confidence)
        whole = boxed = None
        if tree is not None and image_labels is not None:
            whole, boxed = surest(raw, tree, image_labels, len(anchors)), to_device(image_labels < 0, raw.device)
        if whole is not None:
            negative.index_put_(whole.place, negative.new_zeros(()))
        box_iou = iou(cxcywh_to_xyxy(boxes[won.index]), cxcywh_to_xyxy(won.boxes))  # [K]
    image, anchor, row, col = won.index
    by_anchor = raw.reshape(len(raw), len(anchors), -1, *raw.shape[2:])  # [B, A, 5+C, H, W]
    found = by_anchor[image, anchor, :, row, col]  # [K, 5+C] gathered at once, which makes the gradient fast
    cells = raw.shape[2] * raw.shape[3]
    scale = region.coord_scale * won.weight[:, None] * (2 - won.boxes[:, 2:].prod(-1, keepdim=True) / cells)
    truth = box_iou if region.rescore else torch.ones_like(box_iou)
    if options.iou_gradient and region.rescore:
        truth = iou(cxcywh_to_xyxy(cell_boxes(txywh, anchors)[won.index]), cxcywh_to_xyxy(won.boxes))
    terms = {
        "xy": (scale * (found[:, :2].sigmoid() - won.txy) ** 2).sum() / 2,
        "wh": (scale * (found[:, 2:4] - won.twh) ** 2).sum() / 2,
        "objectness": region.object_scale * (won.weight * (found[:, 4].sigmoid() - truth) ** 2).sum() / 2,
        "background": region.noobject_scale * (confidence**2 * negative).sum() / 2,
        "class": region.class_scale * _class_loss(found[:, 5:], won, region.softmax, options),
    }
    if whole is not None and tree is not None:
        image, anchor, row, col = whole.place
        terms["class"] = terms["class"] + region.class_scale * path_loss(
            by_anchor[image, anchor, 5:, row, col], tree, whole.taught, raw.new_ones(len(image))
        )
    if ciou_scale:
        distance = 1 - complete_iou(cell_boxes(txywh, anchors)[won.index], won.boxes)  # [K]
        terms["ciou"] = ciou_scale * (won.weight * distance).sum()
    if options.prior:
        free = won.free(confidence, ignored=False)
        terms["prior"] = prior_loss(txywh, free if boxed is None else free & boxed[:, None, None, None])
    terms = {name: value / len(raw) for name, value in terms.items()}
    return {**terms, "total": torch.stack(list(terms.values())).sum(), "recall": (box_iou > 0.5).to(raw).mean()}


def region_ciou_loss(
    raw: Tensor, targets: Targets, region: Region, options: LossOptions | None = None
) -> dict[str, Tensor]:
    """Return region_loss plus 1 - CIoU of each object's box, with weight 1 (see docs/results.md)."""
    return region_loss(raw, targets, region, options, ciou_scale=1.0)


def keras_yolo2_loss(
    raw: Tensor, targets: Targets, region: Region, options: LossOptions | None = None
) -> dict[str, Tensor]:
    """Return the blog's loss: each term is the mean over the predictors of the batch that contribute to it.

    Args:
        raw:     [B, A*(5+C), H, W], the network's output.
        targets: the objects of the batch, from encode with this region's anchors.
        region:  anchors and scales; its switches and its thresh are not used.
        options: prior (add the distance of boxes without an object from the cell's centre and the anchor's size, weight
            1), class weights (0 excludes a class), and IoU gradient (as in the blog unless it is False).
    Returns:
        Scalars: xy, wh, objectness, class, their sum `total`, and (without gradient) `recall`.
    Source: FairyOnIce, "Object Detection using YOLOv2 on Pascal VOC2012", custom_loss.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from lookonce.model.losses import LossOptions, best_iou

    options = options or LossOptions("keras_yolo2")
    anchors = like(region.anchors, raw)  # [A, 2]
    txywh, objectness, logits = split(raw, len(anchors))
    boxes, confidence = cell_boxes(txywh, anchors), objectness.sigmoid()
    won = winners(targets, raw)
    box_iou = iou(cxcywh_to_xyxy(boxes[won.index]), cxcywh_to_xyxy(won.boxes))  # [K]
    negative = (best_iou(boxes.detach(), won.truth) < 0.6) & won.free(confidence)
    target_iou = box_iou.detach() if options.iou_gradient is False else box_iou
    on_objects = region.object_scale * ((confidence[won.index] - target_iou) ** 2).sum()
    on_background = region.noobject_scale * (confidence**2 * negative).sum()
    counted = negative.sum().to(raw) * (region.noobject_scale > 0) + len(won) * (region.object_scale > 0)
    error = (boxes[won.index] - won.boxes) ** 2  # [K, 4] cells
    coord, num_coord = (error * region.coord_scale).sum(0), len(won) * (region.coord_scale > 0)  # [4]
    if options.prior:
        anchor_boxes = cell_boxes(torch.zeros_like(txywh), anchors)  # the cell's centre, the anchor's size
        free = won.free(confidence, ignored=False)[..., None]
        coord = error.sum(0) + torch.where(free, (boxes - anchor_boxes) ** 2, 0).flatten(0, 3).sum(0)
        num_coord = confidence.numel()
    weight = like(options.class_weights or (1.0,) * logits.shape[-1], raw)[won.label] * region.class_scale  # [K]
    classes = weight * cross_entropy(logits[won.index], won.label, reduction="none")
    terms = {
        "xy": coord[:2].sum() / (num_coord + 1e-6) / 2,
        "wh": coord[2:].sum() / (num_coord + 1e-6) / 2,
        "objectness": (on_objects + on_background) / (counted + 1e-6) / 2,
        "class": classes.sum() / ((weight > 0).sum().to(raw) + 1e-6),
    }
    recall = ((box_iou > 0.5) & (confidence[won.index] > 0.3)).to(raw).mean().detach()
    return {**terms, "total": torch.stack(list(terms.values())).sum(), "recall": recall}


LOSSES: dict[str, Callable[..., dict[str, Tensor]]] = {
    "region": region_loss,
    "region_ciou": region_ciou_loss,
    "keras_yolo2": keras_yolo2_loss,
}


def _best_predicted_shape(boxes: Tensor, targets: Targets) -> Tensor:
    """Return [N] the anchor whose predicted shape, in the object's cell, has the best IoU with it (bias_match=0).

    The only targets that depend on predictions: their shapes [N, A, 2] are read from the device.
    """
    from lookonce.model.device import to_device

    image, _, row, col = to_device(targets.index, boxes.device)
    shapes = boxes[image, :, row, col, 2:].to(targets.boxes)
    return shape_iou(shapes, targets.boxes[:, None, 2:]).argmax(1)


def _class_loss(logits: Tensor, won: Winners, softmax: bool, options: LossOptions) -> Tensor:
    """Return the cross-entropy of the winners' logits [K, C].

    Without softmax every object on the same anchor and cell adds its class. Source: region_layer.c, delta_region_class.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

    from lookonce.model.heads.tree_loss import path_loss

    if options.tree is not None:
        return path_loss(logits, options.tree, won.classes, won.weight)
    by_class = like(options.class_weights or (1.0,) * logits.shape[-1], logits)  # [C]
    if softmax:
        return (won.weight * by_class[won.label] * cross_entropy(logits, won.label, reduction="none")).sum()
    truth = logits.new_zeros(logits.shape).index_put_(won.classes, logits.new_ones(()))
    each = binary_cross_entropy_with_logits(logits, truth, reduction="none")  # [K, C]
    return (won.weight[:, None] * by_class * each).sum()
