"""Detection heads: the meaning of a network's raw maps. One module for each kind, with its decode, encode and loss.

To add a head: a record in layers.py, a module here, an entry in KINDS. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lookonce.model.boxes import Array, library
from lookonce.model.detections import Predictions
from lookonce.model.heads import detection, region, yolo
from lookonce.model.layers import Detection, Layer, PlacedHead, Region, Yolo
from lookonce.model.tree import Tree

if TYPE_CHECKING:
    from torch import Tensor

    from lookonce.model.heads.region import Targets
    from lookonce.model.losses import LossOptions, Objects


class Kind(NamedTuple):
    """The functions of one kind of head."""

    decode: Callable[[Any, PlacedHead, Tree | None], Predictions[Any]]
    encode: Callable[[Objects, PlacedHead, tuple[int, int]], Targets]
    loss: Callable[[Tensor, PlacedHead, Objects, LossOptions], dict[str, Tensor]]


KINDS: dict[type[Layer], Kind] = {
    Region: Kind(region.decode, region.encode_objects, region.loss),
    Yolo: Kind(yolo.decode, yolo.encode, yolo.loss),
    Detection: Kind(detection.decode, detection.encode, detection.loss),
}


def decode(raws: Sequence[Array], heads: Sequence[PlacedHead], tree: Tree | None = None) -> Predictions[Array]:
    """Decode a network's raw maps, one a head in layer order, into one Predictions, head by head.

    Takes arrays or tensors. No branch on values, so it exports.
    """
    parts = [KINDS[type(head.layer)].decode(raw, head, tree) for raw, head in zip(raws, heads, strict=True)]
    if len(parts) == 1:
        return parts[0]
    concat = library(raws[0]).concat
    return Predictions(
        concat([part.boxes for part in parts], 1),
        concat([part.objectness for part in parts], 1),
        concat([part.class_prob for part in parts], 1),
    )


def encode(objects: Objects, heads: Sequence[PlacedHead], input_size: tuple[int, int]) -> list[Targets]:
    """Return the targets of the objects at each head. input_size: (W, H) of the input, pixels."""
    width, height = input_size
    return [
        KINDS[type(head.layer)].encode(objects, head, (height // head.stride, width // head.stride)) for head in heads
    ]


def loss(
    raws: Sequence[Tensor], heads: Sequence[PlacedHead], objects: Objects, options: LossOptions
) -> dict[str, Tensor]:
    """Return the loss terms of a network's raw maps, summed over heads; `recall` is the mean of heads with objects."""
    parts = [KINDS[type(head.layer)].loss(raw, head, objects, options) for raw, head in zip(raws, heads, strict=True)]
    terms = dict(parts[0])
    for part in parts[1:]:
        for name, value in part.items():
            terms[name] = terms[name] + value if name in terms else value
    if len(parts) > 1:
        recalls = [part["recall"][None] for part in parts]
        terms["recall"] = library(raws[0]).concat(recalls).nanmean()
    return terms
