"""Darknet's files of one detector: .cfg and .weights, with .names and .tree."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, NamedTuple

from lookonce import text as text_files
from lookonce.errors import UserError
from lookonce.files import write_text
from lookonce.model.darknet.cfg import Cfg, read_cfg, write_cfg
from lookonce.model.darknet.weights import Header, Origin
from lookonce.model.layers import Connected, Conv, Detection, Head, Layer, PlacedHead, Region, Yolo
from lookonce.model.sizes import heads_of, tree_files
from lookonce.model.tree import Tree, read_map, read_tree
from lookonce.model.zoo import AnchorSizes
from lookonce.text import clean_name, read_lines

if TYPE_CHECKING:
    from lookonce.model.network import Network


MOST_BYTES = 16 << 20
"""Largest cfg or tree; that of YOLO9000 has 240 kB."""
OUTSIDE = "LOOKONCE_OUTSIDE_FILES"
"""Environment variable: 1 allows tree= and map= of a cfg to lead out of its folder."""


class PairError(UserError):
    """Darknet files that are missing or do not belong together."""


def load_darknet(cfg: Path | str, weights: Path | str, layers: int | None = None) -> Network:
    """Read a Darknet network, in evaluation mode. Calling it returns a tuple of raw maps, one a head.

    Args:
        cfg: the network's text.
        weights: its numbers.
        layers: the weights are a prefix, such as darknet19_448.conv.23: they fill this many layers from the start
            (counted as Darknet does, pools and routes too); the rest is initialised at random.
    Returns:
        The network. Its batch norms use Darknet's convention for variances, sqrt(v) + 1e-6.
    Raises:
        UserError: a cfg with an unknown section or key (its line), weights of another length (where they end).
    """
    from lookonce.model.darknet.weights import check_weights, read_weights
    from lookonce.model.network import Network, empty

    place, numbers = Path(cfg).expanduser(), Path(weights).expanduser()
    read = read_cfg(read_text(place), str(place))
    check_weights(numbers, read.layers, read.channels, layers)  # before the network takes memory
    network = (Network if layers else empty)(read.layers, read.channels)
    header = read_weights(numbers, network, layers)
    network.origin = Origin(read, header)
    return network.eval()


def detector_of(place: Path, classes: int) -> Cfg:
    """Return a detector's cfg, read from a file, changed to this number of classes. Raises UserError as `changed`."""
    place = place.expanduser()
    return changed(read_cfg(read_text(place), str(place)), str(place), classes)


def changed(read: Cfg, place: str, classes: int, anchors: Sequence[AnchorSizes] = ()) -> Cfg:
    """Return a detector's cfg changed to this number of classes, and to these anchors.

    anchors: (w, h) in cells for each head; empty: the cfg's own. The layer before each head gets the filters that it
    needs. Raises UserError for a cfg that is not a detector's; place: of the cfg, for the message.
    """
    layers = list(read.layers)
    heads = heads_of(read.layers)
    if not heads:
        raise PairError(f"{place}: ends in {type(layers[-1]).__name__}; expected a convolution and a [region], "
                        "[yolo] or [detection] after it")  # fmt: skip
    for head, layer in zip(heads, _changed_heads(heads, classes, anchors), strict=True):
        before = layers[head.index - 1] if head.index else None
        match before:
            case Conv():
                before = replace(before, filters=layer.channels)
            case Connected():
                before = replace(before, output=layer.channels)
            case _:
                kind = type(layer).__name__.lower()
                raise PairError(f"{place}: layer {head.index} ({kind}): expected a convolution before it")
        layers[head.index - 1 : head.index + 1] = before, layer
    return replace(read, layers=tuple(layers))


def _changed_heads(heads: Sequence[PlacedHead], classes: int, anchors: Sequence[AnchorSizes]) -> list[Head]:
    """Return the heads with this number of classes and these anchors, (w, h) in cells for each; empty: their own.

    Yolo layers share one list of anchors, which grows from the finest head to the coarsest.
    """
    order = sorted(range(len(heads)), key=lambda n: heads[n].stride) if anchors else []
    every = [(w * heads[n].stride, h * heads[n].stride) for n in order for w, h in anchors[n]]
    starts = {n: sum(len(anchors[m]) for m in order[:place]) for place, n in enumerate(order)}
    found: list[Head] = []
    for n, placed in enumerate(heads):
        match placed.layer:
            case Region() as head:
                found.append(replace(head, classes=classes, anchors=tuple(anchors[n]) if anchors else head.anchors,
                                     tree="", map=""))  # fmt: skip
            case Yolo() as head:
                mask = tuple(range(starts[n], starts[n] + len(anchors[n]))) if anchors else head.mask
                found.append(replace(head, classes=classes, all_anchors=tuple(every) or head.all_anchors, mask=mask,
                                     counters_per_class=()))  # fmt: skip
            case Detection() as head:
                found.append(replace(head, classes=classes))
    return found


