"""The learning rate over a run, as a share of its highest value.

Every default of training, in one table, and the law of each setting.

quick: from scratch on hundreds to thousands of images, on a laptop.
paper: YOLO9000, section 2 (detection training), with the numbers of darknet/cfg/yolov2-voc.cfg.

Settings as keyword options of a public function, so that none is declared twice.

A function that takes **changes gets one option for each field of Settings: its type, its docstring, default None
(the recipe's). Python's help() and the command line then show what the table in recipes.py says.

The plan of a run: what is trained on what, and how; its config.yaml, and back.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, TypeVar, get_type_hints

import yaml
from cyclopts import Parameter
from docstring_parser import parse_from_object

from lookonce.choices import check_types, choose, closest, settle_names
from lookonce.data.augment import Augmentation
from lookonce.data.dataset import DataPolicy
from lookonce.errors import ConfigError
from lookonce.model.resize import ResizeMode
from lookonce.model.zoo import DETECTORS


def rate(step: int, steps: int, settings: Settings) -> float:
    """Share of the highest learning rate at a step of `steps`, 0 < share <= 1.

    constant, steps and cosine climb during burn_in steps with the fourth power, as Darknet's burn_in
    does; one_cycle climbs linearly for the first tenth and falls as a cosine to a hundredth.
    A run shorter than its burn-in would never arrive, so burn-in takes a tenth of the run at most.
    Source: darknet/src/network.c, get_current_rate (power 4).
    """
    done = min((step + 1) / max(steps, 1), 1.0)
    if settings.schedule == "one_cycle":
        return done / 0.1 if done < 0.1 else 0.01 + 0.99 * _fall((done - 0.1) / 0.9)
    burn_in = min(settings.burn_in, steps // 10)
    if step < burn_in:
        return float(((step + 1) / burn_in) ** 4)
    match settings.schedule:
        case "steps":
            return float(0.1 ** sum(done > milestone for milestone in settings.milestones))
        case "cosine":
            return 0.01 + 0.99 * _fall((step - burn_in) / max(steps - burn_in, 1))
        case _:
            return 1.0


def _fall(share: float) -> float:
    """Half a cosine from 1 to 0."""
    return (1 + math.cos(math.pi * min(share, 1.0))) / 2


Optimizer = Literal["sgd", "adam", "adamw", "rmsprop"]


Schedule = Literal["constant", "steps", "cosine", "one_cycle"]


LossName = Literal["region", "region_ciou", "keras_yolo2"]


RecipeName = Literal["quick", "paper"]


FREEZE = ("none", "features", "all_but_last")


SMALL = 0.25
"""Typical side of objects, of the image's, up to which mosaics are shown: half of a mosaic's quarter. Our choice."""


AIM = 6000
"""Optimiser steps that a run takes, about, where neither steps nor epochs are given."""


STRIDE = 32
"""Input pixels a cell, of every network in the zoo."""


LARGEST = 8192
"""Largest side of the input, pixels."""


@dataclass(frozen=True)
class Settings:
    """How one run goes; checked at birth, saved beside the result. Defaults: the quick recipe."""

    network: str = "yolov2_tiny"
    """A detector of the zoo, or a Darknet .cfg, made for the data's classes and these anchors."""
    size: int = 416
    """Side of the square input, pixels; a multiple of 32. Validation, and training unless multi_scale."""
    multi_scale: tuple[int, ...] = ()
    """Sides to train at, one drawn every 10 steps; none: `size` alone."""
    resize: ResizeMode = "letterbox_antialias"
    """How an image becomes the square input: with its aspect ratio kept (letterbox) or not (stretch). Without
    _antialias, detection does not average when it shrinks: choose letterbox for a model that Darknet's programs run."""
    pixel_range: tuple[float, float] | None = None
    """Values of images of more than 8 bits that become black and white; none: measured on the training images."""
    anchors: int = 5
    """Number of anchors, clustered on the training boxes; 0: the five of yolov2-voc.cfg."""
    loss: LossName = "region_ciou"
    """Darknet's region loss; the same and 1 - CIoU of each box; or the blog's."""
    match_iou: float = 0.5
    """An object also goes to anchors other than its best whose shape IoU with it is greater; 1: to none, as Darknet."""
    objectness_prior: float = 0.01
    """Objectness that the untrained network gives; Darknet starts at 0.5."""
    steps: int | None = None
    """Optimiser steps after which the run ends; none: it ends after `epochs`."""
    epochs: int | None = None
    """Passes over the training images; none: as many as `steps` takes, or about 6000 steps, 20 to 300 passes."""
    batch_size: int = 4
    """Images for each optimiser step; made smaller for a set that gives fewer than 8 steps an epoch."""
    optimizer: Optimizer = "adamw"
    """What moves the weights."""
    learning_rate: float = 2e-3
    """Its highest value."""
    momentum: float = 0.9
    """Of SGD and RMSprop; the first beta of Adam and AdamW."""
    weight_decay: float = 0.01
    """On the weights of convolutions alone, as in Darknet."""
    schedule: Schedule = "one_cycle"
    """How the rate goes: constant, steps and cosine after a burn-in, or one_cycle."""
    burn_in: int = 100
    """Steps in which the rate climbs from 0 to its highest value."""
    milestones: tuple[float, ...] = (0.375, 0.5625)
    """Schedule `steps`: shares of the run after which the rate falls to a tenth. Source: 60 and 90 of 160 epochs."""
    ema: float = 0.998
    """Decay of the moving average of the weights; 0: none."""
    gradient_clip: float = 10.0
    """Largest norm of the gradient; 0: no limit."""
    warm_up_images: int = 0
    """Images during which every predictor is drawn to its anchor; no best model is chosen among them."""
    freeze: str = "none"
    """none, features (the 18 convolutions of Darknet-19), all_but_last (as the blog), or a number of convolutions."""
    features: Literal["none", "bf16", "fp32"] = "none"
    """Keep the frozen trunk's outputs on disk, in these numbers, and train on them alone; images as they are."""
    variants: int = 0
    """With features: keep so many augmented variants of each image; an epoch takes one."""
    difficult: Literal["ignore", "train", "drop"] = "ignore"
    """Difficult objects: neither sought nor background; trained on like others; left out."""
    patience: int = 0
    """Validations without a gain of min_delta after which the run stops; 0: never."""
    min_delta: float = 0.001
    """Gain in mAP that counts."""
    augment: Augmentation = Augmentation()  # noqa: RUF009 - frozen
    """How far training images may differ from the files."""

    def __post_init__(self) -> None:
        settle_names(self)
        if not str(self.network).endswith(".cfg"):
            object.__setattr__(self, "network", choose(self.network, DETECTORS, "network", "a Darknet .cfg"))
        if not str(self.freeze).isdigit():
            object.__setattr__(self, "freeze", choose(self.freeze, FREEZE, "freeze", "a number of convolutions"))
        check_types(self)
        sides = (self.size, *self.multi_scale)
        law = f"positive multiples of {STRIDE}, at most {LARGEST}"
        _law(all(0 < s <= LARGEST and s % STRIDE == 0 for s in sides), "size", sides, law)
        low, high = self.pixel_range or (0, 1)
        _law(-math.inf < low < high < math.inf, "pixel_range", self.pixel_range, "two growing numbers")
        for name in ("steps", "epochs", "batch_size"):
            _law(getattr(self, name) is None or getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _law(0 < self.learning_rate < math.inf, "learning_rate", self.learning_rate, "above 0")
        for name in ("match_iou", "objectness_prior"):
            _law(0 < getattr(self, name) <= 1, name, getattr(self, name), "above 0, at most 1")
        _law(self.objectness_prior < 1, "objectness_prior", self.objectness_prior, "below 1")
        for name in ("momentum", "ema"):
            _law(0 <= getattr(self, name) < 1, name, getattr(self, name), "at least 0 and below 1")
        self._check_features()
        for name in ("variants", "anchors", "burn_in", "warm_up_images", "patience"):
            _law(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        for name in ("weight_decay", "gradient_clip", "min_delta"):
            _law(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "at least 0")
        _law(
            all(0 < m < 1 for m in self.milestones), "milestones", self.milestones, "shares of the run between 0 and 1"
        )

    def _check_features(self) -> None:
        if self.features == "none":
            _law(self.variants == 0, "variants", self.variants, "0 without --features: every epoch draws anew")
            return
        _law(self.freeze != "none", "features", self.features, "a frozen trunk beside it: --freeze all_but_last, say")
        _law(not self.multi_scale, "features", self.features, "one input size: no --multi-scale")
        if self.augment != Augmentation.none() and not self.variants:
            raise ConfigError(
                "augment: an image's features are computed once, so they cannot be augmented in each epoch; leave "
                "--augment out, keep K augmented variants of an image with --variants K, or train without --features"
            )

    @staticmethod
    def from_plain(flat: Mapping[str, Any]) -> Settings:
        """Settings from lists and mappings, as YAML and JSON keep them.

        Raises KeyError or TypeError for others, ConfigError for a value outside its law.
        """
        augment = Augmentation(**{key: _as_tuple(value) for key, value in flat["augment"].items()})
        how: dict[str, Any] = {key: _as_tuple(value) for key, value in flat.items()}
        return Settings(**{**how, "augment": augment})

    def fitted(self, images: int, object_side: float, exact_batch: bool = False) -> Settings:
        """The same for a training set: epochs and mosaics settled, and a batch that leaves 8 steps an epoch.

        Steps that were given end the run exactly there, in the middle of its last epoch if need be.

        Args:
            images: how many it has.
            object_side: Dataset.object_side, how large its objects are.
            exact_batch: the batch was asked for and stays.
        """
        batch = self.batch_size if exact_batch else max(1, min(self.batch_size, images // 8))
        per_epoch = math.ceil(images / batch)
        by_steps = math.ceil(self.steps / per_epoch) if self.steps else min(300, max(20, round(AIM / per_epoch)))
        epochs = min(self.epochs, by_steps) if self.epochs and self.steps else self.epochs or by_steps
        mosaic = self.augment.mosaic if self.augment.mosaic is not None else float(object_side <= SMALL)
        return replace(self, batch_size=batch, epochs=epochs, augment=replace(self.augment, mosaic=mosaic))


def _as_tuple(value: Any) -> Any:
    """A list as a tuple, so that settings can be compared and kept."""
    return tuple(value) if isinstance(value, list) else value


def _law(holds: bool, name: str, value: object, law: str) -> None:
    if not holds:
        raise ConfigError(f"{name.replace('_', '-')}: {value!r}; expected {law}")


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
        warm_up_images=12_800,
        augment=Augmentation(aspect=0.3, zoom=(1.0, 1.0), flip=0.5, hue=0.1, saturation=1.5, exposure=1.5, mosaic=0.0),
    ),
}


def settings(recipe: RecipeName, **changes: Any) -> Settings:
    """A recipe with the settings that were given (those not None). Of `augment` a mapping changes what it names.

    Raises ConfigError for a recipe or setting that does not exist, or a value outside its law.
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


F = TypeVar("F", bound=Callable[..., Any])


def takes_settings(function: F) -> F:
    """Spell out the function's **changes as the fields of Settings."""
    hints = get_type_hints(function, include_extras=True)
    own = inspect.signature(function)
    plain = [p.replace(annotation=hints[n]) for n, p in own.parameters.items() if p.kind is not p.VAR_KEYWORD]
    said = _said(Settings)
    types = {**get_type_hints(Settings), "augment": changes_of(Augmentation)}
    for entry in fields(Settings):
        shown = Parameter(help=f"{said[entry.name]} [{_default(entry.name)}]".strip(), show_default=False)
        kind = types[entry.name] | None
        annotation: Any = Annotated[kind, shown]
        plain.append(inspect.Parameter(entry.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    function.__signature__ = own.replace(parameters=plain, return_annotation=hints["return"])  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in plain} | {"return": hints["return"]}
    return function


def changes_of(record: type) -> Any:
    """A mapping of some of a record's fields: what `--augment.flip 0` says, which leaves the rest to the recipe."""
    said, make = _said(record), TypedDict  # by another name, since mypy wants the fields spelt out
    kinds = {name: Annotated[kind, Parameter(help=said[name])] for name, kind in get_type_hints(record).items()}
    return make(f"{record.__name__}Changes", kinds, total=False)  # type: ignore[operator]


def _said(record: type) -> dict[str, str]:
    """What a record's docstrings say of each field, in one line."""
    return {p.arg_name: " ".join((p.description or "").split()) for p in parse_from_object(record).params}


def _default(name: str) -> str:
    """What each recipe takes for a setting, in a few characters."""
    if name == "augment":
        return "by recipe"
    values = [getattr(settings, name) for settings in RECIPES.values()]
    words = [
        f"{v[0]}..{v[-1]}" if isinstance(v, tuple) and v else "none" if v in ((), None) else f"{v}" for v in values
    ]
    return words[0] if len(set(words)) == 1 else ", ".join(f"{r}: {w}" for r, w in zip(RECIPES, words, strict=True))


Device = Literal["auto", "cpu", "cuda"]


Precision = Literal["auto", "fp32", "bf16"]


MOST_WORKERS = 256


LONGEST = 100_000
"""Bytes of a config.yaml: those that are written have some 2,000."""


@dataclass(frozen=True)
class Plan:
    """What is trained on what, and how; the run folder's config.yaml says the same."""

    data: str
    labels: tuple[str, ...] | None
    train_split: str
    val_split: str
    policy: DataPolicy
    keep_empty: bool
    seed: int
    workers: int
    device: Device
    precision: Precision
    deterministic: bool
    checkpoint_minutes: float
    weights: str | None
    settings: Settings
    keep_last: bool = False

    def __post_init__(self) -> None:
        settle_names(self)
        check_types(self)
        if not 0 < self.checkpoint_minutes < math.inf:
            raise ConfigError(f"checkpoint-minutes: {self.checkpoint_minutes}; expected above 0")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed: {self.seed}; expected a whole number from 0 to 4294967295")
        if not 0 <= self.workers <= MOST_WORKERS:
            raise ConfigError(f"workers: {self.workers}; expected 0 to {MOST_WORKERS}")

    def to_yaml(self) -> str:
        """Flat: every key is an option of `lookonce train`, so that --config repeats the run."""
        flat = {key: value for key, value in asdict(self).items() if key != "settings"}
        return yaml.safe_dump(plain({**flat, **asdict(self.settings)}), sort_keys=False)

    @staticmethod
    def from_yaml(content: bytes, place: Path) -> Plan:
        """The inverse of to_yaml. Raises ConfigError for a file that says something else."""
        try:
            if len(content) > LONGEST:
                raise ValueError(f"{len(content):,} bytes")
            flat = yaml.safe_load(content.decode("utf-8"))
            own = {f.name: flat.pop(f.name) for f in fields(Plan) if f.name not in ("settings", "keep_last")}
            own["keep_last"] = flat.pop("keep_last", False)  # a run of before it has none
            own["labels"] = None if own["labels"] is None else tuple(own["labels"])
            return Plan(**own, settings=Settings.from_plain(flat))
        except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            said = "" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]
            said = "".join(letter if letter.isprintable() else "?" for letter in said)
            raise ConfigError(
                f"{place}: cannot be read as the config.yaml of a run ({said or type(error).__name__}); correct it, or "
                f"start a new run from the best model: lookonce train DATA --weights {place.parent}"
            ) from None


def plain(value: Any) -> Any:
    """Tuples as lists, for YAML and JSON."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value
