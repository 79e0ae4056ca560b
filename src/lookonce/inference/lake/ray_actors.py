"""Workers as actors of a Ray cluster: the same shards, the same parts, a detector in each actor. Needs Ray's core only.

The list, the model and the output folder lie on a disk that all machines share, under one path.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

from lookonce.errors import UserError
from lookonce.inference.lake.job import Job
from lookonce.inference.lake.listing import Lists
from lookonce.inference.lake.processes import Event

PORT = re.compile(r"(?:ray://)?([^/]+):(\d{1,5})")
TIMEOUT = 10.0
"""Seconds in which the head of a cluster has to answer."""
LOCAL = "local"
"""An address: start Ray on this machine alone."""


class RayActors:
    """Actors of a cluster.

    Args:
        address: "auto" (the cluster of this machine), HOST:PORT of its head, ray://HOST:PORT, or LOCAL.
        count: actors; None: one for each CPU of the cluster, or each GPU where the job runs on GPUs.
    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, job: Job, folder: Path, lists: Lists, count: int | None, address: str) -> None:
        self._ray = _connected(address, count)
        self.where = f"ray {address}"
        has_gpu = (job.device or "").startswith(("cuda", "gpu"))
        there = self._ray.cluster_resources()
        units = int(there.get("GPU" if has_gpu else "CPU", 0))
        if not units:
            raise UserError(f"ray {address}: the cluster has no {'GPU' if has_gpu else 'CPU'}; start one with some")
        self.count = count or units
        self.threads = max(1, int(there.get("CPU", 1)) // self.count)
        if self.count > units:
            raise UserError(
                f"workers: {self.count}; the cluster has {units} {'GPUs' if has_gpu else 'CPUs'}; give fewer"
            )
        options = {"num_cpus": self.threads, "num_gpus": int(has_gpu), "max_restarts": 0, "max_task_retries": 0}
        self._actor = self._ray.remote(**options)(_Actor)
        self._given = (job.to_json(), str(folder.absolute()), str(lists.folder.absolute()), lists.shards, self.threads)
        self._actors: dict[int, Any] = {}
        self._waiting: dict[Any, int] = {}  # what will be answered -> the worker

    def start(self, worker: int) -> None:
        """Start an actor."""
        self._actors[worker] = self._actor.remote(*self._given)
        self._waiting[self._actors[worker].ready.remote()] = worker

    def give(self, worker: int, shard: int) -> None:
        """Let an actor do a shard."""
        self._waiting[self._actors[worker].run.remote(shard)] = worker

    def wait(self, seconds: float) -> Event | None:
        """Return what happens next; None: nothing within so many seconds."""
        if not self._waiting:
            time.sleep(seconds)
            return None
        answers, _ = self._ray.wait(list(self._waiting), num_returns=1, timeout=seconds)
        if not answers:
            return None
        [answered] = answers
        worker = self._waiting.pop(answered)
        try:
            return Event(worker, self._ray.get(answered))
        except self._ray.exceptions.RayActorError:
            return Event(worker, {"died": "of its actor"})

    def stop(self) -> None:
        """End the actors and the connection."""
        self._ray.shutdown()


class _Actor:
    """Answers as a worker process does."""

    def __init__(self, job: dict[str, Any], folder: str, lists: str, shards: int, threads: int) -> None:
        from lookonce.inference.lake.worker import ShardWorker

        self.worker: ShardWorker | None = None
        self.failed = ""
        try:
            places = Path(folder), Lists(Path(lists), shards, 0, "")
            self.worker = ShardWorker(Job.from_json(job), *places, threads)
        except UserError as error:
            self.failed = str(error)

    def ready(self) -> dict[str, Any]:
        """Return the backend, or why there is none."""
        return {"ready": self.worker.backend} if self.worker else {"failed": self.failed}

    def run(self, shard: int) -> dict[str, Any]:
        """Do a shard."""
        assert self.worker is not None
        began = time.monotonic()
        try:
            tally = self.worker.run(shard)
        except (UserError, OSError) as error:
            return {"failed": str(error)}
        return {"done": shard, "seconds": round(time.monotonic() - began, 3), "images": tally.images,
                "errors": tally.errors, "objects": tally.objects}  # fmt: skip


def _connected(address: str, count: int | None) -> Any:
    """Return ray, connected. No usage statistics, no dashboard."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise UserError("--ray needs Ray, which is not installed; run: pip install 'lookonce[ray]'") from None
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        options |= {"include_dashboard": False, "num_cpus": count}
    try:
        if found := PORT.fullmatch(address):  # Ray itself would try for four minutes
            socket.create_connection((found[1], int(found[2])), TIMEOUT).close()
        ray.init(**options)
    except Exception as error:  # ConnectionError, RuntimeError, TimeoutError, by the kind of address
        words = " ".join(str(error).split())[:200]
        raise UserError(f"ray {address}: no cluster answers ({words}); start one with 'ray start --head', or give "
                        "--ray local") from None  # fmt: skip
    return ray
