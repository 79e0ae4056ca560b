"""A run on disk: its folder, its configuration (config.yaml), and the identity of its data (data.json). No torch here.

A resumed run compares that identity with the data that it finds: other data under the same path would give a model with
exchanged classes, or a score on images that it was trained on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from lookonce.choices import check_types, device_name, settle_names
from lookonce.data.class_tree import in_tree
from lookonce.data.dataset import DataPolicy, Dataset
from lookonce.data.image_labels import join, read_image_labels, whole_labels
from lookonce.data.read import check_images, read_splits
from lookonce.data.remote import as_address, is_address
from lookonce.data.tiles import AUTO, auto_tile, box_sizes, in_tiles, size_text
from lookonce.errors import ConfigError, UserError, printable
from lookonce.files import LOCK, new_folder, numbered_folder, sweep, write_text
from lookonce.model import zoo
from lookonce.model.darknet.cfg import Cfg, read_cfg
from lookonce.model.darknet.files import read_text, tree_of
from lookonce.model.layers import Conv, Layer, Region
from lookonce.model.named_network import named_network
from lookonce.model.sizes import heads_of, num_floats, num_operations
from lookonce.model.tree import Tree, read_tree
from lookonce.text import parse_yaml
from lookonce.training.recipes import Settings
from lookonce.training.start import Start

log = logging.getLogger("lookonce")
MODEL = "model.safetensors"
OF_A_START = {"config.yaml", "data.json", "start.json", "network.cfg", "classes.tree", "classes.map", "metrics.csv",
              "report.html", "tensorboard", "checkpoints", "images.u8", "images.state", "canvas.u8", "canvas.state",
              "pruned.cfg", "pruned.safetensors", "train_batch.jpg", "results.csv", "results.png", "filmstrip",
              "training.gif", MODEL, LOCK}  # fmt: skip
"""Names in the folder of a run without a checkpoint, which is not worth keeping."""
MOST_NAMED = 10
"""Most classes that the header of a run names."""
FEW_TO_VALIDATE = 20
"""Validation images below which training warns."""
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?|mps")
Precision = Literal["auto", "fp32", "bf16"]
SyncBatchNorm = Literal["auto", "always", "never"]
MAX_WORKERS = 256
MAX_BYTES = 100_000
"""Largest config.yaml that is read; one has about 2,000 bytes."""
DATA_FILE = "data.json"
DATA_FORMAT = 1


@dataclass(frozen=True)
class RunConfig:
    """What is trained, on what data, and how. The parameters of `train` describe the fields."""

    data: str
    labels: tuple[str, ...] | None = None
    train_split: str = "train"
    val_split: str = "val"
    policy: DataPolicy = "drop"
    keep_empty: bool = False
    seed: int = 0
    workers: int | None = None
    device: str = "auto"
    precision: Precision = "auto"
    deterministic: bool = False
    checkpoint_minutes: float | None = None
    weights: str | None = "none"
    settings: Settings = Settings()  # noqa: RUF009 - frozen
    keep_last: bool = False
    keep_checkpoints: bool = False
    tree: str | None = None
    image_labels: str | None = None
    devices: int | None = None
    sync_batch_norm: SyncBatchNorm = "auto"
    teacher: str | None = None

    def __post_init__(self) -> None:
        settle_names(self)
        device = device_name(self.device)
        if not DEVICE.fullmatch(device):
            raise ConfigError(f"device: {self.device!r}; expected auto, cpu, cuda, cuda:NUMBER or mps")
        object.__setattr__(self, "device", device)
        check_types(self)
        if self.checkpoint_minutes is not None and not 0 < self.checkpoint_minutes < math.inf:
            raise ConfigError(f"checkpoint-minutes: {self.checkpoint_minutes}; expected above 0")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed: {self.seed}; expected a whole number from 0 to 4294967295")
        if self.workers is not None and not 0 <= self.workers <= MAX_WORKERS:
            raise ConfigError(f"workers: {self.workers}; expected 0 to {MAX_WORKERS}")
        if self.teacher is not None and self.settings.features != "none":
            raise ConfigError("teacher: it has to see the images, which --features replaces; leave one of them out")

    def to_yaml(self) -> str:
        """Return the configuration as YAML. Every key is an option of `lookonce train`, so --config repeats the run."""
        flat = {key: value for key, value in asdict(self).items() if key != "settings"}
        return yaml.safe_dump(plain({**flat, **asdict(self.settings)}), sort_keys=False)

    @staticmethod
    def from_yaml(content: bytes, place: Path) -> RunConfig:
        """Read what to_yaml wrote. Raises ConfigError for any other file."""
        try:
            if len(content) > MAX_BYTES:
                raise ValueError(f"{len(content):,} bytes")
            flat = parse_yaml(content.decode("utf-8"), str(place), "the settings of a run")
            later = {"keep_last": False, "keep_checkpoints": True, "tree": None, "image_labels": None,
                     "devices": None, "sync_batch_norm": "auto", "teacher": None}  # fmt: skip  # as version 0.1
            own = {f.name: flat.pop(f.name) for f in fields(RunConfig) if f.name not in ("settings", *later)}
            own |= {name: flat.pop(name, value) for name, value in later.items()}
            own["labels"] = None if own["labels"] is None else tuple(own["labels"])
            return RunConfig(**own, settings=Settings.from_plain(flat))
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"{place}: cannot be read as the config.yaml of a run "
                f"({reason(error).removeprefix(str(place)).removeprefix(': ')}); correct it, or start a new "
                f"run from the best model: lookonce train DATA --weights {place.parent}"
            ) from None


def reason(error: Exception) -> str:
    """Return the text of an error as part of a line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def plain(value: Any) -> Any:
    """Return a value with its tuples as lists, for YAML and JSON."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class DataIdentity:
    """The data of a run: classes in order, the images of each split, a digest of their labels."""

    classes: tuple[str, ...]
    splits: Mapping[str, Mapping[str, str]]
    """For each split the digest of the labels of each image, by its path below the data set."""

    @staticmethod
    def of(splits: Mapping[str, Dataset]) -> DataIdentity:
        """Return the identity of the splits of a data set, by name."""
        [classes] = {part.labels for part in splits.values()}
        return DataIdentity(classes, {name: _digests(part) for name, part in splits.items()})

    def write(self, folder: Path) -> None:
        """Write it to a run folder."""
        content = {"format": DATA_FORMAT, "classes": self.classes, "splits": self.splits}
        write_text(folder / DATA_FILE, json.dumps(content, indent=0, ensure_ascii=False) + "\n")

    @staticmethod
    def read(folder: Path) -> DataIdentity | None:
        """Return what a run folder holds; None: version 0.1 wrote no data.json. Raises UserError."""
        file = folder / DATA_FILE
        if not file.exists():
            return None
        try:
            content = json.loads(file.read_bytes())
            classes, splits = content["classes"], content["splits"]
            if content["format"] != DATA_FORMAT:
                raise ValueError("another format")
            texts = [*classes, *(text for digests in splits.values() for pair in digests.items() for text in pair)]
            if not isinstance(classes, list) or not all(isinstance(text, str) for text in texts):
                raise TypeError("not names and digests")
            return DataIdentity(tuple(classes), splits)
        except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{file}: cannot be read ({type(error).__name__}), so the data cannot be compared with that of the "
                "run; remove the file to resume without comparing"
            ) from None

    def difference(self, now: DataIdentity) -> str:
        """Return in one clause what has changed since the run; empty: nothing."""
        if len(self.classes) != len(now.classes):
            had, has = (
                f"({', '.join(names[:10])}{', ...' * (len(names) > 10)})" for names in (self.classes, now.classes)
            )
            return f"the run has {len(self.classes)} classes {had}, the data now has {len(now.classes)} {has}"
        for index, (was, name) in enumerate(zip(self.classes, now.classes, strict=True)):
            if was != name:
                return f"class {index} was {was!r}, the data now has {name!r}"
        for split, before in self.splits.items():
            after = now.splits.get(split, {})
            changes = {
                "are gone": [file for file in before if file not in after],
                "are new": [file for file in after if file not in before],
                "have other labels": [file for file, digest in before.items() if after.get(file, digest) != digest],
            }
            found = [f"{len(files)} {what}, the first: {files[0]}" for what, files in changes.items() if files]
            if found:
                return f"of the images of split {split!r} {'; '.join(found)}"
            if list(before) != list(after):
                return f"the images of split {split!r} are in another order"
        return ""


def _digests(dataset: Dataset) -> dict[str, str]:
    """Return a digest of the boxes, classes and difficult flags of each image, by its path."""
    digests: dict[str, str] = {}
    for path, record in zip(dataset.paths.tolist(), dataset.records, strict=True):
        content = hashlib.blake2b(digest_size=6)
        for values, kind in ((record.boxes, "<f4"), (record.labels, "<i8"), (record.difficult, "u1")):
            content.update(values.astype(kind).tobytes())
        if record.image_label >= 0:
            content.update(record.image_label.to_bytes(8, "little"))
        digests[path] = content.hexdigest()
    return digests


def absolute_path(path: Path | str) -> str:
    """Return a path that means the same in every working folder."""
    return as_address(path) if is_address(path) else str(Path(path).expanduser().absolute())


@contextmanager
def run_folder(out: Path, name: str | None, stem: str) -> Iterator[Path]:
    """Make a folder for a run and hold its lock; an error before the first checkpoint removes it.

    Args:
        out: the parent folder.
        name: of the folder; None: the first of STEM-1, STEM-2, ... that does not exist.
        stem: for those names.
    Raises UserError for a name that exists, unless the folder holds only the start of a run that was killed.
    """
    killed = name is not None and (out / name / LOCK).exists()
    with new_folder(out / name, reuse=True) if name else numbered_folder(out / stem) as folder:
        if killed and _is_start(folder):
            _clear(folder)
        if any(path.name != LOCK for path in folder.iterdir()):
            what = "holds a run" if (folder / "checkpoints").exists() or (folder / MODEL).exists() else "is not empty"
            raise ConfigError(f"{folder}: {what} already; give another --name, or continue it with --resume {folder}")
        try:
            yield folder
        except BaseException:
            sweep(folder)
            if _is_start(folder):
                _clear(folder)
            raise


def _is_start(folder: Path) -> bool:
    """Return whether a folder holds only what a run writes before its first checkpoint."""
    return {path.name for path in folder.iterdir()} <= OF_A_START and not (
        folder / "checkpoints" / "last.ckpt"
    ).exists()


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK:
            path.unlink(missing_ok=True)


TREE, MAP = "classes.tree", "classes.map"
"""Names of the class tree and its map in a run folder."""


def class_tree(config: RunConfig) -> Tree | None:
    """Return the tree of --tree, or of a .cfg that is given as --network; None: the classes exclude each other.

    Raises ConfigError for settings that a tree does not go with.
    """
    how = config.settings
    if config.tree is not None:
        tree: Tree | None = read_tree(read_text(Path(config.tree)), config.tree)
    elif how.network.endswith(".cfg"):
        cfg = Path(how.network)
        tree = tree_of(read_cfg(read_text(cfg), str(cfg)).layers, cfg)
    else:
        tree = None
    if tree is None:
        if config.image_labels is not None:
            raise ConfigError("image-labels: images without boxes teach the classes of a tree; give --tree FILE too")
        return None
    if not any(isinstance(layer, Region) for layer in network_cfg(how, 1).layers):
        raise ConfigError(f"tree: {Path(how.network).name} has no region layer, and only that layer learns a tree; use "
                          "--network yolov2_tiny or yolov2")  # fmt: skip
    if how.loss == "keras_yolo2":
        raise ConfigError("loss: keras_yolo2 learns no tree of classes; use --loss region or region_ciou")
    if how.class_weights:
        raise ConfigError("class-weights: not used with a tree of classes; leave them out")
    return tree


def read_both(config: RunConfig, tree: Tree | None = None) -> tuple[Dataset, Dataset | None]:
    """Return the checked training and validation images, with the classes of the tree if there is one.

    Raises UserError if there are no objects to train on.
    """
    names = [config.train_split] if config.val_split == "none" else [config.train_split, config.val_split]
    train_set, *rest = read_splits(config.data, names, config.labels, policy=config.policy)
    if config.labels is not None and not config.keep_empty:
        train_set = train_set.with_objects()
    if not len(train_set.boxes):
        raise UserError(
            f"{config.data}: split {config.train_split!r} has no objects to learn from; check labels and boxes"
        )
    if rest and len(rest[0]) < FEW_TO_VALIDATE:
        log.warning("%s: few images to validate on: %d in split %r; below %d mAP varies by chance, so the best model "
                    "is hard to tell", config.data, len(rest[0]), config.val_split, FEW_TO_VALIDATE)  # fmt: skip
    val_set = check_images(rest[0], config.policy) if rest else None
    train_set = check_images(train_set, config.policy)
    if tree is None:
        return train_set, val_set
    train_set = in_tree(train_set, tree)
    if config.image_labels is not None:
        labelled = read_image_labels(config.image_labels, config.policy)
        train_set = join(train_set, in_tree(labelled, replace(tree, map=())))  # as in Darknet, of boxes alone
    return train_set, None if val_set is None else in_tree(val_set, tree)


def network_cfg(how: Settings, classes: int, anchors: zoo.AnchorSizes = ()) -> Cfg:
    """Return the network that the settings name, as they change it. Arguments and errors as named_network."""
    cfg = named_network(how.network, classes, anchors)
    refuse_binary_weights(cfg.layers, how.network)
    return replace(cfg, layers=tuple(how.scaled(layer) for layer in cfg.layers))


def refuse_binary_weights(layers: Sequence[Layer], place: str) -> None:
    """Raise ConfigError for a network with binary weights. place: its name, for the message."""
    if any(isinstance(layer, Conv) and layer.xnor for layer in layers):
        raise ConfigError(f"{place}: its convolutions with xnor=1 (binary weights) are for detection only; give a "
                          "network without them")  # fmt: skip


def with_loss_of_heads(how: Settings) -> Settings:
    """Return the settings with Darknet's own loss, `region`, unless a head has others: only region layers do."""
    if any(isinstance(head.layer, Region) for head in heads_of(network_cfg(how, 1).layers)):
        return how
    return replace(how, loss="region")


