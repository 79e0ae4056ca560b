"""The settings of training: the options of `train` and their help, their checks, and the recipes with their defaults.

quick: from scratch on hundreds to thousands of images, on a laptop.
finetune: from the weights of a detector that others trained, on tens to thousands of images, in minutes on a laptop.
paper: YOLO9000, section 2 (detection training), with the numbers of darknet/cfg/yolov2-voc.cfg.
blog: FairyOnIce, "Object Detection using YOLOv2 on Pascal VOC2012", part 5 (training the last layer of yolov2.weights).
`train(data, **options: Unpack[TrainOptions])` shows the options to type checkers, IDEs and the command line. An option
that is missing or None takes the recipe's value, which its help repeats in brackets (tested).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypedDict

from lookonce.choices import check_types, choose, closest, settle_names
from lookonce.data.augmentation import Augmentation
from lookonce.data.tiles import AUTO, Tiling, read_tile, size_text
from lookonce.errors import ConfigError
from lookonce.model.anchor_text import pairs_of, settle
from lookonce.model.layers import Layer, Region, Yolo
from lookonce.model.resize import ResizeMode
from lookonce.model.zoo import DETECTORS, STRIDE

RecipeName = Literal["quick", "finetune", "paper", "blog"]
Optimizer = Literal["sgd", "adam", "adamw", "rmsprop"]
Schedule = Literal["constant", "steps", "cosine", "one_cycle"]
LossName = Literal["region", "region_ciou", "keras_yolo2"]
Features = Literal["none", "bf16", "fp32"]
Difficult = Literal["ignore", "train", "drop"]
Monitor = Literal["mAP", "loss"]
FREEZE = ("none", "features", "all_but_last_stage", "all_but_last")
SMALL_OBJECTS = 0.25
"""Typical side of objects, as a fraction of the image's, up to which mosaics are used. Our choice."""
MOST_FROZEN = 2.0
"""Minutes up to which a fine-tuning keeps the early layers."""
VARIANTS, OUTPUTS_A_MINUTE = 3, 700
"""Most variants of an image of such a run, and images that go through the early layers in a third of its time."""
GPU_BATCH = 4
"""Size of a batch on a GPU, relative to that on a CPU. Chosen for speed (docs/results.md); mAP was not compared."""
YOLO_MATCH_IOU = 0.213
"""match_iou of networks with yolo layers. Source: iou_thresh of yolov4.cfg. Measured: docs/yolo-papers.md."""
MAX_SIZE = 8192
"""Largest side of the input, in pixels."""
SCALES = ("object_scale", "noobject_scale", "coord_scale", "class_scale")
LEAST = {"steps": 1, "epochs": 1, "usual_steps": 1, "batch_size": 1, "variants": 0, "anchors": 0, "burn_in": 0,
         "prior_loss_images": 0, "prior_loss_batches": 0, "patience": 0, "weight_decay": 0,
         "gradient_clip": 0, "sparsity": 0, "min_delta": 0, **dict.fromkeys(SCALES, 0)}  # fmt: skip
"""Smallest values of settings."""
RENAMED = {"warm_up_images": "prior_loss_images"}
"""Names of settings in config.yaml and model files of version 0.1."""


class AugmentOptions(TypedDict, total=False):
    """How much training images are changed. Options that are not given take the recipe's values."""

    aspect: float
    """Stretch width and height by up to this fraction each (Darknet's jitter)."""
    zoom: tuple[float, float]
    """Smallest and largest scale, relative to the size that fits the input; sampled on a log scale."""
    flip: float
    """Fraction of images mirrored left to right."""
    hue: float
    """Largest hue shift, as a fraction of the full circle."""
    saturation: float
    """Largest factor on saturation; the smallest is its inverse."""
    exposure: float
    """Largest factor on brightness; the smallest is its inverse."""
    mosaic: float | None
    """Fraction of batches made of mosaics (four images in one); none: all where objects are small, else no batch."""
    keep: float
    """Ignore an object of which less than this fraction stays in view."""


