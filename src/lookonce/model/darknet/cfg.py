"""Darknet's .cfg: a network as text, and back. Sections in order, key=value lines, # and ; comments.

The tables below say which keys each section may have. Keys that only Darknet's training reads, and keys of [net] that
nothing reads, are kept and written back.
Source: darknet/src/parser.c, and that of its popular fork for keys that real files carry.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, get_args

from lookonce.errors import ConfigError, UserError, printable
from lookonce.model.layers import (
    MAX_WINDOW,
    Activation,
    AvgPool,
    Conv,
    Cost,
    Dropout,
    Layer,
    LayerError,
    MaxPool,
    Region,
    Reorg,
    Route,
    Shape,
    Softmax,
    shapes,
)

SHORT_NAMES = {"network": "net", "conv": "convolutional", "max": "maxpool", "avg": "avgpool", "soft": "softmax"}
"""Other names of sections."""
FLAGS = ("softmax", "bias_match", "rescore")
"""Switches of a region section, off by default."""
SCALES = {"thresh": 0.5, "object_scale": 1.0, "noobject_scale": 1.0, "class_scale": 1.0, "coord_scale": 1.0}
"""Numbers of a region section and Darknet's defaults."""
READ: dict[str, frozenset[str]] = {
    "net": frozenset({"width", "height", "channels"}),
    "convolutional": frozenset({"batch_normalize", "filters", "size", "stride", "pad", "padding", "activation"}),
    "maxpool": frozenset({"size", "stride", "padding"}),
    "route": frozenset({"layers"}),
    "reorg": frozenset({"stride"}),
    "avgpool": frozenset(),
    "dropout": frozenset({"probability"}),
    "softmax": frozenset({"temperature", "tree"}),
    "cost": frozenset({"type"}),
    "region": frozenset({"anchors", "classes", "num", "tree", "map", *FLAGS, *SCALES}),
}
"""Keys that define what the network computes: they become layers."""
TRAINING = frozenset({
    "onlyforward", "stopbackward", "learning_rate", "smooth", "dont_update", "burnin_update", "train_only_bn", "truth",
    "stream", "wait_stream",
})  # fmt: skip
"""Keys that Darknet's training, or its scheduling on a GPU, reads in any section but [net]."""
KEPT: dict[str, frozenset[str]] = {
    "net": frozenset({
        "batch", "subdivisions", "time_steps", "notruth", "random", "max_crop", "min_crop", "max_ratio", "min_ratio",
        "center", "clip", "flip", "angle", "aspect", "saturation", "exposure", "hue", "learning_rate",
        "learning_rate_min", "momentum", "decay", "adam", "B1", "B2", "eps", "policy", "burn_in", "power", "step",
        "scale", "steps", "scales", "gamma", "max_batches", "letter_box", "mosaic", "mixup", "cutmix", "blur",
        "dynamic_minibatch", "optimized_memory", "workspace_size_limit_MB", "label_smooth_eps", "resize_step",
        "loss_scale", "track",
    }),
    "convolutional": TRAINING | {"grad_centr", "angle"},
    "maxpool": TRAINING,
    "route": TRAINING,
    "reorg": TRAINING,
    "avgpool": TRAINING,
    "dropout": TRAINING | {"dropblock", "dropblock_size_rel", "dropblock_size_abs"},
    "softmax": TRAINING | {"noloss"},
    "cost": TRAINING | {"scale", "ratio", "noobj", "thresh"},
    "region": TRAINING | {"jitter", "random", "absolute", "max", "mask_scale", "focal_loss", "resize"},
}  # fmt: skip
"""Keys that only Darknet's training reads: kept as text."""
FIXED: dict[str, dict[str, str]] = {
    "convolutional": {
        **dict.fromkeys((
            "flipped", "binary", "xnor", "bin_output", "dot", "dontload", "dontloadscales", "dontsave", "numload",
            "antialiasing", "assisted_excitation", "cbn", "sway", "rotate", "stretch", "stretch_sway", "reverse",
            "coordconv",
        ), "0"),
        **dict.fromkeys(("groups", "dilation"), "1"),
        **dict.fromkeys(("stride_x", "stride_y", "share_index"), ""),
    },
    "maxpool": {
        **dict.fromkeys(("maxpool_depth", "antialiasing"), "0"),
        **dict.fromkeys(("stride_x", "stride_y", "out_channels"), ""),
    },
    "route": {"groups": "1", "group_id": "0"},
    "reorg": dict.fromkeys(("reverse", "flatten", "extra"), "0"),
    "softmax": {"groups": "1", "spatial": "0"},
    "region": {"coords": "4", **dict.fromkeys(("background", "log", "sqrt", "classfix"), "0")},
}  # fmt: skip
"""Keys that would change the network or its weights: only this value is supported. Empty: no value is."""
FAMILIES: dict[str, tuple[str, ...]] = {
    "a YOLOv3 or later network": ("yolo",),
    "a Gaussian YOLOv3 network": ("gaussian_yolo",),
    "a YOLOv1 network": ("detection",),
    "a recurrent network": ("rnn", "crnn", "lstm", "conv_lstm", "gru"),
    "an instance segmentation network": ("iseg",),
    "a classifier": ("softmax", "cost", "connected", "conn"),
}
"""Other kinds of networks, and the sections by which they are recognised."""
log = logging.getLogger("lookonce")
MAX_ANCHOR = 1e6
"""Largest side of an anchor, cells."""
MAX_INTEGER = 2**31 - 1
"""Largest whole number: Darknet keeps them in 32 bits."""


