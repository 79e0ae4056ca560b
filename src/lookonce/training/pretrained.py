"""Weights of another network as a start: what is taken, what starts anew, what is frozen, in one table."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from lookonce.errors import ConfigError, UserError
from lookonce.model import zoo
from lookonce.model.darknet.weights import layers_of, numbers_in, read_weights
from lookonce.model.model_file import load_model
from lookonce.model.network import TRAINED_HERE, Convolution, Network, empty

log = logging.getLogger("lookonce")


@dataclass(frozen=True)
class Taken:
    """One convolution of the network that is trained."""

    layer: int
    shape: tuple[int, ...]  # [filters, channels, k, k]
    came: str
    """taken, or why it starts anew."""
    frozen: bool


def start_from(network: Network, weights: Path, frozen: int, input_size: tuple[int, int],
               keep_last: tuple[str, ...] | None = None) -> list[Taken]:  # fmt: skip
    """Fill a network from another's weights, the last convolution excepted.

    weights: a model file, the folder of a run, a Darknet .cfg beside its .weights, or a file of Darknet weights
    alone: those of this same network with any number of classes, or of its start (darknet19_448.conv.23).
    keep_last: take the last convolution like the others; these are the classes of the data, which must be those of the
    weights, in the same order. None: it starts anew.

    Every convolution takes the numbers of the one at its place there, where both have the same shape. The
    last, which speaks of classes and anchors, starts anew unless it is asked for: normal, with deviation 1 / (cells of
    the map that it is trained on, for inputs of input_size). Frozen layers read variances as the file does; others as
    networks trained here.
    Returns what became of each convolution.
    Raises UserError where nothing fits, for other classes, or for a file that cannot be read.
    Source of the last layer's start: the blog's part on training, np.random.normal / (GRID_H * GRID_W).
    """
    source, seen, classes = _source(weights, network)
    if keep_last is not None:
        check_classes(weights, classes, keep_last)
    theirs = source.convolution_list()
    own = list(zip((int(index) for index in network.convolutions), network.convolution_list(), strict=True))
    cells = (input_size[0] // network.stride) * (input_size[1] // network.stride)
    found = []
    for place, (layer, convolution) in enumerate(own):
        shape = tuple(convolution.conv.weight.shape)
        came = "last: starts anew"
        if keep_last is not None or place < len(own) - 1:
            came = _take(convolution, theirs[place] if place < len(theirs) else None, place < frozen)
        found.append(Taken(layer, shape, came, place < frozen))
    if not any(row.came == "taken" for row in found):
        raise UserError(
            f"{weights}: none of its {len(theirs)} convolutions fits this network's {len(own)}; is --network the one "
            "that it was trained as?"
        )
    if found[-1].came != "taken":
        _start_last(own[-1][1].conv, cells)
    for line in (str(weights), *told(found).splitlines()):
        log.info("%s", line)
    if seen:
        log.info("fine-tuning counts images from 0: that model had seen %d (--resume would go on counting)", seen)
    return found


def check_classes(weights: Path, theirs: tuple[str, ...], ours: tuple[str, ...]) -> None:
    """Raise ConfigError unless the classes of weights are those of the data, in the same order.

    theirs: empty, or "class 0", "class 1" ... where their files have no names: then that is said.
    """
    if not theirs or theirs == tuple(f"class {index}" for index in range(len(theirs))):
        log.warning("%s: brings no class names, so that they are those of the data (%s) cannot be checked", weights,
                    ", ".join(ours[:10]))  # fmt: skip
        return
    if theirs == ours:
        return
    if sorted(theirs) == sorted(ours):
        order = " ".join(map(shlex.quote, theirs))
        raise ConfigError(f"keep-last: {weights} has the same classes in another order; give theirs: --labels {order}")
    if len(theirs) != len(ours):
        said = f"{weights} has {len(theirs)} classes and the data has {len(ours)}"
    else:
        index = next(n for n, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)
        said = f"class {index} is {theirs[index]!r} in {weights} and {ours[index]!r} in the data"
    raise ConfigError(f"keep-last: {said}; leave --keep-last out, and the last layer starts anew")


def _start_last(convolution: nn.Conv2d, cells: int) -> None:
    with torch.no_grad():
        for numbers in (convolution.weight, convolution.bias):
            if numbers is not None:
                numbers.normal_(std=1 / cells)


def told(rows: Sequence[Taken]) -> str:
    """The table, as text."""
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    for heading in ("layer", "filters x channels x k x k", "weights", "in training"):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        shape = " x ".join(map(str, row.shape))
        table.add_row(str(row.layer), shape, row.came, "frozen" if row.frozen else "trained")
    text = StringIO()
    Console(file=text, width=120, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines() if line.strip())


def _source(weights: Path, ours: Network) -> tuple[Network, int, tuple[str, ...]]:
    """The network that the weights are of, the images that it has seen, and its classes where they have names.

    Darknet's weights alone may be of this network or its start, for RGB images too where this network's are grey.
    """
    weights = weights.expanduser()
    darknets = weights.suffix == ".weights" or ".conv." in weights.name
    if not darknets or not weights.is_file() or weights.with_suffix(".cfg").is_file():
        model = load_model(weights)
        return model.network, model.seen, model.labels
    numbers = numbers_in(weights)
    fits = [(found, channels) for channels in dict.fromkeys((ours.channels, 3))
            if (found := layers_of(numbers, ours.layers, channels))]  # fmt: skip
    if not fits:
        kin = [name for name in zoo.DETECTORS if layers_of(numbers, zoo.detector(name, 1, zoo.VOC_ANCHORS))]
        raise UserError(
            f"{weights}: {numbers:,} numbers, which neither this network nor its start holds; "
            + (f"they fit --network {' or '.join(kin)}" if kin else "put the .cfg that they belong to beside them")
        )
    network = empty(*fits[0])
    return network, read_weights(weights, network).seen, ()


def _take(convolution: Convolution, theirs: Convolution | None, frozen: bool) -> str:
    """Copy one convolution where it fits: "taken", or why not."""
    if theirs is None:
        return "anew: the file has no such layer"
    ours, given = convolution.conv.weight.shape, theirs.conv.weight.shape
    if ours != given:
        return f"anew: the file has {' x '.join(map(str, given))}"
    if (convolution.norm is None) != (theirs.norm is None):
        return "anew: with batch norm here, without there" if theirs.norm is None else "anew: batch norm there alone"
    convolution.load_state_dict(theirs.state_dict())
    if convolution.norm is not None and theirs.norm is not None:
        convolution.norm.sigma = theirs.norm.sigma if frozen else TRAINED_HERE
    return "taken"