def save_darknet(
    network: Network,
    cfg: Path | str,
    weights: Path | str,
    *,
    input_size: tuple[int, int] | None = None,
    seen: int | None = None,
) -> None:
    """Write a network for Darknet and other programs that read its files.

    Args:
        network: any; one that was read from Darknet's files is written byte by byte as it was.
        cfg: path of the text.
        weights: path of the numbers.
        input_size: (width, height) of the input, pixels; None: that of the files it was read from, else 416 x 416.
        seen: images that training has seen; None: the count of the file it was read from, else 0.
    Raises:
        UserError: a file that cannot be written.
    """
    from lookonce.model.darknet.weights import write_weights

    origin = network.origin or Origin(Cfg(network.layers, channels=network.channels), Header())
    header = origin.header if seen is None else origin.header._replace(seen=seen)
    width, height = input_size or (origin.cfg.width, origin.cfg.height)
    write_weights(Path(weights).expanduser(), network, header)
    text = write_cfg(replace(origin.cfg, layers=network.layers, width=width, height=height))
    write_text(Path(cfg).expanduser(), text)


class Pair(NamedTuple):
    """The files of one detector."""

    cfg: Path
    weights: Path
    names: Path | None


def find_pair(path: Path) -> Pair:
    """Find the files that belong to a .cfg or .weights: same folder and stem; else the only .names of the folder."""
    cfg, weights = path.with_suffix(".cfg"), path.with_suffix(".weights")
    missing = [file for file in (cfg, weights) if not file.is_file()]
    if missing:
        raise PairError(
            f"{path}: no {missing[0].name} in its folder; expected a .cfg and a .weights of the same name, "
            "or call load_darknet(cfg, weights)"
        )
    names = [path.with_suffix(".names")]
    if not names[0].is_file():
        names = sorted(path.parent.glob("*.names"))
    return Pair(cfg, weights, names[0] if len(names) == 1 else None)


def source_files(path: Path) -> tuple[Path, ...]:
    """Return every file that defines a model: the model file itself, or all Darknet files of a .cfg or .weights."""
    if path.suffix not in (".cfg", ".weights"):
        return (path,)
    pair = find_pair(path)
    layers = read_cfg(read_text(pair.cfg), str(pair.cfg)).layers
    beside = [find_beside(key, name, pair.cfg) for key, name in tree_files(layers).items()]
    return (pair.cfg, pair.weights, *([pair.names] if pair.names else []), *(file for file in beside if file))


def read_names(path: Path) -> tuple[str, ...]:
    """Read [C] class names, one a line, in any encoding (a guess is logged), without empty lines at the end."""
    names = [clean_name(line) for line in read_lines(path, "one class name a line")]
    while names and not names[-1]:
        names.pop()
    for number, name in enumerate(names, start=1):
        if not name:
            raise PairError(f"{path}:{number}: an empty line; expected one class name a line")
    return tuple(names)


def tree_of(layers: Sequence[Layer], cfg: Path) -> Tree | None:
    """Read the class tree that a cfg names, with its map; None: it names none. A map that is not there is left out."""
    named = tree_files(layers)
    if "tree" not in named:
        return None
    tree, place = find_tree(named["tree"], cfg), find_beside("map", named.get("map", ""), cfg)
    return tree if place is None else replace(tree, map=read_map(read_text(place), str(place), len(tree.parents)))


def find_tree(named: str, cfg: Path) -> Tree:
    """Read the class tree that a cfg names."""
    found = find_beside("tree", named, cfg)
    if found is None:
        raise PairError(f"{cfg}: tree={named}: no such file; put {Path(named).name} into the folder of the cfg")
    return read_tree(read_text(found), str(found))


def find_beside(key: str, named: str, cfg: Path) -> Path | None:
    """Find a file that a cfg names: in its folder, or, as in Darknet's repository, data/n.tree for cfg/n.cfg.

    Raises PairError for a path that leads out of the cfg's folder, unless the environment variable OUTSIDE is set.
    """
    windows = PureWindowsPath(named)  # knows both slashes
    leaves = Path(named).is_absolute() or bool(windows.anchor) or ".." in windows.parts
    allowed = not leaves or os.environ.get(OUTSIDE, "0") not in ("", "0")
    tried = [cfg.parent / named] * allowed + [cfg.parent / windows.name]
    if not leaves and cfg.resolve().parent.name == "cfg":
        tried.append(cfg.resolve().parent.parent / named)
    found = next((file for file in tried if file.is_file()), None)
    if found is None and not allowed:
        raise PairError(f"{cfg}: {key}={named} leads out of the folder of the cfg; put {windows.name} into it, or set "
                        f"the environment variable {OUTSIDE}=1 to read it where it is")  # fmt: skip
    return found


def read_text(path: Path) -> str:
    """Read a small text file in any encoding: only the comments of a cfg can be more than ASCII."""
    try:
        return text_files.read_text(path, "a text file of Darknet's", MOST_BYTES, lambda _: None)
    except UserError as error:
        raise PairError(str(error)) from None
