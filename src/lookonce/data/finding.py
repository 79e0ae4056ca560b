"""Text files and paths as they are found in the wild: other line ends, other roots, other slashes."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from lookonce.data.pictures import PICTURE_SUFFIXES, is_hidden, walk_files
from lookonce.data.split_names import contradict, is_split
from lookonce.text import Note, read_text

MOST_TEXT = 64 << 20
"""Bytes of a label file or list; a list of a million pictures has half of that."""
MOST_PARTS = 64
"""Folders in a path; no system allows many more."""
HOMES = ("", "images", "JPEGImages", "Images", "data")
"""Folders that hold pictures, in the data set's own and in the one above it."""
SECTIONS = re.compile(r"annot|label|xml|json|image|img|jpeg|obj|photo|picture|frame", re.IGNORECASE)
"""How a folder's name begins that holds annotations or images of a data set, and no data set of its own."""


def read_lines(path: Path, law: str, most: int = MOST_TEXT, note: Note | None = None) -> list[str]:
    """Lines of a text file, whatever ends them. law: what such a file holds, for the error.

    note: takes a sentence where its encoding had to be guessed; None: that is logged.
    Raises UserError for a file that cannot be read, is no text or is larger than `most` bytes.
    """
    return read_text(path, law, most, note).replace("\r\n", "\n").replace("\r", "\n").split("\n")


class Folders:
    """What exists, from one listing a folder: a data set asks for as many files as it has pictures.

    root: below it an image may also be found by its name alone; none: nowhere. shared: names that several images of
    the data set have, in lower case, so that such a name alone means none of them.
    """

    def __init__(self, root: Path | None = None, shared: Collection[str] = ()) -> None:
        self._root, self._shared = root, shared
        self._alone: dict[str, Path | None] | None = None
        self._names: dict[str, dict[str, str]] = {}
        self._worked: dict[tuple[str, tuple[Path, ...], bool], tuple[str, int]] = {}

    def has(self, path: Path) -> bool:
        """Whether a file or folder of this name is there."""
        return path.name in self._listing(str(path.parent))

    def named(self, folder: Path) -> list[str]:
        """Names of what is in a folder, sorted, hidden ones left out; empty where there is no such folder."""
        return sorted(name for name in self._listing(str(folder)) if not name.startswith("/") and not is_hidden(name))

    def image(self, folder: Path, stem: str) -> str | None:
        """Name of the image of this stem in a folder."""
        return self._listing(str(folder)).get("/" + stem)

    def alone(self, text: str, image: bool = True) -> Path | None:
        """The file below the root of this name, in any case, where only one has it: the last resort.

        A file in the folder of another split than the path names is not meant. image: an image of the same stem and
        another ending will do.
        """
        parts = split_path(text)
        if self._root is None or not parts or parts[-1].lower() in self._shared:
            return None
        if self._alone is None:
            self._alone = _by_name(self._root)
        stem = os.path.splitext(parts[-1])[0]
        found = self._alone.get(parts[-1].lower()) or (self._alone.get(f"/{stem}".lower()) if image else None)
        if found is None or contradict(parts[:-1], found.relative_to(self._root).parts[:-1]):
            return None
        return found

    def _listing(self, folder: str) -> dict[str, str]:
        """Names in a folder, and the pictures among them by "/stem"."""
        if folder not in self._names:
            found = {}
            try:
                for name in sorted(os.listdir(folder), reverse=True):
                    found[name] = name
                    stem, ending = os.path.splitext(name)
                    if ending.lower() in PICTURE_SUFFIXES and not is_hidden(name):
                        found["/" + stem] = name
            except (OSError, ValueError):
                pass  # no such folder: nothing is in it
            self._names[folder] = found
        return self._names[folder]

    def resolve(self, text: str, bases: Sequence[Path], picture: bool = False) -> Path | None:
        """A path as a file says it -> the file or folder that it means here; None: nothing of that name.

        Tried in order: an absolute path as it stands; then below each base; then below each base without its
        first part, its first two, and so on: lists are written relative to some other folder, or on another
        machine. What worked for the last path in the same folder and with the same bases is tried first; the name
        of an image alone is tried last.

        Args:
            bases: folders it may be relative to.
            picture: a picture of the same stem and another ending (.JPG, .png) will do.
        """
        parts = split_path(text)
        if not parts or len(parts) > MOST_PARTS:
            return None
        if os.path.isabs(text.strip()) and (found := self._there("/", parts, picture)):
            return found
        key = ("/".join(parts[:-1]), tuple(bases), picture)
        if key in self._worked:
            base, drop = self._worked[key]
            if found := self._there(base, parts[drop:], picture):
                return found
        listed = [(str(base), self._listing(str(base))) for base in bases]
        for drop, head in enumerate(parts):
            last = drop == len(parts) - 1
            stem = "/" + os.path.splitext(head)[0] if picture and last else head
            for base, names in listed:
                if (head in names or stem in names or head == "..") and (
                    found := self._there(base, parts[drop:], picture)
                ):
                    self._worked[key] = base, drop
                    return found
        return self.alone(text) if picture else None

    def _there(self, base: str, parts: list[str], picture: bool) -> Path | None:
        names = self._listing(os.path.join(base, *parts[:-1]))
        name = parts[-1] if parts[-1] in names else names.get("/" + os.path.splitext(parts[-1])[0] if picture else "")
        return Path(base, *parts[:-1], name) if name else None


def _by_name(root: Path) -> dict[str, Path | None]:
    """Files below a folder by name, and images by "/stem", in lower case; None: several have it."""
    found: dict[str, Path | None] = {}
    for folder, names in walk_files(root):
        for name in names:
            stem, ending = os.path.splitext(name.lower())
            for key in (name.lower(), *(["/" + stem] if ending in PICTURE_SUFFIXES else [])):
                found[key] = None if key in found else Path(folder, name)
    return found


Sections: TypeAlias = Sequence[tuple[Path, list[str]]]
"""Folders, and names of the files in each."""


def sections(root: Path) -> Sections:
    """Folders in which a data set's annotations may lie, with the files in each.

    These are the data set's own folder, folders named after a split (train, valid) or after what they hold
    (Annotations, labels), and what lies in the latter.
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
    """Parts of a path of any machine: both slashes, no drive, no "." and no root."""
    clean = re.sub(r"^[A-Za-z]:", "", text.strip().replace("\\", "/"))
    return [part for part in clean.split("/") if part not in ("", ".") and "\0" not in part]


def homes(root: Path, more: Iterable[str] = ()) -> list[Path]:
    """Where a data set's pictures may lie: its folder, the one above, and the folders for pictures in both."""
    return [place / name for place in (root, root.absolute().parent) for name in (*HOMES, *more)]


def told_from(path: Path, root: Path) -> str:
    """A path as a Dataset keeps it: relative to root, with forward slashes; absolute on another drive."""
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    try:
        return Path(os.path.relpath(path, root)).as_posix()
    except ValueError:
        return path.absolute().as_posix()
