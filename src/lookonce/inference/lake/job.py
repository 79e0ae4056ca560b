"""A job on a lake of images: what it computes, and its place on disk, from which every run continues it.

results/lake.json           what is computed, and the digest of the list
results/lists/00012.jsonl   names of the images of shard 12
results/part-00012.parquet  its rows; the shard is done once this file exists
results/ledger.jsonl        what happened: shards begun and done, workers that died
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lookonce.data.tiles import OVERLAP
from lookonce.errors import UserError
from lookonce.files import LOCK, rename, temporary, write_text
from lookonce.inference.backends.settings import BackendName, Precision
from lookonce.inference.lake.listing import Lists, difference, find_names, write_lists
from lookonce.inference.lake.parts import PartFormat
from lookonce.model.postprocess import Nms

FILE, LISTS = "lake.json", "lists"


@dataclass(frozen=True)
class Job:
    """What is computed, as a worker anywhere needs it."""

    model: str
    """A path that every worker sees."""
    digest: str
    """Of the model's files."""
    format: PartFormat
    labels: tuple[str, ...] | None = None
    threshold: float | None = None
    iou_threshold: float = 0.45
    nms: Nms = "iou"
    tree_threshold: float | None = None
    backend: BackendName = "auto"
    device: str | None = None
    precision: Precision = "auto"
    tile: str | None = None
    overlap: float = OVERLAP
    flip: bool = False
    base: str = ""
    """Folder from which relative names start."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON holds them."""
        return asdict(self) | {"labels": None if self.labels is None else list(self.labels)}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Job:
        """Return a job from to_json."""
        labels = found["labels"]
        return cls(**(found | {"labels": None if labels is None else tuple(labels)}))


SAME = ("digest", "format", "labels", "threshold", "iou_threshold", "nms", "tree_threshold", "tile", "overlap", "flip")
"""Fields that decide the rows, apart from the columns that name backend and precision: all runs of a job share them."""


def open_job(folder: Path, job: Job, images: Sequence[str], shards: int | None) -> Lists:
    """Return the lists of a new job, or of the one that the folder holds. The folder is locked.

    Raises UserError for a folder that holds something else, and for a job or a list that has changed.
    """
    before = _read(folder)
    if before is None and (others := sorted(p.name for p in folder.iterdir() if p.name not in (LOCK, LISTS))):
        raise UserError(f"{folder}: holds files already ({others[0]}); give another --out")
    if not any(folder.glob("part-*")):
        before = None  # nothing is done yet, so it may begin anew
    if before is not None:
        _check_same(folder, job, before, shards)
        shards = before["shards"]
    beside = temporary(folder / LISTS)
    try:
        now = write_lists(find_names(images), beside, shards)
        if before is None:
            shutil.rmtree(folder / LISTS, ignore_errors=True)  # of a run that was killed before it wrote lake.json
            rename(beside, folder / LISTS)
            now = replace(now, folder=folder / LISTS)
            about = {"version": 1, "job": job.to_json(), "shards": now.shards, "names": now.names, "list": now.digest}
            write_text(folder / FILE, json.dumps(about, indent=2) + "\n")
            return now
        kept = Lists(folder / LISTS, before["shards"], before["names"], before["list"])
        if now.digest != kept.digest:
            raise UserError(
                f"{folder}: was begun with another list: now {difference(kept, now)}; give the list of then (from the "
                "same folder, if names are relative), or another --out"
            )
        return kept
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _read(folder: Path) -> dict[str, Any] | None:
    """Return lake.json; None: there is none. Raises UserError for a file that is something else."""
    file = folder / FILE
    try:
        found: dict[str, Any] = json.loads(file.read_bytes())
        Job.from_json(found["job"])
        if found["version"] != 1 or not isinstance(found["shards"], int):
            raise ValueError
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{file}: not written by this version of lookonce; give another --out") from None
    return found


def _check_same(folder: Path, job: Job, before: dict[str, Any], shards: int | None) -> None:
    """Refuse a job that would compute other rows than the parts that exist hold."""
    old = Job.from_json(before["job"])
    given: list[tuple[str, Any, Any]] = [(name, getattr(old, name), getattr(job, name)) for name in SAME]
    given.append(("shards", before["shards"], before["shards"] if shards is None else shards))
    for name, then, now in given:
        if then != now:
            word = "model" if name == "digest" else name.replace("_", "-")
            shown = "is another file now" if name == "digest" else f"is {now}"
            was = old.model if name == "digest" else then
            raise UserError(f"{folder}: was begun with {word} {was}, and it {shown}; give what it was begun with, or "
                            "another --out")  # fmt: skip


def place_of(name: str, job: Job) -> str:
    """Return where a name that is no address is read."""
    return os.path.join(job.base, name)
