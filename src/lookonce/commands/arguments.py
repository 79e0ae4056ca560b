"""Arguments as commands take them: paths as text or Path, with `~` for the home folder, and one name or several."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TypeVar

from cyclopts import Parameter

from lookonce.errors import ConfigError

MODEL_SUFFIXES = (".safetensors", ".cfg", ".weights", ".onnx")
Item = TypeVar("Item", bound=str | Path)
AnyPath = Annotated[Path | str, Parameter(metavar="PATH")]
"""A path in the signature of a command."""


def expanded(path: Path | str) -> Path:
    """Return a path with `~` replaced by the home folder."""
    return Path(path).expanduser()


def several(given: Item | Iterable[Item]) -> tuple[Item, ...]:
    """Return names or paths as a tuple, also if there is only one: text is one name, not its letters."""
    return (given,) if isinstance(given, str | Path) else tuple(given)


def check_order(model: Path, other: Path, usage: str) -> None:
    """Raise ConfigError if the second of two arguments is a model and the first is none. usage: the right order."""
    if not is_model(model) and is_model(other):
        raise ConfigError(f"{model}: not a model, but {other} is one; the model comes first: {usage}")


def is_model(path: Path) -> bool:
    """Return whether a path is a model, by its ending or by what its folder holds."""
    return path.suffix in MODEL_SUFFIXES or (path / "model.safetensors").is_file()
