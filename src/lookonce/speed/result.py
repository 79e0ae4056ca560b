"""What `benchmark` measured: as tables for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from lookonce.speed.machine import Machine
from lookonce.speed.rounds import p95, ratio
from lookonce.tables import cell, cells, rendered, shown_json

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

OPENCV, PLAIN = "OpenCV dnn", "plain PyTorch"
"""The peers; a ratio is against the first that is there."""


@dataclass(frozen=True)
class Row:
    """What runs a network, and how."""

    model: str
    """As it was given."""
    network: str
    """What it has in common with those that it is compared with: the same layers and the same input."""
    runtime: str
    precision: str
    device: str
    batch: int

    @property
    def is_peer(self) -> bool:
        """Whether it is another program."""
        return self.runtime in (OPENCV, PLAIN)


@dataclass(frozen=True)
class Absent:
    """A row that could not be had."""

    what: str
    why: str


@dataclass(frozen=True)
class NetworkSpeed(Row):
    """How fast the network alone is, from its input in memory to its raw map in memory."""

    median_ms: float
    p95_ms: float
    images_per_s: float
    """At the median."""
    ratio: float | None
    """How many times as fast as the peer; None: no peer runs it."""
    against: str | None
    """The peer."""


@dataclass(frozen=True)
class FilesSpeed:
    """How fast the way from picture files to detections as JSON is; medians over rounds."""

    model: str
    runtime: str
    pictures: int
    """In the folder."""
    images_per_s: float
    bare_images_per_s: float
    """Of the network alone, in the same runtime."""
    share_of_bare: float
    network_ms: float
    """Of the processor, a picture."""
    decode_ms: float
    """Of the processor, a picture: reading the file into pixels alone."""
    share_of_possible: float
    """Processor time of network and decoding, of what the whole way took."""


@dataclass(frozen=True)
class StepSpeed:
    """How fast training steps are, images/s; medians over rounds."""

    model: str
    size: int
    batch: int
    precision: str
    bare: float
    """The step alone: network, loss, backward, optimiser; inputs in memory."""
    train: float
    """The same through `train`: pictures, warp, average of the weights."""
    plain: float
    """The loop that one writes first: fp32, NCHW, eager, pictures decoded one by one."""
    train_of_bare: float
    train_of_plain: float
    waiting: float
    """Share of the training time in which steps waited for pictures."""


@dataclass(frozen=True)
class Speed:
    """How fast models are here."""

    machine: Machine
    threads: int
    rounds: int
    """That count. Where Ctrl-C came later on, what stands below the networks may have fewer."""
    networks: tuple[NetworkSpeed, ...]
    absent: tuple[Absent, ...]
    files: tuple[FilesSpeed, ...] = ()
    training: tuple[StepSpeed, ...] = ()
    notes: tuple[str, ...] = ()
    stopped: bool = False
    json: bool = False
    """Whether it is shown as JSON."""

    @property
    def exit_code(self) -> int:
        """130 where Ctrl-C came, as shells have it, else 0."""
        return 130 if self.stopped else 0

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {key: value for key, value in asdict(self).items() if key != "json"}

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        head = f"{self.machine}\nthreads: {self.threads}; rounds: {self.rounds}, in each of them every row in turn"
        shown = [_networks(heading, rows) for heading, rows in tables(self.networks).items()]
        shown += [_files(self.files)] if self.files else []
        shown += [_steps(self.training)] if self.training else []
        said = [f"{one.what}: {one.why}" for one in self.absent] + list(self.notes)
        said += ["stopped before the last round; these are the rounds before"] if self.stopped else []
        return Group(Text(head), *shown, cells(said))

    def __str__(self) -> str:
        return shown_json(self.to_json()) if self.json else self.table()

    def table(self) -> str:
        """The tables as text."""
        return rendered(self)


def networks_speed(rows: Sequence[Row], seconds: Sequence[Sequence[float]]) -> tuple[NetworkSpeed, ...]:
    """What was measured of networks. seconds: [rows][rounds], at least one round."""
    found = []
    for row, took in zip(rows, seconds, strict=True):
        peer = _peer(row, rows)
        found.append(NetworkSpeed(
            **asdict(row), median_ms=median(took) * 1e3, p95_ms=p95(took) * 1e3, images_per_s=row.batch / median(took),
            ratio=None if peer is None else ratio(seconds[peer], took),
            against=None if peer is None else rows[peer].runtime,
        ))  # fmt: skip
    return tuple(found)


def names(rows: Sequence[Row]) -> list[str]:
    """What rows of one network are called: by their runtime, and by their model where there are several."""
    several = len({row.model for row in rows}) > 1
    return [f"{row.runtime}: {short(row.model)}" if several and not row.is_peer else row.runtime for row in rows]


def tables(rows: Sequence[NetworkSpeed]) -> dict[str, list[NetworkSpeed]]:
    """The rows that are compared with each other, by the heading over them."""
    found: dict[str, list[NetworkSpeed]] = {}
    for row in rows:
        found.setdefault(f"{row.network}, batch {row.batch}, {row.device}", []).append(row)
    return found


def short(model: str) -> str:
    """What a table calls a model: its file's name, or that of its run."""
    path = Path(model)
    return path.parent.name if path.name == "model.safetensors" and path.parent.name else path.name


def _peer(row: Row, rows: Sequence[Row]) -> int | None:
    """Place of the row that it is measured by: the same network and batch on the same device."""
    for name in (OPENCV, PLAIN):
        for place, other in enumerate(rows):
            if other.runtime == name and _shared(other) == _shared(row):
                return place
    return None


def _shared(row: Row) -> tuple[str, int, str]:
    return row.network, row.batch, row.device


def _networks(heading: str, rows: Sequence[NetworkSpeed]) -> Table:
    """The rows of one network, batch and device."""
    against = f"x {rows[0].against}" if rows[0].against else "no peer"
    table = _table(heading, "precision", "median ms", "p95 ms", "images/s", against)
    for name, row in zip(names(rows), rows, strict=True):
        times = "" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(
            cell(name), row.precision, f"{row.median_ms:.1f}", f"{row.p95_ms:.1f}", f"{row.images_per_s:.1f}", times
        )
    return table


def _files(found: Sequence[FilesSpeed]) -> Table:
    columns: dict[str, Callable[[FilesSpeed], str]] = {
        "images/s": lambda one: f"{one.images_per_s:.1f}",
        "network alone": lambda one: f"{one.bare_images_per_s:.1f}",
        "share": lambda one: f"{one.share_of_bare:.1%}",
        "network ms*": lambda one: f"{one.network_ms:.1f}",
        "decoding ms*": lambda one: f"{one.decode_ms:.1f}",
        "both of all*": lambda one: f"{one.share_of_possible:.1%}",
    }
    table = _table(f"from {found[0].pictures} files to JSON", *columns)
    table.caption = "* of the processor, a picture"
    for one in found:
        table.add_row(cell(f"{short(one.model)}: {one.runtime}"), *(tell(one) for tell in columns.values()))
    return table


def _steps(found: Sequence[StepSpeed]) -> Table:
    table = _table("training steps, images/s", "input", "batch", "precision", "bare", "train", "plain",
                   "train of bare", "x plain", "waiting")  # fmt: skip
    for one in found:
        rates = [f"{rate:.2f}" for rate in (one.bare, one.train, one.plain)]
        shares = [f"{one.train_of_bare:.1%}", f"{one.train_of_plain:.2f}", f"{one.waiting:.1%}"]
        table.add_row(cell(short(one.model)), str(one.size), str(one.batch), one.precision, *rates, *shares)
    return table


def _table(*headings: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, caption_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    return table
