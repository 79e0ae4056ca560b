"""The words of Darknet's cfg: which keys each section may have, and what becomes of them.

Source: darknet/src/parser.c and its popular fork's, for keys that real files carry.
"""

from __future__ import annotations

SHORT_NAMES = {"network": "net", "conv": "convolutional", "max": "maxpool", "avg": "avgpool", "soft": "softmax"}
"""Other names of sections."""

FLAGS = ("softmax", "bias_match", "rescore")
"""Switches of a region section, off unless given."""
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
"""Keys that say what the network computes: they become layers."""

KEPT: dict[str, frozenset[str]] = {
    "net": frozenset({
        "batch", "subdivisions", "time_steps", "notruth", "random", "max_crop", "min_crop", "max_ratio", "min_ratio",
        "center", "clip", "flip", "angle", "aspect", "saturation", "exposure", "hue", "learning_rate",
        "learning_rate_min", "momentum", "decay", "adam", "B1", "B2", "eps", "policy", "burn_in", "power", "step",
        "scale", "steps", "scales", "gamma", "max_batches", "letter_box", "mosaic", "mixup", "cutmix", "blur",
        "dynamic_minibatch", "optimized_memory", "workspace_size_limit_MB", "label_smooth_eps", "resize_step",
        "loss_scale", "track",
    }),
    "convolutional": frozenset({"learning_rate", "onlyforward", "stopbackward", "smooth"}),
    "maxpool": frozenset({"stopbackward"}),
    "softmax": frozenset({"noloss"}),
    "cost": frozenset({"scale", "ratio", "noobj", "thresh"}),
    "region": frozenset({"jitter", "random", "absolute", "max", "mask_scale", "focal_loss"}),
}  # fmt: skip
"""Keys that only Darknet's training reads: kept as text."""

FIXED: dict[str, dict[str, str]] = {
    "convolutional": {
        **dict.fromkeys(("flipped", "binary", "xnor", "dot", "dontload", "dontloadscales", "dontsave"), "0"),
        **dict.fromkeys(("groups", "dilation"), "1"),
    },
    "reorg": dict.fromkeys(("reverse", "flatten", "extra"), "0"),
    "softmax": {"groups": "1", "spatial": "0"},
    "region": {"coords": "4", **dict.fromkeys(("background", "log", "sqrt", "classfix"), "0")},
}
"""Keys that would change what the network computes or what its weights hold: allowed with this value only."""
