"""What a run folder keeps of its run: the configuration (config.yaml) and the identity of its data (data.json).

A resumed run compares that identity with the data that it finds: other data under the same path would give a model with
exchanged classes, or a score on images that it was trained on.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from lookonce.choices import check_types, settle_names
from lookonce.data.dataset import DataPolicy, Dataset
from lookonce.errors import ConfigError, UserError
from lookonce.files import write_text
from lookonce.training.recipes import Settings

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]
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
    workers: int = 0
    device: Device = "auto"
    precision: Precision = "auto"
    deterministic: bool = False
    checkpoint_minutes: float = 5.0
    weights: str | None = None
    settings: Settings = Settings()  # noqa: RUF009 - frozen
    keep_last: bool = False

    def __post_init__(self) -> None:
        settle_names(self)
        check_types(self)
        if not 0 < self.checkpoint_minutes < math.inf:
            raise ConfigError(f"checkpoint-minutes: {self.checkpoint_minutes}; expected above 0")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed: {self.seed}; expected a whole number from 0 to 4294967295")
        if not 0 <= self.workers <= MAX_WORKERS:
            raise ConfigError(f"workers: {self.workers}; expected 0 to {MAX_WORKERS}")

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
            flat = yaml.safe_load(content.decode("utf-8"))
            own = {f.name: flat.pop(f.name) for f in fields(RunConfig) if f.name not in ("settings", "keep_last")}
            own["keep_last"] = flat.pop("keep_last", False)  # not in every file of version 0.1
            own["labels"] = None if own["labels"] is None else tuple(own["labels"])
            return RunConfig(**own, settings=Settings.from_plain(flat))
        except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"{place}: cannot be read as the config.yaml of a run ({reason(error)}); correct it, or start a new "
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
        digests[path] = content.hexdigest()
    return digests
