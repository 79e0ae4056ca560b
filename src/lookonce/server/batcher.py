"""Batches of requests that wait together, with a bounded queue, deadlines and a drain.

An image is admitted or refused at once. Threads prepare admitted images (decode, resize); another takes those that are
prepared, at most `batch` of them, and runs the network. Nothing waits for a batch to fill, and nothing on this way
waits for the event loop, which only hears of the answers. All methods without an underscore belong to the loop.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from threading import Condition, Thread
from time import perf_counter
from typing import Generic, TypeVar

Given = TypeVar("Given")
Ready = TypeVar("Ready")
Answer = TypeVar("Answer")


class QueueFullError(Exception):
    """The queue has no place. `retry_after`: seconds after which it probably has one."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full; try again in {retry_after} s")
        self.retry_after = retry_after


class ClosedError(Exception):
    """The batcher takes no more images: it is closed."""


@dataclass(frozen=True)
class Answered(Generic[Answer]):
    """The answer for one image, and where its time went, in seconds."""

    answer: Answer
    decode: float
    """Until the image was prepared, with the wait for a thread."""
    queue: float
    """From then until its batch began."""
    network: float
    """The run of its batch."""
    batch: int
    """Images of its batch."""


@dataclass(eq=False)
class _Job(Generic[Given, Ready, Answer]):
    """An image that was admitted."""

    given: Given
    future: asyncio.Future[Answered[Answer]]
    since: float
    """When it was admitted, or prepared."""
    waits: bool = True
    """It has a place in the queue."""
    ready: Ready | None = None
    decode: float = 0.0


class Batcher(Generic[Given, Ready, Answer]):
    """Run images in batches.

    Args:
        prepare: makes an image ready for the network, in a thread. What it raises goes to the caller of submit.
        run: computes the answers of a batch, in a thread, in order.
        batch: most images that run together.
        queue: most images that are admitted and do not run yet.
        threads: number of threads that prepare images.
        watch: called with the number of images of each batch that begins.
    """

    def __init__(
        self, prepare: Callable[[Given], Ready], run: Callable[[Sequence[Ready]], Sequence[Answer]], *, batch: int,
        queue: int, threads: int, watch: Callable[[int], object] = int,
    ) -> None:  # fmt: skip
        self._prepare, self._run, self._watch = prepare, run, watch
        self.batch, self.queue = batch, queue
        self.waiting = 0
        """Images that are admitted and do not run yet."""
        self.in_network = 0
        """Batches that run: 0 or 1."""
        self._ready: deque[_Job[Given, Ready, Answer]] = deque()
        self._changed = Condition()
        """Of the two counts, the queue and each job's place in it."""
        self._seconds = 0.0
        """Time of one image in the latest batches, smoothed."""
        self._submitted = 0
        """Calls of submit that have not ended."""
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._preparing = ThreadPoolExecutor(threads, "prepare")
        Thread(target=self._run_batches, name="network", daemon=True).start()

    @property
    def is_full(self) -> bool:
        """Return whether the next image would be refused."""
        return self.waiting >= self.queue

    @property
    def retry_after(self) -> int:
        """Return the seconds in which the images that wait now will have run, at least 1."""
        return max(1, math.ceil(self.waiting * self._seconds))

    async def submit(self, images: Sequence[Given], timeout: float) -> list[Answered[Answer]]:
        """Return the answers for the images of one request, in order.

        Raises:
            QueueFullError: at once; none of the images was admitted.
            ClosedError: the batcher is closed.
            TimeoutError: `timeout` seconds have passed; images that do not run yet never will.
        """
        if self._closed:
            raise ClosedError
        loop, now = asyncio.get_running_loop(), perf_counter()
        jobs = [_Job[Given, Ready, Answer](image, loop.create_future(), now) for image in images]
        with self._changed:
            if self.waiting + len(jobs) > self.queue:
                raise QueueFullError(self.retry_after)
            self.waiting += len(jobs)
        self._submitted += 1
        self._idle.clear()
        for job in jobs:
            self._preparing.submit(self._prepare_one, job)
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.gather(*(job.future for job in jobs))
        finally:
            for job in jobs:
                job.future.cancel()
                self._leave(job)
            self._submitted -= 1
            self._check_idle()

    async def close(self) -> None:
        """Answer what is admitted, then end the threads. Later calls of submit raise ClosedError."""
        self._closed = True
        await self._idle.wait()
        self._preparing.shutdown(wait=False)
        with self._changed:
            self._changed.notify_all()

    def _prepare_one(self, job: _Job[Given, Ready, Answer]) -> None:
        """Prepare an image and queue it."""
        if not job.waits:
            return
        try:
            job.ready = self._prepare(job.given)
        except Exception as error:
            self._leave(job)
            _tell(job, self._hand_out, [job], [], error)
            return
        now = perf_counter()
        job.decode, job.since = now - job.since, now
        with self._changed:
            if job.waits:
                self._ready.append(job)
                self._changed.notify()

    def _leave(self, job: _Job[Given, Ready, Answer]) -> None:
        """Free the place of an image in the queue, if it has one still."""
        with self._changed:
            if job.waits:
                job.waits = False
                self.waiting -= 1
                with suppress(ValueError):  # not prepared yet
                    self._ready.remove(job)

    def _run_batches(self) -> None:
        """Run batches until the batcher is closed and nothing is left."""
        while self._run_batch():
            pass

    def _run_batch(self) -> bool:
        """Wait for a batch, run it and hand out its answers. Return False if none will come."""
        if not (batch := self._next_batch()):
            return False
        began, found, failure = perf_counter(), [], None
        try:
            self._watch(len(batch))
            answers = self._run([job.ready for job in batch])  # type: ignore[misc]
            took = perf_counter() - began
            found = [Answered(answer, job.decode, began - job.since, took, len(batch))
                     for job, answer in zip(batch, answers, strict=True)]  # fmt: skip
            self._seconds += (took / len(batch) - self._seconds) / (8 if self._seconds else 1)
        except Exception as error:
            failure = error
        with self._changed:
            self.in_network -= 1
        _tell(batch[0], self._hand_out, batch, found, failure)
        return True

    def _next_batch(self) -> list[_Job[Given, Ready, Answer]]:
        """Return the next images to run; none: the batcher has ended.

        What is being prepared joins a batch until it has half of the images that wait: the other half is prepared while
        it runs. It waits no longer than a batch takes.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready or (self._closed and not self._submitted))
            self._changed.wait_for(
                lambda: len(self._ready) >= min(self.batch, -(-self.waiting // 2)), self._seconds * self.batch
            )
            batch = [self._ready.popleft() for _ in range(min(self.batch, len(self._ready)))]
            for job in batch:
                job.waits = False
            self.waiting -= len(batch)
            self.in_network += bool(batch)
            return batch

    def _hand_out(self, batch: Sequence[_Job[Given, Ready, Answer]], found: Sequence[Answered[Answer]],
                  failure: Exception | None) -> None:  # fmt: skip
        """Give the jobs of a batch their answers, or all of them an error."""
        for n, job in enumerate(batch):
            if job.future.done():  # given up
                continue
            if failure is None:
                job.future.set_result(found[n])
            else:
                job.future.set_exception(failure)
        self._check_idle()

    def _check_idle(self) -> None:
        if not self._submitted and not self.in_network:
            self._idle.set()


def _tell(job: _Job[Given, Ready, Answer], call: Callable[..., object], *values: object) -> None:
    """Call a function on the event loop of a job, from another thread."""
    with suppress(RuntimeError):  # the loop has ended: the server was stopped at once
        job.future.get_loop().call_soon_threadsafe(call, *values)
