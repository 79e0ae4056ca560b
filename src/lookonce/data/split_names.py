"""What the names of lists, files and folders say of splits: train2017, valid, cells_test, images/val."""

from __future__ import annotations

import re
from collections.abc import Sequence

WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "eval": "val", "evaluation": "val", "test": "test", "testing": "test", "holdout": "test",
}  # fmt: skip
"""Word in a name -> the split that it means."""
PLAIN = frozenset({
    "annotation", "annotations", "annots", "anns", "all", "box", "boxes", "bbox", "coco", "custom", "darknet",
    "data", "dataset", "default", "detection", "export", "file", "files", "image", "images", "img", "imgs",
    "instances", "jpg", "jpeg", "jpegimages", "json", "label", "labels", "list", "lists", "obj", "object",
    "objects", "photos", "pictures", "png", "result", "results", "set", "sets", "split", "splits", "txt", "via",
    "voc", "whole", "xml", "xmls", "yolo",
})  # fmt: skip
"""Words that say nothing of a split: what a folder or file holds."""


def words_of(name: str) -> list[str]:
    """The words of a name, in lower case: cellsTrain_2017 -> cells, train."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def split_word(name: str) -> str | None:
    """The split that a name speaks of: cells_train -> train; None: none, or more than one."""
    if name in WORDS.values():
        return name
    found = {WORDS[word] for word in words_of(name) if word in WORDS}
    return found.pop() if len(found) == 1 else None


def is_plain(name: str) -> bool:
    """Whether a name only says what a file or folder holds: annotations, obj_data, _annotations.coco."""
    return not set(words_of(name)) - PLAIN and bool(words_of(name))


def is_split(name: str) -> bool:
    """Whether a folder's name only says which split it holds: train, val2017, test_images."""
    rest = [word for word in words_of(name) if word not in PLAIN]
    return len(rest) == 1 and rest[0] in WORDS


def folder_split(folders: Sequence[str]) -> str | None:
    """The split of a file by its folders from the root, named by what is not plain: images/train -> train,
    fold1/val/images -> fold1/val; None: no folder of it names one."""
    for at, folder in enumerate(folders):
        if is_split(folder):
            return "/".join(name for name in (*folders[:at], folder) if not is_plain(name))
    return None


def contradict(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two paths, as their folders, lie in different splits."""
    first, second = ({split_word(folder) for folder in folders if is_split(folder)} for folders in (one, other))
    return bool(first and second and not first & second)
