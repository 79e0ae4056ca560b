"""The driver: gives shards to workers until every part exists. It holds no list of images and no result."""

from __future__ import annotations

import logging
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lookonce.console import is_shown
from lookonce.errors import Interrupted, UserError, plural
from lookonce.inference.lake.job import Job
from lookonce.inference.lake.ledger import Ledger
from lookonce.inference.lake.listing import Lists
from lookonce.inference.lake.parts import Tally, part_file, read_part, tally_of
from lookonce.inference.lake.processes import Event

log = logging.getLogger("lookonce")
MOST_DEATHS = 3
"""Times that a shard may end its worker; then it is not the machine, but an image of it."""
SAY_EVERY = 60.0
"""Seconds between two lines of progress where there is no terminal."""


class Workers(Protocol):
    """Processes, or actors of Ray."""

    count: int
    where: str

    def start(self, worker: int) -> None:
        """Start a worker, or one in its place."""

    def give(self, worker: int, shard: int) -> None:
        """Let a worker that is ready do a shard."""

    def wait(self, seconds: float) -> Event | None:
        """Return what happens next; None: nothing within so many seconds."""

    def stop(self) -> None:
        """End all workers."""


@dataclass
class Progress:
    """How far a job is."""

    shards: int
    names: int
    done: int = 0
    """Shards, of this and of earlier runs."""
    images: int = 0
    """Of this run."""
    began: float = field(default_factory=time.monotonic)
    done_before: int = 0

    @property
    def rate(self) -> float:
        """Images a second in this run."""
        return self.images / max(time.monotonic() - self.began, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """At the rate of this run; None: unknown yet."""
        mine = self.done - self.done_before
        return (time.monotonic() - self.began) / mine * (self.shards - self.done) if mine else None

    def __str__(self) -> str:
        left = "" if self.seconds_left is None else f", about {_duration(self.seconds_left)} left"
        return f"{self.done:,} of {plural(self.shards, 'shard')}, {self.rate:,.1f} images/s{left}"


@dataclass(frozen=True)
class Outcome:
    """What all runs of a job did together."""

    total: Tally
    images: int
    """Of this run."""
    seconds: float
    """Of this run."""
    deaths: int
    """Workers that died in this run; their shards were done again."""


def run_job(job: Job, folder: Path, lists: Lists, workers: Workers) -> Outcome:
    """Do every shard that has no part yet. The folder is locked.

    Raises:
        UserError: what a worker cannot do, or a shard that ends its workers.
        Interrupted: Ctrl-C; the next run goes on.
    """
    ledger = Ledger(folder)
    known = _settled(job, folder, lists, ledger)
    pending = deque(shard for shard in range(lists.shards) if shard not in known)
    progress = Progress(lists.shards, lists.names, len(known), done_before=len(known))
    ledger.write("run", workers=workers.count, where=workers.where, shards=lists.shards, done=len(known))
    running = _Run(job, lists, ledger, workers, pending, progress)
    try:
        with _shown(progress) as refresh:
            running.until_done(refresh)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped after {progress.done:,} of {plural(lists.shards, 'shard')}; the same command goes "
                          "on from there", signal.SIGINT) from None  # fmt: skip
    finally:
        workers.stop()
    total = sum((*known.values(), *running.tallies), Tally())
    return Outcome(total, progress.images, time.monotonic() - progress.began, running.deaths)


def _settled(job: Job, folder: Path, lists: Lists, ledger: Ledger) -> dict[int, Tally]:
    """Return the counts of the shards that are done: of the ledger, or of the part itself if that line is missing,
    because the driver was killed between the two."""
    names = {part_file(folder, shard, job.format).name: shard for shard in range(lists.shards)}
    done = {names[path.name] for path in folder.glob(f"part-*.{job.format}") if path.name in names}
    written = {event["shard"]: event for event in ledger.read() if event.get("event") == "done"}
    known: dict[int, Tally] = {}
    for shard in sorted(done):
        event = written.get(shard)
        if event is None:
            tally = tally_of(read_part(part_file(folder, shard, job.format)))
            ledger.write("done", shard=shard, found=True, **asdict(tally))
        else:
            tally = Tally(event["images"], event["errors"], event["objects"])
        known[shard] = tally
    return known


