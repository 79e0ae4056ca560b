"""download: bring a known file (Pascal VOC, Darknet's weights), check it, and unpack it if it is an archive."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lookonce.choices import choose, key
from lookonce.console import rendered
from lookonce.data.download import OFFERS, Offer, fetch, mismatch, unpack
from lookonce.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table


log = logging.getLogger("lookonce")


@dataclass(frozen=True)
class Offers:
    """The files that can be downloaded, as a table."""

    files: tuple[Offer, ...]

    def __rich__(self) -> Table:
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE, title="lookonce download NAME", title_justify="left")
        for heading in ("name", "MB", "what", "checked by", "source and licence"):
            table.add_column(heading, justify="right" if heading == "MB" else "left", no_wrap=True)
        for offer in self.files:
            checked = "size, " + offer.checksum.partition(":")[0] if offer.checksum else "size"
            table.add_row(offer.name, f"{max(offer.sizes) / 1e6:,.0f}", offer.what, checked, offer.source)
        return table

    def __str__(self) -> str:
        return rendered(self, 220, blank_lines=False)


def download(name: str | None = None, /, *, out: Path = Path("downloads")) -> Path | Offers:
    """Bring a known file and check it; an archive is unpacked. Without a name: the table of files.

    The only command that opens a connection. A download that was stopped goes on where it was; a file that is there
    already, put by hand for example, is checked and used.

    Args:
        name: which file, as in the table.
        out: the folder it comes to.
    Returns:
        The file, or the folder in which an archive was unpacked; without a name the table.
    Raises:
        UserError: a name that is not in the table; no mirror that gives the file, with the place to put it by hand;
            a file already there that is another one; a disk that is full or cannot be written.
    """
    if name is None:
        return Offers(OFFERS)
    offer = find(name)
    path = out / offer.file
    if path.exists():
        problem = mismatch(path, offer) if path.is_file() else "no file"
        if problem:
            raise UserError(f"{path}: {problem}; move it away or choose another --out, and run the same command again")
        log.info("%s: there already", path)
    else:
        _make_room(offer, out)
        fetch(offer, path)
    if offer.folder is None:
        return path
    log.info("%s: %d files unpacked; the archive itself may go", path, unpack(path, out))
    return out / offer.folder


def find(name: str) -> Offer:
    """The file of a name in the table, or of its name on the disk. Raises UserError that names the nearest."""
    for offer in OFFERS:
        if key(name) == key(offer.file):
            return offer
    names = {offer.name: offer for offer in OFFERS}
    return names[choose(name, names, "download")]


def _make_room(offer: Offer, out: Path) -> None:
    """Make the folder; refuse a disk that the file, and what it unpacks to, will not fit on."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out).free
        part = out / (offer.file + ".part")
        needed = max(offer.sizes) * (1 if offer.folder is None else 2) - (part.stat().st_size if part.is_file() else 0)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror or error}; choose another --out") from None
    if free < needed:
        raise UserError(
            f"{out}: room for {free:,} bytes; {offer.name} needs {needed:,}: make room or choose another --out"
        )
