"""What the user named as the names of images, and these names cut into shards.

A name is the path of an image, its address, or a tar of images, which stays one name: its images are found where it is
read. Names are written to files as they are found, so that memory does not grow with their number. The shard of a name
is a digest of it: the same on every machine and in every run.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lookonce.data.images import IMAGE_SUFFIXES
from lookonce.data.lookup import walk_files
from lookonce.data.remote import as_address, is_address, opened_system, reading
from lookonce.errors import UserError, plural

TAR = ".tar"
READ = IMAGE_SUFFIXES | {TAR}
TABLE_COLUMNS = ("path", "file", "file_name", "image", "url")
"""Columns of a parquet table that hold names, unless the user names one: TABLE.parquet#COLUMN."""
USUAL_SHARD = 1000
"""Names of a shard if the user does not say how many shards there are."""
LEAST_SHARDS = 16
WAITING_BYTES = 32 << 20
"""Of names that wait to be written to the lists of their shards."""
LONGEST = 1 << 16
"""Letters of a line of a list."""
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
"""Numbered shards as webdataset writes them: cells-{000..099}.tar."""


@dataclass(frozen=True)
class Lists:
    """The names of each shard, in a folder."""

    folder: Path
    shards: int
    names: int
    digest: str
    """Of the names and their shards."""

    def file(self, shard: int) -> Path:
        """Return the file with the names of a shard, one a line, as JSON."""
        return self.folder / f"{shard:05}.jsonl"

    def read(self, shard: int) -> list[str]:
        """Return the names of a shard, sorted."""
        with self.file(shard).open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]


