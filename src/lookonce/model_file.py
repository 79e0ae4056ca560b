"""The model file: one .safetensors with all that detection needs, its metadata as JSON.

Metadata (key "lookonce"): a Description as JSON, and each batch norm's sigma.
Nothing in it is unpickled or run. A Darknet .cfg beside its .weights stands for a model file too.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from lookonce.darknet.pair import find_pair, find_tree, load_darknet, read_names
from lookonce.description import Description, ModelFileError
from lookonce.errors import UserError
from lookonce.files import replacing
from lookonce.layers import Region, region_of
from lookonce.network import Network, Sigma, empty
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
        return Description(self.network.layers, **shared)

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
    if not path.is_file():
        raise ModelFileError(f"{path}: no such model file; lookonce train writes runs/NAME/model.safetensors")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(f"{path}: not a model file ({error}); expected .safetensors of lookonce") from None
    if "lookonce" not in metadata:
        raise ModelFileError(f"{path}: a safetensors file without lookonce's description; was it written by lookonce?")
    try:
        return _assemble(json.loads(metadata["lookonce"]), tensors, path)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        raise ModelFileError(f"{path}: its description does not fit its weights ({str(error)[:200]!r})") from None


def _assemble(about: dict[str, Any], tensors: dict[str, torch.Tensor], path: Path) -> Model:
    found = vars(Description.from_json(about, str(path)))
    network = empty(found["layers"])
    norms = [convolution.norm for convolution in network.convolution_list() if convolution.norm is not None]
    for norm, sigma in zip(norms, about["sigma"], strict=True):
        norm.sigma = Sigma(*map(float, sigma))
    network.load_state_dict(tensors)
    return Model(network.eval(), **{name: value for name, value in found.items() if name != "layers"})


def _from_darknet(path: Path) -> Model:
    """The model that a .cfg, its .weights and the .names beside them make. Darknet letterboxes."""
    pair = find_pair(path)
    network = load_darknet(pair.cfg, pair.weights)
    region, origin = region_of(network.layers), network.origin
    assert origin is not None  # load_darknet says where its networks come from
    tree = find_tree(region.tree, pair.cfg) if region.tree else None
    if pair.names is not None:
        labels = read_names(pair.names)
        if len(labels) != region.classes:
            raise ModelFileError(f"{pair.names}: {len(labels)} names, and {pair.cfg} has classes={region.classes}")
    elif tree is not None:
        labels = tree.names
    else:
        labels = tuple(f"class {index}" for index in range(region.classes))
        log.warning("no %s: its classes are called 'class 0', 'class 1', ...", pair.cfg.with_suffix(".names"))
    frame = (origin.cfg.width, origin.cfg.height)
    return Model(network, labels, frame, seen=origin.header.seen, tree=tree)