class CfgError(UserError):
    """A cfg that cannot be read: place, what was found, what is expected."""

    def __init__(self, place: str, line: int, found: str, expected: str = "") -> None:
        super().__init__(f"{place}:{line}: {found}" + (f"; expected {expected}" if expected else ""))


Keys = tuple[tuple[str, str], ...]
"""(key, value) of one section, in their order."""


@dataclass(frozen=True)
class Cfg:
    """The content of a cfg: the network's layers, its input, and keys that only Darknet's training reads."""

    layers: tuple[Layer, ...]
    width: int = 416
    height: int = 416
    channels: int = 3
    kept: tuple[Keys, ...] = ()
    """Training keys of [net] and of each layer, unchanged; empty: there are none."""

    def __post_init__(self) -> None:
        if len(self.kept) not in (0, len(self.layers) + 1):
            raise ConfigError(f"training keys of {len(self.kept)} sections; expected [net] and {len(self.layers)} more")


def write_cfg(cfg: Cfg) -> str:
    """Return the network as Darknet reads it, training keys at the end of each section."""
    net: dict[str, object] = {"width": cfg.width, "height": cfg.height, "channels": cfg.channels}
    sections = [("net", net), *map(_layer_keys, cfg.layers)]
    kept = cfg.kept or ((),) * len(sections)
    texts = (
        "\n".join([f"[{name}]", *(f"{key}={value}" for key, value in (*own.items(), *more)), ""])
        for (name, own), more in zip(sections, kept, strict=True)
    )
    return "\n".join(texts)


def _number(value: float) -> str:
    """Return the shortest text that reads back as the same number."""
    return str(int(value)) if value == int(value) else repr(float(value))


def _layer_keys(layer: Layer) -> tuple[str, dict[str, object]]:
    match layer:
        case Conv(filters, size, stride, batch_normalize, activation):
            normalize: dict[str, object] = {"batch_normalize": 1} if batch_normalize else {}
            shape: dict[str, object] = {"filters": filters, "size": size, "stride": stride, "pad": 1}
            return "convolutional", {**normalize, **shape, "activation": activation}
        case MaxPool(size, stride):
            return "maxpool", {"size": size, "stride": stride}
        case Route(layers):
            return "route", {"layers": ",".join(map(str, layers))}
        case Reorg(stride):
            return "reorg", {"stride": stride}
        case AvgPool():
            return "avgpool", {}
        case Dropout(probability):
            return "dropout", {"probability": _number(probability)}
        case Softmax(temperature, tree):
            heat = {} if temperature == 1 else {"temperature": _number(temperature)}
            return "softmax", {"groups": 1, **heat, **({"tree": tree} if tree else {})}
        case Cost(type):
            return "cost", {"type": type}
        case Region():
            return "region", _region_keys(layer)


def _region_keys(region: Region) -> dict[str, object]:
    anchors = ", ".join(f"{w!r},{h!r}" for w, h in region.anchors)
    counts = {"classes": region.classes, "coords": 4, "num": len(region.anchors)}
    flags = {name: int(getattr(region, name)) for name in FLAGS}
    scales = {name: _number(getattr(region, name)) for name in SCALES}
    files = {name: value for name in ("tree", "map") if (value := getattr(region, name))}
    return {"anchors": anchors, **counts, **flags, **scales, **files}


