"""What a detector's file says about its network, without the network's numbers. No torch here.

It stands as JSON in each file of ours: the model file, ONNX, OpenVINO.

The model file: one .safetensors with all that detection needs, its metadata as JSON.

Metadata (key "lookonce"): a Description as JSON, and each batch norm's sigma.
Nothing in it is unpickled or run. A Darknet .cfg beside its .weights stands for a model file too.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import safetensors
import safetensors.torch
import torch

from lookonce import __version__
from lookonce.errors import UserError
from lookonce.files import replacing
from lookonce.model.darknet.cfg import Cfg, CfgError, read_cfg, write_cfg
from lookonce.model.darknet.files import Pair, find_pair, find_tree, load_darknet, read_names
from lookonce.model.layers import Layer, PlacedHead, Region, check_input_size, heads_of, num_classes, region_of
from lookonce.model.network import Network, Sigma
from lookonce.model.resize import ResizeMode
from lookonce.model.tree import Tree

KEY = "lookonce"
"""Where it stands as JSON: the metadata of a model file and of ONNX, OpenVINO's rt_info."""


FORMAT = 1
"""Raised when a reader of before could not understand the file."""


MAX_SEEN = 2**63 - 1


Value = TypeVar("Value")


class ModelFileError(UserError):
    """A model file that cannot be read or does not hold together."""


def not_ours(path: str, kind: str) -> ModelFileError:
    """An exported file without a description."""
    return ModelFileError(
        f"{path}: {kind} without lookonce's description (labels, anchors); write it with lookonce export"
    )


@dataclass(frozen=True)
class Description:
    """All that detection needs to know beside the network's numbers."""

    layers: tuple[Layer, ...]
    labels: tuple[str, ...]
    """[C] names of the classes."""
    input_size: tuple[int, int] = (416, 416)
    """(width, height) of the input, pixels."""
    resize: ResizeMode = "letterbox"
    thresholds: tuple[float, ...] = ()
    """[C] recommended score thresholds from validation; empty: none were found."""
    seen: int = 0
    """Images that training has seen."""
    training: dict[str, Any] = field(default_factory=dict)
    """How and on what it was trained, for people to read."""
    tree: Tree | None = None
    """How the classes contain each other; none: they stand side by side."""
    channels: int = 3
    """Of the network's input: 3 (RGB), or 1 (grey)."""
    pixel_range: tuple[float, float] | None = None
    """Values of images of more than 8 bits that become black and white; none: as data.images.load_rgb has it."""

    def __post_init__(self) -> None:
        classes = num_classes(self.layers)
        check_input_size(self.layers, self.input_size, self.channels)
        if len(self.labels) != classes:
            raise ModelFileError(f"{len(self.labels)} labels for a network of {classes} classes")
        if len(self.thresholds) not in (0, classes):
            raise ModelFileError(f"{len(self.thresholds)} thresholds for {classes} classes")
        if not all(0 <= value <= 1 for value in self.thresholds):
            raise ModelFileError(f"thresholds {self.thresholds[:9]}; expected 0 to 1")
        if not 0 <= self.seen <= MAX_SEEN:
            raise ModelFileError(f"{self.seen} images seen; expected 0 to {MAX_SEEN}")
        named = next((head.layer.tree for head in self.heads if head.layer.tree), "")
        if (self.tree is None) != (not named):
            raise ModelFileError(f"the cfg says tree={named!r}, and a tree is {self.tree and 'given'}")
        if self.tree is not None and len(self.tree.parents) != classes:
            raise ModelFileError(f"a tree of {len(self.tree.parents)} classes for {classes} labels")

    @property
    def region(self) -> Region:
        """The region layer: anchors and classes."""
        return region_of(self.layers)

    @property
    def heads(self) -> tuple[PlacedHead, ...]:
        """The heads in layer order."""
        return heads_of(self.layers)

    def to_json(self) -> dict[str, Any]:
        """As plain values; read back by from_json."""
        rest = {name: value for name, value in asdict(self).items() if name not in ("layers", "channels")}
        cfg = write_cfg(Cfg(self.layers, *self.input_size, self.channels))
        return {"format": FORMAT, "version": __version__, "cfg": cfg, **rest}

    @classmethod
    def from_text(cls, text: str, place: str) -> Description:
        """What a file says of itself, as JSON. Raises ModelFileError or CfgError as from_json does."""
        return cls.from_json(parse(text, place), place)

    @classmethod
    def from_json(cls, about: dict[str, Any], place: str) -> Description:
        """What to_json wrote. place: the file, for messages.

        Raises:
            ModelFileError: another format, or values that are missing, of another kind, or do not hold together.
            CfgError: a network that cannot be read.
        """
        if (found := about.get("format")) != FORMAT:
            raise ModelFileError(f"{place}: format {found!r}, and this lookonce reads {FORMAT}; use its own version")
        if (found := about.get("resize")) not in get_args(ResizeMode):
            raise ModelFileError(f"{place}: resize {found!r}; expected one of {get_args(ResizeMode)}")
        cfg = read_cfg(_get(about, "cfg", _text, place), place)
        about = {"input_size": about.get("frame"), **about}  # its name before version 0.2
        input_size = _get(about, "input_size", _list(_whole), place)
        if len(input_size) != 2:
            raise ModelFileError(f"{place}: input_size {input_size[:9]}; expected width and height")
        try:
            return cls(
                layers=cfg.layers,
                labels=_get(about, "labels", _list(_text), place),
                input_size=input_size,
                resize=about["resize"],
                thresholds=_get(about, "thresholds", _list(_number), place),
                seen=_get(about, "seen", _whole, place),
                training=_get(about, "training", _recipe, place),
                tree=_tree(about.get("tree"), place),
                channels=cfg.channels,
                pixel_range=_pixel_range(about.get("pixel_range"), place),
            )
        except CfgError:
            raise
        except UserError as error:
            raise ModelFileError(f"{place}: {str(error).removeprefix(f'{place}: ')}") from None


