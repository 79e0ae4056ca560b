"""Darknet's .cfg: a network as text, and back. Sections in order, key=value lines, # and ; comments.

Keys that only Darknet's training reads are kept as they are and written back.
Source: darknet/src/parser.c (names and defaults of each section).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, get_args

from lookonce.darknet.words import FIXED, FLAGS, KEPT, READ, SCALES, SHORT_NAMES
from lookonce.errors import ConfigError, UserError
from lookonce.layers import (
    Activation,
    AvgPool,
    Conv,
    Cost,
    Dropout,
    Layer,
    MaxPool,
    Region,
    Reorg,
    Route,
    Shape,
    Softmax,
    shapes,
)


class CfgError(UserError):
    """A cfg that cannot be read: place, what was found, what is allowed."""

    def __init__(self, place: str, line: int, found: str, law: str = "") -> None:
        super().__init__(f"{place}:{line}: {found}" + (f"; expected {law}" if law else ""))


Keys = tuple[tuple[str, str], ...]
"""(key, value) of one section, in their order."""


@dataclass(frozen=True)
class Cfg:
    """What a cfg says: the network's layers, its input, and what only Darknet's training reads."""

    layers: tuple[Layer, ...]
    width: int = 416
    height: int = 416
    channels: int = 3
    kept: tuple[Keys, ...] = ()
    """Training keys of [net] and of each layer, as they stood; empty: there are none."""

    def __post_init__(self) -> None:
        if len(self.kept) not in (0, len(self.layers) + 1):
            raise ConfigError(f"training keys of {len(self.kept)} sections; expected [net] and {len(self.layers)} more")


@dataclass
class _Section:
    name: str
    line: int
    values: dict[str, tuple[str, int]] = field(default_factory=dict)
    kept: list[tuple[str, str]] = field(default_factory=list)


def write_cfg(cfg: Cfg) -> str:
    """The network as Darknet reads it, training keys behind each section's own."""
    net: dict[str, object] = {"width": cfg.width, "height": cfg.height, "channels": cfg.channels}
    sections = [("net", net), *(_layer_keys(layer) for layer in cfg.layers)]
    kept = cfg.kept or ((),) * len(sections)
    return "\n".join(_section_text(name, own, more) for (name, own), more in zip(sections, kept, strict=True))


def read_cfg(text: str, place: str = "cfg") -> Cfg:
    """A cfg's text as layers. place: the file's name, for messages.

    Raises:
        CfgError: with the line of an unknown section or key, of a value outside its law,
            of a layer that does not fit the map before it.
    """
    sections = _sections(text, place)
    if not sections or sections[0].name != "net":
        raise CfgError(place, 1, "no [net] section at the start", "a Darknet network file")
    net = _Reader(sections[0], place)
    layers = tuple(_layer(_Reader(section, place)) for section in sections[1:])
    if not layers:
        raise CfgError(place, sections[0].line, "a network without layers", "at least one section after [net]")
    frame = net.integer("width", 416), net.integer("height", 416)
    kept = tuple(tuple(section.kept) for section in sections)
    cfg = Cfg(layers, *frame, net.integer("channels", 3), kept if any(kept) else ())
    _check_shapes(cfg, sections, place)
    return cfg


def _check_shapes(cfg: Cfg, sections: list[_Section], place: str) -> None:
    """Raise CfgError at the first layer that does not fit the maps before it."""
    given = Shape(cfg.channels, cfg.height, cfg.width)
    for count, section in enumerate(sections[1:], start=1):
        try:
            shapes(cfg.layers[:count], given)
        except ConfigError as error:
            raise CfgError(place, section.line, str(error)) from None


def _section_text(name: str, own: dict[str, object], kept: Keys) -> str:
    lines = [f"{key}={value}" for key, value in (*own.items(), *kept)]
    return "\n".join([f"[{name}]", *lines, ""])


def _number(value: float) -> str:
    """A number as short as it goes without losing a digit."""
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


def _sections(text: str, place: str) -> list[_Section]:
    found: list[_Section] = []
    for number, raw in enumerate(text.lstrip("\ufeff").splitlines(), start=1):
        line = raw.split("#")[0].split(";")[0].strip()
        if not line:
            continue
        if line.startswith("["):
            name = line.strip("[] \t").lower()
            name = SHORT_NAMES.get(name, name)
            if name not in READ:
                raise CfgError(place, number, f"section [{name}]", f"one of {', '.join(READ)}")
            found.append(_Section(name, number))
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not found:
            raise CfgError(place, number, repr(raw.strip()[:60]), "[section], then key=value lines")
        _take(found[-1], key, value, number, place)
    return found


