"""models: list the published models, and which are downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookonce.console import rendered
from lookonce.data.download import mismatch
from lookonce.inference import pretrained_models
from lookonce.inference.pretrained_models import DEFAULT, PretrainedModel, models_folder

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class ModelTable:
    """The published models."""

    models: tuple[PretrainedModel, ...]
    downloaded: frozenset[str]
    """Names of those that the cache folder has, whole and unchanged."""
    folder: Path

    def to_json(self) -> list[dict[str, Any]]:
        """Return all that is known of each model."""
        return [
            {
                "name": model.name, "network": model.network, "classes": model.classes, "side": model.side,
                "map50": model.map50, "map_source": model.map_source, "prefix": model.prefix,
                "bytes": max(model.weights.sizes), "checksum": model.weights.checksum, "source": model.weights.source,
                "mirrors": model.weights.mirrors, "file": str(model.path), "downloaded": model.name in self.downloaded,
            }
            for model in self.models
        ]  # fmt: skip

    def __rich__(self) -> Table:
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
        for heading in ("name", "MB", "input", "mAP50", "what it is", "here"):
            right = heading in ("MB", "input", "mAP50")
            table.add_column(heading, justify="right" if right else "left", no_wrap=True)
        for model in self.models:
            what = "80 classes of COCO" if model.prefix is None else f"{model.prefix} layers of {model.network}"
            score = "" if model.map50 is None else f"{100 * model.map50:.1f}"
            here = "yes" if model.name in self.downloaded else ""
            megabytes = f"{max(model.weights.sizes) / 1e6:,.1f}"
            table.add_row(model.name, megabytes, str(model.side), score, what, here)
        return table

    def __str__(self) -> str:
        return "\n".join((
            rendered(self, 100, blank_lines=False),
            f"{DEFAULT} is {self.models[0].name}. Naming a model downloads it once into",
            f"{self.folder}:",
            f"  lookonce detect {DEFAULT} photo.jpg        lookonce train DATA --weights {DEFAULT}",
        ))  # fmt: skip


def models() -> ModelTable:
    """List the published models, and which are downloaded.

    Returns:
        The table.
    """
    known = pretrained_models.MODELS
    there = frozenset(model.name for model in known if mismatch(model.path, model.weights) is None)
    return ModelTable(known, there, models_folder())
