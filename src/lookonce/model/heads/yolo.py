"""The yolo layer (YOLOv3, v4, v7): decode, encode and loss.

decode: raw map -> boxes in input pixels. encode: boxes -> targets on the grid. loss: raw map and objects.
Letters: B images, A anchors of this head, C classes, H x W cells, N objects, P pairs of an object and a predictor.
Darknet defines the loss by its deltas, minus the gradient by the raw map. A head whose cfg has no key of Darknet's fork
is trained as by the original, any other as by the fork: deltas of several objects on one predictor add up there.
torch is imported inside functions: decoding numpy arrays needs none of it.
Source: Redmon & Farhadi, YOLOv3 (2018); Bochkovskiy et al., YOLOv4 (2020); yolo_layer.c and gaussian_yolo_layer.c.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lookonce.errors import ConfigError
from lookonce.model.boxes import Array, cxcywh_to_xyxy, iou, library, like, shape_iou, sigmoid, xyxy_to_cxcywh
from lookonce.model.detections import Predictions
from lookonce.model.heads.iou_deltas import iou_deltas
from lookonce.model.heads.region import MAX_LOG_SIZE, Targets, assign, truth_of
from lookonce.model.layers import PlacedHead, Yolo
from lookonce.model.tree import Tree

if TYPE_CHECKING:
    from torch import Tensor

    from lookonce.model.losses import LossOptions, Objects

LIKELY_CLASS = 0.25
"""A predicted box with no class above this counts as background. Source: the fork, compare_yolo_class(..., 0.25f)."""


def split(raw: Array, head: Yolo) -> Array:
    """Return raw [B, A*(5+C), H, W] as [B, A, H, W, 5+C]; with uncertainties 9+C, in Darknet's order."""
    cells = raw.reshape(raw.shape[0], len(head.mask), -1, *raw.shape[2:])
    made: Array = library(raw).moveaxis(cells, 2, -1)
    return made


def activate(cells: Array, head: Yolo) -> Array:
    """Return the sigmoid of values, or with new_coords the values: the convolution before has the sigmoid."""
    return cells if head.new_coords else sigmoid(cells)


def cell_boxes(xy: Array, wh: Array, placed: PlacedHead) -> Array:
    """Return the predicted boxes cx, cy, w, h in cells. xy, wh: raw [B, A, H, W, 2]. Returns [B, A, H, W, 4]."""
    head = placed.layer
    assert isinstance(head, Yolo)
    lib, (rows, cols) = library(xy), xy.shape[2:4]
    anchors = like(head.anchors, xy) / placed.stride  # [A, 2] cells
    col = lib.arange(cols, device=xy.device, dtype=xy.dtype)  # [W]
    row = lib.arange(rows, device=xy.device, dtype=xy.dtype)[:, None]  # [H, 1]
    offset = head.scale_x_y * activate(xy, head) - (head.scale_x_y - 1) / 2
    centre = lib.stack((offset[..., 0] + col, offset[..., 1] + row), -1)
    scale = (2 * wh) ** 2 if head.new_coords else lib.exp(lib.clip(wh, None, MAX_LOG_SIZE))
    boxes: Array = lib.concat((centre, scale * anchors[:, None, None]), -1)  # [A, 1, 1, 2] spreads
    return boxes


def decode(raw: Array, placed: PlacedHead, tree: Tree | None = None) -> Predictions[Array]:
    """Read the raw map of a yolo layer, of arrays and tensors alike. No branch on values, so it exports.

    With uncertainties, class probabilities are lowered by their mean. tree is not used: yolo layers have none.
    """
    head = placed.layer
    assert isinstance(head, Yolo)
    cells, batch = split(raw, head), raw.shape[0]
    if head.gaussian:
        boxes = cell_boxes(cells[..., 0:4:2], cells[..., 4:8:2], placed)
        objectness, classes = cells[..., 8], activate(cells[..., 9:], head)
        classes = classes * (1 - activate(cells[..., 1:8:2], head).mean(-1)[..., None])
    else:
        boxes = cell_boxes(cells[..., :2], cells[..., 2:4], placed)
        objectness, classes = cells[..., 4], activate(cells[..., 5:], head)
    return Predictions((cxcywh_to_xyxy(boxes) * placed.stride).reshape(batch, -1, 4),
                       activate(objectness, head).reshape(batch, -1),
                       classes.reshape(batch, -1, head.classes))  # fmt: skip


