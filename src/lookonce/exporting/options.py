"""What may be asked of an export. A format reads what concerns it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Choices of an export, whatever its format."""

    folded: bool = False
    """Batch norm folded into the convolutions."""
