"""The output of a shard: part-00012.parquet or .jsonl, a row for each object and one for an image without any.

Rows come in the order of the shard's list, so that a shard that is done again gives the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from lookonce.errors import UserError
from lookonce.files import replacing
from lookonce.inference.lake.listing import load_parquet
from lookonce.model.detections import COLUMNS as OBJECT
from lookonce.model.detections import Detections

PartFormat = Literal["parquet", "jsonl"]
IMAGE = ("path", "width", "height")
RUN = ("model", "backend", "precision")
COLUMNS = (*IMAGE, *OBJECT, *RUN, "error")
"""Of a row: the image as the user named it and its size in pixels (null if it cannot be read); class, score and corners
in image pixels (null without an object); what computed it: the digest of the model, the library with its version and
device, the precision; and why the image cannot be read, else null."""
TYPES = {"width": "int32", "height": "int32", "class_id": "int32", "score": "float", "xmin": "float", "ymin": "float",
         "xmax": "float", "ymax": "float"}  # fmt: skip
"""Parquet types of the columns that are no text."""
ROWS = 20_000
"""Rows of a parquet row group."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Tally:
    """What a shard has."""

    images: int = 0
    """With those that cannot be read."""
    errors: int = 0
    objects: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.images + other.images, self.errors + other.errors, self.objects + other.objects)


def part_file(folder: Path, shard: int, format: PartFormat) -> Path:
    """Return the file of a shard. It exists once the shard is done."""
    return folder / f"part-{shard:05}.{format}"


def image_rows(name: str, size: tuple[int, int], found: Detections, run: Row) -> Iterator[Row]:
    """Yield the rows of an image; score to 6 digits, corners to 1/100 pixel. run: values of the columns RUN."""
    image = {"path": name, "width": size[0], "height": size[1]}
    for one in found:
        corners = dict(zip(OBJECT[3:], (round(v, 2) for v in one.box), strict=True))
        yield image | {"label": one.name, "class_id": one.label, "score": round(one.score, 6)} | corners | run
    if not len(found):
        yield image | run


def error_row(name: str, error: str, run: Row) -> Row:
    """Return the row of an image that cannot be read."""
    return {"path": name, "error": error} | run


class Writer(Protocol):
    """Takes rows."""

    def write(self, rows: Iterable[Row]) -> None:
        """Write some rows."""


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """Write a part beside its place; it appears there, whole, at the end of the block."""
    with replacing(path) as beside:
        if path.suffix == ".jsonl":
            with beside.open("w", encoding="utf-8", newline="\n") as text:
                yield _Lines(text)
        else:
            parquet = load_parquet("--format parquet")
            with parquet.ParquetWriter(beside, _schema(), compression="zstd") as table:
                writer = _Table(table)
                yield writer
                writer.flush()
        with beside.open("rb+") as file:
            os.fsync(file.fileno())  # a part that exists is whole, also after a power failure


class _Lines:
    def __init__(self, text: Any) -> None:
        self._text = text

    def write(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._text.write(json.dumps({name: row.get(name) for name in COLUMNS}) + "\n")


class _Table:
    def __init__(self, table: Any) -> None:
        self._table, self._waiting = table, list[Row]()

    def write(self, rows: Iterable[Row]) -> None:
        self._waiting += rows
        if len(self._waiting) >= ROWS:
            self.flush()

    def flush(self) -> None:
        import pyarrow

        if self._waiting:
            rows = [{name: _utf8(row.get(name)) for name in COLUMNS} for row in self._waiting]
            self._table.write_table(pyarrow.Table.from_pylist(rows, schema=_schema()))
            self._waiting = []


def _utf8(value: Any) -> Any:
    """Return a value with the bytes of a name that are not UTF-8 escaped: parquet holds UTF-8 alone."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _schema() -> Any:
    import pyarrow

    return pyarrow.schema([(name, getattr(pyarrow, {"float": "float32"}.get(kind, kind))())
                           for name in COLUMNS for kind in [TYPES.get(name, "string")]])  # fmt: skip


def read_part(path: Path) -> list[Row]:
    """Return the rows of a part. Raises UserError for a damaged one."""
    try:
        if path.suffix == ".jsonl":
            with path.open(encoding="utf-8") as lines:
                return [json.loads(line) for line in lines]
        rows: list[Row] = load_parquet(str(path)).read_table(path).to_pylist()
        return rows
    except UserError:
        raise
    except Exception as error:  # pyarrow's own, OSError, and JSON's
        words = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: damaged ({words}); remove it, and the shard is done again") from None


def tally_of(rows: Iterable[Row]) -> Tally:
    """Return the counts of a part's rows."""
    rows = list(rows)
    return Tally(
        len({row["path"] for row in rows}),
        sum(row["error"] is not None for row in rows),
        sum(row["label"] is not None for row in rows),
    )
