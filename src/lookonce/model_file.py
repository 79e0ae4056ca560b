"""The model file: one .safetensors with all that detection needs, its metadata as JSON.

Metadata (key "lookonce"): version, cfg (text), labels, frame, resize, sigma, seen, thresholds, training, tree.
Nothing in it is unpickled or run. A Darknet .cfg beside its .weights stands for a model file too.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import safetensors
import safetensors.torch
import torch

from lookonce.darknet.cfg import Cfg, read_cfg, write_cfg
from lookonce.darknet.pair import find_pair, find_tree, load_darknet, read_names
from lookonce.errors import UserError
from lookonce.files import replacing
from lookonce.layers import Region, region_of
from lookonce.network import Network, Sigma, empty
from lookonce.resize import ResizeMode
from lookonce.tree import Tree

log = logging.getLogger("lookonce")

FORMAT = 1
"""Raised when a reader of before could not understand the file."""


class ModelFileError(UserError):
    """A model file that cannot be read or does not hold together."""


@dataclass(frozen=True)
class Model:
    """A detector at rest: everything that a model file holds."""

    network: Network
    labels: tuple[str, ...]
    """[C] names of the classes."""
    frame: tuple[int, int] = (416, 416)
    """(width, height) of the input, pixels."""
    resize: ResizeMode = "letterbox"
    thresholds: tuple[float, ...] = ()
    """[C] recommended score thresholds from validation; empty: none were found."""
    seen: int = 0
    """Pictures that training has seen."""
    training: dict[str, Any] = field(default_factory=dict)
    """How and on what it was trained, for people to read."""
    tree: Tree | None = None
    """How the classes contain each other; none: they stand side by side."""

    @property
    def region(self) -> Region:
        """The region layer: anchors and classes."""
        return region_of(self.network.layers)

    def __post_init__(self) -> None:
        if len(self.labels) != self.region.classes:
            raise ModelFileError(f"{len(self.labels)} labels for a network of {self.region.classes} classes")
        if len(self.thresholds) not in (0, len(self.labels)):
            raise ModelFileError(f"{len(self.thresholds)} thresholds for {len(self.labels)} classes")
        if (self.tree is None) != (not self.region.tree):
            raise ModelFileError(f"the cfg says tree={self.region.tree!r}, and a tree is {self.tree and 'given'}")
        if self.tree is not None and len(self.tree.parents) != len(self.labels):
            raise ModelFileError(f"a tree of {len(self.tree.parents)} classes for {len(self.labels)} labels")


def save_model(model: Model, path: Path) -> None:
    """Write a model file. The file of before stays whole until the new one is; a full disk is a UserError."""
    sigmas = [tuple(c.norm.sigma) for c in model.network.convolution_list() if c.norm is not None]
    about = {
        "format": FORMAT,
        "cfg": write_cfg(Cfg(model.network.layers, *model.frame)),
        "labels": model.labels,
        "frame": model.frame,
        "resize": model.resize,
        "sigma": sigmas,
        "seen": model.seen,
        "thresholds": model.thresholds,
        "training": model.training,
        "tree": model.tree and asdict(model.tree),
    }
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
    if about["format"] != FORMAT:
        raise ModelFileError(f"{path}: format {about['format']}, and this lookonce reads {FORMAT}; use its own version")
    if about["resize"] not in get_args(ResizeMode):
        raise ModelFileError(f"{path}: resize {about['resize']!r}; expected one of {get_args(ResizeMode)}")
    network = empty(read_cfg(about["cfg"], str(path)).layers)
    norms = [convolution.norm for convolution in network.convolution_list() if convolution.norm is not None]
    for norm, sigma in zip(norms, about["sigma"], strict=True):
        norm.sigma = Sigma(*map(float, sigma))
    network.load_state_dict(tensors)
    return Model(
        network=network.eval(),
        labels=tuple(map(str, about["labels"])),
        frame=(int(about["frame"][0]), int(about["frame"][1])),
        resize=about["resize"],
        thresholds=tuple(map(float, about["thresholds"])),
        seen=int(about["seen"]),
        training=dict(about["training"]),
        tree=_tree(about.get("tree")),
    )


def _tree(about: dict[str, Any] | None) -> Tree | None:
    if about is None:
        return None
    return Tree(tuple(map(int, about["parents"])), tuple(map(str, about["names"])), float(about["threshold"]))


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
