"""convert: write a data set in another format, and report what that format cannot hold."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lookonce.choices import choose
from lookonce.commands.arguments import AnyPath, expanded, several
from lookonce.data.dataset import DataPolicy, Dataset, Problem
from lookonce.data.formats.coco import write_coco
from lookonce.data.formats.shards import write_shards
from lookonce.data.formats.voc import write_voc
from lookonce.data.formats.yolo import write_yolo
from lookonce.data.images import image_size
from lookonce.data.read import Format, Whole, read_whole, settle
from lookonce.data.tars import read_bytes, split_tar
from lookonce.errors import UNPRINTABLE, ImageError, UserError, plural
from lookonce.files import alike, is_inside, rename, sweep, temporary

log = logging.getLogger("lookonce")
Target = Literal["voc", "coco", "yolo", "shards"]
IMAGES = {"voc": "JPEGImages", "coco": "images", "yolo": "images"}
"""Folder of the images; shards hold them in their tars."""
WRITERS = {"voc": write_voc, "coco": write_coco, "yolo": write_yolo, "shards": write_shards}


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
    link: bool = False,
) -> Converted:
    """Write a data set, with all its splits, in another format.

    Args:
        data: Data set: its folder, or its COCO .json, data.yaml or obj.data.
        out: New folder.
        format: Format to write: voc, coco, yolo (data.yaml and obj.data), or shards: tars of images with their labels,
            which train, check and evaluate read as they are, also from an address such as s3://bucket/cells.
        labels: Write these classes only, in this order. Images without any of them are kept, without objects.
        read_as: Format of `data`; auto detects it.
        policy: How to handle a box less than half inside its image: drop it, clip it to the image, or error. A box
            at least half inside is clipped.
        link: Make hard links to the images where the disk supports them, instead of copies. They take no space, but a
            program that changes an image in place changes both data sets.
    Returns:
        Converted: what was written, and what the format cannot hold.
    Raises:
        UserError: the data set cannot be read; the folder is not empty; the disk is full.
    """
    data, out = expanded(data), expanded(out)
    labels = None if labels is None else several(labels)
    format = choose(format, get_args(Target), "format")
    if link and format == "shards":
        raise UserError("link: tars hold copies of the images; leave it out")
    if data.is_dir() and out.resolve() != data.resolve() and is_inside(out, data):
        raise UserError(f"{out}: is inside the data set {data}; name a folder outside it")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: already exists; expected a new folder: remove it, or name another")
    whole = read_whole(data, labels, read_as, policy)
    dataset, place = _with_images(whole.dataset)
    settle(dataset.problems, policy, str(data))
    if not len(dataset):
        raise UserError(f"{data}: no image can be read, so there is nothing to convert")
    splits = {
        name: kept
        for name, members in _splits(whole, format).items()
        if len(kept := place[members][place[members] >= 0])
    }
    names = unique_names(dataset)
    _note_outside(dataset, data)
    sweep(out.absolute().parent)
    beside = temporary(out.absolute())
    try:
        if format in IMAGES:
            _copy(dataset, names, beside / IMAGES[format], link)
        WRITERS[format](beside, dataset, names, splits)
        if out.exists():
            out.rmdir()
        rename(beside, out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror or error}; nothing was changed") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    losses = _losses(dataset, format)
    return Converted(out, format, len(dataset), len(dataset.boxes), tuple(splits), losses)


def unique_names(dataset: Dataset) -> list[str]:
    """Return a file name for each image [M] with a unique stem, also where case and the form of accents do not count.

    It has no blanks, which end names in VOC's lists, and no characters that no one sees or that are not UTF-8.
    """
    taken: set[str] = set()
    names: list[str] = []
    for path in dataset.paths.tolist():
        parts = Path(path)
        stem = re.sub(r"\s", "_", UNPRINTABLE.sub("_", parts.stem))
        stem = re.sub(r"\.(xml|jpe?g|png|bmp)$", r"_\1", stem, flags=re.IGNORECASE)
        tries = [stem, f"{UNPRINTABLE.sub('_', parts.parent.name)}_{stem}"]
        free = (name for name in tries if alike(name) not in taken)
        name = next(free, "") or f"{stem}_{len(names)}"
        while alike(name) in taken:
            name += "_"
        taken.add(alike(name))
        names.append(name + parts.suffix)
    return names


def _splits(whole: Whole, format: Target) -> dict[str, NDArray[np.int64]]:
    """Return the splits of the data set; if it has none and the format needs some (names change), those by hash."""
    names = list(whole.splits)
    if format == "coco":  # train2017 is also train there: once is enough
        names = [name for name in names if not any(other != name and other == re.sub(r"\d{4}$", "", name)
                                                   for other in names)]  # fmt: skip
    if format in ("yolo", "shards") and not whole.brought:
        names += whole.training
    found = {name: whole.members(name) for name in names}
    return {name: members for name, members in found.items() if len(members)}


def _with_images(dataset: Dataset) -> tuple[Dataset, NDArray[np.int64]]:
    """Return the data set without files that do not begin like an image, each noted as a problem, and the index in it
    of each image [M], -1 for those left out. A label file may name any file, and only images are copied."""
    problems, keep = list(dataset.problems), np.ones(len(dataset), bool)
    for number, record in enumerate(dataset.records):
        try:
            image_size(record.path)
        except ImageError as error:
            keep[number] = False
            problems.append(Problem(str(dataset.paths[number]), "image unreadable", error.found, "skipped"))
    found = replace(dataset if keep.all() else dataset.select(keep), problems=tuple(problems))
    return found, np.where(keep, keep.cumsum() - 1, -1)


def _note_outside(dataset: Dataset, data: Path) -> None:
    """Warn of images that lie outside the data set: whoever wrote its labels chose them."""
    home = (data if data.is_dir() else data.parent).resolve()
    outside = [path for path in (record.path.resolve() for record in dataset.records) if home not in path.parents]
    if outside:
        log.warning("%s: %s outside its folder copied, the first: %s", data, plural(len(outside), "image"), outside[0])


def _copy(dataset: Dataset, names: list[str], folder: Path, link: bool) -> None:
    folder.mkdir(parents=True)
    for record, name in zip(dataset.records, names, strict=True):
        source = record.path.resolve()
        if split_tar(source):
            (folder / name).write_bytes(read_bytes(source))
        elif not (link and _linked(source, folder / name)):
            shutil.copyfile(source, folder / name)


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        return False
    return True


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