def encode(objects: Objects, placed: PlacedHead, grid: tuple[int, int]) -> Targets:
    """Assign the objects of a batch to cells and anchors of this head. grid: (H, W) cells.

    The anchor is the one of best shape IoU of all heads, the first of equals. An object whose anchor another head has
    has no winner here. Of several objects on one anchor and cell the last wins.
    """
    import torch

    head = placed.layer
    assert isinstance(head, Yolo)
    in_cells = xyxy_to_cxcywh(objects.boxes) / placed.stride  # [N, 4]
    every = in_cells.new_tensor(head.all_anchors) / placed.stride  # [all anchors, 2] cells
    own = every[list(head.mask)]  # [A, 2]
    best = shape_iou(in_cells[:, None, 2:], every).argmax(1)  # [N] of all anchors
    here = best[:, None] == torch.tensor(head.mask, device=best.device)  # [N, A]
    rows, cols = grid
    col, row = in_cells[:, 0].long().clamp(0, cols - 1), in_cells[:, 1].long().clamp(0, rows - 1)
    anchor = here.to(torch.uint8).argmax(1)
    targets = Targets(
        objects.image, anchor, row, col, in_cells, in_cells[:, :2] - torch.stack((col, row), -1), in_cells[:, 2:],
        objects.labels, objects.ignore | ~here.any(1), anchor, torch.ones_like(in_cells[:, 0]),
    )  # fmt: skip
    found = assign(targets, anchor, own)
    return replace(found, ignore=objects.ignore, winner=found.winner.where(here.any(1), -1))


@dataclass(frozen=True)
class Pairs:
    """Objects and the predictors that learn them, in Darknet's order; P pairs."""

    target: Tensor  # [P] index of the object
    place: Tensor  # [P] index of the predictor in [B * A * H * W]
    early: Tensor  # [P] bool: found by truth_thresh, before the objects are assigned


def assigned(targets: Targets, placed: PlacedHead, match_iou: float, size: tuple[int, int]) -> Pairs:
    """Return the pairs of objects and anchors: each object's best anchor, then others of this head above match_iou.

    size: (H, W) cells of the map. Ignored objects are in no pair.
    """
    import torch

    head = placed.layer
    assert isinstance(head, Yolo)
    every = targets.boxes.new_tensor(head.all_anchors) / placed.stride
    overlap = shape_iou(targets.boxes[:, None, 2:], every)  # [N, all anchors]
    mask = torch.tensor(head.mask, device=overlap.device)
    best = overlap.argmax(1)[:, None] == mask  # [N, A]
    matches = (best | (overlap[:, mask] > match_iou) if match_iou < 1 else best) & ~targets.ignore[:, None]
    target, anchor = matches.nonzero(as_tuple=True)
    order = (target * (len(mask) + 1) + torch.where(best[target, anchor], 0, anchor + 1)).argsort(stable=True)
    target, anchor = target[order], anchor[order]
    place = (targets.image[target] * len(mask) + anchor) * size[0] + targets.row[target]
    place = place * size[1] + targets.col[target]
    return Pairs(target, place, torch.zeros_like(target, dtype=torch.bool))


def overlapping(boxes: Tensor, best: Tensor, targets: Targets, truth_thresh: float) -> Pairs:
    """Return the predictors whose box overlaps an object more than truth_thresh, each with its best object.

    boxes: [B, A, H, W, 4] cx, cy, w, h in cells; best: [B, A, H, W] the best IoU of each.
    """
    import torch

    place = (best.flatten() > truth_thresh).nonzero()[:, 0]  # [P]
    if len(place) == 0 or truth_thresh >= 1:
        return Pairs(place[:0], place[:0], torch.zeros_like(place[:0], dtype=torch.bool))
    image = place // best[0].numel()
    found = cxcywh_to_xyxy(boxes.reshape(-1, 4)[place])
    overlap = iou(found[:, None], cxcywh_to_xyxy(targets.boxes))  # [P, N]
    overlap = overlap.masked_fill(image[:, None] != targets.image, -1)
    target = overlap.argmax(1)
    real = ~targets.ignore[target]
    return Pairs(target[real], place[real], torch.ones_like(place[real], dtype=torch.bool))


