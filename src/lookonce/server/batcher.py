"""Batches of requests that wait together, with a bounded queue, deadlines and a drain.

An image is admitted or refused at once. Threads prepare admitted images (decode, resize); those that are prepared when
the network is free run together, at most `batch` of them. Nothing waits for a batch to fill. All methods belong to one
event loop; `prepare` and `run` are called in threads.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Generic, TypeVar

Given = TypeVar("Given")
Ready = TypeVar("Ready")
Answer = TypeVar("Answer")
LANES = 2
"""Batches that run at once: while one is post-processed, the network computes the other."""


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
class _Waiting(Generic[Ready, Answer]):
    ready: Ready
    future: asyncio.Future[Answered[Answer]]
    decode: float
    since: float


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
        self._preparing = ThreadPoolExecutor(threads, "prepare")
        self._running = ThreadPoolExecutor(LANES, "network")
        self._ready: deque[_Waiting[Ready, Answer]] = deque()
        self._closed = False
        self._seconds = 0.0
        """Time of one image in the latest batches, smoothed."""
        self.waiting = 0
        """Images that are admitted and do not run yet."""
        self.in_network = 0
        """Batches that run."""
        self._submitted = 0
        """Calls of submit that have not ended."""
        self._batches: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

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
        if self.waiting + len(images) > self.queue:
            raise QueueFullError(self.retry_after)
        self.waiting += len(images)
        self._submitted += 1
        self._idle.clear()
        tasks = [asyncio.create_task(self._one(image)) for image in images]
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            try:
                await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                self._submitted -= 1
                self._check_idle()

    async def close(self) -> None:
        """Answer what is admitted, then end the threads. Later calls of submit raise ClosedError."""
        self._closed = True
        await self._idle.wait()
        self._preparing.shutdown(wait=False)
        self._running.shutdown(wait=False)

    async def _one(self, image: Given) -> Answered[Answer]:
        """Prepare an image and wait for its answer."""
        loop = asyncio.get_running_loop()
        start = perf_counter()
        place: _Waiting[Ready, Answer] | None = None
        try:
            ready = await loop.run_in_executor(self._preparing, self._prepare, image)
            now = perf_counter()
            place = _Waiting(ready, loop.create_future(), now - start, now)
            self._ready.append(place)
            self._start()
            return await place.future
        finally:
            if place is None:
                self.waiting -= 1
            elif place in self._ready:  # given up
                self._ready.remove(place)
                self.waiting -= 1

    def _start(self) -> None:
        """Begin batches while images are ready and a lane is free."""
        while self._ready and self.in_network < LANES:
            batch = [self._ready.popleft() for _ in range(min(self.batch, len(self._ready)))]
            self.waiting -= len(batch)
            self.in_network += 1
            self._watch(len(batch))
            self._idle.clear()
            task = asyncio.create_task(self._batch(batch))
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)

    async def _batch(self, batch: Sequence[_Waiting[Ready, Answer]]) -> None:
        """Run a batch and hand out its answers."""
        began = perf_counter()
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self._running, self._run, [place.ready for place in batch])
            took = perf_counter() - began
            self._seconds += (took / len(batch) / LANES - self._seconds) / (8 if self._seconds else 1)
            for place, answer in zip(batch, answers, strict=True):
                if not place.future.done():
                    place.future.set_result(Answered(answer, place.decode, began - place.since, took, len(batch)))
        except Exception as error:
            for place in batch:
                if not place.future.done():
                    place.future.set_exception(error)
        finally:
            self.in_network -= 1
            self._start()
            self._check_idle()

    def _check_idle(self) -> None:
        if not self._submitted and not self.in_network:
            self._idle.set()
