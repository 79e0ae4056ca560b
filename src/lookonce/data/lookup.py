"""Path lookup: which split a name means (train2017, valid, cells_test), and which file a written path means here.

Paths in data sets are often written for other folders and machines: other roots, other slashes.
"""

from __future__ import annotations

import glob
import os
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import TypeAlias

from lookonce.data.images import IMAGE_SUFFIXES
from lookonce.errors import UserError
from lookonce.files import alike

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
"""Words that say nothing about a split: what a folder or file holds."""


def words_of(name: str) -> list[str]:
    """Return the words of a name, in lower case: cellsTrain_2017 -> cells, train."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def split_word(name: str) -> str | None:
    """Return the split that a name means: cells_train -> train; None: none, or more than one."""
    if name in WORDS.values():
        return name
    found = {WORDS[word] for word in words_of(name) if word in WORDS}
    return found.pop() if len(found) == 1 else None


def is_plain(name: str) -> bool:
    """Return whether a name only describes content: annotations, obj_data, _annotations.coco."""
    return not set(words_of(name)) - PLAIN and bool(words_of(name))


def is_split(name: str) -> bool:
    """Return whether a folder's name only names a split: train, val2017, test_images."""
    rest = [word for word in words_of(name) if word not in PLAIN]
    return len(rest) == 1 and rest[0] in WORDS


def folder_split(folders: Sequence[str]) -> str | None:
    """Return the split of a file by its folders from the root: images/train -> train, fold1/val/images -> fold1/val.

    None: no folder of it names one.
    """
    for at, folder in enumerate(folders):
        if is_split(folder):
            return "/".join(name for name in (*folders[:at], folder) if not is_plain(name))
    return None