def loss(raw: Tensor, placed: PlacedHead, objects: Objects, options: LossOptions) -> dict[str, Tensor]:
    """Return Darknet's loss of a yolo layer, averaged over images; its gradient is minus Darknet's deltas.

    Each term is half the sum of its squared deltas; with an iou_loss, that of boxes is iou_normalizer * (1 - IoU), and
    its gradient that of iou_deltas.py.

    Returns:
        Scalars: xy and wh, or box (with an iou_loss), objectness, background, class, their sum `total`, and (without
        gradient) `recall`: the fraction of this head's objects whose predictor has an IoU above .5; nan without
        objects.
    Raises:
        ConfigError: a loss of region layers, a head with uncertainties.
    """
    import torch

    head = placed.layer
    assert isinstance(head, Yolo)
    if options.name != "region" or head.gaussian:
        what = "Gaussian yolo layers" if head.gaussian else f"loss={options.name}: yolo layers"
        raise ConfigError(f"{what} cannot be trained; expected loss=region and yolo layers without uncertainties")
    with torch.no_grad():
        targets = encode(objects, placed, (raw.shape[2], raw.shape[3])).to(raw.device)
        delta, positive, overlap = deltas(raw, placed, targets, min(options.match_iou, head.iou_thresh))
    cells = split(raw, head)  # [B, A, H, W, 5+C]
    squares = (cells - cells.detach() - delta) ** 2 / 2
    on_objects = squares[..., 4][positive].sum()
    if head.iou_loss == "mse":
        boxes = {"xy": squares[..., :2].sum(), "wh": squares[..., 2:4].sum()}
    else:
        pulled = ((cells.detach() - cells) * delta)[..., :4].sum()  # 0, with the gradient of the deltas
        boxes = {"box": head.iou_normalizer * (1 - overlap).sum() + pulled}
    terms = {
        **boxes,
        "objectness": on_objects,
        "background": squares[..., 4].sum() - on_objects,
        "class": squares[..., 5:].sum(),
    }
    terms = {name: value / len(raw) for name, value in terms.items()}
    return {**terms, "total": torch.stack(list(terms.values())).sum(), "recall": (overlap > 0.5).to(raw).mean()}


