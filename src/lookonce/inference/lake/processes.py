"""Workers as processes of this machine, started anew and not forked: threads of libraries do not survive a fork."""

from __future__ import annotations

import json
import os
import platform
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lookonce.data.images import usable_cores
from lookonce.inference.lake.job import Job
from lookonce.inference.lake.listing import Lists

START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from lookonce.inference.lake.worker import main; main()"
)
MOST_WORKERS = 8
"""Workers if the user does not say how many."""


@dataclass(frozen=True)
class Event:
    """What a worker says."""

    worker: int
    answer: dict[str, Any]
    """As worker.main writes it, or {"died": exit code}."""


class Processes:
    """Worker processes. Numbers of workers begin at 0; one that died is started again under its number."""

    where = platform.node()

    def __init__(self, job: Job, folder: Path, lists: Lists, count: int | None) -> None:
        self.gpus = _gpus(job.device)
        self.count = count or min(MOST_WORKERS, len(self.gpus) or usable_cores())
        self.threads = max(1, usable_cores() // self.count)
        self._order = json.dumps({
            "job": job.to_json(), "folder": str(folder.absolute()), "lists": str(lists.folder.absolute()),
            "shards": lists.shards, "threads": self.threads,
        })  # fmt: skip
        self._events: queue.Queue[Event] = queue.Queue()
        self._running: dict[int, subprocess.Popen[str]] = {}

    def start(self, worker: int) -> None:
        """Start a worker."""
        environment = dict(os.environ)
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[worker % len(self.gpus)]
        process = subprocess.Popen(
            [sys.executable, "-c", START, json.dumps(sys.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, encoding="utf-8", env=environment,
        )  # fmt: skip
        self._running[worker] = process
        threading.Thread(target=self._listen, args=(worker, process), daemon=True).start()
        self._say(worker, self._order)

    def give(self, worker: int, shard: int) -> None:
        """Let a worker that is ready do a shard."""
        self._say(worker, str(shard))

    def wait(self, seconds: float) -> Event | None:
        """Return what happens next; None: nothing within so many seconds."""
        try:
            return self._events.get(timeout=seconds)
        except queue.Empty:
            return None

    def stop(self) -> None:
        """End all workers, in whatever they do."""
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.wait()

    def _say(self, worker: int, line: str) -> None:
        stdin = self._running[worker].stdin
        assert stdin is not None
        try:
            stdin.write(line + "\n")
            stdin.flush()
        except (OSError, ValueError):
            pass  # it has died, which _listen reports

    def _listen(self, worker: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process:
            for line in process.stdout:
                with suppress(ValueError):  # killed in the middle of it
                    self._events.put(Event(worker, json.loads(line)))
        self._events.put(Event(worker, {"died": process.returncode}))


def _gpus(device: str | None) -> list[str]:
    """Return the GPUs that workers share, as CUDA_VISIBLE_DEVICES names them; none for the CPU or a certain GPU."""
    if device not in ("cuda", "gpu"):
        return []
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