def with_tile(config: RunConfig, train_set: Dataset) -> RunConfig:
    """Return a config with the size that auto means for the tiles of these images."""
    how = config.settings
    if how.tile != AUTO:
        return config
    size = auto_tile({"boxes": box_sizes(train_set)}, (how.size, how.size), how.resize)
    return replace(config, settings=replace(how, tile=size_text(size)))


def fitted(config: RunConfig, train_set: Dataset, exact_batch: bool) -> RunConfig:
    """Return a config with settings fitted to the training images, or to their tiles. exact_batch: keep the batch size.

    Raises ConfigError if an exact batch is larger than the training set.
    """
    config = with_tile(config, train_set)
    train_set = in_tiles(train_set, config.settings.tiling)
    images = len(train_set)
    if exact_batch and config.settings.batch_size > images:
        raise ConfigError(f"batch-size: {config.settings.batch_size}; the training split has {images} images, and a "
                          "batch cannot be larger")  # fmt: skip
    return replace(config, settings=config.settings.fitted(images, train_set.object_side, exact_batch))


def header(config: RunConfig, train_set: Dataset, val_set: Dataset | None, start: Start | None = None) -> list[str]:
    """Return the lines that introduce a run: its data, its network, and what it starts from."""
    how, labels = config.settings, train_set.labels
    validation = "no validation" if val_set is None else f"{len(val_set):,} validation images"
    names = ", ".join(map(printable, labels[:MOST_NAMED])) + (", ..." if len(labels) > MOST_NAMED else "")
    classes = f"{len(labels):,} class{'es' * (len(labels) > 1)}: {names}"
    clustered = ((1.0, 1.0),) * how.anchors if isinstance(how.anchors, int) else ()  # only their number counts here
    cfg = network_cfg(how, len(labels), how.anchor_sizes or clustered)
    layers, channels = cfg.layers, cfg.channels
    size, millions = (how.size, how.size), num_floats(layers, channels) / 1e6
    gflop = num_operations(layers, size, channels) / 1e9
    whole = int((whole_labels(train_set) >= 0).sum())
    boxed = len(train_set) - whole
    mixed = f"an epoch: {boxed:,} images with boxes, {whole:,} with a label as a whole ({whole / boxed:.1f} to 1)"
    return [
        f"{printable(train_set.name)}: {len(train_set):,} training images with {len(train_set.boxes):,} objects, "
        f"{validation}; {classes}",
        *([mixed] if whole else []),
        f"{Path(how.network).name} at {how.size} x {how.size} px: {millions:.1f} million parameters, {gflop:.1f} GFLOP "
        "an image",
        *([f"starts from {start.name} (sha256 {start.sha256[:12]}...)"] if start is not None else []),
    ]