class TrainOptions(TypedDict, total=False):
    """The settings of training. Options that are not given take the recipe's values."""

    network: str | Path
    """A built-in network (yolov2_small, yolov2, ...) or a Darknet .cfg. [quick: yolov2_small, finetune:
    yolo_fastest_xl, paper: yolov2, blog: yolov2]"""
    size: int
    """Side of the square input, in pixels; a multiple of 32. [quick: 416, finetune: 320, paper: 416, blog: 416]"""
    multi_scale: tuple[int, ...]
    """Input sides to train at, one chosen every 10 steps. [quick: none, finetune: none, paper: 320..608, blog: none]"""
    resize: ResizeMode
    """How an image becomes the square input: letterbox keeps the aspect ratio, stretch does not. Use letterbox (without
    _antialias) for a model that Darknet's own programs will run. [quick: letterbox_antialias, finetune: stretch, paper:
    letterbox_antialias, blog: stretch]"""
    pixel_range: tuple[float, float] | None
    """For images of more than 8 bits: the values that become black and white; none: measured on the training images.
    [none]"""
    tile: str | None
    """For large images: also train on tiles of this size, such as 640x480 image pixels; auto: a size in which small
    objects are large enough; none: on whole images alone. [none]"""
    anchors: int | str
    """Number of anchors to cluster on the training boxes; 0: the network's own. Or width,height pairs in cells of 32
    px, such as "1.08,1.78 2.71,5.12" (with px or fraction: other units), or a file of them. [quick: 5, finetune: 0,
    paper: 0, blog: 4 pairs]"""
    loss: LossName
    """Loss: region (Darknet's), region_ciou (region plus 1 - CIoU) or keras_yolo2 (the blog's). [quick: region_ciou,
    finetune: region_ciou, paper: region, blog: keras_yolo2]"""
    object_scale: float | None
    """Weight of the objectness of objects in the loss; none: the network's. [quick: none, finetune: none, paper: none,
    blog: 5.0]"""
    noobject_scale: float | None
    """Weight of the objectness of background; none: the network's. [quick: none, finetune: none, paper: none, blog:
    1.0]"""
    coord_scale: float | None
    """Weight of the errors of boxes; none: the network's. [quick: none, finetune: none, paper: none, blog: 1.0]"""
    class_scale: float | None
    """Weight of the class errors; none: the network's. [quick: none, finetune: none, paper: none, blog: 1.0]"""
    class_weights: tuple[str, ...]
    """Weights of classes in the loss's class errors, as NAME:WEIGHT; others weigh 1, 0 leaves a class out. [none]"""
    iou_gradient: bool | None
    """Let the objectness of objects, whose target is an IoU, move the boxes too; none: as the loss does (keras_yolo2
    yes, region and region_ciou no). [none]"""
    match_iou: float
    """Also assign an object to other anchors whose shape IoU with it is above this; 1: only to the best anchor, as
    Darknet does. quick and finetune take 0.213 for networks with yolo layers. [quick: 0.5, finetune: 0.5, paper: 1.0,
    blog: 1.0]"""
    objectness_prior: float
    """Objectness that the untrained network predicts. [quick: 0.01, finetune: 0.01, paper: 0.5, blog: 0.5]"""
    steps: int | None
    """Stop after exactly this many optimizer steps; none: stop after --epochs. [none]"""
    epochs: int | None
    """Passes over the training images; none: about --usual-steps, 20 to 300 epochs. [quick: none, finetune: none,
    paper: 160, blog: 50]"""
    usual_steps: int
    """Approximate number of optimizer steps if none of --steps, --epochs and --minutes is given. [quick: 6000,
    finetune: 1500, paper: 6000, blog: 6000]"""
    minutes: float | None
    """Stop after about this many minutes, start and validation included: the number of steps is fitted to the time that
    the first ones take; none: no limit. [none]"""
    batch_size: int
    """Images per optimizer step; the default shrinks for sets that would give fewer than 8 steps an epoch. [quick: 4,
    finetune: 8, paper: 64, blog: 16]"""
    optimizer: Optimizer
    """Optimizer. [quick: adamw, finetune: adamw, paper: sgd, blog: adam]"""
    learning_rate: float
    """Peak learning rate. [quick: 0.004, finetune: 0.002, paper: 0.001, blog: 5e-05]"""
    momentum: float
    """Momentum of SGD and RMSprop; first beta of Adam and AdamW. [0.9]"""
    beta2: float | None
    """Second beta of Adam and AdamW, rho of RMSprop; none: 0.999 and 0.99. [quick: none, finetune: none, paper: none,
    blog: 0.999]"""
    epsilon: float
    """Number added to the divisor of Adam, AdamW and RMSprop. [1e-08]"""
    weight_decay: float
    """Weight decay, applied to convolution weights only. [quick: 0.01, finetune: 0.01, paper: 0.0005, blog: 0.0]"""
    schedule: Schedule
    """Learning-rate schedule. [quick: one_cycle, finetune: one_cycle, paper: steps, blog: constant]"""
    burn_in: int
    """Learning-rate warm-up of the schedules constant, steps and cosine, in optimizer steps (Darknet's burn_in).
    [quick: 100, finetune: 100, paper: 1000, blog: 0]"""
    milestones: tuple[float, ...]
    """Schedule steps: fractions of the run after which the learning rate drops to a tenth. [0.375..0.5625]"""
    ema: float
    """Decay of the moving average of the weights; 0: off. [quick: 0.998, finetune: 0.998, paper: 0.0, blog: 0.0]"""
    gradient_clip: float
    """Largest gradient norm; 0: no limit. [quick: 10.0, finetune: 10.0, paper: 0.0, blog: 0.0]"""
    sparsity: float
    """Weight of the sum of batch norm's |gamma| in the loss: useless channels go to 0, which lookonce prune removes; 0:
    off. [0.0]"""
    prior_loss_images: int
    """Train every predictor towards its anchor during the first images (Darknet's first 12,800). No best model is
    chosen among them. [quick: 0, finetune: 0, paper: 12800, blog: 0]"""
    prior_loss_batches: int
    """The same in batches (keras-yolo2's warm-up); give one of the two. [0]"""
    freeze: int | str
    """Freeze layers: none, features (the 18 convolutions of Darknet-19), all_but_last_stage (those before the smallest
    maps), all_but_last, or a number of convolutions. [quick: none, finetune: none, paper: none, blog: all_but_last]"""
    match_classes: bool
    """With --weights, keep the last layer's rows of boxes and objectness, and those of classes of the same name.
    [quick: False, finetune: True, paper: False, blog: False]"""
    features: Features
    """Cache the outputs of the frozen layers on disk, in this precision, and train on them. Turns augmentation off
    unless --variants is given. [none]"""
    variants: int
    """With --features: cache this many augmented variants of each image; an epoch uses one. [0]"""
    difficult: Difficult
    """Objects marked difficult: ignore them, train on them like others, or drop them (they become background).
    [ignore]"""
    monitor: Monitor
    """What chooses the best model and stops early: the validation's mAP (highest) or loss (lowest). [quick: mAP,
    finetune: mAP, paper: mAP, blog: loss]"""
    patience: int
    """Stop after this many validations, then one an epoch, without a gain of --min-delta; 0: never. [quick: 0,
    finetune: 0, paper: 0, blog: 3]"""
    min_delta: float
    """Smallest gain in what --monitor names that counts for --patience. [0.001]"""
    print_terms: bool
    """Print the loss's terms and the recall after each epoch. [quick: False, finetune: False, paper: False, blog:
    True]"""
    augment: AugmentOptions
    """How much training images are changed. [by recipe]"""


