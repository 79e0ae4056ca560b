"""download: fetch a known file (Pascal VOC, Darknet's weights), check it, and unpack it if it is an archive."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lookonce.choices import choose, key
from lookonce.commands.arguments import AnyPath, expanded
from lookonce.console import rendered
from lookonce.data.archives import unpack
from lookonce.data.download import DOWNLOADS, RemoteFile, fetch, mismatch, parts_of
from lookonce.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

log = logging.getLogger("lookonce")


@dataclass(frozen=True)
class DownloadTable:
    """The files that can be downloaded."""

    files: tuple[RemoteFile, ...]

    def __rich__(self) -> Table:
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE, title="lookonce download NAME", title_justify="left")
        for heading in ("name", "MB", "content", "checked by", "source and licence"):
            table.add_column(heading, justify="right" if heading == "MB" else "left", no_wrap=True)
        for one in self.files:
            checked = "size, " + one.checksum.partition(":")[0] if one.checksum else "size"
            table.add_row(one.name, f"{max(one.sizes) / 1e6:,.0f}", one.content, checked, one.source)
        return table

    def __str__(self) -> str:
        return rendered(self, 220, blank_lines=False)


def download(name: str | None = None, /, *, out: AnyPath = Path("downloads")) -> Path | DownloadTable:
    """Download a known file, check it, and unpack it if it is an archive. Without a name: list the files.

    Only this command connects to the internet, and detect if you give it an address. An interrupted download continues
    where it stopped. A file that is already in the folder, for example one saved there by hand, is checked and used.

    Args:
        name: Name of the file, as in the list.
        out: Folder for it.
    Returns:
        The file, or the folder with the unpacked archive; without a name the list.
    Raises:
        UserError: an unknown name; no mirror gives the file; a different file is in its place; the disk is full or
            cannot be written.
    """
    if name is None:
        return DownloadTable(DOWNLOADS)
    out, wanted = expanded(out), find(name)
    path = out / wanted.file
    if path.exists():
        problem = mismatch(path, wanted) if path.is_file() else "not a file"
        if problem:
            raise UserError(f"{path}: {problem}; move it away or choose another --out, and run the same command again")
        log.info("%s: already downloaded", path)
    else:
        _make_room(wanted, out)
        fetch(wanted, path)
    if wanted.folder is None:
        return path
    log.info("%s: %d new files unpacked; the archive is no longer needed", path, unpack(path, out))
    return out / wanted.folder


def find(name: str) -> RemoteFile:
    """Return the known file of this name, or of this file name. Raises UserError with the most similar name."""
    for one in DOWNLOADS:
        if key(name) == key(one.file):
            return one
    names = {one.name: one for one in DOWNLOADS}
    return names[choose(name, names, "download")]


def _make_room(wanted: RemoteFile, out: Path) -> None:
    """Make the folder; raise UserError if the disk has no room for the file and what it unpacks to."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out).free
        there = max((part.stat().st_size for part in parts_of(out / wanted.file)), default=0)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror or error}; choose another --out") from None
    needed = max(wanted.sizes) * (1 if wanted.folder is None else 2) - there
    if free < needed:
        raise UserError(
            f"{out}: room for {free:,} bytes; {wanted.name} needs {needed:,}: make room or choose another --out"
        )