def read_cfg(text: str, place: str = "cfg") -> Cfg:
    """Read a cfg's text. place: the file's name, for messages.

    Keys of [net] that nothing reads are kept with a warning, as Darknet prints "Unused field" and continues.

    Raises:
        CfgError: another kind of network; an unknown section, a key or value that is not supported; a layer
            that does not fit the map before it or is too large. The message names the line.
    """
    sections = _sections(text, place)
    _check_family(sections, place)
    for section in sections:
        section.sort_keys()
    net, *others = sections
    if unused := ", ".join(net.unused):
        log.warning("%s: keys of [net] that nothing reads are kept: %s", printable(place), printable(unused))
    layers = tuple(map(_layer, others))
    if not layers:
        raise CfgError(place, net.line, "a network without layers", "at least one section after [net]")
    width, height, channels = net.integer("width", 416), net.integer("height", 416), net.integer("channels", 3)
    if channels not in (1, 3):
        raise net.error("channels", "3 (RGB) or 1 (grey)")
    try:
        shapes(layers, Shape(channels, height, width))
    except LayerError as error:
        raise CfgError(place, others[error.index].line, str(error)) from None
    kept = tuple(tuple(section.kept) for section in sections)
    return Cfg(layers, width, height, channels, kept if any(kept) else ())


def _sections(text: str, place: str) -> list[_Section]:
    """Split a text into sections with all their keys."""
    found: list[_Section] = []
    for number, raw in enumerate(text.lstrip("\ufeff").splitlines(), start=1):
        line = raw.split("#")[0].split(";")[0].strip()
        if line.startswith("["):
            name = line.strip("[] \t").lower()
            found.append(_Section(place, SHORT_NAMES.get(name, name), number))
        elif line:
            key, equals, value = (part.strip() for part in line.partition("="))
            if not equals or not found:
                raise CfgError(place, number, repr(raw.strip()[:60]), "[section], then key=value lines")
            found[-1].lines.append((key, value, number))
    return found


def _check_family(sections: list[_Section], place: str) -> None:
    """Raise CfgError that names the kind of another network, before its first unknown key would be reported."""
    if not sections or sections[0].name != "net":
        raise CfgError(place, 1, "no [net] section at the start", "a Darknet network file")
    first = next((section for section in sections[1:] if section.name not in READ or section.name == "net"), None)
    if first is None:
        return
    lines = {section.name: section.line for section in reversed(sections)}
    for family, names in FAMILIES.items():
        if (name := next((name for name in names if name in lines), None)) and "region" not in lines:
            what = f" with [{first.name[:60]}]" if name in READ else ""
            raise CfgError(place, lines[name], f"{family}{what} (section [{name}], line {lines[name]}); only [region] "
                                               "networks (YOLOv2) are supported")  # fmt: skip
    raise CfgError(place, first.line, f"section [{first.name[:60]}]", f"one of {', '.join(READ)}")


@dataclass
class _Section:
    """One section. Its methods read a value by type; their errors name its line."""

    place: str
    name: str
    line: int
    lines: list[tuple[str, str, int]] = field(default_factory=list)
    """(key, value, line) in their order."""
    values: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Value and line of each key that defines what the layer computes."""
    kept: list[tuple[str, str]] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    """Keys that nothing reads, each with its line; they are kept too."""

    def sort_keys(self) -> None:
        """Sort the keys: read, fixed to one value, or kept. Raises CfgError for any other key or value."""
        fixed, read, kept = FIXED.get(self.name, {}), READ[self.name], KEPT[self.name]
        for key, value, line in self.lines:
            if key in read:
                self.values.setdefault(key, (value, line))  # Darknet takes the first of two
            elif key in fixed:
                if not _equal(value, fixed[key]):
                    only = f"{key}={fixed[key]}, the only supported value"
                    expected = only if fixed[key] else f"no {key}: it is not supported"
                    raise CfgError(self.place, line, f"{key}={value[:60]}", f"{expected} (section [{self.name}])")
            elif key in kept or self.name == "net":
                self.kept.append((key, value))
                if key not in kept:
                    self.unused.append(f"{key[:60]} (line {line})")
            else:  # a fork may compute something else by it
                raise CfgError(self.place, line, f"key {key[:60]!r} in [{self.name}]",
                               ", ".join(sorted({*read, *kept, *fixed})))  # fmt: skip

    def error(self, key: str, expected: str, found: str = "") -> CfgError:
        """Return the error about a key's value. found: the text as found; empty: KEY=VALUE."""
        text, line = self.values.get(key, ("", self.line))
        return CfgError(self.place, line, found or f"{key}={text[:60]}", expected)

    def text(self, key: str, default: str) -> str:
        return self.values.get(key, (default, 0))[0]

    def numbers(self, key: str, default: str = "") -> list[float]:
        text = self.text(key, default)
        if not default and key not in self.values:
            raise self.error(key, f"{key}=...", f"[{self.name}] without {key}")
        try:
            values = [float(part) for part in text.replace(" ", "").replace("\t", "").split(",") if part]
        except ValueError:
            values = [math.nan]
        if not values or not all(map(math.isfinite, values)):
            raise self.error(key, "numbers", f"{key}={text[:60]!r}")
        return values

    def number(self, key: str, default: float, most: float = math.inf) -> float:
        """Read one number, from 0 to `most` where that is set."""
        values = self.numbers(key, str(default))
        if len(values) != 1 or (most < math.inf and not 0 <= values[0] <= most):
            raise self.error(key, "one number" + ("" if most == math.inf else f", 0 to {most:g}"))
        return values[0]

    def integers(self, key: str, default: str = "", least: int = 1, most: int = MAX_INTEGER) -> list[int]:
        values = self.numbers(key, default)
        for value in values:
            if value != int(value) or not least <= value <= most:
                expected = "whole numbers" if least < 0 else f"a whole number, at least {least}"
                raise self.error(key, expected + (f" and at most {most}" if value > most else ""))
        return [int(value) for value in values]

    def integer(self, key: str, default: int, least: int = 1, most: int = MAX_INTEGER) -> int:
        values = self.integers(key, str(default), least, most)
        if len(values) != 1:
            raise self.error(key, "one number")
        return values[0]

    def flag(self, key: str) -> bool:
        return bool(self.integer(key, 0, least=0))

    def window(self, key: str, default: int) -> int:
        """Read a size or stride of a convolution or a pool."""
        return self.integer(key, default, most=MAX_WINDOW)

    def file(self, key: str) -> str:
        """Read the name of a file in the cfg's folder or below; empty: none is named."""
        text = self.text(key, "")
        parts = (*PurePosixPath(text).parts, *PureWindowsPath(text).parts)
        if ".." in parts or text.startswith(("/", "\\", "~")) or PureWindowsPath(text).drive:
            raise self.error(key, f"a file in the cfg's folder: {key}=NAME")
        return text


