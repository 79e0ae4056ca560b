"""One section of a cfg: the keys that it may have, and how their values are read.

The tables say which keys each section may have. Keys that only Darknet's training reads, and keys of [net] that nothing
reads, are kept and written back.
Source: darknet/src/parser.c, and that of its popular fork for keys that real files carry.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath

from lookonce.errors import UserError
from lookonce.model.sizes import MAX_WINDOW


class CfgError(UserError):
    """A cfg that cannot be read: place, what was found, what is expected."""

    def __init__(self, place: str, line: int, found: str, expected: str = "") -> None:
        super().__init__(f"{place}:{line}: {found}" + (f"; expected {expected}" if expected else ""))


SHORT_NAMES = {"network": "net", "conv": "convolutional", "max": "maxpool", "avg": "avgpool", "soft": "softmax",
               "conn": "connected", "reorg_old": "reorg"}  # fmt: skip
"""Other names of sections."""
FLAGS = ("softmax", "bias_match", "rescore")
"""Switches of a region section, off by default."""
DETECTION_FLAGS = ("softmax", "sqrt", "rescore", "forced")
"""Switches of a detection section, off by default."""
DETECTION_SCALES = ("object_scale", "noobject_scale", "class_scale", "coord_scale")
"""Numbers of a detection section, 1 by default."""
YOLO_FLAGS = ("new_coords", "objectness_smooth", "focal_loss")
"""Switches of a yolo section, off by default."""
YOLO_NUMBERS = (
    "ignore_thresh", "truth_thresh", "scale_x_y", "iou_thresh", "iou_normalizer", "obj_normalizer", "cls_normalizer",
    "max_delta", "label_smooth_eps", "beta_nms",
)  # fmt: skip
"""Numbers of a yolo section; Darknet's defaults are those of layers.Yolo."""
SCALES = {"thresh": 0.5, "object_scale": 1.0, "noobject_scale": 1.0, "class_scale": 1.0, "coord_scale": 1.0}
"""Numbers of a region section and Darknet's defaults."""
YOLO = frozenset({
    "mask", "anchors", "classes", "num", "iou_loss", "nms_kind", "counters_per_class", *YOLO_FLAGS, *YOLO_NUMBERS,
})  # fmt: skip
READ: dict[str, frozenset[str]] = {
    "net": frozenset({"width", "height", "channels"}),
    "convolutional": frozenset(
        {
            "batch_normalize",
            "filters",
            "size",
            "stride",
            "pad",
            "padding",
            "activation",
            "groups",
            "dilation",
            "share_index",
            "xnor",
        }
    ),
    "batchnorm": frozenset(),
    "local": frozenset({"filters", "size", "stride", "pad", "activation"}),
    "connected": frozenset({"output", "activation", "batch_normalize"}),
    "maxpool": frozenset({"size", "stride", "padding"}),
    "local_avgpool": frozenset({"size", "stride"}),
    "route": frozenset({"layers", "groups", "group_id"}),
    "shortcut": frozenset({"from", "activation"}),
    "scale_channels": frozenset({"from", "activation"}),
    "sam": frozenset({"from", "activation"}),
    "upsample": frozenset({"stride", "scale"}),
    "reorg": frozenset({"stride"}),
    "reorg3d": frozenset({"stride"}),
    "crop": frozenset({"crop_height", "crop_width", "noadjust"}),
    "avgpool": frozenset(),
    "dropout": frozenset({"probability"}),
    "softmax": frozenset({"temperature", "tree"}),
    "cost": frozenset({"type"}),
    "contrastive": frozenset(),
    "region": frozenset({"anchors", "classes", "num", "tree", "map", *FLAGS, *SCALES}),
    "detection": frozenset({"classes", "side", "num", "coords", *DETECTION_FLAGS, *DETECTION_SCALES}),
    "yolo": YOLO,
    "gaussian_yolo": YOLO,
}
"""Keys that define what the network computes: they become layers."""
TRAINING = frozenset({
    "onlyforward", "stopbackward", "learning_rate", "smooth", "dont_update", "burnin_update", "train_only_bn", "truth",
    "stream", "wait_stream",
})  # fmt: skip
"""Keys that Darknet's training, or its scheduling on a GPU, reads in any section but [net]."""
YOLO_TRAINING = TRAINING | {
    "jitter", "resize", "random", "max", "uc_normalizer", "delta_normalizer", "delta_yolo_normalizer", "show_details",
    "iou_thresh_kind", "map", "beta1", "track_history_size", "sim_thresh", "dets_for_track", "dets_for_show",
    "track_ciou_norm", "embedding_layer", "ignore_unlabelled", "grad_norm",
}  # fmt: skip
KEPT: dict[str, frozenset[str]] = {
    "net": frozenset({
        "batch", "subdivisions", "time_steps", "notruth", "random", "max_crop", "min_crop", "max_ratio", "min_ratio",
        "center", "clip", "flip", "angle", "aspect", "saturation", "exposure", "hue", "learning_rate",
        "learning_rate_min", "momentum", "decay", "adam", "B1", "B2", "eps", "policy", "burn_in", "power", "step",
        "scale", "steps", "scales", "gamma", "max_batches", "letter_box", "mosaic", "mixup", "cutmix", "blur",
        "dynamic_minibatch", "optimized_memory", "workspace_size_limit_MB", "label_smooth_eps", "resize_step",
        "loss_scale", "track",
    }),
    "convolutional": TRAINING | {"grad_centr", "angle", "bin_output"},
    **dict.fromkeys((
        "local", "connected", "batchnorm", "maxpool", "local_avgpool", "route", "shortcut", "scale_channels", "sam",
        "upsample", "reorg", "reorg3d", "avgpool",
    ), TRAINING),
    "crop": TRAINING | {"flip", "angle", "saturation", "exposure", "shift"},
    "dropout": TRAINING | {"dropblock", "dropblock_size_rel", "dropblock_size_abs"},
    "softmax": TRAINING | {"noloss"},
    "cost": TRAINING | {"scale", "ratio", "noobj", "thresh"},
    "contrastive": TRAINING | {"classes", "temperature", "yolo_layer", "cls_normalizer", "max_delta", "steps"},
    "region": TRAINING | {"jitter", "random", "absolute", "max", "mask_scale", "focal_loss", "resize"},
    "detection": TRAINING | {"jitter", "random", "max", "reorg"},
    "yolo": YOLO_TRAINING,
    "gaussian_yolo": YOLO_TRAINING,
}  # fmt: skip
"""Keys that only Darknet's training reads: kept as text."""
FIXED: dict[str, dict[str, str]] = {
    "convolutional": {
        **dict.fromkeys((
            "flipped", "binary", "dot", "dontload", "dontloadscales", "dontsave", "numload",
            "antialiasing", "assisted_excitation", "cbn", "sway", "rotate", "stretch", "stretch_sway", "reverse",
            "coordconv",
        ), "0"),
        **dict.fromkeys(("stride_x", "stride_y"), ""),
    },
    "maxpool": {
        **dict.fromkeys(("maxpool_depth", "antialiasing"), "0"),
        **dict.fromkeys(("stride_x", "stride_y", "out_channels"), ""),
    },
    "shortcut": {"alpha": "1", "beta": "1", "weights_type": "none", "weights_normalization": "none"},
    "scale_channels": {"scale_wh": "0"},
    "connected": {"flipped": "0"},
    "reorg": dict.fromkeys(("reverse", "flatten", "extra"), "0"),
    "softmax": {"groups": "1", "spatial": "0"},
    "region": {"coords": "4", **dict.fromkeys(("background", "log", "sqrt", "classfix"), "0")},
}  # fmt: skip
"""Keys that would change the network or its weights: only this value is supported. Empty: no value is."""
FAMILIES: dict[str, tuple[str, ...]] = {
    "a recurrent network": ("rnn", "crnn", "lstm", "conv_lstm", "gru"),
    "an instance segmentation network": ("iseg",),
    "a network that draws images": ("deconvolutional", "deconv"),
}
"""Other kinds of networks, and the sections by which they are recognised."""
MAX_ANCHOR = 1e6
"""Largest side of an anchor, cells or pixels."""
MAX_INTEGER = 2**31 - 1
"""Largest whole number: Darknet keeps them in 32 bits."""


