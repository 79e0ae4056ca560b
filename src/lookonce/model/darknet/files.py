"""A .cfg with its .weights, and the .names and .tree that may lie beside them: into a network, and out of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lookonce import text as text_files
from lookonce.errors import UserError
from lookonce.files import write_text
from lookonce.model.darknet.cfg import Cfg, read_cfg, write_cfg
from lookonce.model.darknet.weights import Header, Origin
from lookonce.model.layers import Conv, Region
from lookonce.model.tree import Tree, read_tree
from lookonce.model.zoo import Anchors
from lookonce.text import read_lines

if TYPE_CHECKING:
    from lookonce.model.network import Network


MOST_BYTES = 16 << 20
"""Of a cfg or a tree; that of YOLO9000 has 240 kB."""


class PairError(UserError):
    """Darknet files that are not there or do not go together."""


def load_darknet(cfg: Path | str, weights: Path | str, layers: int | None = None) -> Network:
    """Read a network of Darknet's, in evaluation mode. Calling it gives the map before the region layer.

    Args:
        cfg: the network's text.
        weights: its numbers.
        layers: the weights are a prefix, such as darknet19_448.conv.23: they fill the first so many layers
            (counted as Darknet does, pools and routes too), and the rest starts anew.
    Returns:
        The network. Its batch norms read variances as Darknet does on a CPU, sqrt(v) + 1e-6.
    Raises:
        UserError: a cfg with an unknown section or key (its line), weights of another length (where they run out).
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


def detector_of(cfg: Path, classes: int, anchors: Anchors | None = None) -> Cfg:
    """A detector's cfg, made for so many classes, and for other anchors where some are given.

    anchors: (w, h) in cells; None: the cfg's own. Its last convolution gets the filters that these need.
    Raises UserError for a cfg that cannot be read or is no detector's.
    """
    place = cfg.expanduser()
    read = read_cfg(read_text(place), str(place))
    layers = read.layers
    region, convolution = layers[-1], layers[-2] if len(layers) > 1 else None
    if not isinstance(region, Region) or not isinstance(convolution, Conv):
        raise PairError(f"{place}: ends in {type(region).__name__}; expected a convolution and a [region] behind it")
    region = replace(region, anchors=anchors or region.anchors, classes=classes, tree="", map="")
    return replace(read, layers=(*layers[:-2], replace(convolution, filters=region.channels), region))


def save_darknet(
    network: Network,
    cfg: Path | str,
    weights: Path | str,
    *,
    input_size: tuple[int, int] | None = None,
    seen: int | None = None,
) -> None:
    """Write a network for Darknet and whatever reads its files.

    Args:
        network: any; one that was read from Darknet's files comes out as it went in, byte by byte.
        cfg: where the text goes.
        weights: where the numbers go.
        input_size: (width, height) of the input, pixels; none: that of the files it came from, else 416 x 416.
        seen: images that training has seen; none: the count of the file it came from, else 0.
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
    """The files that belong to a .cfg or .weights: same folder, same stem; else the only .names of the folder."""
    cfg, weights = path.with_suffix(".cfg"), path.with_suffix(".weights")
    missing = [file for file in (cfg, weights) if not file.is_file()]
    if missing:
        raise PairError(
            f"{path}: no {missing[0].name} in its folder; a .cfg and its .weights lie side by side under one name, "
            "or call load_darknet(cfg, weights)"
        )
    names = [path.with_suffix(".names")]
    if not names[0].is_file():
        names = sorted(path.parent.glob("*.names"))
    return Pair(cfg, weights, names[0] if len(names) == 1 else None)


def source_files(path: Path) -> tuple[Path, ...]:
    """The files that a model file, or a .cfg or .weights of a detector, stands for: what else says what is found."""
    if path.suffix not in (".cfg", ".weights"):
        return (path,)
    pair = find_pair(path)
    tree = [layer.tree for layer in read_cfg(read_text(pair.cfg), str(pair.cfg)).layers if isinstance(layer, Region)]
    trees = [tree_file(name, pair.cfg) for name in tree if name]
    return (pair.cfg, pair.weights, *([pair.names] if pair.names else []), *trees)


def read_names(path: Path) -> tuple[str, ...]:
    """[C] class names, one a line, in any encoding (a guess is logged); empty lines at the end do not count."""
    names = [line.strip() for line in read_lines(path, "one class name a line")]
    while names and not names[-1]:
        names.pop()
    for number, name in enumerate(names, start=1):
        if not name:
            raise PairError(f"{path}:{number}: an empty line; expected one class name a line")
    return tuple(names)


def find_tree(named: str, cfg: Path) -> Tree:
    """The class tree that a cfg names."""
    found = tree_file(named, cfg)
    return read_tree(read_text(found), str(found))


def tree_file(named: str, cfg: Path) -> Path:
    """Where a cfg's tree lies: in its folder, or, as in Darknet's own, cfg/n.cfg with data/n.tree beside cfg/."""
    tried = [cfg.parent / named, cfg.parent / Path(named).name]
    if cfg.resolve().parent.name == "cfg":
        tried.append(cfg.resolve().parent.parent / named)
    found = next((file for file in tried if file.is_file()), None)
    if found is None:
        raise PairError(f"{cfg}: tree={named}: no such file; put {Path(named).name} beside the cfg")
    return found


def read_text(path: Path) -> str:
    """A small text file of an unknown age, in any encoding: of a cfg only the comments can be more than ASCII."""
    try:
        return text_files.read_text(path, "a text file of Darknet's", MOST_BYTES, lambda _: None)
    except UserError as error:
        raise PairError(str(error)) from None