class _Run:
    """The shards of one run and who does them."""

    def __init__(self, job: Job, lists: Lists, ledger: Ledger, workers: Workers, pending: deque[int],
                 progress: Progress) -> None:  # fmt: skip
        self.job, self.lists, self.ledger, self.workers = job, lists, ledger, workers
        self.pending, self.progress = pending, progress
        self.busy: dict[int, int] = {}  # worker -> its shard
        self.reported: dict[int, int] = {}  # worker -> images of its shard that it has reported
        self.shard_deaths: dict[int, int] = {}
        self.tallies: list[Tally] = []
        self.deaths = self.early_deaths = 0

    def until_done(self, refresh: Any) -> None:
        for worker in range(min(self.workers.count, len(self.pending))):
            self.workers.start(worker)
        while self.pending or self.busy:
            event = self.workers.wait(1.0)
            refresh()
            if event is not None:
                self._handle(event.worker, event.answer)

    def _handle(self, worker: int, answer: dict[str, Any]) -> None:
        if "failed" in answer:
            raise UserError(answer["failed"])
        if "died" in answer:
            self._lost(worker, answer["died"])
        elif "images" in answer and "done" not in answer:
            self.progress.images += answer["images"]
            self.reported[worker] = self.reported.get(worker, 0) + answer["images"]
        else:
            if "done" in answer:
                self._finished(worker, answer)
            elif not self.progress.images:
                self.progress.began = time.monotonic()  # speed does not count the start of the workers
            if self.pending:
                self.busy[worker] = self.pending.popleft()
                self.ledger.write("begun", shard=self.busy[worker], worker=worker)
                self.workers.give(worker, self.busy[worker])

    def _finished(self, worker: int, answer: dict[str, Any]) -> None:
        shard = self.busy.pop(worker)
        path = part_file(self.ledger.file.parent, shard, self.job.format)
        if not path.exists():
            raise UserError(
                f"{path}: is not here, though a worker wrote it; give --out a folder that all machines share"
            )
        tally = Tally(answer["images"], answer["errors"], answer["objects"])
        self.ledger.write("done", shard=shard, worker=worker, seconds=answer["seconds"], **asdict(tally))
        self.tallies.append(tally)
        self.progress.done += 1
        self.progress.images += tally.images - self.reported.pop(worker, 0)

    def _lost(self, worker: int, code: object) -> None:
        """Put the shard of a worker that died back, and start another one."""
        shard = self.busy.pop(worker, None)
        self.progress.images -= self.reported.pop(worker, 0)
        self.deaths += 1
        self.ledger.write("died", worker=worker, shard=shard, exit=code)
        if shard is None:
            self.early_deaths += 1
            if self.early_deaths >= MOST_DEATHS:
                raise UserError(f"workers ended {MOST_DEATHS} times before their first shard (exit code {code}): too "
                                "little memory? Lower --workers")  # fmt: skip
        else:
            self.shard_deaths[shard] = self.shard_deaths.get(shard, 0) + 1
            if self.shard_deaths[shard] >= MOST_DEATHS:
                raise UserError(
                    f"{self.lists.file(shard)}: its worker ended {MOST_DEATHS} times (exit code {code}); too "
                    "little memory (lower --workers), or an image of it breaks a decoder"
                )
            self.pending.appendleft(shard)
            log.warning("a worker ended (exit code %s): shard %d is done again", code, shard)
        if self.pending:
            self.workers.start(worker)


@contextmanager
def _shown(progress: Progress) -> Iterator[Any]:
    """Show the progress: a bar in a terminal, else a line now and then. Gives a function that shows it anew."""
    said = time.monotonic()

    def line() -> None:
        nonlocal said
        if time.monotonic() - said >= SAY_EVERY:
            log.info("%s", progress)
            said = time.monotonic()

    if not is_shown():
        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("detecting"), BarColumn(), TextColumn("{task.description}", markup=False))
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(str(progress), total=progress.shards, completed=progress.done)
        yield lambda: bar.update(task, completed=progress.done, description=str(progress))


def _duration(seconds: float) -> str:
    """Return a duration in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