def write_lists(names: Iterable[str], folder: Path, shards: int | None) -> Lists:
    """Write the list of each shard into a new folder. A name that comes twice is written once.

    shards: their number; None: of USUAL_SHARD names each, at least LEAST_SHARDS if there are as many names.
    """
    folder.mkdir(parents=True)
    every, count = folder / "names.jsonl", 0
    with every.open("w", encoding="utf-8", newline="\n") as lines:
        for name in names:
            lines.write(json.dumps(name) + "\n")
            count += 1
    if not count:
        raise UserError("images: none found; expected images, a .txt or .parquet list of them, or tars")
    shards = shards or min(max(LEAST_SHARDS, -(-count // USUAL_SHARD)), count)
    _deal(every, folder, shards)
    every.unlink()
    lists, kept, digest = Lists(folder, shards, 0, ""), 0, hashlib.sha256()
    for shard in range(shards):
        file = lists.file(shard)
        sorted_lines = sorted(set(file.read_text(encoding="utf-8").splitlines())) if file.exists() else []
        text = "".join(f"{line}\n" for line in sorted_lines)
        file.write_text(text, encoding="utf-8", newline="\n")
        kept += len(sorted_lines)
        digest.update(hashlib.sha256(text.encode()).digest())
    return Lists(folder, shards, kept, f"sha256:{digest.hexdigest()}")


def _deal(every: Path, folder: Path, shards: int) -> None:
    """Append each line to the list of its shard."""
    waiting: dict[int, list[str]] = {}
    size = 0
    with every.open(encoding="utf-8") as lines:
        for line in lines:
            waiting.setdefault(shard_of(line, shards), []).append(line)
            size += len(line) + 64
            if size > WAITING_BYTES:
                _append(waiting, folder)
                waiting, size = {}, 0
    _append(waiting, folder)


def _append(waiting: dict[int, list[str]], folder: Path) -> None:
    for shard, lines in waiting.items():
        with (folder / f"{shard:05}.jsonl").open("a", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)


def shard_of(line: str, shards: int) -> int:
    """Return the shard of a name, given as its line in a list."""
    return int.from_bytes(hashlib.blake2b(line.strip().encode(), digest_size=8).digest(), "big") % shards


def difference(before: Lists, now: Lists) -> str:
    """Return in words how two lists with as many shards differ."""
    more = fewer = 0
    for shard in range(now.shards):
        old, new = set(before.read(shard)), set(now.read(shard))
        more, fewer = more + len(new - old), fewer + len(old - new)
    return f"{plural(more, 'name')} more and {fewer:,} fewer"


# What the user names


def find_names(named: Sequence[str]) -> Iterator[str]:
    """Yield the names that files, folders, patterns, lists and tables mean. Raises UserError for what is not there."""
    for given in named:
        for one in _numbered(given):
            yield from _remote_names(as_address(one)) if is_address(one) else _local_names(one)


def _numbered(given: str) -> Iterator[str]:
    """Yield the names that braces with two numbers mean."""
    found = BRACES.search(given)
    if found is None:
        yield given
        return
    for number in range(int(found[1]), int(found[2]) + 1):
        yield from _numbered(f"{given[: found.start()]}{number:0{len(found[1])}}{given[found.end() :]}")


def _local_names(given: str) -> Iterator[str]:
    path = Path(given).expanduser()
    table, _, column = str(path).partition(".parquet#")
    if path.suffix.lower() == ".parquet" or (column and Path(f"{table}.parquet").is_file()):
        yield from _table_names(path if not column else Path(f"{table}.parquet"), column)
    elif path.suffix.lower() == ".txt" and path.is_file():
        yield from _list_names(path)
    elif path.is_file():
        yield str(path)
    elif path.is_dir():
        found = False
        for folder, names in walk_files(path):
            for name in names:
                if os.path.splitext(name)[1].lower() in READ:
                    found = True
                    yield os.path.join(folder, name)
        if not found:
            raise UserError(f"{given}: a folder without images; expected images or tars of images")
    else:
        found_files = [name for name in glob.iglob(str(path), recursive=True) if os.path.isfile(name)]
        if not found_files:
            raise UserError(f"{given}: no such file or folder; expected images, a .txt or .parquet list, or tars")
        yield from found_files


def _list_names(path: Path) -> Iterator[str]:
    """Yield the lines of a list, read one by one: addresses, or paths from the list's folder."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        number = 0
        while line := lines.readline(LONGEST):
            number += 1
            name = line.strip()
            if "\0" in name or len(line) == LONGEST:
                raise UserError(f"{path}:{number}: not text; expected a path or address of an image on each line")
            if name and not name.startswith("#"):
                yield name if is_address(name) else os.path.join(path.parent, name)


def _table_names(path: Path, column: str) -> Iterator[str]:
    """Yield a column of a parquet table, a part of it at a time."""
    parquet = load_parquet(f"{path}: a parquet table")
    try:
        with parquet.ParquetFile(path) as table:
            chosen = _column(table.schema_arrow, column, path)
            for part in table.iter_batches(columns=[chosen]):
                for name in part.column(0).to_pylist():
                    if name:
                        yield name if is_address(name) else os.path.join(path.parent, name)
    except UserError:
        raise
    except Exception as error:  # pyarrow's own, and OSError
        words = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: cannot be read as a parquet table ({words})") from None


def _column(schema: Any, column: str, path: Path) -> str:
    """Return the column with the names."""
    texts = [field.name for field in schema if str(field.type) in ("string", "large_string")]
    wanted = [column] if column else [name for name in TABLE_COLUMNS if name in texts]
    if not wanted and len(texts) == 1:
        wanted = texts
    if not wanted or wanted[0] not in texts:
        raise UserError(f"{path}: which column holds the images? Its columns of text are {', '.join(texts) or 'none'}; "
                        f"name one: {path}#COLUMN")  # fmt: skip
    return wanted[0]


def load_parquet(what: str) -> Any:
    """Return pyarrow.parquet. Raises UserError if it is not installed. what: needs it."""
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise UserError(f"{what} needs pyarrow, which is not installed; run: pip install 'lookonce[lake]'") from None
    return parquet


def _remote_names(address: str) -> Iterator[str]:
    """Yield the addresses of the images and tars at an address: a file, a folder, or a pattern."""
    system, path = opened_system(address)
    with reading(address):
        if "*" in path:
            found = iter(system.glob(path))
        elif system.isdir(path):
            found = (f"{folder.rstrip('/')}/{name}" for folder, _, names in system.walk(path)
                     for name in sorted(names) if os.path.splitext(name)[1].lower() in READ)  # fmt: skip
        else:
            found = iter([path])
    while True:
        with reading(address):
            name = next(found, None)
            if name is None:
                return
            name = system.unstrip_protocol(name)
        yield name
