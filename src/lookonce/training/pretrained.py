"""Start from the weights of another network: which layers are loaded, random or frozen, as one table."""

from __future__ import annotations

import logging
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from rich import box
from rich.table import Table
from torch import Tensor, nn

from lookonce.console import rendered
from lookonce.errors import ConfigError, UserError
from lookonce.model import zoo
from lookonce.model.class_names import same_classes
from lookonce.model.darknet.weights import layers_of, numbers_in, read_weights
from lookonce.model.layers import Detection, PlacedHead, Yolo
from lookonce.model.model_file import load_model
from lookonce.model.network import TRAINED_HERE, Convolution, Network, empty
from lookonce.model.sizes import last_convolutions

log = logging.getLogger("lookonce")
LastLayer = Literal["random", "match", "keep"]
OTHER_CLASSES = 0.01
"""Deviation of the weights with which the rows of classes start that the pretrained network does not know."""


@dataclass(frozen=True)
class LoadedLayer:
    """One convolution of the network that is trained."""

    layer: int
    shape: tuple[int, ...]  # [filters, channels, k, k]
    status: str
    """loaded, whole or in part, or random and why."""
    frozen: bool


def start_from(network: Network, weights: Path, frozen: int, input_size: tuple[int, int], labels: tuple[str, ...] = (),
               last: LastLayer = "random") -> list[LoadedLayer]:  # fmt: skip
    """Load the weights of another network into a network.

    A convolution is loaded if the other network has one of the same shape at the same position. The last one (before
    each head) depends on classes and anchors; `last` says how it starts:
        random: normal with deviation 1 / (cells of its map for inputs of input_size).
        match: the rows of boxes and objectness are loaded, and those of classes that have the same name; rows of other
            classes start near 0. A head of another kind or with another number of anchors starts random.
        keep: loaded whole; the classes must be those of the weights, in the same order.
    Frozen layers read variances as the file does, others as networks trained here.

    Args:
        network: filled in place.
        weights: a model file, a run folder, a Darknet .cfg with its .weights, or Darknet weights without .cfg: those of
            this network with any number of classes, or of its start (darknet19_448.conv.23).
        frozen: number of frozen convolutions.
        input_size: (width, height) of the input in training.
        labels: the classes of the data; random does not need them.
        last: how the last convolution starts.
    Returns:
        What happened to each convolution.
    Raises:
        UserError: nothing fits, the classes differ, the last convolution cannot be kept, or the file cannot be read.
    Source of the last layer's start: the blog's part on training, np.random.normal / (GRID_H * GRID_W).
    """
    source, seen, classes = _source(weights, network)
    if last == "keep":
        check_classes(weights, classes, labels)
    theirs, ours = source.convolution_list(), network.convolution_list()
    heads = dict(zip(last_convolutions(network.layers), network.heads, strict=True))
    their_heads = dict(zip(last_convolutions(source.layers), source.heads, strict=True)) if source.heads else {}
    found = []
    for place, (layer, convolution) in enumerate(zip(map(int, network.convolutions), ours, strict=True)):
        status = "random: last layer"
        if last == "match" and layer in heads and layer in their_heads and place < len(theirs):
            their_last = Last(theirs[place].conv, their_heads[layer], classes)
            status = match_rows(their_last, Last(convolution.conv, heads[layer], labels)) or status
        elif last == "keep" or layer not in heads:
            status = _load(convolution, theirs[place] if place < len(theirs) else None, place < frozen)
        found.append(LoadedLayer(layer, tuple(convolution.conv.weight.shape), status, place < frozen))
    if not any(row.status == "loaded" for row in found):
        raise UserError(
            f"{weights}: none of its {len(theirs)} convolutions fits this network; give the network "
            "that it was trained as: --network"
        )
    for row, convolution in zip(found, ours, strict=True):
        if row.layer not in heads or not row.status.startswith("random"):
            continue
        if last == "keep":
            raise ConfigError(
                f"keep-last: the last layer cannot be kept ({row.status}); classes and anchors must be those of "
                "the weights"
            )
        cells = math.prod(side // heads[row.layer].stride for side in input_size)
        for parameter in convolution.conv.parameters():
            nn.init.normal_(parameter, std=1 / cells)
    for line in (str(weights), *layer_table(found).splitlines()):
        log.info("%s", line)
    if seen:
        log.info("fine-tuning counts images from 0; the other model has seen %d", seen)
    return found


class Last(NamedTuple):
    """A last convolution, the head that reads it, and the names of its classes."""

    conv: nn.Conv2d
    head: PlacedHead
    labels: tuple[str, ...]


def match_rows(theirs: Last, ours: Last) -> str:
    """Copy the rows of boxes, objectness and classes of the same name; return what was copied, "" if nothing fits.

    Where anchors differ, the biases of width and height change by log(theirs / ours): predicted boxes stay the same.
    Rows of other classes start near 0; a yolo layer, whose classes are independent, gives each 1 / (C + 1).
    """
    new, old = ours.head.layer, theirs.head.layer
    shapes, their_shapes = (torch.tensor(each.head.anchors_px).reshape(-1, 2) for each in (ours, theirs))
    if type(new) is not type(old) or isinstance(new, Detection) or len(shapes) != len(their_shapes):
        return ""
    if theirs.conv.weight.shape[1:] != ours.conv.weight.shape[1:]:
        return ""
    pairs = same_classes(ours.labels, theirs.labels)
    start = new.channels // len(shapes) - new.classes  # the rows of boxes and objectness come first
    other = [start + index for index in range(new.classes) if index not in dict(pairs)]
    with torch.no_grad():
        for own, source in ((ours.conv.weight, theirs.conv.weight), (bias_of(ours.conv), bias_of(theirs.conv))):
            rows, their_rows = (each.view(len(shapes), -1, *each.shape[1:]) for each in (own, source))
            rows[:, :start] = their_rows[:, :start]
            for index, same in pairs:
                rows[:, start + index] = their_rows[:, start + same]
            nn.init.normal_(other_rows := rows[:, other], std=OTHER_CLASSES)
            rows[:, other] = other_rows
        biases = bias_of(ours.conv).view(len(shapes), -1)  # [A, 5 + C]
        if isinstance(new, Yolo):
            biases[:, other] -= math.log(new.classes)
        sizes = slice(4, 8, 2) if isinstance(new, Yolo) and new.gaussian else slice(2, 4)
        if not (isinstance(new, Yolo) and new.new_coords):
            biases[:, sizes] += (their_shapes / shapes).log()
    return f"boxes, objectness and {len(pairs)} of {new.classes} classes loaded"


def bias_of(conv: nn.Conv2d) -> Tensor:
    """Return the bias of a convolution without batch norm."""
    assert conv.bias is not None
    return conv.bias


def check_classes(weights: Path, theirs: tuple[str, ...], ours: tuple[str, ...]) -> None:
    """Raise ConfigError unless the classes of weights are those of the data, in the same order.

    theirs: empty, or "class 0", "class 1" ... if their file has no names; then there is a warning.
    """
    if not theirs or theirs == tuple(f"class {index}" for index in range(len(theirs))):
        log.warning("%s: has no class names; expected those of the data in this order: %s", weights,
                    ", ".join(ours[:10]))  # fmt: skip
        return
    if theirs == ours:
        return
    if sorted(theirs) == sorted(ours):
        order = " ".join(map(shlex.quote, theirs))
        raise ConfigError(f"keep-last: {weights} has the same classes in another order; give theirs: --labels {order}")
    if len(theirs) != len(ours):
        found = f"{weights} has {len(theirs)} classes and the data has {len(ours)}"
    else:
        index = next(n for n, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)
        found = f"class {index} is {theirs[index]!r} in {weights} and {ours[index]!r} in the data"
    raise ConfigError(f"keep-last: {found}; leave out --keep-last; the last layer then starts from random weights")


def layer_table(rows: Sequence[LoadedLayer]) -> str:
    """Return the layers as a table in text, with one row for neighbours of the same state."""
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    for heading in ("layer", "filters x channels x k x k", "weights", "in training"):
        table.add_column(heading, no_wrap=True)
    for (status, frozen), group in groupby(rows, lambda row: (row.status, row.frozen)):
        first, *more = group
        layers = f"{first.layer}-{more[-1].layer}" if more else str(first.layer)
        shape = f"{len(more) + 1} convolutions" if more else " x ".join(map(str, first.shape))
        table.add_row(layers, shape, status, "frozen" if frozen else "trained")
    return rendered(table, blank_lines=False)


def _source(weights: Path, ours: Network) -> tuple[Network, int, tuple[str, ...]]:
    """Return the network of the weights, the number of images that it has seen, and its classes if they have names.

    Darknet weights without .cfg may be of this network or its start; for a grey network also with RGB input.
    """
    weights = weights.expanduser()
    is_darknet = weights.suffix == ".weights" or ".conv." in weights.name
    if not is_darknet or not weights.is_file() or weights.with_suffix(".cfg").is_file():
        model = load_model(weights)
        return model.network, model.seen, model.labels
    numbers = numbers_in(weights)
    fits = [(found, channels) for channels in dict.fromkeys((ours.channels, 3))
            if (found := layers_of(numbers, ours.layers, channels))]  # fmt: skip
    if not fits:
        known = [name for name in zoo.DETECTORS if layers_of(numbers, zoo.detector(name, 1, zoo.VOC_ANCHORS))]
        raise UserError(
            f"{weights}: {numbers:,} numbers, which fit neither this network nor its start; "
            + (f"they fit --network {' or '.join(known)}" if known else "put their .cfg into the same folder")
        )
    network = empty(*fits[0])
    return network, read_weights(weights, network).seen, ()


def _load(convolution: Convolution, theirs: Convolution | None, frozen: bool) -> str:
    """Load one convolution if it fits. Return "loaded", or "random" and why."""
    if theirs is None:
        return "random: the file has no such layer"
    if (shape := theirs.conv.weight.shape) != convolution.conv.weight.shape:
        return f"random: the file has {' x '.join(map(str, shape))}"
    if (convolution.norm is None) != (theirs.norm is None):
        return "random: no batch norm in the file" if theirs.norm is None else "random: batch norm in the file only"
    convolution.load_state_dict(theirs.state_dict())
    if convolution.norm is not None and theirs.norm is not None:
        convolution.norm.sigma = theirs.norm.sigma if frozen else TRAINED_HERE
    return "loaded"
