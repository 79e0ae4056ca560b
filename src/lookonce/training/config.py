"""The configuration of a run: what is trained on what, and how. A run folder keeps it as config.yaml."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from lookonce.choices import check_types, settle_names
from lookonce.data.dataset import DataPolicy
from lookonce.errors import ConfigError
from lookonce.training.recipes import Settings

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]
MAX_WORKERS = 256
MAX_BYTES = 100_000
"""Largest config.yaml that is read; one has about 2,000 bytes."""


@dataclass(frozen=True)
class RunConfig:
    """What is trained on what, and how."""

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
            own["keep_last"] = flat.pop("keep_last", False)  # version 0.1 did not always write it
            own["labels"] = None if own["labels"] is None else tuple(own["labels"])
            return RunConfig(**own, settings=Settings.from_plain(flat))
        except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            said = "" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]
            said = "".join(letter if letter.isprintable() else "?" for letter in said)
            raise ConfigError(
                f"{place}: cannot be read as the config.yaml of a run ({said or type(error).__name__}); correct it, or "
                f"start a new run from the best model: lookonce train DATA --weights {place.parent}"
            ) from None


def plain(value: Any) -> Any:
    """Return a value with its tuples as lists, for YAML and JSON."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value
