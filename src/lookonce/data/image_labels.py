"""Images that are labelled as a whole: a folder with one sub-folder of images for each class, without boxes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lookonce.data.dataset import DataPolicy, Dataset, Problem
from lookonce.data.images import IMAGE_SUFFIXES, inspect
from lookonce.data.lookup import walk_files
from lookonce.data.read import settle
from lookonce.errors import ImageError, UserError

EXPECTED = "one sub-folder of images for each class, named as the class: FOLDER/terrier/*.jpg"


def read_image_labels(folder: Path | str, policy: DataPolicy = "drop", workers: int = 8) -> Dataset:
    """Read a folder of images that are labelled as a whole; the header of every image is read.

    Args:
        folder: its sub-folders are the classes; images may lie deeper in them.
        policy: error refuses a folder with problems; else the images concerned are left out.
        workers: threads.
    Returns:
        Dataset without boxes, its classes sorted by name, the class of each image in image_labels.
    Raises:
        UserError: no such folder, or no image in a sub-folder.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; expected {EXPECTED}")
    files = (Path(inside, name).relative_to(root) for inside, names in walk_files(root) for name in names)
    places = sorted(place for place in files if place.suffix.lower() in IMAGE_SUFFIXES)
    loose = [place for place in places if len(place.parts) == 1]
    places = [place for place in places if len(place.parts) > 1]
    if not places:
        raise UserError(f"{root}: no image in a sub-folder; expected {EXPECTED}")
    labels = tuple(sorted({place.parts[0] for place in places}))
    problems = [Problem(str(place), "image without a class", "it is in no sub-folder", "skipped") for place in loose]
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(_size, (root / place for place in places)))
    problems += [Problem(place.as_posix(), "image unreadable", size, "skipped")
                 for place, size in zip(places, found, strict=True) if isinstance(size, str)]  # fmt: skip
    settle(problems, policy, str(root))
    read = [(place, size) for place, size in zip(places, found, strict=True) if not isinstance(size, str)]
    if not read:
        raise UserError(f"{root}: not one of {len(places)} images can be read")
    number = {name: n for n, name in enumerate(labels)}
    return Dataset(
        root.resolve().name, root, labels, np.array([place.as_posix() for place, _ in read], np.str_),
        np.array([size for _, size in read], np.int32), np.zeros(len(read) + 1, np.int64),
        np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool), tuple(problems),
        image_labels=np.array([number[place.parts[0]] for place, _ in read], np.int64),
    )  # fmt: skip


def _size(path: Path) -> tuple[int, int] | str:
    try:
        return inspect(path)
    except ImageError as error:
        return error.found


def join(boxed: Dataset, labelled: Dataset) -> Dataset:
    """Return the images of both, of the same classes: those with boxes first, then those labelled as a whole."""
    assert boxed.labels == labelled.labels
    places = [_from_root(labelled.root / path, boxed.root) for path in labelled.paths.tolist()]
    return replace(
        boxed,
        paths=np.concatenate((boxed.paths, np.array(places, np.str_))),
        sizes=np.concatenate((boxed.sizes, labelled.sizes)),
        first=np.concatenate((boxed.first, np.full(len(labelled), boxed.first[-1]))),
        problems=(*boxed.problems, *labelled.problems),
        image_labels=np.concatenate((whole_labels(boxed), whole_labels(labelled))),
    )


def whole_labels(dataset: Dataset) -> NDArray[np.int64]:
    """Return [M] the class of each image that is labelled as a whole, else -1."""
    return np.full(len(dataset), -1) if dataset.image_labels is None else dataset.image_labels


def _from_root(path: Path, root: Path) -> str:
    """Return a path relative to a data set's root, or absolute outside of it."""
    absolute, base = path.absolute(), root.absolute()
    return (absolute.relative_to(base) if absolute.is_relative_to(base) else absolute).as_posix()
