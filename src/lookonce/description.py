"""What a detector's file says about its network, without the network's numbers. No torch here.

It stands as JSON in each file of ours: the model file, ONNX, OpenVINO.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar, get_args

from lookonce import __version__
from lookonce.darknet.cfg import Cfg, CfgError, read_cfg, write_cfg
from lookonce.errors import UserError
from lookonce.layers import Layer, Region, check_frame, region_of, stride
from lookonce.resize import ResizeMode
from lookonce.tree import Tree

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
    channels: int = 3
    """Of the network's input: 3 (RGB), or 1 (grey)."""
    pixel_range: tuple[float, float] | None = None
    """Values of images of more than 8 bits that become black and white; none: as data.pictures.load_rgb has it."""

    def __post_init__(self) -> None:
        classes = self.region.classes
        check_frame(self.layers, self.frame, self.channels)
        if len(self.labels) != classes:
            raise ModelFileError(f"{len(self.labels)} labels for a network of {classes} classes")
        if len(self.thresholds) not in (0, classes):
            raise ModelFileError(f"{len(self.thresholds)} thresholds for {classes} classes")
        if not all(0 <= value <= 1 for value in self.thresholds):
            raise ModelFileError(f"thresholds {self.thresholds[:9]}; expected 0 to 1")
        if not 0 <= self.seen <= MAX_SEEN:
            raise ModelFileError(f"{self.seen} images seen; expected 0 to {MAX_SEEN}")
        if (self.tree is None) != (not self.region.tree):
            raise ModelFileError(f"the cfg says tree={self.region.tree!r}, and a tree is {self.tree and 'given'}")
        if self.tree is not None and len(self.tree.parents) != classes:
            raise ModelFileError(f"a tree of {len(self.tree.parents)} classes for {classes} labels")

    @property
    def region(self) -> Region:
        """The region layer: anchors and classes."""
        return region_of(self.layers)

    @property
    def stride(self) -> int:
        """Input pixels for each cell of the last map."""
        return stride(self.layers)

    def to_json(self) -> dict[str, Any]:
        """As plain values; read back by from_json."""
        rest = {name: value for name, value in asdict(self).items() if name not in ("layers", "channels")}
        cfg = write_cfg(Cfg(self.layers, *self.frame, self.channels))
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
        frame = _get(about, "frame", _list(_whole), place)
        if len(frame) != 2:
            raise ModelFileError(f"{place}: frame {frame[:9]}; expected width and height")
        try:
            return cls(
                layers=cfg.layers,
                labels=_get(about, "labels", _list(_text), place),
                frame=frame,
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
