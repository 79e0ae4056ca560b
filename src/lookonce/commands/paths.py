"""Paths as commands take them: text or Path, with `~` for the home folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

AnyPath = Annotated[Path | str, Parameter(metavar="PATH")]
"""A path in the signature of a command."""


def expanded(path: Path | str) -> Path:
    """Return a path with `~` replaced by the home folder."""
    return Path(path).expanduser()
