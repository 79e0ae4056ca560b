"""export: a detector written for other programs. Each format is a module with a function `write`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lookonce.errors import ConfigError
from lookonce.exporting.options import Options
from lookonce.model_file import Model, load_model

Format = Literal["darknet"]
WRITERS: dict[str, str] = {"darknet": "lookonce.exporting.darknet"}
"""Where each format's `write(model, stem, options)` lives; imported when it is asked for."""

Writer = Callable[[Model, Path, Options], list[Path]]
"""Writes a model beside `stem`, a path without an ending, and says which files it wrote."""


@dataclass(frozen=True)
class Exported:
    """What `lookonce export` wrote."""

    files: tuple[Path, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.files))


def export(
    model: Path,
    format: Format,
    *,
    out: Path | None = None,
    folded: bool = False,
) -> Exported:
    """Write a detector for other programs.

    Args:
        model: a model file, the folder of a run, or a Darknet .cfg beside its .weights.
        format: darknet: .cfg, .weights and .names, for Darknet, OpenCV and what else reads them.
        out: where to write, a name without its ending ("out/cells" gives out/cells.cfg and so on) or a folder that
            exists; none: beside the model, under its name.
        folded: fold batch norm into the convolutions: every reader computes the same, whatever its epsilon.
            For detection only.
    Returns:
        The files written.
    Raises:
        UserError: a model that cannot be read, a file that cannot be written, an export onto the model itself.
    """
    if format not in WRITERS:
        raise ConfigError(f"format: {format!r}; expected one of {', '.join(WRITERS)}")
    source = Path(model).expanduser()
    loaded = load_model(source)
    stem = _stem(source, Path(out).expanduser() if out else None)
    if source.suffix in (".cfg", ".weights") and stem.resolve() == _plain(source).resolve():
        raise ConfigError(f"{source}: the export would overwrite the model itself; give --out")
    write: Writer = importlib.import_module(WRITERS[format]).write
    return Exported(tuple(write(loaded, stem, Options(folded))))


def _plain(path: Path) -> Path:
    """A path without the ending of a model's file; another dot in its name stays."""
    endings = (".cfg", ".weights", ".names", ".safetensors")
    return path.with_suffix("") if path.suffix in endings else path


def _stem(source: Path, out: Path | None) -> Path:
    """Where the files go, without an ending."""
    name = "model" if source.is_dir() else _plain(source).name
    if out is not None:
        return out / name if out.is_dir() else _plain(out)
    return (source if source.is_dir() else source.parent) / name
