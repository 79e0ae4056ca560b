"""convert: write a data set in another format, and report what that format cannot hold."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lookonce.choices import choose
from lookonce.commands.arguments import AnyPath, expanded, several
from lookonce.data.dataset import DataPolicy, Dataset
from lookonce.data.formats.coco import write_coco
from lookonce.data.formats.voc import write_voc
from lookonce.data.formats.yolo import write_yolo
from lookonce.data.read import Format, Whole, read_whole, settle
from lookonce.errors import UserError
from lookonce.files import is_inside, sweep, temporary

Target = Literal["voc", "coco", "yolo"]
IMAGES = {"voc": "JPEGImages", "coco": "images", "yolo": "images"}
WRITERS = {"voc": write_voc, "coco": write_coco, "yolo": write_yolo}


@dataclass(frozen=True)
class Converted:
    """A data set that was written in another format."""

    path: Path
    format: Target
    images: int
    objects: int
    splits: tuple[str, ...]
    losses: tuple[str, ...]
    """What the format cannot hold, with counts."""

    def __str__(self) -> str:
        line = f"{self.path}: {self.images} images with {self.objects} objects as {self.format}"
        return "\n".join((line + (f"; splits {', '.join(self.splits)}" if self.splits else ""), *self.losses))


def convert(
    data: AnyPath,
    out: AnyPath,
    *,
    format: Target,
    labels: Sequence[str] | None = None,
    read_as: Format = "auto",
    policy: DataPolicy = "drop",
) -> Converted:
    """Write a data set, with all its splits, in another format.

    Args:
        data: Data set: its folder, or its COCO .json, data.yaml or obj.data.
        out: New folder. Its images are hard links to the old ones where the disk supports them, else copies.
        format: Format to write: voc, coco, or yolo (data.yaml and obj.data).
        labels: Write these classes only, in this order. Images without any of them are kept, without objects.
        read_as: Format of `data`; auto detects it.
        policy: How to handle a box less than half inside its image: drop it, clip it to the image, or error. A box
            at least half inside is clipped.
    Returns:
        Converted: what was written, and what the format cannot hold.
    Raises:
        UserError: the data set cannot be read; the folder is not empty; the disk is full.
    """
    data, out = expanded(data), expanded(out)
    labels = None if labels is None else several(labels)
    format = choose(format, get_args(Target), "format")
    if data.is_dir() and out.resolve() != data.resolve() and is_inside(out, data):
        raise UserError(f"{out}: is inside the data set {data}; name a folder outside it")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: already exists; expected a new folder: remove it, or name another")
    whole = read_whole(data, labels, read_as, policy)
    settle(whole.dataset.problems, policy, str(data))
    if not len(whole.dataset):
        raise UserError(f"{data}: no image can be read, so there is nothing to convert")
    splits = _splits(whole, format)
    names = unique_names(whole.dataset)
    sweep(out.absolute().parent)
    beside = temporary(out.absolute())
    try:
        _link(whole.dataset, names, beside / IMAGES[format])
        WRITERS[format](beside, whole.dataset, names, splits)
        if out.exists():
            out.rmdir()
        beside.replace(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror or error}; nothing was changed") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    dataset = whole.dataset
    losses = _losses(dataset, format)
    return Converted(out, format, len(dataset), len(dataset.boxes), tuple(splits), losses)


def unique_names(dataset: Dataset) -> list[str]:
    """Return a file name for each image [M] with a unique stem and without blanks, which end names in VOC's lists."""
    taken: set[str] = set()
    names: list[str] = []
    for path in dataset.paths.tolist():
        parts = Path(path)
        stem = re.sub(r"\s", "_", parts.stem)
        stem = re.sub(r"\.(xml|jpe?g|png|bmp)$", r"_\1", stem, flags=re.IGNORECASE)
        tries = [stem, f"{parts.parent.name}_{stem}"]
        free = (name for name in tries if name.lower() not in taken)
        name = next(free, "") or f"{stem}_{len(names)}"
        while name.lower() in taken:
            name += "_"
        taken.add(name.lower())
        names.append(name + parts.suffix)
    return names


def _splits(whole: Whole, format: Target) -> dict[str, NDArray[np.int64]]:
    """Return the splits of the data set; if it has none and YOLO needs some, those by hash."""
    names = list(whole.splits)
    if format == "coco":  # train2017 is also train there: once is enough
        names = [name for name in names if not any(other != name and other == re.sub(r"\d{4}$", "", name)
                                                   for other in names)]  # fmt: skip
    if format == "yolo" and not whole.brought:
        names += whole.training
    found = {name: whole.members(name) for name in names}
    return {name: members for name, members in found.items() if len(members)}


def _link(dataset: Dataset, names: list[str], folder: Path) -> None:
    folder.mkdir(parents=True)
    for record, name in zip(dataset.records, names, strict=True):
        source = record.path.resolve()
        try:
            os.link(source, folder / name)
        except OSError:
            shutil.copyfile(source, folder / name)


def _losses(dataset: Dataset, format: Target) -> tuple[str, ...]:
    """Return what the format cannot hold, one sentence each."""
    crowd = 0 if dataset.crowd is None else int(dataset.crowd.sum())
    hard = int(dataset.difficult.sum()) - crowd
    found = []
    if format == "yolo" and hard:
        found.append(f"{hard} difficult objects are written as ordinary objects: YOLO text cannot mark them")
    if format == "yolo" and crowd:
        found.append(f"{crowd} crowd boxes are written as ordinary objects: YOLO text cannot mark them")
    if format == "coco" and hard:
        found.append(f"{hard} difficult objects are marked ignore: 1, which not every program reads")
    if format == "voc" and crowd:
        found.append(f"{crowd} crowd boxes are written as difficult objects: VOC cannot mark them")
    if format == "voc":
        thin = int(((dataset.boxes[:, 2:] - dataset.boxes[:, :2]) <= 1).any(1).sum())
        if thin:
            found.append(f"{thin} boxes are at most 1 px wide or high: in VOC they have no area")
        present = set(np.unique(dataset.classes).tolist())
        without = [name for n, name in enumerate(dataset.labels) if n not in present]
        if without:
            found.append(f"{len(without)} classes without objects are lost, VOC lists none: {', '.join(without)}")
    return tuple(found)
