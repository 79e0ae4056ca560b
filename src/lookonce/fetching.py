"""One file from one of several mirrors, whole and checked.

What has come so far stands as NAME.part beside the final name and is continued, by whichever mirror answers; the final
name appears when length and checksum are right.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from lookonce.errors import UserError
from lookonce.mirror import Broken, Refused, Response, ask, extent, read, refuse_text
from lookonce.offers import Offer

log = logging.getLogger("lookonce")

TRIES = 3
"""Tries of one mirror in a row that bring less than STEP."""
STEP = 1 << 20
"""Bytes by which a broken transfer counts as progress."""
PAUSE = 2.0
"""Seconds before the second try of a mirror; twice as long before the third."""
CHUNK = 1 << 18
HEAD = 1024
"""Bytes by which a page of text is told from a file."""

Report = Callable[[int], None]
"""Told after each chunk how many bytes there are by now."""


def fetch(offer: Offer, path: Path) -> None:
    """Bring a file from the first mirror that gives it.

    Args:
        offer: what, how long, from where.
        path: its final name; `path`.part grows beside it, and is continued where one is left from before.
    Raises:
        UserError: no mirror gave the file (one line: why, and how to put it there by hand), or it cannot be written.
        KeyboardInterrupt: passed on; the .part is kept, and how to go on is logged.
    """
    part = path.with_name(path.name + ".part")
    failures: list[str] = []
    try:
        with _progress(offer) as report:
            for url in offer.mirrors:
                try:
                    _from_mirror(url, part, offer, report)
                    return _settle(part, path)
                except Refused as error:
                    failures.append(f"{urlsplit(url).netloc}: {error}")
    except KeyboardInterrupt:
        if have := _length(part):
            log.warning(
                "%s: %s of %s bytes kept; the same command goes on from there", part, f"{have:,}", _sizes(offer)
            )
        raise
    kept = f"; {_length(part):,} bytes are kept, the same command goes on from there" if _length(part) else ""
    raise UserError(
        f"{offer.name}: no mirror gave the file ({'; '.join(failures)}){kept}; by hand: save {offer.mirrors[0]} "
        f"({_sizes(offer)} bytes) as {path} and run the same command again"
    )


def mismatch(path: Path, offer: Offer) -> str | None:
    """What is wrong with a file that should be `offer`: its length or its checksum. None: nothing."""
    if (length := _length(path)) not in offer.sizes:
        return f"{length:,} bytes; expected {_sizes(offer)}"
    if offer.checksum is None:
        return None
    algorithm, _, expected = offer.checksum.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found == expected:
        return None
    return f"{algorithm} {found[:12]}... of the right length; expected {expected[:12]}...: damaged, or another file"


def _sizes(offer: Offer) -> str:
    return " or ".join(f"{size:,}" for size in offer.sizes)


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _settle(part: Path, path: Path) -> None:
    try:
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}; the file is whole as {part}") from None


def _from_mirror(url: str, part: Path, offer: Offer, report: Report) -> None:
    """Bring `part` to what it should be; once more from its beginning where what stood there before does not fit."""
    continued = _length(part) > 0
    _complete(url, part, offer.sizes, report)
    if problem := mismatch(part, offer):
        part.unlink()
        if not continued:
            raise Refused(problem)
        _from_mirror(url, part, offer, report)


def _complete(url: str, part: Path, sizes: tuple[int, ...], report: Report) -> None:
    """Bring `part` to an allowed length, over as many tries as make progress."""
    best, tries = _length(part), 0
    while True:
        try:
            return _transfer(url, part, sizes, report)
        except Broken as error:
            have = _length(part)
            tries = 1 if have >= best + STEP else tries + 1
            best = max(best, have)
            if tries >= TRIES:
                raise Refused(f"{error}, {tries} times in a row") from None
            time.sleep(PAUSE * tries)


def _transfer(url: str, part: Path, sizes: tuple[int, ...], report: Report) -> None:
    """One request. `part` is touched only once what comes can be the file."""
    have = _length(part)
    if (have,) == sizes:
        return  # stopped between the last byte and the check
    start = have if have < max(sizes) else 0
    response = ask(url, start, sizes)
    if response is None:
        return
    with response:
        start, total = extent(response, start)
        data = read(response, HEAD)
        if start == 0:
            refuse_text(data, response.headers.get_content_type())
        if total is not None and total not in sizes:
            raise Refused(f"offers {total:,} bytes; expected {' or '.join(f'{size:,}' for size in sizes)}")
        if not data:
            raise Broken("broke off before the first byte")
        most = total or max(sizes)
        done = _append(response, data, part, (start, most), report)
    if done > most:
        part.unlink()  # which of its bytes were the file's, nobody knows
        raise Refused(f"sends more than {most:,} bytes")
    if done not in sizes or (total is not None and done != total):
        raise Broken(f"broke off at {done:,} of {most:,} bytes")


def _append(response: Response, data: bytes, part: Path, extent: tuple[int, int], report: Report) -> int:
    """Write the answer to `part` from byte extent[0] on, until it ends or is longer than extent[1]; the length then."""
    done, most = extent
    try:
        with part.open("r+b" if done else "wb", buffering=0) as file:
            file.seek(done)
            while data and done + len(data) <= most:
                _write(file, data)
                done += len(data)
                report(done)
                data = read(response, CHUNK)
    except OSError as error:
        raise UserError(
            f"{part}: cannot be written: {error.strerror or error}; make room or choose another --out, "
            "and run the same command again: it goes on from what has come"
        ) from None
    return done + len(data)


def _write(file: IO[bytes], data: bytes) -> None:
    """All of it: an unbuffered file may take less than it is given."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


@contextmanager
def _progress(offer: Offer) -> Iterator[Report]:
    """A bar on a terminal; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(offer.file, total=max(offer.sizes))
        yield lambda done: bar.update(task, completed=done)
