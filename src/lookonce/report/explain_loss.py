"""The loss of one image as maps: what each predictor adds to each term, and which predictors count as what.

Letters: A anchors, H x W cells, N objects, K winners among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lookonce.model.heads.region import (
    LOSSES,
    Targets,
    _best_predicted_shape,
    assign,
    assign_to_several,
    cell_boxes,
    encode_objects,
    loss,
    split,
    winners,
)
from lookonce.model.layers import PlacedHead, Region
from lookonce.model.losses import LossOptions, Objects, best_iou

KERAS_THRESH = 0.6
"""IoU up to which the keras_yolo2 loss counts a predictor as background. Source: the blog's custom_loss."""
BACKGROUND, OBJECT, IGNORED = range(3)
"""Roles of a predictor: it should find nothing; it should find an object; its objectness is not trained."""
ROLES = ("background", "object", "not trained")


@dataclass(frozen=True, eq=False)
class LossMaps:
    """The loss of one image at one region layer."""

    name: str
    """Of the loss."""
    terms: dict[str, float]
    """Value of each term, and their sum `total`; as the loss itself returns them."""
    maps: dict[str, Tensor]
    """Term -> [A, H, W] what each predictor adds to it; each map sums to its term."""
    roles: Tensor
    """[A, H, W] BACKGROUND, OBJECT or IGNORED."""


def loss_maps(raw: Tensor, head: PlacedHead, objects: Objects, options: LossOptions) -> LossMaps:
    """Return the maps of each term of a loss, of one image.

    Args:
        raw:     [1, A*(5+C), H, W], the network's output.
        head:    the region layer that reads it.
        objects: the labelled objects of the image, input px.
        options: which loss.
    """
    assert isinstance(head.layer, Region)  # the only kind of head that has these losses
    with torch.no_grad():
        terms = {name: float(value) for name, value in loss(raw, head, objects, options).items() if name != "recall"}
        targets = _targets(raw, head, objects, options)
        negative = background(raw, targets, head.layer, options.name)  # [1, A, H, W]
        maps = {name: torch.zeros(negative.shape[1:]) for name in terms if name != "total"}
        for at, parts in _objects_alone(raw, targets, head.layer, replace(options, prior=False)):
            for name in maps:
                maps[name][at] += float(parts.get(name, 0.0))
        _, objectness, _ = split(raw, negative.shape[1])
        on_background = head.layer.noobject_scale * objectness.sigmoid()[0] ** 2 * negative[0] / 2
        maps["background" if "background" in maps else "objectness"] += on_background
        scaled = {name: _summing_to(values, terms[name]) for name, values in maps.items()}
    return LossMaps(options.name, terms, scaled, _roles(targets, negative))


def background(raw: Tensor, targets: Targets, region: Region, name: str = "region") -> Tensor:
    """Return the mask [1, A, H, W] of the predictors whose objectness should be 0.

    They are responsible for no object, and the box that they predict overlaps none by more than a limit.
    """
    txywh, objectness, _ = split(raw, len(region.anchors))
    won = winners(targets, raw)
    overlap = best_iou(cell_boxes(txywh, raw.new_tensor(region.anchors)), won.truth)
    apart = overlap < KERAS_THRESH if name == "keras_yolo2" else overlap <= region.thresh
    return apart & won.free(objectness)


def _targets(raw: Tensor, head: PlacedHead, objects: Objects, options: LossOptions) -> Targets:
    """Return the targets that the loss compares the map with."""
    assert isinstance(head.layer, Region)
    targets, anchors = encode_objects(objects, head, (raw.shape[2], raw.shape[3])), raw.new_tensor(head.layer.anchors)
    if options.match_iou < 1:
        targets = assign_to_several(targets, anchors, options.match_iou)
    if options.name != "keras_yolo2" and not head.layer.bias_match:
        boxes = cell_boxes(split(raw, len(anchors))[0], anchors)
        targets = assign(targets, _best_predicted_shape(boxes, targets), anchors)
    return targets


def _objects_alone(
    raw: Tensor, targets: Targets, region: Region, options: LossOptions
) -> Iterator[tuple[tuple[int, int, int], dict[str, Tensor]]]:
    """Yield the predictor (anchor, row, column) of each winner, and the terms of the loss of this object alone.

    The loss itself computes them: the others have weight 0, or, where it knows no weights, are no winners.
    """
    order = torch.arange(len(targets.winner))
    without_background = replace(region, noobject_scale=0.0)
    for k in targets.wins.nonzero()[:, 0].tolist():
        if options.name == "keras_yolo2":
            only = replace(targets, winner=targets.winner.masked_fill(order != k, -1))
        else:
            only = replace(targets, weight=targets.weight * (order == k))
        place = int(targets.anchor[k]), int(targets.row[k]), int(targets.col[k])
        yield place, LOSSES[options.name](raw, only, without_background, options)


def _summing_to(values: Tensor, total: float) -> Tensor:
    """Return values that sum to the total: the mean over contributors of keras_yolo2 divides all by one number."""
    found = values.sum()
    return values * (total / found) if found > 0 else values


def _roles(targets: Targets, negative: Tensor) -> Tensor:
    roles = torch.full(negative.shape, IGNORED)
    roles[negative] = BACKGROUND
    roles[tuple(targets.index[:, targets.wins])] = OBJECT
    return roles[0]
