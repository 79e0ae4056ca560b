"""A worker: one detector that does one shard after another. As a process of its own it obeys lines on standard input.

in:  the job, folder, list and threads as JSON, then the number of a shard on each line
out: {"ready": backend}, {"images": n} while it works, {"done": shard, ...}, or {"failed": message} before it ends

It ends when standard input does, so it does not outlive the process that started it.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO, cast

from lookonce.choices import choose
from lookonce.data.images import BATCH, limit_cores
from lookonce.errors import ImageError, UserError
from lookonce.inference.backends.open import open_backend
from lookonce.inference.backends.settings import Settings
from lookonce.inference.detector import Detector
from lookonce.inference.lake.job import Job
from lookonce.inference.lake.listing import Lists
from lookonce.inference.lake.parts import Tally, error_row, image_rows, part_file, writing
from lookonce.inference.lake.sources import open_sources

REPORT = 0.5
"""Seconds between two reports of how many images are done."""


class ShardWorker:
    """A detector that writes parts.

    Args:
        job: what it computes.
        folder: of the parts.
        lists: the names of each shard.
        threads: of the CPU, its share.
    Raises:
        UserError: a model that cannot be read, an unknown class, a backend or device that is missing.
    """

    def __init__(self, job: Job, folder: Path, lists: Lists, threads: int) -> None:
        limit_cores(threads)
        self.job, self.folder, self.lists = job, folder, lists
        settings = Settings(job.backend, job.device, job.precision, throughput=True, threads=threads)
        self.detector = Detector(open_backend(Path(job.model), settings), threshold=job.threshold,
                                 iou_threshold=job.iou_threshold, nms=job.nms, tree_threshold=job.tree_threshold,
                                 tile=job.tile, overlap=job.overlap, flip=job.flip)  # fmt: skip
        self.labels = job.labels and [choose(name, self.detector.labels, "labels") for name in job.labels]
        info = self.detector.backend.info
        self.backend = f"{info.name} {info.version} {info.device}"
        self.run_columns = {"model": job.digest, "backend": self.backend, "precision": info.precision}

    def run(self, shard: int, report: Callable[[int], None] = lambda _: None) -> Tally:
        """Write the part of a shard. report: called now and then with the number of images since the last call."""
        tally, images, reported = Tally(), 0, time.monotonic()
        sources = cast(Iterable[str], open_sources(self.lists.read(shard), self.job))
        with writing(part_file(self.folder, shard, self.job.format)) as part:
            for name, image, found in self.detector.detect_files(sources):
                if isinstance(image, ImageError):
                    part.write([error_row(name, image.found, self.run_columns)])
                    tally += Tally(1, 1, 0)
                else:
                    wanted = found if self.labels is None else found.only(self.labels)
                    part.write(image_rows(name, image.size, wanted, self.run_columns))
                    tally += Tally(1, 0, len(wanted))
                images += 1
                if images >= BATCH and time.monotonic() - reported > REPORT:
                    report(images)
                    images, reported = 0, time.monotonic()
        return tally


def main() -> None:
    """Obey standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the driver ends this one
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    lines: queue.Queue[str] = queue.Queue()
    first = sys.stdin.readline()
    if not first:
        return
    threading.Thread(target=_read, args=(sys.stdin, lines), daemon=True).start()

    def say(**answer: Any) -> None:
        out.write(json.dumps(answer) + "\n")
        out.flush()

    try:
        given = json.loads(first)
        lists = Lists(Path(given["lists"]), given["shards"], 0, "")
        worker = ShardWorker(Job.from_json(given["job"]), Path(given["folder"]), lists, given["threads"])
        say(ready=worker.backend)
        while True:
            shard, began = int(lines.get()), time.monotonic()
            tally = worker.run(shard, lambda images: say(images=images))
            say(done=shard, seconds=round(time.monotonic() - began, 3), **asdict(tally))
    except UserError as error:
        say(failed=str(error))
    except OSError as error:
        say(failed=f"a worker cannot go on: {error}")


def _read(stdin: TextIO, lines: queue.Queue[str]) -> None:
    """Queue the lines of standard input. End the process with it: its driver has ended."""
    for line in stdin:
        lines.put(line)
    os._exit(3)
