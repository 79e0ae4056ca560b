"""cache: show or empty the folder of what is computed once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from lookonce.data.tars import mirrors
from lookonce.inference.cache import MOST_BYTES, _count, _entries, _removed, _size, cache_folder


@dataclass(frozen=True)
class Contents:
    """What the cache holds."""

    folder: Path
    entries: tuple[tuple[str, int, float], ...]
    """(what, bytes, last used), the latest first."""
    removed: int | None = None
    """Entries that were removed, where that was asked for."""
    models: int = 0
    """Bytes of published models, which are never removed: delete their files by hand."""
    mirrors: tuple[tuple[Path, str, int], ...] = ()
    """(folder, address, bytes) of data sets read from an address, which stay too: a training may be reading them."""

    def __str__(self) -> str:
        total = sum(size for _, size, _ in self.entries)
        lines = [] if self.removed is None else [f"{_count(self.removed)} removed"]
        for what, size, used in self.entries:
            lines.append(f"{_size(size):>9}  {time.strftime('%Y-%m-%d %H:%M', time.localtime(used))}  {what}")
        state = "" if self.removed is None else ", in use"
        lines.append(f"{self.folder}: {_count(len(self.entries))}{state}, {_size(total)} of {_size(MOST_BYTES)}")
        if self.models:
            lines.append(f"{self.folder / 'models'}: {_size(self.models)} of published models, which stay")
        for folder, address, size in self.mirrors:
            lines.append(f"{folder}: {_size(size)} of images of {address}, which stay; delete the folder to free them")
        return "\n".join(lines)


def cache(*, clear: bool = False) -> Contents:
    """Show or clear the cache folder.

    Networks converted for a backend and features of frozen layers are made again when needed; they take at most 20 GB.
    Published models and images of data sets that were read from an address were downloaded, and stay until you delete
    them. The folder is LOOKONCE_CACHE, or the system's cache folder.

    Args:
        clear: Remove everything that can be made again and is not in use.
    Returns:
        The entries, with size and time of last use.
    """
    removed = sum(_removed(entry) for entry in list(_entries())) if clear else None
    left = sorted(_entries(), key=lambda entry: -entry.used)
    models = sum(file.stat().st_size for file in (cache_folder() / "models").glob("*") if file.is_file())
    entries = tuple((e.what or "not finished", e.size, e.used) for e in left)
    return Contents(cache_folder(), entries, removed, models, tuple(mirrors()))