def read_sections(text: str, place: str) -> list[Section]:
    """Split a text into sections with all their keys."""
    found: list[Section] = []
    for number, raw in enumerate(text.lstrip("\ufeff").splitlines(), start=1):
        line = raw.split("#")[0].split(";")[0].strip()
        if line.startswith("["):
            name = line.strip("[] \t").lower()
            found.append(Section(place, SHORT_NAMES.get(name, name), number))
        elif line:
            key, equals, value = (part.strip() for part in line.partition("="))
            if not equals or not found:
                raise CfgError(place, number, repr(raw.strip()[:60]), "[section], then key=value lines")
            found[-1].lines.append((key, value, number))
    return found


def check_family(sections: list[Section], place: str) -> None:
    """Raise CfgError that names the kind of another network, before its first unknown key would be reported."""
    if not sections or sections[0].name != "net":
        raise CfgError(place, 1, "no [net] section at the start", "a Darknet network file")
    first = next((section for section in sections[1:] if section.name not in READ or section.name == "net"), None)
    if first is None:
        return
    lines = {section.name: section.line for section in reversed(sections)}
    for family, names in FAMILIES.items():
        if name := next((name for name in names if name in lines), None):
            raise CfgError(place, lines[name], f"{family} (section [{name}], line {lines[name]}); only detectors "
                                               "without it are supported")  # fmt: skip
    raise CfgError(place, first.line, f"section [{first.name[:60]}]", f"one of {', '.join(READ)}")