def deltas(raw: Tensor, placed: PlacedHead, targets: Targets, match_iou: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return Darknet's deltas [B, A, H, W, 5+C], the predictors with an object [B, A, H, W] bool, and the IoU of each
    assigned object's box [P].
    """
    import torch

    from lookonce.model.losses import best_iou

    head = placed.layer
    assert isinstance(head, Yolo)
    cells = split(raw, head)
    values = activate(cells, head)
    boxes = cell_boxes(cells[..., :2], cells[..., 2:4], placed)  # [B, A, H, W, 4] cells
    best = best_iou(boxes, truth_of(targets, len(raw)).to(boxes))  # [B, A, H, W]
    early = overlapping(boxes, best, targets, head.truth_thresh)
    late = assigned(targets, placed, match_iou, (raw.shape[2], raw.shape[3]))
    pairs = Pairs(*(torch.cat((a, b)) for a, b in zip(vars(early).values(), vars(late).values(), strict=True)))
    delta = cells.new_zeros(cells.shape)
    delta[..., 4] = _objectness_deltas(values, best, targets, pairs, head)
    flat = delta.view(-1, delta.shape[-1])  # [B*A*H*W, 5+C]
    places, classes = _class_deltas(values, best, targets, pairs, head)
    flat[places, 5:] = classes
    _add_box_deltas(flat, cells, boxes, targets, pairs, placed)
    if match_iou < 1 and not is_original(head):
        learnt = places[flat[places, 4] != 0]
        flat[learnt, :4] /= (flat[learnt, 5:] > 0).sum(1, keepdim=True).clamp(min=1)
    positive = best.new_zeros(best.shape, dtype=torch.bool)
    positive.view(-1)[places] = True
    own = boxes.reshape(-1, 4)[late.place]
    overlap = iou(cxcywh_to_xyxy(own), cxcywh_to_xyxy(targets.boxes[late.target]))
    return delta, positive, overlap


def is_original(head: Yolo) -> bool:
    """Return whether a head has no setting of Darknet's fork: it is trained as by the original."""
    return head == Yolo(head.all_anchors, head.mask, head.classes, ignore_thresh=head.ignore_thresh,
                        truth_thresh=head.truth_thresh)  # fmt: skip


def _multipliers(head: Yolo, labels: Tensor) -> Tensor:
    """Return the weight of each label [P]: rare classes have more, at most max_delta."""
    if not head.counters_per_class:
        return labels.new_ones(labels.shape).float()
    counters = labels.new_tensor(head.counters_per_class, dtype=None).float()
    weights: Tensor = (counters.max() / counters).clamp(max=head.max_delta)[labels]
    return weights


def _ends(place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return each distinct place [U], and the first and last pair there."""
    import torch

    places, member = torch.unique(place, return_inverse=True)
    order = torch.arange(len(place), device=place.device)
    first = order.new_zeros(len(places)).scatter_reduce(0, member, order, "amin", include_self=False)
    last = order.new_zeros(len(places)).scatter_reduce(0, member, order, "amax", include_self=False)
    return places, first, last


def _objectness_deltas(values: Tensor, best: Tensor, targets: Targets, pairs: Pairs, head: Yolo) -> Tensor:
    """Return the deltas of objectness [B, A, H, W]. values: [B, A, H, W, 5+C], after activation."""
    import torch

    found, weight = values[..., 4].contiguous(), head.obj_normalizer
    match = best if is_original(head) else best * (values[..., 5:] > LIKELY_CLASS).any(-1)
    overlaps = match > head.ignore_thresh
    delta = -weight * found
    smooth = head.objectness_smooth
    delta = torch.where(overlaps, torch.maximum(delta, weight * (match - found)) if smooth else 0, delta)
    if targets.ignore.any():
        delta[targets.index[:, targets.ignore].unbind()] = 0
    flat, flat_found = delta.view(-1), found.view(-1)
    place = pairs.place[pairs.early]
    aim = best.flatten()[place] ** 2 if smooth else 1
    flat[place] = weight * (aim - flat_found[place])
    late = ~pairs.early
    places, first, last = _ends(pairs.place[late])
    chosen = pairs.target[late][first if smooth else last]
    value = weight * _multipliers(head, targets.label[chosen]) * (1 - flat_found[places])
    flat[places] = torch.where(flat[places] == 0, value, flat[places]) if smooth else value
    return delta


def _class_deltas(values: Tensor, best: Tensor, targets: Targets, pairs: Pairs, head: Yolo) -> tuple[Tensor, Tensor]:
    """Return the predictors with objects [U] and the deltas of their classes [U, C].

    The first object of a predictor sets all classes, the others set their own.
    """
    import torch

    places, first, _ = _ends(pairs.place)
    found = values[..., 5:].reshape(-1, head.classes)[places]  # [U, C]
    label, rows = targets.label[pairs.target], torch.arange(len(places), device=places.device)
    near = head.label_smooth_eps / 2
    truth = torch.full_like(found, near)
    truth[rows, label[first]] = 1 - near
    delta = truth - found
    multiplier = _multipliers(head, label)  # [P]
    if head.focal_loss:
        likely = found[rows, label[first]] + 1e-15
        delta *= -0.5 * ((1 - likely) * (2 * likely * likely.log() + likely - 1))[:, None]
    elif head.counters_per_class:
        delta[rows, label[first]] *= multiplier[first] * head.cls_normalizer
    if head.objectness_smooth:
        early = pairs.early[first]
        at = rows[early], label[first][early]
        delta[at] = multiplier[first][early] * (best.flatten()[places[early]] ** 2 - found[at])
    later = torch.ones_like(pairs.early)
    later[first] = False
    row = torch.searchsorted(places, pairs.place[later])
    at = row, label[later]
    delta[at] = multiplier[later] * (1 - near - found[at])
    return places, delta


def _add_box_deltas(
    flat: Tensor, cells: Tensor, boxes: Tensor, targets: Targets, pairs: Pairs, placed: PlacedHead
) -> None:
    """Add the deltas of boxes to flat [B*A*H*W, 5+C]. cells: raw; boxes: [B, A, H, W, 4] in cells."""
    import torch

    head = placed.layer
    assert isinstance(head, Yolo)
    size = boxes.new_tensor((cells.shape[3], cells.shape[2]))  # (W, H) cells
    fraction = size.repeat(2)
    truth, raw = targets.boxes[pairs.target], cells.reshape(-1, cells.shape[-1])[pairs.place, :4]
    multiplier = _multipliers(head, targets.label[pairs.target])[:, None]
    if head.iou_loss == "mse":
        anchor = pairs.place // (cells.shape[2] * cells.shape[3]) % len(head.mask)
        ratio = truth[:, 2:] * placed.stride / boxes.new_tensor(head.anchors)[anchor]
        aim = (ratio / 4).sqrt() if head.new_coords else ratio.log()
        cell = torch.stack((pairs.place % cells.shape[3], pairs.place // cells.shape[3] % cells.shape[2]), 1)
        offset = boxes.reshape(-1, 4)[pairs.place, :2] - cell
        difference = torch.cat((truth[:, :2] - cell - offset, aim - raw[:, 2:]), 1)
        weight = 2 - (truth[:, 2:] / size).prod(1, keepdim=True)
        delta = weight * difference * (1 if is_original(head) else head.iou_normalizer * multiplier)
    else:
        predicted = boxes.reshape(-1, 4)[pairs.place]
        delta = iou_deltas(predicted / fraction, truth / fraction, head.iou_loss)
        if not head.new_coords:
            delta[:, 2:] *= raw[:, 2:].clamp(max=MAX_LOG_SIZE).exp()
        delta = (delta * head.iou_normalizer * multiplier).nan_to_num(0, 0, 0).clamp(-head.max_delta, head.max_delta)
    if is_original(head):
        places, _, last = _ends(pairs.place)
        flat[places, :4] = delta[last]
    else:
        flat[:, :4].index_add_(0, pairs.place, delta)
