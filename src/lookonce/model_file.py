"""The model file: one .safetensors with all that detection needs, its metadata as JSON.

Metadata (key "lookonce"): version, cfg (text), labels, frame, resize, sigma, seen, thresholds, training.
Nothing in it is unpickled or run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import safetensors
import safetensors.torch
import torch

from lookonce.darknet.cfg import Cfg, read_cfg, write_cfg
from lookonce.errors import UserError
from lookonce.files import replacing
from lookonce.layers import Region, region_of
from lookonce.network import Network, Sigma
from lookonce.resize import ResizeMode

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

    @property
    def region(self) -> Region:
        """The region layer: anchors and classes."""
        return region_of(self.network.layers)

    def __post_init__(self) -> None:
        if len(self.labels) != self.region.classes:
            raise ModelFileError(f"{len(self.labels)} labels for a network of {self.region.classes} classes")
        if len(self.thresholds) not in (0, len(self.labels)):
            raise ModelFileError(f"{len(self.thresholds)} thresholds for {len(self.labels)} classes")


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
    }
    tensors = {name: value.contiguous() for name, value in model.network.state_dict().items()}
    content = safetensors.torch.save(tensors, {"lookonce": json.dumps(about)})
    with replacing(path) as beside:
        beside.write_bytes(content)


def load_model(path: Path | str) -> Model:
    """Read a model file; the network comes in evaluation mode.

    Raises:
        ModelFileError: no such file, not a safetensors file, not one of lookonce's, or one that does not hold together.
    """
    path = Path(path).expanduser()
    if path.is_dir() and (path / "model.safetensors").is_file():
        path = path / "model.safetensors"  # a run folder
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
    network = Network(read_cfg(about["cfg"], str(path)).layers)
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
    )