@dataclass
class Section:
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
        """Read a value as it stands."""
        return self.values.get(key, (default, 0))[0]

    def numbers(self, key: str, default: str = "") -> list[float]:
        """Read numbers with commas between them. Raises CfgError for a missing key without a default."""
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
        if key not in self.values:
            return default
        values = self.numbers(key)
        if len(values) != 1 or (most < math.inf and not 0 <= values[0] <= most):
            raise self.error(key, "one number" + ("" if most == math.inf else f", 0 to {most:g}"))
        return values[0]

    def integers(self, key: str, default: str = "", least: int = 1, most: int = MAX_INTEGER) -> list[int]:
        """Read whole numbers with commas between them, each from least to most."""
        values = self.numbers(key, default)
        for value in values:
            if value != int(value) or not least <= value <= most:
                expected = "whole numbers" if least < 0 else f"a whole number, at least {least}"
                raise self.error(key, expected + (f" and at most {most}" if value > most else ""))
        return [int(value) for value in values]

    def integer(self, key: str, default: int, least: int = 1, most: int = MAX_INTEGER) -> int:
        """Read one whole number from least to most."""
        values = self.integers(key, str(default), least, most)
        if len(values) != 1:
            raise self.error(key, "one number")
        return values[0]

    def one_of(self, key: str, default: str, names: Sequence[str]) -> str:
        """Read a word, one of the names."""
        found = self.text(key, default)
        if found not in names:
            raise self.error(key, f"one of {', '.join(name for name in names if name)}")
        return found

    def flag(self, key: str) -> bool:
        """Read a switch: 0, or another whole number for on. Off by default."""
        return bool(self.integer(key, 0, least=0))

    def source(self) -> int:
        """Read the layer that from= names."""
        found = self.integers("from", least=-MAX_INTEGER)
        if len(found) != 1:
            raise self.error("from", "one layer; shortcuts of several are not supported")
        return found[0]

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


def _equal(value: str, number: str) -> bool:
    try:
        return float(value) == float(number)
    except ValueError:
        return value == number
