"""Distillation: a network learns what a better one, its teacher, predicts, beside the labels.

Letters: B images, N predictions of a head, C classes.
Source: Mehta & Ozturk, Object Detection at 200 Frames per Second (2018), section 3.2: objectness scaled distillation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from lookonce.data.augment import InputBatch
from lookonce.errors import ConfigError
from lookonce.model.boxes import xyxy_to_cxcywh
from lookonce.model.detections import Predictions
from lookonce.model.heads import decode
from lookonce.model.layers import Detection, PlacedHead
from lookonce.model.model_file import load_model
from lookonce.model.network import Network, folded
from lookonce.model.tree import Tree

SMALLEST = 1e-3
"""Pixels to which the sides of boxes are raised before the logarithm."""


def distillation_loss(raws: Sequence[Tensor], aims: Sequence[Tensor], heads: Sequence[PlacedHead],
                      tree: Tree | None = None) -> Tensor:  # fmt: skip
    """Return how far the predictions of a network are from those of its teacher, averaged over images.

    It is half the sum, over all predictions, of (o - o')^2 + o' (|c - c'|^2 + |s - s'|^2 + |p - p'|^2), with a dash for
    the teacher: objectness o, centre c in cells, logarithm s of width and height, class probabilities p. So the teacher
    is followed everywhere in what is an object, and in boxes and classes only where it sees one.

    Args:
        raws: raw maps of the network, one a head.
        aims: those of the teacher; no gradient flows into them.
        heads: of both.
        tree: of the classes; None: there is none.
    """
    total = raws[0].new_zeros(())
    for raw, aim, head in zip(raws, aims, heads, strict=True):
        own, goal = (_numbers(decode([each], [head], tree), head) for each in (raw, aim.detach()))
        weight = torch.cat((torch.ones_like(goal[..., :1]), goal[..., :1].clamp(0, 1).expand_as(goal[..., 1:])), -1)
        total = total + (weight * (own - goal) ** 2).sum() / (2 * len(raw))
    return total


def _numbers(found: Predictions[Tensor], head: PlacedHead) -> Tensor:
    """Return o, c, s and p of predictions [B, N, 5 + C]."""
    layer, boxes = head.layer, xyxy_to_cxcywh(found.boxes)
    cell = layer.input_size[0] / layer.side if isinstance(layer, Detection) else head.stride
    sizes = boxes[..., 2:].clamp_min(SMALLEST).log()
    return torch.cat((found.objectness[..., None], boxes[..., :2] / cell, sizes, found.class_prob), -1)


class Teacher:
    """A detector whose predictions another network learns. It is no module: nothing of it is trained or saved."""

    def __init__(self, network: Network) -> None:
        self.network = folded(network).requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        """Return itself: the moving average of the network needs no second teacher."""
        return self

    def __call__(self, inputs: InputBatch) -> tuple[Tensor, ...]:
        """Return its raw maps for a batch of inputs."""
        with torch.no_grad():
            return cast(tuple[Tensor, ...], self.network.to(inputs.images.device)(inputs.images))


def load_teacher(place: str | Path, network: Network) -> Teacher:
    """Return the teacher of a network. place: its model file or run folder.

    Raises UserError for a file that cannot be read, ConfigError for heads that are not those of the network.
    """
    found = load_model(Path(place)).network
    own, its = ([(type(h.layer), h.layer.anchors, h.layer.classes, h.stride) for h in each.heads]
                for each in (network, found))  # fmt: skip
    if own != its:
        raise ConfigError(f"teacher: {place}: other heads than the network (kinds, anchors, classes, strides); give a "
                          "--network .cfg that ends as the teacher's, and --anchors 0")  # fmt: skip
    return Teacher(found)
