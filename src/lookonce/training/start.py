"""What a training starts from: published weights by name, a file, or random numbers. No torch here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from lookonce.choices import key
from lookonce.errors import ConfigError
from lookonce.files import write_text
from lookonce.inference.pretrained_models import DEFAULT, MODELS, PretrainedModel, cached, find, known, path_of
from lookonce.model import zoo
from lookonce.model.darknet.cfg import read_cfg
from lookonce.model.darknet.files import read_text
from lookonce.model.model_file import load_model

AUTO, NONE = "auto", "none"
FILE = "start.json"
HINT = (
    f"training starts from random numbers; with --weights {DEFAULT} it starts from a network that knows the 80 classes "
    f"of COCO ({MODELS[0].weights.sizes[0] / 1e6:.1f} MB, downloaded once), and takes minutes instead of half an hour"
)


@dataclass(frozen=True)
class Start:
    """Pretrained weights, and the network that they belong to."""

    weights: Path
    name: str
    """What the user calls them: the name of a published model, or the path."""
    sha256: str
    network: str
    """Its name, or a .cfg or model file with its layers; "": not known."""
    size: int | None
    """Side of the square input it was trained at, pixels; None: not known, or not square."""


def choose_start(weights: str | Path, network: str | Path | None) -> Start | None:
    """Return what a training starts from; None: random numbers.

    Args:
        weights: none; auto: published weights that the cache folder has; the name of a published model, which is
            downloaded if it is not there; or a file or a run folder, which wins over a name.
        network: what the user chose, by name or as a .cfg; None: no choice, so auto takes DEFAULT.
    Raises:
        UserError: no such file and no such name; a download that failed.
    """
    text = str(weights)
    if key(text) == NONE:
        return None
    if key(text) == AUTO:
        model = known(DEFAULT if network is None else str(network))
        path = None if model is None else cached(model.name)
        return None if model is None or path is None else _of_model(model, path)
    path = Path(text).expanduser()
    if path.exists():
        return _of_file(path.absolute())
    if path.suffix in (".safetensors", ".weights", ".cfg") or len(path.parts) > 1:
        raise ConfigError(f"weights: {text}: no such file; expected a model file, a run folder, Darknet weights, or a "
                          "published model's name (lookonce models lists them)")  # fmt: skip
    model = find(text, "weights")  # raises with the nearest name
    return _of_model(model, path_of(model.name))


def _of_model(model: PretrainedModel, path: Path) -> Start:
    """Return the start of a published model, whose weights are at path."""
    layers = zoo.detector(model.network, model.classes, zoo.own_anchors(model.network))
    is_known = model.prefix is not None or layers == model.build()
    network = model.network if is_known else str(path.with_suffix(".cfg"))
    return Start(path, model.name, digest(path), network, model.side)


def _of_file(path: Path) -> Start:
    """Return the start of a model file, a run folder, or a Darknet file."""
    file = path / "model.safetensors" if path.is_dir() else path
    if file.with_suffix(".cfg").is_file() and file.suffix in (".cfg", ".weights"):
        file = file.with_suffix(".weights")
    elif file.suffix != ".safetensors":
        return Start(path, str(path), digest(file), "", None)
    if file.suffix == ".weights":
        cfg = file.with_suffix(".cfg")
        read = read_cfg(read_text(cfg), str(cfg))
        network, (width, height) = cfg, (read.width, read.height)
    else:
        network, (width, height) = file, load_model(file).input_size  # raises for what is no model
    return Start(path, str(path), digest(file), str(network), width if width == height else None)


def write_start(start: Start, folder: Path) -> None:
    """Write what a run starts from into its folder."""
    write_text(folder / FILE, json.dumps({"name": start.name, "sha256": start.sha256}) + "\n")


def read_start(folder: Path) -> dict[str, str]:
    """Return the name and the sha256 of what a run started from; empty: random numbers, or a run of version 0.1."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return {name: str(found[name]) for name in ("name", "sha256")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def digest(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