def contradict(one: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether two paths, given as their folders, belong to different splits."""
    first, second = ({split_word(folder) for folder in folders if is_split(folder)} for folders in (one, other))
    return bool(first and second and not first & second)


MAX_PARTS = 64
"""Folders in a path; no system allows many more."""
IMAGE_FOLDERS = ("", "images", "JPEGImages", "Images", "data")
"""Folders that hold images, in the data set's own and in the one above it."""
SECTIONS = re.compile(r"annot|label|xml|json|image|img|jpeg|obj|photo|picture|frame", re.IGNORECASE)
"""How a folder's name begins that holds annotations or images of a data set, and no data set of its own."""


class Folders:
    """Which files exist, from one listing of each folder, since a data set asks for as many files as it has images.

    root: below it an image may also be found by its name alone; None: nowhere. shared: names in lower case that several
    images have, so that the name alone is ambiguous.
    """

    def __init__(self, root: Path | None = None, shared: Collection[str] = ()) -> None:
        self._root, self._shared = root, shared
        self._by_name: dict[str, Path | None] | None = None
        self._names: dict[str, dict[str, str]] = {}
        self._same: dict[str, dict[str, str]] = {}
        self._worked: dict[tuple[str, tuple[Path, ...], bool], tuple[str, int]] = {}

    def has(self, path: Path) -> bool:
        """Return whether a file or folder exists."""
        return path.name in self._listing(str(path.parent))

    def names_in(self, folder: Path) -> list[str]:
        """Return the names in a folder, sorted, without hidden ones; empty where there is no such folder."""
        return sorted(name for name in self._listing(str(folder)) if not name.startswith("/") and not is_hidden(name))

    def by_name(self, text: str, image: bool = True) -> Path | None:
        """Return the file below the root of this name, in any case, if only one has it: the last resort.

        A file in the folder of another split than the path names is not meant. image: accept an image of the same stem
        and another ending.
        """
        parts = split_path(text)
        if self._root is None or not parts or parts[-1].lower() in self._shared:
            return None
        if self._by_name is None:
            self._by_name = _by_name(self._root)
        stem = os.path.splitext(parts[-1])[0]
        found = self._by_name.get(alike(parts[-1]))
        if image and (found is None or found.suffix.lower() not in IMAGE_SUFFIXES):
            found = self._by_name.get("/" + alike(stem))
        if found is None or contradict(parts[:-1], found.relative_to(self._root).parts[:-1]):
            return None
        return found

    def _listing(self, folder: str) -> dict[str, str]:
        """Return the names in a folder, and the images among them by "/stem"."""
        if folder not in self._names:
            found = {}
            try:
                for name in sorted(os.listdir(folder), reverse=True):
                    found[name] = name
                    stem, ending = os.path.splitext(name)
                    if ending.lower() in IMAGE_SUFFIXES and not is_hidden(name):
                        found["/" + stem] = name
            except (OSError, ValueError):
                pass  # no such folder
            self._names[folder] = found
        return self._names[folder]

    def _alike(self, folder: str) -> dict[str, str]:
        """Return the listing of a folder by files.alike."""
        if folder not in self._same:
            self._same[folder] = {alike(key): name for key, name in self._listing(folder).items()}
        return self._same[folder]

    def resolve(self, text: str, bases: Sequence[Path], image: bool = False) -> Path | None:
        """Return the file or folder that a written path means here; None: nothing has that name.

        Tried in order: the path itself if it is absolute; below each base; below each base without its first folder,
        its first two, and so on, because lists may be relative to another folder or written on another machine. What
        worked for the last path of the same folder and bases is tried first, the bare name of an image last.

        Args:
            bases: folders it may be relative to.
            image: only a file with the ending of an image is meant, also one of the same stem and another ending
                (.JPG, .png).
        """
        parts = split_path(text)
        if not parts or len(parts) > MAX_PARTS:
            return None
        anchor, below = anchored(text.strip())
        if anchor and (found := self._there(anchor, below, image)):
            return found
        key = ("/".join(parts[:-1]), tuple(bases), image)
        if key in self._worked:
            base, drop = self._worked[key]
            if found := self._there(base, parts[drop:], image):
                return found
        for same in (False, True):  # as written, else as systems that ignore case and accents would read it
            listings = [(base, self._alike(base) if same else self._listing(base)) for base in map(str, bases)]
            there = [(base, names) for base, names in listings if names or ".." in parts]
            for drop, head in enumerate(parts):
                first = alike(head) if same else head
                stem = "/" + os.path.splitext(first)[0] if image and drop == len(parts) - 1 else first
                for base, names in there:
                    if (first in names or stem in names or head == "..") and (
                        found := self._there(base, parts[drop:], image, same)
                    ):
                        self._worked[key] = base, drop
                        return found
        return self.by_name(text) if image else None

    def _there(self, base: str, parts: list[str], image: bool, same: bool = False) -> Path | None:
        """Return the file at a path below a base. same: its name is only alike."""
        folder = os.path.join(base, *parts[:-1])
        names = self._alike(folder) if same else self._listing(folder)
        last = alike(parts[-1]) if same else parts[-1]
        stem, ending = os.path.splitext(last)
        name = names.get(last) if not image or ending.lower() in IMAGE_SUFFIXES else None
        name = name or (names.get("/" + stem) if image else None)
        return Path(base, *parts[:-1], name) if name else None


def anchored(text: str, kind: type[PurePath] = PurePath) -> tuple[str, list[str]]:
    """Return (root, parts below it) of an absolute path of this machine; on Windows the root has a drive or a server.

    The root is empty for any other path. kind: of paths; for tests.
    """
    path = kind(text)
    return (path.anchor, list(path.parts[1:])) if path.is_absolute() and path.parts[1:] else ("", [])


def _by_name(root: Path) -> dict[str, Path | None]:
    """Return the files below a folder by name, images also by "/stem", as files.alike has them; None: several."""
    found: dict[str, Path | None] = {}
    for folder, names in walk_files(root):
        for name in names:
            stem, ending = os.path.splitext(alike(name))
            for key in (alike(name), *(["/" + stem] if ending in IMAGE_SUFFIXES else [])):
                found[key] = None if key in found else Path(folder, name)
    return found


Sections: TypeAlias = Sequence[tuple[Path, list[str]]]
"""Folders, and names of the files in each."""


def sections(root: Path) -> Sections:
    """Return the folders that may hold a data set's annotations, with the files in each.

    These are the data set's own folder, folders named after a split (train, valid) or after what they hold
    (Annotations, labels), and the folders in the latter.
    """
    return [(Path(folder), names) for folder, names in walk_files(root, _is_section)]


def _is_section(parts: tuple[str, ...]) -> bool:
    for part in parts:
        if SECTIONS.match(part):
            return True
        if not is_split(part):
            return False
    return True


def split_path(text: str) -> list[str]:
    """Return the parts of a path of any machine: both slashes, no drive, no "." and no root."""
    clean = re.sub(r"^[A-Za-z]:", "", text.strip().replace("\\", "/"))
    return [part for part in clean.split("/") if part not in ("", ".") and "\0" not in part]


def image_folders(root: Path, more: Iterable[str] = ()) -> list[Path]:
    """Return the folders that may hold a data set's images: its own, the one above, and image folders in both."""
    return [place / name for place in (root, root.absolute().parent) for name in (*IMAGE_FOLDERS, *more)]


def relative_path(path: Path, root: Path) -> str:
    """Return a path as a Dataset keeps it: relative to root, with forward slashes; absolute on another drive."""
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    try:
        return Path(os.path.relpath(path, root)).as_posix()
    except ValueError:
        return path.absolute().as_posix()


def find_images(pattern: Path | str) -> list[str]:
    """Return the image files that a path or pattern means, sorted: a file, a folder and those below, or "some/*.jpg".

    The name of an existing file or folder is never a pattern, even with `[1]` in it. Paths are text: a million take
    about 100 MB. Raises UserError if there is none.
    """
    path = Path(pattern).expanduser()
    if path.is_file():
        return [str(path)]
    if path.is_dir():
        found = list(walk_images(path))
    else:
        found = [name for name in glob.glob(_literal_parts(path), recursive=True) if os.path.isfile(name)]
        if not found:  # "photo[1]*.jpg"
            plain = str(path).replace("[", "[[]")
            found = [name for name in glob.glob(plain, recursive=True) if os.path.isfile(name)]
    if not found:
        raise UserError(
            f"{pattern}: no images there; expected a file, a folder of images, or a pattern like 'dir/*.jpg'"
        )
    return sorted(found)


def _literal_parts(path: Path) -> str:
    """Return the pattern with every folder that exists under its own name escaped."""
    base, parts = Path(path.anchor), path.parts[bool(path.anchor) :]
    escaped = []
    for part in parts:
        base = base / part
        escaped.append(glob.escape(part) if base.exists() else part)
    return os.path.join(path.anchor, *escaped)


def is_hidden(name: str) -> bool:
    """Return whether a name is hidden: it begins with a dot, or is macOS's __MACOSX."""
    return name.startswith(".") or name == "__MACOSX"


def walk_files(
    root: Path | str, enters: Callable[[tuple[str, ...]], bool] = lambda _: True
) -> Iterator[tuple[str, list[str]]]:
    """Yield (folder, names of its files) of a folder and all below it, both sorted, without hidden names.

    Links to folders are followed after everything else. No folder is visited twice, so loops end.

    Args:
        root: the folder.
        enters: returns whether to enter a folder, given the parts of its path below the root.
    """
    seen: set[str] = set()
    waiting: list[tuple[str, tuple[str, ...]]] = [(str(root), ())]
    links: deque[tuple[str, tuple[str, ...]]] = deque()
    while waiting or links:
        folder, parts = waiting.pop() if waiting else links.popleft()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as listed:
                entries = sorted((entry for entry in listed if not is_hidden(entry.name)), key=lambda e: e.name)
        except OSError:
            continue  # the folder cannot be read
        names: list[str] = []
        below: list[tuple[str, tuple[str, ...]]] = []
        for entry in entries:
            if not _is_folder(entry):
                names.append(entry.name)
            elif enters((*parts, entry.name)):
                (links if entry.is_symlink() else below).append((entry.path, (*parts, entry.name)))
        waiting += reversed(below)
        yield folder, names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def walk_images(root: Path | str) -> Iterator[str]:
    """Yield the image files in a folder and below it, sorted within each folder, as walk_files finds them."""
    for folder, names in walk_files(root):
        for name in names:
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                yield os.path.join(folder, name)
