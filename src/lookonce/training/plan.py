"""The plan of a run: what is trained on what, and how; its config.yaml, and back."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from lookonce.choices import settle_names
from lookonce.data.voc import DataPolicy
from lookonce.errors import ConfigError
from lookonce.training.recipes import Settings
from lookonce.typed import check_types

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
