"""What may be asked of an export, and what it gives. A format reads what concerns it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """Choices of an export, whatever its format."""

    folded: bool = False
    """Batch norm folded into the convolutions."""
    raw: bool = False
    """The network alone, to its raw map."""
    half: bool = False
    """Weights as 16-bit floats."""
    int8: bool = False
    """Convolutions in 8 bits."""
    max_drop: float | None = None
    """mAP on the validation pictures that int8 may cost; None: as exporting.int8 has it."""
    data: Path | None = None
    """Pictures to compare the file with the model on; a labelled data set for int8."""


@dataclass(frozen=True)
class Exported:
    """What `lookonce export` wrote."""

    files: tuple[Path, ...]
    parity: str = ""
    """How far the file is from the model, as a table."""
    accuracy: str = ""
    """What it costs in mAP, where that is not nothing."""

    def __str__(self) -> str:
        return "\n".join([*map(str, self.files), *filter(None, [self.accuracy, self.parity])])
