"""Darknet's .cfg: a network as text, and back. Sections in order, key=value lines, # and ; comments.

Source: darknet/src/parser.c (names and defaults of each section).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, get_args

from lookonce.errors import UserError
from lookonce.layers import Activation, AvgPool, Conv, Layer, MaxPool, Region, Reorg, Route, Softmax


class CfgError(UserError):
    """A cfg that cannot be read: place, what was found, what is allowed."""

    def __init__(self, place: str, line: int, found: str, law: str) -> None:
        super().__init__(f"{place}:{line}: {found}; expected {law}")


@dataclass(frozen=True)
class Cfg:
    """What a cfg says: the network's layers and its input."""

    layers: tuple[Layer, ...]
    width: int = 416
    height: int = 416


@dataclass
class _Section:
    name: str
    line: int
    values: dict[str, tuple[str, int]] = field(default_factory=dict)


FLAGS = ("softmax", "bias_match", "rescore")
SCALES = {"thresh": 0.5, "object_scale": 1.0, "noobject_scale": 1.0, "class_scale": 1.0, "coord_scale": 1.0}
"""Numbers of a region section and Darknet's defaults."""

KEYS: dict[str, frozenset[str]] = {
    "net": frozenset({"width", "height", "channels"}),
    "convolutional": frozenset({"batch_normalize", "filters", "size", "stride", "pad", "activation"}),
    "maxpool": frozenset({"size", "stride"}),
    "route": frozenset({"layers"}),
    "reorg": frozenset({"stride"}),
    "avgpool": frozenset(),
    "softmax": frozenset({"groups"}),
    "region": frozenset({"anchors", "classes", "coords", "num", *FLAGS, *SCALES}),
}


def write_cfg(cfg: Cfg) -> str:
    """The network as Darknet reads it."""
    head = _lines("net", width=cfg.width, height=cfg.height, channels=3)
    return "\n".join([head, *(_layer_text(layer) for layer in cfg.layers)])


def read_cfg(text: str, place: str = "cfg") -> Cfg:
    """A cfg's text as layers. place: the file's name, for messages.

    Raises CfgError with the line of an unknown section or key, or of a value outside its law.
    """
    sections = _sections(text, place)
    if not sections or sections[0].name != "net":
        raise CfgError(place, 1, "no [net] section at the start", "a Darknet network file")
    net = _Reader(sections[0], place)
    layers = tuple(_layer(_Reader(section, place)) for section in sections[1:])
    if not layers:
        raise CfgError(place, sections[0].line, "a network without layers", "at least one section after [net]")
    return Cfg(layers, net.integer("width", 416), net.integer("height", 416))


def _lines(name: str, **values: object) -> str:
    return "\n".join([f"[{name}]", *(f"{key}={value}" for key, value in values.items()), ""])


def _layer_text(layer: Layer) -> str:
    match layer:
        case Conv(filters, size, stride, batch_normalize, activation):
            normalize = {"batch_normalize": 1} if batch_normalize else {}
            shape = {"filters": filters, "size": size, "stride": stride, "pad": 1}
            return _lines("convolutional", **normalize, **shape, activation=activation)
        case MaxPool(size, stride):
            return _lines("maxpool", size=size, stride=stride)
        case Route(layers):
            return _lines("route", layers=",".join(map(str, layers)))
        case Reorg(stride):
            return _lines("reorg", stride=stride)
        case AvgPool():
            return _lines("avgpool")
        case Softmax():
            return _lines("softmax", groups=1)
        case Region():
            scales = {name: f"{getattr(layer, name):g}" for name in SCALES}
            flags = {name: int(getattr(layer, name)) for name in FLAGS}
            anchors = ", ".join(f"{w!r},{h!r}" for w, h in layer.anchors)
            counts = {"classes": layer.classes, "coords": 4, "num": len(layer.anchors)}
            return _lines("region", anchors=anchors, **counts, **flags, **scales)


