"""The identity of a run's data: classes in order, the images of each split and a digest of their labels.

The run folder keeps it as data.json. A resumed run compares it with the data it finds: other data under the same path
would give a model with swapped classes, or a score on images that it was trained on.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lookonce.data.dataset import Dataset
from lookonce.errors import UserError
from lookonce.files import write_text

FILE = "data.json"
FORMAT = 1


@dataclass(frozen=True)
class Identity:
    """The data of one run."""

    classes: tuple[str, ...]
    splits: Mapping[str, Mapping[str, str]]
    """For each split its images, by path below the data set, each with a digest of its labels."""

    @staticmethod
    def of(splits: Mapping[str, Dataset]) -> Identity:
        """That of the splits of one data set, by name."""
        [classes] = {part.labels for part in splits.values()}
        return Identity(classes, {name: _digests(part) for name, part in splits.items()})

    def write(self, folder: Path) -> None:
        """Write it into a run folder."""
        about = {"format": FORMAT, "classes": self.classes, "splits": self.splits}
        write_text(folder / FILE, json.dumps(about, indent=0, ensure_ascii=False) + "\n")

    @staticmethod
    def read(folder: Path) -> Identity | None:
        """That of a run folder; None: the run is of an earlier version, which wrote none. Raises UserError."""
        file = folder / FILE
        if not file.exists():
            return None
        try:
            about = json.loads(file.read_bytes())
            if about["format"] != FORMAT:
                raise ValueError(f"format {about['format']}, and this version reads {FORMAT}")
            return Identity(_texts(about["classes"]), {str(k): _pairs(v) for k, v in about["splits"].items()})
        except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{file}: cannot be read ({type(error).__name__}), so it does not say what the run learns from; "
                "remove the file to resume without comparing"
            ) from None

    def difference(self, now: Identity) -> str:
        """What the data has now that the run did not have, in one clause; empty: nothing."""
        if self.classes != now.classes:
            return _classes(self.classes, now.classes)
        for name, before in self.splits.items():
            after = now.splits.get(name, {})
            gone, new = [f for f in before if f not in after], [f for f in after if f not in before]
            changed = [file for file, digest in before.items() if after.get(file, digest) != digest]
            said = [f"{len(files)} {what}, the first: {files[0]}" for what, files in
                    (("are gone", gone), ("are new", new), ("have other labels", changed)) if files]  # fmt: skip
            if said:
                return f"of the images of split {name!r} {'; '.join(said)}"
            if list(before) != list(after):
                return f"the images of split {name!r} are in another order"
        return ""


def _classes(before: tuple[str, ...], after: tuple[str, ...]) -> str:
    if len(before) != len(after):
        return (
            f"the run has {len(before)} classes ({_listed(before)}), the data now has {len(after)} ({_listed(after)})"
        )
    index, was, now = next((i, b, a) for i, (b, a) in enumerate(zip(before, after, strict=True)) if b != a)
    return f"class {index} was {was!r}, the data now has {now!r}"


def _listed(names: tuple[str, ...], most: int = 10) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _digests(dataset: Dataset) -> dict[str, str]:
    """A digest of each image's boxes, classes and difficult flags, by its path."""
    found: dict[str, str] = {}
    for path, record in zip(dataset.paths.tolist(), dataset.records, strict=True):
        content = hashlib.blake2b(digest_size=6)
        for values, kind in ((record.boxes, "<f4"), (record.labels, "<i8"), (record.difficult, "u1")):
            content.update(values.astype(kind).tobytes())
        found[path] = content.hexdigest()
    return found


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("names")
    return tuple(values)


def _pairs(values: Any) -> dict[str, str]:
    if not all(isinstance(value, str) for value in values.values()):
        raise TypeError("digests")
    return dict(values)


log = logging.getLogger("lookonce")