def parse(text: str, place: str) -> dict[str, Any]:
    """A description's JSON. Raises ModelFileError for what is none."""
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{place}: its description cannot be read ({str(error)[:200]!r})") from None
    if not isinstance(about, dict) or not about:
        raise ModelFileError(f"{place}: its description cannot be read; expected a JSON object")
    return about


def pairs(about: dict[str, Any], key: str, place: str) -> tuple[tuple[float, float], ...]:
    """A list of pairs of finite numbers. Raises ModelFileError for anything else."""
    found = _get(about, key, _list(_list(_number)), place)
    if any(len(each) != 2 for each in found):
        raise ModelFileError(f"{place}: {key} in its description; expected pairs of numbers")
    return tuple((first, second) for first, second in found)


def _get(about: dict[str, Any], key: str, read: Callable[[Any], Value], place: str) -> Value:
    """The value of a key. Raises ModelFileError where it is missing, or of another kind than `read` takes."""
    try:
        return read(about[key])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        found = f"{str(about[key])[:60]!r}" if key in about else "missing"
        raise ModelFileError(
            f"{place}: its description cannot be read ({key}: {found}); was it written by lookonce?"
        ) from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise TypeError
    return float(value)


def _list(read: Callable[[Any], Value]) -> Callable[[Any], tuple[Value, ...]]:
    def all_of(value: Any) -> tuple[Value, ...]:
        if not isinstance(value, list | tuple):
            raise TypeError
        return tuple(map(read, value))

    return all_of


def _recipe(value: Any) -> dict[str, Any]:
    """How a model was trained: for people to read, but for the recipe."""
    if not isinstance(value, dict) or not isinstance(value.get("recipe", {}), dict):
        raise TypeError
    return value


def _pixel_range(value: Any, place: str) -> tuple[float, float] | None:
    if value is None:
        return None
    try:
        low, high = _list(_number)(value)
    except (TypeError, ValueError, OverflowError):
        low, high = 0.0, 0.0
    if low >= high:
        raise ModelFileError(f"{place}: pixel_range {str(value)[:40]!r}; expected two growing numbers, or null")
    return low, high


def _tree(about: Any, place: str) -> Tree | None:
    if about is None:
        return None
    if not isinstance(about, dict):
        raise ModelFileError(f"{place}: tree {str(about)[:60]!r} in its description; expected parents and names")
    return Tree(
        _get(about, "parents", _list(_whole), place),
        _get(about, "names", _list(_text), place),
        _get(about, "threshold", _number, place),
    )


log = logging.getLogger("lookonce")


@dataclass(frozen=True)
class Model:
    """A detector at rest: its network, and what a Description says of it."""

    network: Network
    labels: tuple[str, ...]
    input_size: tuple[int, int] = (416, 416)
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
    input_size = (origin.cfg.width, origin.cfg.height)
    try:
        return Model(network, labels, input_size, seen=min(origin.header.seen, MAX_SEEN), tree=tree)
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