def _sections(text: str, place: str) -> list[_Section]:
    found: list[_Section] = []
    for number, raw in enumerate(text.lstrip("\ufeff").splitlines(), start=1):
        line = raw.split("#")[0].split(";")[0].strip()
        if not line:
            continue
        if line.startswith("["):
            name = line.strip("[] \t").lower()
            name = {"network": "net", "conv": "convolutional", "max": "maxpool", "avg": "avgpool"}.get(name, name)
            if name not in KEYS:
                raise CfgError(place, number, f"section [{name}]", f"one of {', '.join(KEYS)}")
            found.append(_Section(name, number))
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not found:
            raise CfgError(place, number, repr(raw.strip()[:60]), "[section], then key=value lines")
        if key not in KEYS[found[-1].name]:
            allowed = ", ".join(sorted(KEYS[found[-1].name])) or "no key"
            raise CfgError(place, number, f"key {key!r} in [{found[-1].name}]", allowed)
        found[-1].values[key] = (value, number)
    return found


class _Reader:
    """Values of one section by type, each error with its line."""

    def __init__(self, section: _Section, place: str) -> None:
        self.section, self.place = section, place

    def numbers(self, key: str, default: str | None = None) -> list[float]:
        text, line = self.section.values.get(key, (default, self.section.line))
        if text is None:
            raise CfgError(self.place, line, f"[{self.section.name}] without {key}", f"{key}=...")
        try:
            return [float(part) for part in text.replace(" ", "").split(",") if part]
        except ValueError:
            raise CfgError(self.place, line, f"{key}={text!r}", "numbers") from None

    def integer(self, key: str, default: int | None = None, least: int = 1) -> int:
        value = self.numbers(key, None if default is None else str(default))
        if len(value) != 1 or value[0] != int(value[0]) or value[0] < least:
            line = self.section.values[key][1]
            raise CfgError(
                self.place, line, f"{key}={self.section.values[key][0]}", f"a whole number, at least {least}"
            )
        return int(value[0])

    def flag(self, key: str, default: int) -> bool:
        return bool(self.integer(key, default, least=0))

    def word(self, key: str, default: str, allowed: tuple[str, ...]) -> str:
        text, line = self.section.values.get(key, (default, self.section.line))
        if text not in allowed:
            raise CfgError(self.place, line, f"{key}={text}", f"one of {', '.join(allowed)}")
        return text


def _layer(read: _Reader) -> Layer:
    match read.section.name:
        case "convolutional":
            activation: Activation = read.word("activation", "logistic", get_args(Activation))  # type: ignore[assignment]
            size, normalize = read.integer("size", 1), read.flag("batch_normalize", 0)
            if size > 1 and not read.flag("pad", 0):
                raise CfgError(
                    read.place, read.section.line, f"size={size} without pad", "pad=1 (size // 2 on each side)"
                )
            return Conv(read.integer("filters", 1), size, read.integer("stride", 1), normalize, activation)
        case "maxpool":
            stride = read.integer("stride", 1)
            return MaxPool(read.integer("size", stride), stride)
        case "route":
            return Route(tuple(int(v) for v in read.numbers("layers")))
        case "reorg":
            return Reorg(read.integer("stride", 1))
        case "avgpool":
            return AvgPool()
        case "softmax":
            return Softmax()
        case _:
            return _region(read)


def _region(read: _Reader) -> Region:
    flat, count = read.numbers("anchors"), read.integer("num", 1)
    if len(flat) != 2 * count or min(flat) <= 0:
        line = read.section.values["anchors"][1]
        raise CfgError(read.place, line, f"{len(flat)} numbers in anchors", f"{2 * count} above 0 for num={count}")
    if read.integer("coords", 4) != 4:
        raise CfgError(read.place, read.section.values["coords"][1], "another number of coords", "coords=4")
    numbers: dict[str, Any] = {name: read.numbers(name, str(default))[0] for name, default in SCALES.items()}
    flags: dict[str, Any] = {name: read.flag(name, 0) for name in FLAGS}
    anchors = tuple(zip(flat[::2], flat[1::2], strict=True))
    return Region(anchors, read.integer("classes", 20), **flags, **numbers)