def _take(section: _Section, key: str, value: str, line: int, place: str) -> None:
    """Put a key where it belongs: read, fixed to one value, or kept for Darknet's training."""
    fixed = FIXED.get(section.name, {})
    if key in READ[section.name]:
        section.values.setdefault(key, (value, line))  # of a key that stands twice, Darknet takes the first
    elif key in KEPT.get(section.name, ()):
        section.kept.append((key, value))
    elif key not in fixed:
        known = sorted({*READ[section.name], *KEPT.get(section.name, ()), *fixed})
        raise CfgError(place, line, f"key {key!r} in [{section.name}]", ", ".join(known) or "no key")
    elif not _equal(value, fixed[key]):
        raise CfgError(place, line, f"{key}={value}", f"{key}={fixed[key]}: nothing else is built here")


def _equal(value: str, number: str) -> bool:
    try:
        return float(value) == float(number)
    except ValueError:
        return False


class _Reader:
    """Values of one section by type, each error with its line."""

    def __init__(self, section: _Section, place: str) -> None:
        self.section, self.place = section, place

    def line(self, key: str) -> int:
        return self.section.values.get(key, ("", self.section.line))[1]

    def numbers(self, key: str, default: str | None = None) -> list[float]:
        text, line = self.section.values.get(key, (default, self.section.line))
        if text is None:
            raise CfgError(self.place, line, f"[{self.section.name}] without {key}", f"{key}=...")
        try:
            values = [float(part) for part in text.replace(" ", "").replace("\t", "").split(",") if part]
        except ValueError:
            values = [math.nan]
        if not values or not all(map(math.isfinite, values)):
            raise CfgError(self.place, line, f"{key}={text!r}", "numbers")
        return values

    def integers(self, key: str, default: str | None = None, least: int | None = 1) -> Iterator[int]:
        for value in self.numbers(key, default):
            if value != int(value) or (least is not None and value < least):
                law = "whole numbers" if least is None else f"a whole number, at least {least}"
                raise CfgError(self.place, self.line(key), f"{key}={self.section.values[key][0]}", law)
            yield int(value)

    def number(self, key: str, default: float, most: float = math.inf) -> float:
        values = self.numbers(key, str(default))
        if len(values) != 1 or not values[0] <= most:
            law = "one number" + ("" if most == math.inf else f", at most {most:g}")
            raise CfgError(self.place, self.line(key), f"{key}={self.section.values[key][0]}", law)
        return values[0]

    def integer(self, key: str, default: int, least: int = 1) -> int:
        values = list(self.integers(key, str(default), least))
        if len(values) != 1:
            raise CfgError(self.place, self.line(key), f"{key}={self.section.values[key][0]}", "one number")
        return values[0]

    def flag(self, key: str, default: int) -> bool:
        return bool(self.integer(key, default, least=0))

    def word(self, key: str, default: str, allowed: tuple[str, ...] = ()) -> str:
        text, line = self.section.values.get(key, (default, self.section.line))
        if allowed and text not in allowed:
            raise CfgError(self.place, line, f"{key}={text}", f"one of {', '.join(allowed)}")
        return text


def _layer(read: _Reader) -> Layer:
    match read.section.name:
        case "convolutional":
            return _convolution(read)
        case "maxpool":
            stride = read.integer("stride", 1)
            size = read.integer("size", stride)
            if read.integer("padding", size - 1, least=0) != size - 1:
                raise CfgError(read.place, read.line("padding"), "another padding", f"padding={size - 1} (size - 1)")
            return MaxPool(size, stride)
        case "route":
            return Route(tuple(read.integers("layers", least=None)))
        case "reorg":
            return Reorg(read.integer("stride", 1))
        case "avgpool":
            return AvgPool()
        case "dropout":
            return Dropout(read.number("probability", 0.5, most=1))
        case "softmax":
            return Softmax(read.number("temperature", 1), read.word("tree", ""))
        case "cost":
            return Cost(read.word("type", "sse"))
        case _:
            return _region(read)


def _convolution(read: _Reader) -> Conv:
    activation: Activation = read.word("activation", "logistic", get_args(Activation))  # type: ignore[assignment]
    size, normalize = read.integer("size", 1), read.flag("batch_normalize", 0)
    padding = size // 2 if read.flag("pad", 0) else read.integer("padding", 0, least=0)
    if padding != size // 2:
        raise CfgError(
            read.place, read.section.line, f"size={size} with a padding of {padding}", "pad=1 (size // 2 on each side)"
        )
    return Conv(read.integer("filters", 1), size, read.integer("stride", 1), normalize, activation)


def _region(read: _Reader) -> Region:
    flat, count = read.numbers("anchors"), read.integer("num", 1)
    if len(flat) != 2 * count or min(flat) <= 0:
        found = f"{len(flat)} numbers in anchors"
        raise CfgError(read.place, read.line("anchors"), found, f"{2 * count} above 0 for num={count}")
    numbers: dict[str, Any] = {name: read.number(name, default) for name, default in SCALES.items()}
    flags: dict[str, Any] = {name: read.flag(name, 0) for name in FLAGS}
    files: dict[str, Any] = {name: read.word(name, "") for name in ("tree", "map")}
    anchors = tuple(zip(flat[::2], flat[1::2], strict=True))
    return Region(anchors, read.integer("classes", 20), **flags, **numbers, **files)
