"""What lies among the labelled files of a data set and is not read: counted, so that nothing is left out silently."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from lookonce.data.finding import Folders, told_from
from lookonce.data.gathering import Gathering
from lookonce.data.pictures import PICTURE_SUFFIXES

SIDE_FILES = frozenset({".txt", ".xml", ".json", ".csv", ".yaml", ".yml", ".md", ".cache", ".npy", ".names", ".labels"})
"""Endings beside which a file of the same stem is no image."""
RAW = frozenset({".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".raw", ".psd",
                 ".svg", ".dcm", ".exr", ".jxl", ".nii", ".mp4", ".mov", ".avi"} - PICTURE_SUFFIXES)  # fmt: skip
"""Endings of images and videos of other kinds."""


def note_leftovers(
    found: Gathering, folders: Folders, is_label: Callable[[Path], bool] | None = None, unlabelled: bool = True
) -> None:
    """Note label files without an image, images without annotation, and files that may be images of another kind.

    Args:
        found: the data set, read.
        folders: what exists.
        is_label: whether a .txt file holds YOLO labels; none: other annotations noted already that have no image.
        unlabelled: note images that no annotation names; False: they have been noted already.
    """
    root = found.root
    images = {root / folder for folder in {path.rpartition("/")[0] for path in found.paths}}
    labels = {Path(folder) for folder in {os.path.dirname(file) for file in found.files}}
    if unlabelled:
        _note_unlabelled(found, folders, images)
    if is_label is not None:
        _note_orphans(found, folders, images, labels, is_label)
    _note_foreign(found, folders, images | labels)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES


def _note_unlabelled(found: Gathering, folders: Folders, images: Iterable[Path]) -> None:
    """Images beside annotated ones that nothing annotates: one problem a folder."""
    used = set(found.paths)
    for folder in sorted(images):
        inside = told_from(folder, found.root)
        paths = [name if inside == "." else f"{inside}/{name}" for name in folders.named(folder) if _is_image(name)]
        left = [path for path in paths if path not in used and not _noted(found, path)]
        if left:
            said = f"{_images(len(left))} without annotation, the first: {left[0]}"
            found.problem("", (folder, 0), "image without annotation", said, "left out", times=len(left))


def _noted(found: Gathering, path: str) -> bool:
    """Whether a problem of this image is noted, under its path or its stem."""
    stem = os.path.splitext(path)[0]
    return bool(found.noted & {path, stem, Path(stem).name})


def _note_orphans(found: Gathering, folders: Folders, images: Iterable[Path], labels: Iterable[Path],
                  is_label: Callable[[Path], bool]) -> None:  # fmt: skip
    """Label files, beside ones that are used, whose image is nowhere."""
    used = {os.fspath(file) for file in found.files}
    stems = {
        folder: {os.path.splitext(name)[0] for name in folders.named(folder) if _is_image(name)} for folder in images
    }
    for folder in sorted(labels):
        beside = [place for place in stems if _belongs(place, folder)] or stems
        there = set().union(*(stems[place] for place in beside))
        for name in folders.named(folder):
            stem, ending = os.path.splitext(name)
            orphan = ending.lower() == ".txt" and stem not in there and os.path.join(folder, name) not in used
            if orphan and is_label(folder / name):
                found.problem(
                    "", (folder / name, 0), "picture missing", f"no image {stem}.* for this label file", "skipped"
                )


def _belongs(images: Path, labels: Path) -> bool:
    """Whether a folder of labels may be that of a folder of images: the same, or labels/ in place of images/."""
    return images == labels or [p for p in labels.parts if p != "labels"] == [
        p for p in images.parts if p not in ("images", "JPEGImages")
    ]


def _note_foreign(found: Gathering, folders: Folders, places: Iterable[Path]) -> None:
    """Files of a labelled stem, or beside labelled images, whose ending is none of an image that is read."""
    missing = {
        os.path.splitext(p.place.rpartition("/")[2])[0] for _, p in found.problems if p.kind == "picture missing"
    }
    counts: dict[str, list[str]] = defaultdict(list)
    for folder in sorted(places):
        for name in folders.named(folder):
            stem, ending = os.path.splitext(name)
            if ending.lower() in RAW or (stem in missing and ending and ending.lower() not in SIDE_FILES
                                         and not _is_image(name)):  # fmt: skip
                counts[ending.lower()].append(told_from(folder / name, found.root))
    for ending, files in counts.items():
        said = f"{len(files)} {ending} {'file' if len(files) == 1 else 'files'}"
        found.problem("", (found.root / files[0], 0), "file not read", said, "ignored", times=len(files))


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"
