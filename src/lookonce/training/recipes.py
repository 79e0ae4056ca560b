"""Every setting of training with its default, and the recipes: named sets of settings.

quick: from scratch on hundreds to thousands of images, on a laptop.
paper: YOLO9000, section 2 (detection training), with the numbers of darknet/cfg/yolov2-voc.cfg.
What each setting means stands in `options`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from lookonce.choices import check_types, choose, closest, settle_names
from lookonce.data.augment import Augmentation
from lookonce.errors import ConfigError
from lookonce.model.resize import ResizeMode
from lookonce.model.zoo import DETECTORS
from lookonce.training.options import Difficult, Features, LossName, Optimizer, Schedule

RecipeName = Literal["quick", "paper"]
FREEZE = ("none", "features", "all_but_last")
SMALL_OBJECTS = 0.25
"""Typical side of objects, as a fraction of the image's, up to which mosaics are shown. Our choice: half a quarter."""
DEFAULT_STEPS = 6000
"""Approximate optimizer steps of a run, where neither steps nor epochs are given."""
STRIDE = 32
"""Input sizes are multiples of it: the stride of every built-in network."""
MAX_SIZE = 8192
"""Largest side of the input, in pixels."""


@dataclass(frozen=True)
class Settings:
    """The settings of one run, checked when made. The defaults are the quick recipe; `TrainOptions` describes them."""

    network: str = "yolov2_tiny"
    size: int = 416
    multi_scale: tuple[int, ...] = ()
    resize: ResizeMode = "letterbox_antialias"
    pixel_range: tuple[float, float] | None = None
    anchors: int = 5
    loss: LossName = "region_ciou"
    match_iou: float = 0.5
    objectness_prior: float = 0.01
    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 4
    optimizer: Optimizer = "adamw"
    learning_rate: float = 2e-3
    momentum: float = 0.9
    weight_decay: float = 0.01
    schedule: Schedule = "one_cycle"
    burn_in: int = 100
    milestones: tuple[float, ...] = (0.375, 0.5625)
    ema: float = 0.998
    gradient_clip: float = 10.0
    prior_loss_images: int = 0
    freeze: str = "none"
    features: Features = "none"
    variants: int = 0
    difficult: Difficult = "ignore"
    patience: int = 0
    min_delta: float = 0.001
    augment: Augmentation = Augmentation()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        object.__setattr__(self, "freeze", str(self.freeze) if isinstance(self.freeze, int) else self.freeze)
        if isinstance(self.network, os.PathLike):
            object.__setattr__(self, "network", os.fspath(self.network))
        settle_names(self)
        if not str(self.network).endswith(".cfg"):
            object.__setattr__(self, "network", choose(self.network, DETECTORS, "network", "a Darknet .cfg"))
        if not str(self.freeze).isdigit():
            object.__setattr__(self, "freeze", choose(self.freeze, FREEZE, "freeze", "a number of convolutions"))
        check_types(self)
        sides = (self.size, *self.multi_scale)
        expected = f"positive multiples of {STRIDE}, at most {MAX_SIZE}"
        _check(all(0 < s <= MAX_SIZE and s % STRIDE == 0 for s in sides), "size", sides, expected)
        low, high = self.pixel_range or (0, 1)
        _check(-math.inf < low < high < math.inf, "pixel_range", self.pixel_range, "two growing numbers")
        for name in ("steps", "epochs", "batch_size"):
            _check(getattr(self, name) is None or getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _check(0 < self.learning_rate < math.inf, "learning_rate", self.learning_rate, "above 0")
        for name in ("match_iou", "objectness_prior"):
            _check(0 < getattr(self, name) <= 1, name, getattr(self, name), "above 0, at most 1")
        _check(self.objectness_prior < 1, "objectness_prior", self.objectness_prior, "below 1")
        for name in ("momentum", "ema"):
            _check(0 <= getattr(self, name) < 1, name, getattr(self, name), "at least 0 and below 1")
        self._check_features()
        for name in ("variants", "anchors", "burn_in", "prior_loss_images", "patience"):
            _check(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        for name in ("weight_decay", "gradient_clip", "min_delta"):
            _check(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "at least 0")
        _check(
            all(0 < m < 1 for m in self.milestones), "milestones", self.milestones, "shares of the run between 0 and 1"
        )

    def _check_features(self) -> None:
        if self.features == "none":
            _check(
                self.variants == 0, "variants", self.variants, "0 without --features, where every epoch augments again"
            )
            return
        _check(
            self.freeze != "none",
            "features",
            self.features,
            "frozen layers: give --freeze as well, as in --freeze all_but_last",
        )
        _check(not self.multi_scale, "features", self.features, "a single input size: leave out --multi-scale")
        if self.augment != Augmentation.none() and not self.variants:
            raise ConfigError(
                "augment: an image's features are computed once, so they cannot be augmented in each epoch; leave "
                "--augment out, keep K augmented variants of an image with --variants K, or train without --features"
            )

    @staticmethod
    def from_plain(flat: Mapping[str, Any]) -> Settings:
        """Return settings from lists and mappings, as YAML and JSON keep them.

        Raises KeyError or TypeError for others, ConfigError for a value that is not allowed.
        """
        augment = Augmentation(**{key: _as_tuple(value) for key, value in flat["augment"].items()})
        values: dict[str, Any] = {key: _as_tuple(value) for key, value in flat.items()}
        if "warm_up_images" in values:  # its name in version 0.1
            values["prior_loss_images"] = values.pop("warm_up_images")
        return Settings(**{**values, "augment": augment})

    def fitted(self, images: int, object_side: float, exact_batch: bool = False) -> Settings:
        """Return the settings for a training set: epochs and mosaics decided, a batch that leaves 8 steps an epoch.

        With `steps` the run ends at exactly that step, in the middle of its last epoch if need be.

        Args:
            images: how many it has.
            object_side: Dataset.object_side, how large its objects are.
            exact_batch: the batch was asked for and stays.
        """
        batch = self.batch_size if exact_batch else max(1, min(self.batch_size, images // 8))
        per_epoch = math.ceil(images / batch)
        by_steps = (
            math.ceil(self.steps / per_epoch) if self.steps else min(300, max(20, round(DEFAULT_STEPS / per_epoch)))
        )
        epochs = min(self.epochs, by_steps) if self.epochs and self.steps else self.epochs or by_steps
        mosaic = self.augment.mosaic if self.augment.mosaic is not None else float(object_side <= SMALL_OBJECTS)
        return replace(self, batch_size=batch, epochs=epochs, augment=replace(self.augment, mosaic=mosaic))


def _as_tuple(value: Any) -> Any:
    """A list as a tuple, so that settings can be compared and kept."""
    return tuple(value) if isinstance(value, list) else value


def _check(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{name.replace('_', '-')}: {value!r}; expected {expected}")


RECIPES: Mapping[RecipeName, Settings] = {
    "quick": Settings(),
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
}


def settings(recipe: RecipeName, **changes: Any) -> Settings:
    """A recipe with the settings that were given (those not None). Of `augment` a mapping changes what it names.

    Raises ConfigError for a recipe or setting that does not exist, or a value that is not allowed.
    """
    recipe = choose(recipe, RECIPES, "recipe")
    _known(changes, Settings, "")
    given = {name: _as_tuple(value) for name, value in changes.items() if value is not None}
    if "steps" in given:
        given.setdefault("epochs", None)  # those of the recipe would end the run elsewhere
    if isinstance(given.get("augment"), Mapping):
        _known(given["augment"], Augmentation, "augment.")
        named = {name: _as_tuple(value) for name, value in given["augment"].items()}
        given["augment"] = replace(RECIPES[recipe].augment, **named)
    if given.get("features", "none") != "none" and not given.get("variants") and "augment" not in given:
        given["augment"] = Augmentation.none()
    return replace(RECIPES[recipe], **given)


def _known(given: Mapping[str, Any], record: type, prefix: str) -> None:
    """Raises ConfigError for a name that is no field of the record."""
    known = {f.name for f in fields(record)}
    for name in given.keys() - known:
        near = closest(name, known)
        said = f"did you mean {prefix}{near}?" if near else f"expected one of {', '.join(sorted(known))}"
        raise ConfigError(f"setting {prefix + name!r}; {said}")


def learning_rate_factor(step: int, steps: int, settings: Settings) -> float:
    """Return the learning rate at a step of `steps`, as a fraction of its peak.

    constant, steps and cosine warm up over burn_in steps with the fourth power, as Darknet does; one_cycle warms up
    linearly over the first tenth and falls as a cosine to a hundredth.
    The warm-up takes a tenth of the run at most, so that a short run reaches its peak rate.
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
    """Half a cosine, from 1 down to 0."""
    return (1 + math.cos(math.pi * min(fraction, 1.0))) / 2