def _layer(section: _Section) -> Layer:
    match section.name:
        case "convolutional":
            return _convolution(section)
        case "maxpool":
            stride = section.window("stride", 1)
            size = section.window("size", stride)
            if section.integer("padding", size - 1, least=0) != size - 1:
                raise section.error("padding", f"padding={size - 1} (size - 1)", "another padding")
            return MaxPool(size, stride)
        case "route":
            return Route(tuple(section.integers("layers", least=-MAX_INTEGER)))
        case "reorg":
            return Reorg(section.window("stride", 1))
        case "avgpool":
            return AvgPool()
        case "dropout":
            return Dropout(section.number("probability", 0.5, most=1))
        case "softmax":
            return Softmax(section.number("temperature", 1), section.file("tree"))
        case "cost":
            return Cost(section.text("type", "sse"))
        case _:
            return _region(section)


def _convolution(section: _Section) -> Conv:
    activation: Activation = section.text("activation", "logistic")  # type: ignore[assignment]
    if activation not in get_args(Activation):
        raise section.error("activation", f"one of {', '.join(get_args(Activation))}")
    size = section.window("size", 1)
    padding = size // 2 if section.flag("pad") else section.integer("padding", 0, least=0)
    if padding != size // 2:
        raise CfgError(section.place, section.line, f"size={size} with a padding of {padding}",
                       "pad=1 (size // 2 on each side)")  # fmt: skip
    filters, stride = section.integer("filters", 1), section.window("stride", 1)
    return Conv(filters, size, stride, section.flag("batch_normalize"), activation)


def _region(section: _Section) -> Region:
    flat, count = section.numbers("anchors"), section.integer("num", 1)
    if len(flat) % 2 or len(flat) < 2 * count:
        raise section.error("anchors", f"{2 * count} above 0 for num={count}", f"{len(flat)} numbers in anchors")
    if not all(0 < value <= MAX_ANCHOR for value in flat[: 2 * count]):
        raise section.error("anchors", f"numbers above 0 and at most {MAX_ANCHOR:g}, in cells")
    if len(flat) > 2 * count:
        log.warning("%s:%d: %d pairs of anchors, and num=%d; as in Darknet the first %d are used",
                    printable(section.place), section.values["anchors"][1], len(flat) // 2, count, count)  # fmt: skip
    numbers: dict[str, Any] = {name: section.number(name, default) for name, default in SCALES.items()}
    flags: dict[str, Any] = {name: section.flag(name) for name in FLAGS}
    files: dict[str, Any] = {name: section.file(name) for name in ("tree", "map")}
    anchors = tuple(zip(flat[: 2 * count : 2], flat[1 : 2 * count : 2], strict=True))
    return Region(anchors, section.integer("classes", 20), **flags, **numbers, **files)


def _equal(value: str, number: str) -> bool:
    try:
        return float(value) == float(number)
    except ValueError:
        return False