@dataclass(frozen=True)
class Settings:
    """The settings of one run, described by `TrainOptions` and checked here. The defaults are the quick recipe."""

    network: str = "yolov2_small"
    size: int = 416
    multi_scale: tuple[int, ...] = ()
    resize: ResizeMode = "letterbox_antialias"
    pixel_range: tuple[float, float] | None = None
    tile: str | None = None
    anchors: int | str = 5
    loss: LossName = "region_ciou"
    object_scale: float | None = None
    noobject_scale: float | None = None
    coord_scale: float | None = None
    class_scale: float | None = None
    class_weights: tuple[str, ...] = ()
    iou_gradient: bool | None = None
    match_iou: float = 0.5
    objectness_prior: float = 0.01
    steps: int | None = None
    epochs: int | None = None
    usual_steps: int = 6000
    minutes: float | None = None
    batch_size: int = 4
    optimizer: Optimizer = "adamw"
    learning_rate: float = 4e-3
    momentum: float = 0.9
    beta2: float | None = None
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    schedule: Schedule = "one_cycle"
    burn_in: int = 100
    milestones: tuple[float, ...] = (0.375, 0.5625)
    ema: float = 0.998
    gradient_clip: float = 10.0
    sparsity: float = 0.0
    prior_loss_images: int = 0
    prior_loss_batches: int = 0
    freeze: str = "none"
    match_classes: bool = False
    features: Features = "none"
    variants: int = 0
    difficult: Difficult = "ignore"
    monitor: Monitor = "mAP"
    patience: int = 0
    min_delta: float = 0.001
    print_terms: bool = False
    augment: Augmentation = Augmentation()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        object.__setattr__(self, "freeze", str(self.freeze) if isinstance(self.freeze, int) else self.freeze)
        if isinstance(self.network, os.PathLike):
            object.__setattr__(self, "network", os.fspath(self.network))
        settle_names(self)
        if not str(self.network).endswith((".cfg", ".safetensors")):
            object.__setattr__(
                self, "network", choose(self.network, DETECTORS, "network", "a Darknet .cfg or a model file")
            )
        if not str(self.freeze).isdigit():
            object.__setattr__(self, "freeze", choose(self.freeze, FREEZE, "freeze", "a number of convolutions"))
        if isinstance(self.class_weights, Mapping):
            weights = tuple(f"{name}:{weight:g}" for name, weight in self.class_weights.items())
            object.__setattr__(self, "class_weights", weights)
        if self.tile is not None:
            size = read_tile(self.tile)
            object.__setattr__(self, "tile", size if isinstance(size, str) else size_text(size))
        check_types(self)
        sides = (self.size, *self.multi_scale)
        stride = STRIDE if self.network in DETECTORS else 1  # that of a .cfg is checked with its layers
        expected = f"positive multiples of {stride}, at most {MAX_SIZE}"
        _check(all(0 < s <= MAX_SIZE and s % stride == 0 for s in sides), "size", sides, expected)
        low, high = self.pixel_range or (0, 1)
        _check(-math.inf < low < high < math.inf, "pixel_range", self.pixel_range, "two numbers in ascending order")
        for name, least in LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, str):
                _check(value is None or least <= value < math.inf, name, value, f"at least {least}")
        if not isinstance(self.anchors, int):
            object.__setattr__(self, "anchors", settle(self.anchors, self.size))
        for entry in self.class_weights:
            _class_weight(entry)
        batches, images = self.prior_loss_batches, self.prior_loss_images
        _check(not (batches and images), "prior_loss_batches", batches, f"0 beside --prior-loss-images {images}")
        _check(self.minutes is None or 0 < self.minutes < math.inf, "minutes", self.minutes, "above 0")
        _check(0 < self.learning_rate < math.inf, "learning_rate", self.learning_rate, "above 0")
        _check(0 < self.match_iou <= 1, "match_iou", self.match_iou, "above 0, at most 1")
        _check(0 < self.objectness_prior < 1, "objectness_prior", self.objectness_prior, "above 0 and below 1")
        _check(0 < self.epsilon < 1, "epsilon", self.epsilon, "above 0 and below 1")
        for name in ("momentum", "ema", "beta2"):
            _check(0 <= (getattr(self, name) or 0) < 1, name, getattr(self, name), "at least 0 and below 1")
        expected = "fractions of the run between 0 and 1"
        _check(all(0 < m < 1 for m in self.milestones), "milestones", self.milestones, expected)
        self._check_features()

    def _check_features(self) -> None:
        if self.features == "none":
            expected = "0 without --features, where every epoch augments again"
            _check(self.variants == 0, "variants", self.variants, expected)
            return
        expected = "frozen layers: give --freeze as well, as in --freeze all_but_last"
        _check(self.freeze != "none", "features", self.features, expected)
        _check(not self.multi_scale, "features", self.features, "a single input size: leave out --multi-scale")
        if self.augment != Augmentation.none() and not self.variants:
            raise ConfigError(
                "augment: an image's features are computed once, so they cannot be augmented in each epoch; leave "
                "--augment out, keep K augmented variants of an image with --variants K, or train without --features"
            )

    @property
    def tiling(self) -> Tiling | None:
        """How images are cut into tiles, as far as their size is known; None: they are not."""
        size = AUTO if self.tile is None else read_tile(self.tile)
        return None if size == AUTO else Tiling((int(size[0]), int(size[1])))

    @property
    def anchor_sizes(self) -> tuple[tuple[float, float], ...]:
        """The anchors (w, h) in cells that were given; (): they are clustered, or those of the network."""
        return () if isinstance(self.anchors, int) else pairs_of(self.anchors)

    @property
    def prior_loss_end(self) -> int:
        """Images after which the prior loss ends."""
        return self.prior_loss_images or self.prior_loss_batches * self.batch_size

    def weights_of(self, labels: Sequence[str]) -> tuple[float, ...] | None:
        """Return the weight of each class, [C] in the order of labels; None: all 1. Raises ConfigError."""
        given = dict(map(_class_weight, self.class_weights))
        for name in given:
            choose(name, labels, "class-weights")
        return tuple(given.get(label, 1.0) for label in labels) if given else None

    def scaled(self, layer: Layer) -> Layer:
        """Return a layer with the loss scales that these settings give; only heads have some."""
        given = {name: getattr(self, name) for name in SCALES if getattr(self, name) is not None}
        return replace(layer, **given) if given and isinstance(layer, Region) else layer

    @staticmethod
    def from_plain(flat: Mapping[str, Any]) -> Settings:
        """Return settings from the lists and mappings of YAML or JSON. Raises KeyError, TypeError or ConfigError."""
        augment = Augmentation(**{key: _as_tuple(value) for key, value in flat["augment"].items()})
        values: dict[str, Any] = {RENAMED.get(key, key): _as_tuple(value) for key, value in flat.items()}
        return Settings(**{**values, "augment": augment})

    def fitted(self, images: int, object_side: float, exact_batch: bool = False) -> Settings:
        """Return the settings for a training set: epochs, mosaics, and a batch size for 8 steps or more an epoch.

        With `steps` the run ends at exactly that step, also within an epoch.

        Args:
            images: number of training images.
            object_side: Dataset.object_side, the typical size of its objects.
            exact_batch: keep the batch size.
        """
        batch = self.batch_size if exact_batch else max(1, min(self.batch_size, images // 8))
        per_epoch = math.ceil(images / batch)
        by_default = min(300, max(20, round(self.usual_steps / per_epoch)))
        by_steps = math.ceil(self.steps / per_epoch) if self.steps else None
        epochs = min((n for n in (self.epochs, by_steps) if n), default=by_default)
        mosaic = self.augment.mosaic if self.augment.mosaic is not None else float(object_side <= SMALL_OBJECTS)
        return replace(self, batch_size=batch, epochs=epochs, augment=replace(self.augment, mosaic=mosaic))


def _class_weight(entry: str) -> tuple[str, float]:
    """Read NAME:WEIGHT."""
    name, colon, number = entry.rpartition(":")
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    _check(
        bool(colon and name) and 0 <= weight < math.inf, "class_weights", entry, "NAME:WEIGHT, a weight of at least 0"
    )
    return name, weight


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{name.replace('_', '-')}: {value!r}; expected {expected}")


RECIPES: Mapping[RecipeName, Settings] = {
    "quick": Settings(),
    "finetune": Settings(
        network="yolo_fastest_xl",
        size=320,
        resize="stretch",
        anchors=0,
        usual_steps=1500,
        batch_size=8,
        learning_rate=2e-3,
        match_classes=True,
        augment=Augmentation(mosaic=0.5),
    ),
    "paper": Settings(
        network="yolov2",
        multi_scale=tuple(range(320, 609, 32)),
        anchors=0,
        loss="region",
        match_iou=1.0,
        objectness_prior=0.5,
        epochs=160,
        batch_size=64,
        optimizer="sgd",
        learning_rate=1e-3,
        weight_decay=5e-4,
        schedule="steps",
        burn_in=1000,
        ema=0.0,
        gradient_clip=0.0,
        prior_loss_images=12_800,
        augment=Augmentation(aspect=0.3, zoom=(1.0, 1.0), flip=0.5, hue=0.1, saturation=1.5, exposure=1.5, mosaic=0.0),
    ),
    "blog": Settings(
        network="yolov2",
        resize="stretch",
        anchors="1.07709888,1.78171903 2.71054693,5.12469308 10.47181473,10.09646365 5.48531347,8.11011331 cells",
        loss="keras_yolo2",
        object_scale=5.0,
        noobject_scale=1.0,
        coord_scale=1.0,
        class_scale=1.0,
        match_iou=1.0,
        objectness_prior=0.5,
        epochs=50,
        batch_size=16,
        optimizer="adam",
        learning_rate=5e-5,
        beta2=0.999,
        weight_decay=0.0,
        schedule="constant",
        burn_in=0,
        ema=0.0,
        gradient_clip=0.0,
        freeze="all_but_last",
        monitor="loss",
        patience=3,
        print_terms=True,
        augment=Augmentation.none(),
    ),
}


def settings(recipe: RecipeName, **changes: Any) -> Settings:
    """Return a recipe with changes; None changes nothing. `augment` may be a mapping of the values to change.

    Raises ConfigError for an unknown recipe or setting, or a value that is not allowed, and as named_network.
    """
    base = RECIPES[choose(recipe, RECIPES, "recipe")]
    _check_names(changes, Settings, "")
    changes = {name: _as_tuple(value) for name, value in changes.items() if value is not None}
    if "steps" in changes or "minutes" in changes:
        changes.setdefault("epochs", None)  # those of the recipe could end the run earlier
    if isinstance(augment := changes.get("augment"), Mapping):
        _check_names(augment, Augmentation, "augment.")
        changes["augment"] = replace(base.augment, **{name: _as_tuple(value) for name, value in augment.items()})
    if changes.get("features", "none") != "none" and not changes.get("variants") and "augment" not in changes:
        changes["augment"] = Augmentation.none()
    how = replace(base, **changes)
    if "match_iou" in changes or how.match_iou == 1 or not _has_yolo(how.network):
        return how
    return replace(how, match_iou=YOLO_MATCH_IOU)


def _has_yolo(network: str) -> bool:
    """Return whether a network has yolo layers. Arguments and errors as named_network."""
    from lookonce.model.named_network import named_network  # reads model files: commands without training do not

    return any(isinstance(layer, Yolo) for layer in named_network(os.path.expanduser(network), 1).layers)


def for_gpu(how: Settings, images: int) -> Settings:
    """Return settings for a GPU, which small batches leave idle: GPU_BATCH times the images, at most 1/8 of an epoch.

    The learning rate grows with the root of the batch, as suits Adam's; the number of steps stays, since they are fast.
    """
    batch = max(how.batch_size, min(GPU_BATCH * how.batch_size, images // 8))
    return replace(how, batch_size=batch, learning_rate=how.learning_rate * math.sqrt(batch / how.batch_size))


def for_minutes(how: Settings, images: int) -> Settings:
    """Return the settings of a fine-tuning for a time. In MOST_FROZEN minutes or less, early layers stay as they are.

    Their outputs are then computed once for VARIANTS augmented variants of each image, or fewer of many images, and an
    epoch of the other layers takes seconds. It learns less than training all layers for longer (docs/experiments.md).
    """
    if how.minutes is None or how.minutes > MOST_FROZEN:
        return how
    variants = min(VARIANTS, int(OUTPUTS_A_MINUTE * how.minutes / images))
    if not variants:
        return how
    return replace(how, freeze="all_but_last_stage", features="bf16", variants=variants)


def _check_names(names: Iterable[str], record: type, prefix: str) -> None:
    """Raise ConfigError for a name that is not a field of the record."""
    known = {field.name for field in fields(record)}
    for name in set(names) - known:
        match = closest(name, known)
        hint = f"did you mean {prefix}{match}?" if match else f"expected one of {', '.join(sorted(known))}"
        raise ConfigError(f"setting {prefix + name!r}; {hint}")


def learning_rate_factor(step: int, steps: int, settings: Settings) -> float:
    """Return the learning rate at one of `steps` steps, as a fraction of its peak.

    constant, steps and cosine warm up over burn_in steps with the fourth power, as Darknet does, but over a tenth of
    the run at most. one_cycle warms up linearly over the first tenth and falls as a cosine to a hundredth.
    Source: darknet/src/network.c, get_current_rate (power 4).
    """
    done = min((step + 1) / max(steps, 1), 1.0)
    if settings.schedule == "one_cycle":
        return done / 0.1 if done < 0.1 else 0.01 + 0.99 * _half_cosine((done - 0.1) / 0.9)
    burn_in = min(settings.burn_in, steps // 10)
    if step < burn_in:
        return float(((step + 1) / burn_in) ** 4)
    match settings.schedule:
        case "steps":
            return float(0.1 ** sum(done > milestone for milestone in settings.milestones))
        case "cosine":
            return 0.01 + 0.99 * _half_cosine((step - burn_in) / max(steps - burn_in, 1))
        case _:
            return 1.0


def _half_cosine(fraction: float) -> float:
    return (1 + math.cos(math.pi * min(fraction, 1.0))) / 2
