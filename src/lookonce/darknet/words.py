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
"""Keys that would change what the network computes or what its weights hold: allowed with this value only.

Empty: the key is not read with any value.
"""

FAMILIES: dict[str, tuple[str, ...]] = {
    "a YOLOv3 or later network": ("yolo",),
    "a Gaussian YOLOv3 network": ("gaussian_yolo",),
    "a YOLOv1 network": ("detection",),
    "a recurrent network": ("rnn", "crnn", "lstm", "conv_lstm", "gru"),
    "an instance segmentation network": ("iseg",),
    "a classifier": ("softmax", "cost", "connected", "conn"),
}
"""Other networks that Darknet's cfgs describe, and the sections that tell them."""
