"""The detection layer (YOLOv1): decode, encode and loss.

decode: raw numbers -> boxes in input pixels. encode: boxes -> targets on the grid. loss: raw numbers and objects.
Letters: B images, C classes, S x S cells, n boxes of a cell, N objects. There are no anchors and no sigmoids: the raw
numbers [B, S*S*(C + 5n)] are all classes (cell, class), then all objectness (cell, box), then all boxes (cell, box, 4).
torch is imported inside functions: decoding numpy arrays needs none of it.
Source: Redmon et al., You Only Look Once (2016), section 2.2; darknet/src/detection_layer.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lookonce.errors import ConfigError
from lookonce.model import boxes as formulas
from lookonce.model.boxes import Array, cxcywh_to_xyxy, iou, library, like, xyxy_to_cxcywh
from lookonce.model.detections import Predictions
from lookonce.model.heads.region import Targets
from lookonce.model.layers import Detection, PlacedHead
from lookonce.model.tree import Tree

if TYPE_CHECKING:
    from torch import Tensor

    from lookonce.model.losses import LossOptions, Objects

SMALL = 0.1
"""Area below which the second box of a cell is responsible (forced=1), a fraction of the image."""


def split(raw: Array, head: Detection) -> tuple[Array, Array, Array]:
    """Split raw into classes [B, S*S, C], objectness [B, S*S, n] and boxes [B, S*S, n, 4], softmax applied."""
    flat, cells = raw.reshape(raw.shape[0], -1), head.side**2
    middle, last = cells * head.classes, cells * (head.classes + head.num)
    classes = flat[:, :middle].reshape(-1, cells, head.classes)
    classes = formulas.softmax(classes) if head.softmax else classes
    return classes, flat[:, middle:last].reshape(-1, cells, head.num), flat[:, last:].reshape(-1, cells, head.num, 4)


def fraction_boxes(raw: Array, head: Detection) -> Array:
    """Return the predicted boxes cx, cy, w, h, fractions of the image: [B, S*S, n, 4] from raw boxes of that shape."""
    lib = library(raw)
    cell = lib.arange(head.side**2, device=raw.device, dtype=raw.dtype)
    corner = lib.stack((cell % head.side, cell // head.side), -1)[:, None]  # [S*S, 1, 2] column, row
    centre = (raw[..., :2] + corner) / head.side
    boxes: Array = lib.concat((centre, raw[..., 2:] ** 2 if head.sqrt else raw[..., 2:]), -1)
    return boxes


def decode(raw: Array, placed: PlacedHead, tree: Tree | None = None) -> Predictions[Array]:
    """Read the raw numbers of a detection layer, of arrays and tensors alike. No branch on values, so it exports.

    Predictions come cell by cell, and box by box within a cell. Objectness and classes are raw numbers, which training
    brings near 0 and 1. tree is not used: detection layers have none.
    """
    head = placed.layer
    assert isinstance(head, Detection)
    classes, objectness, found = split(raw, head)
    boxes = cxcywh_to_xyxy(fraction_boxes(found, head)) * like(head.input_size * 2, raw)
    each = library(raw).stack([classes] * head.num, 2)  # [B, S*S, n, C]
    batch = raw.shape[0]
    return Predictions(boxes.reshape(batch, -1, 4), objectness.reshape(batch, -1),
                       each.reshape(batch, -1, head.classes))  # fmt: skip


def encode(objects: Objects, placed: PlacedHead, grid: tuple[int, int]) -> Targets:
    """Assign the objects of a batch to cells. Of several in one cell the first wins. Boxes are in cells.

    grid is not used: the number of cells is the layer's side.
    """
    import torch

    head = placed.layer
    assert isinstance(head, Detection)
    cell = objects.boxes.new_tensor(head.input_size * 2) / head.side
    in_cells = xyxy_to_cxcywh(objects.boxes / cell)  # [N, 4]
    col, row = in_cells[:, :2].long().clamp(0, head.side - 1).unbind(1)
    place, number = (objects.image * head.side + row) * head.side + col, len(objects.labels)
    places, member = torch.unique(place, return_inverse=True)
    order = torch.arange(number, device=place.device).masked_fill(objects.ignore, number)
    first = order.new_full((len(places),), number).scatter_reduce(0, member, order, "amin")
    winner = first[member].masked_fill(first[member] == number, -1)
    zeros = torch.zeros_like(objects.labels)
    txy, wh = in_cells[:, :2] - torch.stack((col, row), -1), in_cells[:, 2:]
    return Targets(objects.image, zeros, row, col, in_cells, txy, wh, objects.labels, objects.ignore, winner,
                   torch.ones_like(txy[:, 0]))  # fmt: skip


def loss(raw: Tensor, placed: PlacedHead, objects: Objects, options: LossOptions) -> dict[str, Tensor]:
    """Return Darknet's loss of a detection layer, averaged over images. Its gradient is minus Darknet's deltas.

    Every objectness is drawn to 0; in a cell with an object, the box with the best IoU (or, if none overlaps, the
    nearest) is responsible for it. No gradient flows through the IoU as objectness target, nor through a softmax.

    Returns:
        Scalars: xy, wh, objectness, background, class, their sum `total`, and (without gradient) `recall`: the fraction
        of objects whose box has an IoU above .5; nan without objects.
    Raises:
        ConfigError: a loss of region layers.
    """
    import torch

    head = placed.layer
    assert isinstance(head, Detection)
    if options.name != "region":
        raise ConfigError(f"loss={options.name}: is a loss of region layers; expected loss=region, Darknet's own")
    targets = encode(objects, placed, (head.side, head.side)).to(raw.device)
    wins = targets.wins
    image, cell = targets.image[wins], targets.row[wins] * head.side + targets.col[wins]
    classes, objectness, boxes = split(raw, head)
    size = targets.boxes[wins, 2:] / head.side  # [K, 2] fractions
    truth = torch.cat((targets.boxes[wins, :2] / head.side, size), 1)
    with torch.no_grad():
        responsible, overlap = _responsible(fraction_boxes(boxes, head)[image, cell], truth, head)
        free = torch.ones_like(objectness, dtype=torch.bool)
        free[image, cell, responsible] = False
        skipped = targets.ignore
        free[targets.image[skipped], targets.row[skipped] * head.side + targets.col[skipped]] = False
        onehot = torch.nn.functional.one_hot(targets.label[wins], head.classes)
        to_class = classes[image, cell] - onehot
    found = boxes[image, cell, responsible]  # [K, 4]
    aim = overlap if head.rescore else torch.ones_like(overlap)
    raw_classes = raw.flatten(1)[:, : head.side**2 * head.classes].reshape(len(raw), -1, head.classes)
    own = raw_classes[image, cell]  # [K, C]
    terms = {
        "xy": head.coord_scale * ((found[:, :2] - targets.txy[wins]) ** 2).sum() / 2,
        "wh": head.coord_scale * ((found[:, 2:] - (size.sqrt() if head.sqrt else size)) ** 2).sum() / 2,
        "objectness": head.object_scale * ((objectness[image, cell, responsible] - aim) ** 2).sum() / 2,
        "background": head.noobject_scale * (objectness[free] ** 2).sum() / 2,
        "class": head.class_scale * ((own - own.detach() + to_class) ** 2).sum() / 2,
    }
    terms = {name: value / len(raw) for name, value in terms.items()}
    return {**terms, "total": torch.stack(list(terms.values())).sum(), "recall": (overlap > 0.5).to(raw).mean()}


def _responsible(boxes: Tensor, truth: Tensor, head: Detection) -> tuple[Tensor, Tensor]:
    """Return the responsible box of each object [K] and its IoU [K].

    boxes: [K, n, 4] and truth: [K, 4] cx, cy, w, h, fractions of the image. Darknet compares boxes whose centre in the
    cell is divided by side, which moves both alike.
    """
    overlap = iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(truth)[:, None])  # [K, n]
    distance = ((boxes - truth[:, None]) ** 2).sum(-1)
    best = overlap.argmax(1).where(overlap.amax(1) > 0, distance.argmin(1))
    if head.forced:
        best = (truth[:, 2:].prod(1) < SMALL).long().clamp(max=head.num - 1)
    return best, overlap.gather(1, best[:, None])[:, 0]
