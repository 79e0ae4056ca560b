"""The model file: one .safetensors with all that detection needs, its metadata as JSON.

Metadata (key "lookonce"): a Description as JSON, and each batch norm's sigma.
Nothing in it is unpickled or run. A Darknet .cfg beside its .weights stands for a model file too.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from lookonce.darknet.pair import Pair, find_pair, find_tree, load_darknet, read_names
from lookonce.description import MAX_SEEN, Description, ModelFileError, pairs, parse
from lookonce.errors import UserError
from lookonce.files import replacing
from lookonce.layers import Region, region_of
from lookonce.network import Network, Sigma
from lookonce.resize import ResizeMode
from lookonce.tree import Tree

log = logging.getLogger("lookonce")


@dataclass(frozen=True)
class Model:
    """A detector at rest: its network, and what a Description says of it."""

    network: Network
    labels: tuple[str, ...]
    frame: tuple[int, int] = (416, 416)
    resize: ResizeMode = "letterbox"
    thresholds: tuple[float, ...] = ()
    seen: int = 0
    training: dict[str, Any] = field(default_factory=dict)
    tree: Tree | None = None
    pixel_range: tuple[float, float] | None = None

    @property
    def description(self) -> Description:
        """The same without the network's numbers."""
        shared = {name: value for name, value in vars(self).items() if name != "network"}
        return Description(self.network.layers, **shared, channels=self.network.channels)

    @property
    def region(self) -> Region:
        """The region layer: anchors and classes."""
        return region_of(self.network.layers)

    def __post_init__(self) -> None:
        _ = self.description  # which must hold together


def save_model(model: Model, path: Path) -> None:
    """Write a model file. The file of before stays whole until the new one is; a full disk is a UserError."""
    sigmas = [tuple(c.norm.sigma) for c in model.network.convolution_list() if c.norm is not None]
    about = {**model.description.to_json(), "sigma": sigmas}
    tensors = {name: value.contiguous() for name, value in model.network.state_dict().items()}
    content = safetensors.torch.save(tensors, {"lookonce": json.dumps(about)})
    with replacing(path) as beside:
        beside.write_bytes(content)


def load_model(path: Path | str) -> Model:
    """Read a model file, or a Darknet .cfg beside its .weights; the network comes in evaluation mode.

    Raises:
        UserError: Darknet files that do not go together.
        ModelFileError: no such file, not a safetensors file, not one of lookonce's, or one that does not hold together.
    """
    path = Path(path).expanduser()
    if path.is_dir() and (path / "model.safetensors").is_file():
        path = path / "model.safetensors"  # a run folder
    if path.suffix in (".cfg", ".weights"):
        return _from_darknet(path)
    if path.suffix in (".onnx", ".xml"):
        raise ModelFileError(f"{path}: an exported detector; give the model file that it was made from")
    if path.suffix == ".ckpt":
        raise ModelFileError(f"{path}: a checkpoint of training; {_model_of_run(path.absolute().parent.parent)}")
    if not path.is_file():
        run = path if path.is_dir() else path.parent
        if (run / "checkpoints").is_dir():
            raise ModelFileError(f"{path}: no such model file; {_model_of_run(run)}")
        raise ModelFileError(f"{path}: no such model file; lookonce train writes runs/NAME/model.safetensors")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if "lookonce" not in metadata:
                raise ModelFileError(
                    f"{path}: a safetensors file without lookonce's description; was it written by lookonce?"
                )
            about = parse(metadata["lookonce"], str(path))
            found = Description.from_json(about, str(path))
            network = _filled(found, pairs(about, "sigma", str(path)), file, path)
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelFileError(f"{path}: not a model file ({error}); expected .safetensors of lookonce") from None
    rest = {name: value for name, value in vars(found).items() if name not in ("layers", "channels")}
    return Model(network, **rest)


def _model_of_run(run: Path) -> str:
    """What to give for the model of a run."""
    if (run / "model.safetensors").is_file():
        return f"give the model of its run: {run / 'model.safetensors'}"
    return f"its run writes {run / 'model.safetensors'} with the first validation; wait for it, or go on with --resume"


def _filled(about: Description, sigmas: Sequence[tuple[float, float]], file: Any, path: Path) -> Network:
    """The network that a description means, with a file's numbers. Nothing takes memory before their shapes fit."""
    with torch.device("meta"):
        network = Network(about.layers, about.channels)
    expected = {name: (list(value.shape), "F32") for name, value in network.state_dict().items()}
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    given = {name: (each.get_shape(), each.get_dtype()) for name, each in slices.items()}
    norms = [convolution.norm for convolution in network.convolution_list() if convolution.norm is not None]
    if given != expected or len(sigmas) != len(norms):
        wrong = min((name for name in {*given, *expected} if given.get(name) != expected.get(name)), default="sigma")
        raise ModelFileError(f"{path}: its description does not fit its weights ({wrong[:60]}): the file is damaged; "
                             "take a whole copy")  # fmt: skip
    for norm, sigma in zip(norms, sigmas, strict=True):
        norm.sigma = Sigma(*sigma)
        if min(sigma) < 0:
            raise ModelFileError(f"{path}: sigma {sigma} in its description; expected two numbers of at least 0")
    network = network.to_empty(device="cpu")
    network.load_state_dict({name: file.get_tensor(name) for name in expected})
    return network.eval()


def _from_darknet(path: Path) -> Model:
    """The model that a .cfg, its .weights and the .names beside them make. Darknet letterboxes."""
    pair = find_pair(path)
    network = load_darknet(pair.cfg, pair.weights)
    region, origin = region_of(network.layers), network.origin
    assert origin is not None  # load_darknet says where its networks come from
    tree = find_tree(region.tree, pair.cfg) if region.tree else None
    labels = _darknet_labels(pair, region.classes) or (tree.names if tree else ())
    if not labels:
        labels = tuple(f"class {index}" for index in range(region.classes))
        log.warning("no %s: its classes are called 'class 0', 'class 1', ...", pair.cfg.with_suffix(".names"))
    frame = (origin.cfg.width, origin.cfg.height)
    try:
        return Model(network, labels, frame, seen=min(origin.header.seen, MAX_SEEN), tree=tree)
    except UserError as error:
        raise ModelFileError(f"{pair.cfg}: {error}") from None


def _darknet_labels(pair: Pair, classes: int) -> tuple[str, ...]:
    """The class names beside a .cfg, () where there are none. Those under another name are said, or not its own.

    Raises ModelFileError where the .names of the same name have another number of classes.
    """
    if pair.names is None:
        return ()
    labels, own = read_names(pair.names), pair.names.stem == pair.cfg.stem
    if len(labels) == classes:
        if not own:
            log.info("%s: class names from %s", pair.cfg, pair.names.name)
        return labels
    if own:
        raise ModelFileError(f"{pair.names}: {len(labels)} names, and {pair.cfg} has classes={classes}")
    log.warning(
        "%s: not used: its number of names is %d, and %s has classes=%d", pair.names, len(labels), pair.cfg, classes
    )
    return ()
