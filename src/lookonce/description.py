"""What a detector's file says about its network, without the network's numbers. No torch here.

It stands as JSON in each file of ours: the model file, ONNX, OpenVINO.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from lookonce import __version__
from lookonce.darknet.cfg import Cfg, read_cfg, write_cfg
from lookonce.errors import UserError
from lookonce.layers import Layer, Region, region_of, stride
from lookonce.resize import ResizeMode
from lookonce.tree import Tree

KEY = "lookonce"
"""Where it stands as JSON: the metadata of a model file and of ONNX, OpenVINO's rt_info."""
FORMAT = 1
"""Raised when a reader of before could not understand the file."""


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

    def __post_init__(self) -> None:
        classes = self.region.classes
        if len(self.labels) != classes:
            raise ModelFileError(f"{len(self.labels)} labels for a network of {classes} classes")
        if len(self.thresholds) not in (0, classes):
            raise ModelFileError(f"{len(self.thresholds)} thresholds for {classes} classes")
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
        rest = {name: value for name, value in asdict(self).items() if name != "layers"}
        cfg = write_cfg(Cfg(self.layers, *self.frame))
        return {"format": FORMAT, "version": __version__, "cfg": cfg, **rest}

    @classmethod
    def from_text(cls, text: str, place: str) -> Description:
        """What an exported file says of itself. Raises ModelFileError where that does not hold together."""
        try:
            return cls.from_json(json.loads(text), place)
        except (AttributeError, IndexError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise ModelFileError(f"{place}: its description cannot be read ({str(error)[:200]!r})") from None

    @classmethod
    def from_json(cls, about: dict[str, Any], place: str) -> Description:
        """What to_json wrote. place: the file, for messages.

        Raises:
            ModelFileError: another format, or values that do not hold together.
            KeyError, TypeError, ValueError: something is missing or of another kind.
        """
        if about["format"] != FORMAT:
            raise ModelFileError(
                f"{place}: format {about['format']!r:.40}, and this lookonce reads {FORMAT}; use its own version"
            )
        if about["resize"] not in get_args(ResizeMode):
            raise ModelFileError(f"{place}: resize {about['resize']!r}; expected one of {get_args(ResizeMode)}")
        return cls(
            layers=read_cfg(about["cfg"], place).layers,
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
