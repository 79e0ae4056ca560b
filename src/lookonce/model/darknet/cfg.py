"""Darknet's .cfg: a network as text, and back. Sections in order, key=value lines, # and ; comments.

sections.py says which keys each section may have; this makes layers of them, and sections of layers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from lookonce.errors import ConfigError, printable
from lookonce.model.darknet.sections import (
    DETECTION_FLAGS,
    DETECTION_SCALES,
    FLAGS,
    MAX_ANCHOR,
    MAX_INTEGER,
    SCALES,
    YOLO_FLAGS,
    YOLO_NUMBERS,
    CfgError,
    Section,
    check_family,
    read_sections,
)
from lookonce.model.layers import (
    Activation,
    AvgPool,
    Batchnorm,
    Connected,
    Contrastive,
    Conv,
    Cost,
    Crop,
    Detection,
    Dropout,
    IouLoss,
    Layer,
    Local,
    LocalAvgPool,
    MaxPool,
    NmsKind,
    Region,
    Reorg,
    Route,
    Sam,
    ScaleChannels,
    Shortcut,
    Softmax,
    SpaceToDepth,
    Upsample,
    Yolo,
)
from lookonce.model.sizes import MAX_LAYERS, MAX_WINDOW, LayerError, Shape, fitted, shapes

log = logging.getLogger("lookonce")
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
        case Conv():
            return "convolutional", _convolution_keys(layer)
        case Local(filters, size, stride, padding, activation):
            shape = {"size": size, "stride": stride, "pad": padding, "filters": filters}
            return "local", {**shape, "activation": activation}
        case Connected(output, activation, normalize):
            return "connected", {**_normalize(normalize), "output": output, "activation": activation}
        case Batchnorm():
            return "batchnorm", {}
        case MaxPool(size, stride, padding):
            return "maxpool", {"size": size, "stride": stride, **({} if padding is None else {"padding": padding})}
        case LocalAvgPool(size, stride):
            return "local_avgpool", {"size": size, "stride": stride}
        case Route(layers, groups, group_id):
            part = {} if groups == 1 else {"groups": groups, "group_id": group_id}
            return "route", {"layers": ",".join(map(str, layers)), **part}
        case Shortcut(source, activation):
            return "shortcut", {"from": source, "activation": activation}
        case ScaleChannels(source, activation):
            return "scale_channels", {"from": source, **_unless_linear(activation)}
        case Sam(source, activation):
            return "sam", {"from": source, **_unless_linear(activation)}
        case Upsample(stride, scale):
            return "upsample", {"stride": stride, **({} if scale == 1 else {"scale": _number(scale)})}
        case Crop(height, width, adjust):
            return "crop", {"crop_height": height, "crop_width": width, **({} if adjust else {"noadjust": 1})}
        case Reorg(stride):
            return "reorg", {"stride": stride}
        case SpaceToDepth(stride):
            return "reorg3d", {"stride": stride}
        case AvgPool():
            return "avgpool", {}
        case Dropout(probability):
            return "dropout", {"probability": _number(probability)}
        case Softmax(temperature, tree):
            heat = {} if temperature == 1 else {"temperature": _number(temperature)}
            return "softmax", {"groups": 1, **heat, **({"tree": tree} if tree else {})}
        case Cost(type):
            return "cost", {"type": type}
        case Contrastive():
            return "contrastive", {}
        case Region():
            return "region", _region_keys(layer)
        case Yolo():
            return "Gaussian_yolo" if layer.gaussian else "yolo", _yolo_keys(layer)
        case Detection():
            return "detection", _detection_keys(layer)


def _normalize(batch_normalize: bool) -> dict[str, object]:
    return {"batch_normalize": 1} if batch_normalize else {}


def _unless_linear(activation: Activation) -> dict[str, object]:
    return {} if activation == "linear" else {"activation": activation}


def _convolution_keys(layer: Conv) -> dict[str, object]:
    shape: dict[str, object] = {"filters": layer.filters, "size": layer.size, "stride": layer.stride}
    padding: dict[str, object] = {"pad": 1} if layer.padding is None else {"padding": layer.padding}
    more = {name: value for name in ("groups", "dilation") if (value := getattr(layer, name)) != 1}
    share = {} if layer.share is None else {"share_index": layer.share}
    first = {**({"xnor": 1} if layer.xnor else {}), **_normalize(layer.batch_normalize)}
    return {**first, **shape, **padding, **more, **share, "activation": layer.activation}


def _region_keys(region: Region) -> dict[str, object]:
    anchors = ", ".join(f"{w!r},{h!r}" for w, h in region.anchors)
    counts = {"classes": region.classes, "coords": 4, "num": len(region.anchors)}
    flags = {name: int(getattr(region, name)) for name in FLAGS}
    scales = {name: _number(getattr(region, name)) for name in SCALES}
    files = {name: value for name in ("tree", "map") if (value := getattr(region, name))}
    return {"anchors": anchors, **counts, **flags, **scales, **files}


def _yolo_keys(yolo: Yolo) -> dict[str, object]:
    anchors = ", ".join(f"{_number(w)},{_number(h)}" for w, h in yolo.all_anchors)
    found: dict[str, object] = {"mask": ",".join(map(str, yolo.mask)), "anchors": anchors, "classes": yolo.classes,
                                "num": len(yolo.all_anchors)}  # fmt: skip
    for name in (*YOLO_NUMBERS, *YOLO_FLAGS):
        value = getattr(yolo, name)
        if value != getattr(Yolo, name) or name in ("ignore_thresh", "truth_thresh"):
            found[name] = _number(value)
    words = {name: value for name in ("iou_loss", "nms_kind") if (value := getattr(yolo, name)) != getattr(Yolo, name)}
    if yolo.counters_per_class:
        words["counters_per_class"] = ",".join(map(_number, yolo.counters_per_class))
    return {**found, **words}


def _detection_keys(head: Detection) -> dict[str, object]:
    counts = {"classes": head.classes, "coords": 4, "side": head.side, "num": head.num}
    flags = {name: int(getattr(head, name)) for name in DETECTION_FLAGS if name != "forced" or head.forced}
    return {**counts, **flags, **{name: _number(getattr(head, name)) for name in DETECTION_SCALES}}


def read_cfg(text: str, place: str = "cfg") -> Cfg:
    """Read a cfg's text. place: the file's name, for messages.

    Keys of [net] that nothing reads are kept with a warning, as Darknet prints "Unused field" and continues.

    Raises:
        CfgError: another kind of network; an unknown section, a key or value that is not supported; a layer
            that does not fit the map before it or is too large. The message names the line.
    """
    sections = read_sections(text, place)
    check_family(sections, place)
    for section in sections:
        section.sort_keys()
    net, *others = sections
    if unused := ", ".join(net.unused):
        log.warning("%s: keys of [net] that nothing reads are kept: %s", printable(place), printable(unused))
    if not others:
        raise CfgError(place, net.line, "a network without layers", "at least one section after [net]")
    if len(others) > MAX_LAYERS:
        raise CfgError(
            place, others[MAX_LAYERS].line, f"a network of {len(others)} layers", f"at most {MAX_LAYERS} layers"
        )
    width, height, channels = net.integer("width", 416), net.integer("height", 416), net.integer("channels", 3)
    if channels not in (1, 3):
        raise net.error("channels", "3 (RGB) or 1 (grey)")
    shape = Shape(channels, height, width)
    try:
        layers = fitted([_layer(section, index) for index, section in enumerate(others)], shape)
        shapes(layers, shape)
    except LayerError as error:
        raise CfgError(place, others[error.index].line, str(error)) from None
    _check_bits(others, layers)
    kept = tuple(tuple(section.kept) for section in sections)
    return Cfg(layers, width, height, channels, kept if any(kept) else ())


def _check_bits(sections: Sequence[Section], layers: Sequence[Layer]) -> None:
    """Raise CfgError unless bin_output=1 changes nothing: a layer with xnor=1 reads the map, signs alone.

    Darknet's fork leaves out the activation then, and keeps signs only, in networks whose layers are in one line.
    """
    for index, section in enumerate(sections):
        bits = next((value for key, value in section.kept if key == "bin_output"), "0")
        readers = (layer for layer in layers[index + 1 :] if not isinstance(layer, MaxPool))
        reader, layer = next(readers, None), layers[index]
        if bits != "0" and isinstance(layer, Conv) and layer.xnor and isinstance(reader, Conv) and not reader.xnor:
            raise CfgError(section.place, section.line, f"bin_output={bits[:60]} before a convolution without xnor=1",
                           "a convolution with xnor=1 after it, or no bin_output")  # fmt: skip


def _layer(section: Section, index: int) -> Layer:
    match section.name:
        case "convolutional":
            return _convolution(section, index)
        case "local":
            return _local(section)
        case "connected":
            return Connected(section.integer("output", 1), _activation(section), section.flag("batch_normalize"))
        case "batchnorm":
            return Batchnorm()
        case "maxpool":
            stride = section.window("stride", 1)
            size = section.window("size", stride)
            padding = section.integer("padding", size - 1, least=0, most=MAX_WINDOW)
            return MaxPool(size, stride, None if padding == size - 1 else padding)
        case "local_avgpool":
            stride = section.window("stride", 1)
            return LocalAvgPool(section.window("size", stride), stride)
        case "route":
            groups, group_id = section.integer("groups", 1), section.integer("group_id", 0, least=0)
            return Route(tuple(section.integers("layers", least=-MAX_INTEGER)), groups, group_id)
        case "shortcut":
            return Shortcut(section.source(), _activation(section, "linear"))
        case "scale_channels":
            return ScaleChannels(section.source(), _activation(section, "linear"))
        case "sam":
            return Sam(section.source(), _activation(section, "linear"))
        case "upsample":
            return Upsample(section.window("stride", 2), section.number("scale", 1))
        case "crop":
            sides = section.integer("crop_height", 1), section.integer("crop_width", 1)
            return Crop(*sides, adjust=not section.flag("noadjust"))
        case "reorg":
            return Reorg(section.window("stride", 1))
        case "reorg3d":
            return SpaceToDepth(section.window("stride", 1))
        case "avgpool":
            return AvgPool()
        case "dropout":
            return Dropout(section.number("probability", 0.5, most=1))
        case "softmax":
            return Softmax(section.number("temperature", 1), section.file("tree"))
        case "cost":
            return Cost(section.text("type", "sse"))
        case "contrastive":
            return Contrastive()
        case "region":
            return _region(section)
        case "detection":
            return _detection(section)
        case _:
            return _yolo(section)


def _activation(section: Section, default: str = "logistic") -> Activation:
    return cast(Activation, section.one_of("activation", default, get_args(Activation)))


def _convolution(section: Section, index: int) -> Conv:
    size = section.window("size", 1)
    padding = size // 2 if section.flag("pad") else section.integer("padding", 0, least=0, most=MAX_WINDOW)
    share = section.integer("share_index", 0, least=-MAX_INTEGER) if "share_index" in section.values else None
    return Conv(
        section.integer("filters", 1), size, section.window("stride", 1), section.flag("batch_normalize"),
        _activation(section), section.integer("groups", 1), section.window("dilation", 1),
        None if padding == size // 2 else padding, index + share if share is not None and share < 0 else share,
        section.flag("xnor"),
    )  # fmt: skip


def _local(section: Section) -> Local:
    size, padding = section.window("size", 1), int(section.flag("pad"))
    if padding and size != 3:
        raise section.error("size", "size=3 with pad=1, which adds one cell at each side; else pad=0")
    return Local(section.integer("filters", 1), size, section.window("stride", 1), padding, _activation(section))


def _anchors(section: Section, unit: str) -> tuple[tuple[float, float], ...]:
    """Read `num` anchors (w, h)."""
    flat, count = section.numbers("anchors"), section.integer("num", 1)
    if len(flat) % 2 or len(flat) < 2 * count:
        raise section.error("anchors", f"{2 * count} above 0 for num={count}", f"{len(flat)} numbers in anchors")
    if not all(0 < value <= MAX_ANCHOR for value in flat[: 2 * count]):
        raise section.error("anchors", f"numbers above 0 and at most {MAX_ANCHOR:g}, in {unit}")
    if len(flat) > 2 * count:
        log.warning("%s:%d: %d pairs of anchors, and num=%d; as in Darknet the first %d are used",
                    printable(section.place), section.values["anchors"][1], len(flat) // 2, count, count)  # fmt: skip
    return tuple(zip(flat[: 2 * count : 2], flat[1 : 2 * count : 2], strict=True))


def _yolo(section: Section) -> Yolo:
    anchors = _anchors(section, "input pixels")
    every = ",".join(map(str, range(len(anchors))))
    mask = tuple(section.integers("mask", every, least=0))
    if wrong := [index for index in mask if index >= len(anchors)]:
        raise section.error("mask", f"indices of the {len(anchors)} anchors, 0 to {len(anchors) - 1}",
                            f"mask={section.text('mask', every)[:60]} names no anchor {wrong[0]}")  # fmt: skip
    numbers: dict[str, Any] = {name: section.number(name, getattr(Yolo, name)) for name in YOLO_NUMBERS}
    flags: dict[str, Any] = {name: section.flag(name) for name in YOLO_FLAGS}
    loss = cast(IouLoss, section.one_of("iou_loss", "mse", get_args(IouLoss)))
    kind = cast(NmsKind, section.one_of("nms_kind", "", get_args(NmsKind)))
    counters = tuple(section.numbers("counters_per_class")) if "counters_per_class" in section.values else ()
    classes = section.integer("classes", 20)
    if counters and (len(counters) != classes or min(counters) <= 0):
        raise section.error("counters_per_class", f"{classes} numbers above 0, one a class")
    return Yolo(anchors, mask, classes, section.name == "gaussian_yolo", iou_loss=loss, nms_kind=kind,
                counters_per_class=counters, **numbers, **flags)  # fmt: skip


def _detection(section: Section) -> Detection:
    if section.integer("coords", 1) != 4:
        raise section.error("coords", "coords=4", "" if "coords" in section.values else "[detection] without coords")
    numbers: dict[str, Any] = {name: section.number(name, 1) for name in DETECTION_SCALES}
    flags: dict[str, Any] = {name: section.flag(name) for name in DETECTION_FLAGS}
    counts = section.integer("classes", 1), section.integer("side", 7, most=MAX_WINDOW), section.integer("num", 1)
    classes, side, num = counts
    return Detection(classes, side, num, **flags, **numbers)


def _region(section: Section) -> Region:
    numbers: dict[str, Any] = {name: section.number(name, default) for name, default in SCALES.items()}
    flags: dict[str, Any] = {name: section.flag(name) for name in FLAGS}
    files: dict[str, Any] = {name: section.file(name) for name in ("tree", "map")}
    return Region(_anchors(section, "cells"), section.integer("classes", 20), **flags, **numbers, **files)
