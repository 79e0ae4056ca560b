"""Models that are served: a detector with its batches, and its replacement without downtime."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np

from lookonce.data.images import image_size, usable_cores
from lookonce.errors import ConfigError, ImageError, UserError
from lookonce.inference.detector import Detector, Prepared
from lookonce.inference.draw import class_colour
from lookonce.model.detections import Detections
from lookonce.model.postprocess import Selection
from lookonce.server.batcher import Answered, Batcher, ClosedError, QueueFullError
from lookonce.server.limits import Limits, RequestError
from lookonce.server.requests import Options, Upload, place

log = logging.getLogger("lookonce")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Names of models, as they stand in addresses."""


@dataclass(frozen=True)
class Found:
    """What was found on one image of a request."""

    upload: Upload
    size: tuple[int, int]  # (width, height), pixels
    detections: Detections
    timing: Answered[Any]
    digest: str | None
    """Of the model that found them; it may have been replaced since."""


@dataclass(frozen=True)
class _Task:
    content: bytes
    selection: Selection


class Engine:
    """An open detector, its batches and its digest. Its first run takes longer, so it runs once on a grey image."""

    def __init__(self, detector: Detector, limits: Limits, watch: Callable[[int], object]) -> None:
        self.detector, self.limits = detector, limits
        self.digest = detector.digest
        self.batcher: Batcher[_Task, tuple[Prepared, Selection], tuple[Detections, tuple[int, int]]] = Batcher(
            self._prepare, self._run, batch=limits.batch, queue=limits.queue, threads=usable_cores(),
            watch=watch,
        )  # fmt: skip
        width, height = detector.about.input_size
        detector.detect([np.full((height, width, 3), 128, np.uint8)])

    async def detect(self, uploads: Sequence[Upload], options: Options) -> list[Found]:
        """Return the detections on the images of a request, in order.

        Raises:
            RequestError: an image that cannot be read, an unknown class, a full queue, a deadline that has passed.
        """
        selection = self._selection(options)
        wanted = self._classes(options)
        timeout = min(options.timeout or self.limits.timeout, self.limits.timeout)
        tasks = [_Task(upload.content, selection) for upload in uploads]
        start = perf_counter()
        try:
            answered = await self.batcher.submit(tasks, timeout)
        except QueueFullError as error:
            raise RequestError(503, str(error), error.retry_after) from None
        except TimeoutError:
            raise RequestError(504, f"no answer within {perf_counter() - start:.1f} s; the server is busy") from None
        except _ImageRefused as error:
            number = next(n for n, task in enumerate(tasks) if task is error.task)
            raise RequestError(error.status, f"{place(uploads, number)}: {error}") from None
        found = []
        for upload, one in zip(uploads, answered, strict=True):
            detections, size = one.answer
            if options.threshold is None:
                detections = detections.above(self.detector.thresholds)
            if wanted is not None:
                detections = detections.only(wanted)
            found.append(Found(upload, size, detections, one, self.digest))
        return found

    def _selection(self, options: Options) -> Selection:
        own = self.detector.selection
        return replace(own, score_threshold=own.score_threshold if options.threshold is None else options.threshold,
                       iou_threshold=own.iou_threshold if options.iou is None else options.iou)  # fmt: skip

    def _classes(self, options: Options) -> Sequence[str] | None:
        """Return the names of the classes wanted. One text may name several, with commas between them."""
        if options.classes is None:
            return None
        labels = set(self.detector.labels)
        names = [name for text in options.classes for name in ([text] if text in labels else text.split(","))]
        try:
            Detections([], [], [], self.detector.labels).only(names)  # type: ignore[arg-type]
        except UserError as error:
            raise RequestError(400, str(error).replace("labels:", "classes:", 1)) from None
        return names

    def _prepare(self, task: _Task) -> tuple[Prepared, Selection]:
        try:
            width, height = image_size(task.content)
            if width * height > self.limits.max_pixels:
                most = f"{self.limits.max_pixels:,} (--max-pixels)"
                raise _ImageRefused(task, 413, f"{width} x {height} pixels; expected at most {most}")
            return self.detector.prepare(task.content), task.selection
        except ImageError as error:
            raise _ImageRefused(task, 422, error.found) from None

    def _run(self, batch: Sequence[tuple[Prepared, Selection]]) -> list[tuple[Detections, tuple[int, int]]]:
        found = self.detector.detect_prepared([image for image, _ in batch], [selection for _, selection in batch])
        return [(one, image.size) for one, (image, _) in zip(found, batch, strict=True)]


class _ImageRefused(Exception):
    """An image of a request that is not taken. Not a RequestError, because the thread does not know its place."""

    def __init__(self, task: _Task, status: int, found: str) -> None:
        super().__init__(found)
        self.task, self.status = task, status


class ServedModel:
    """A model by its name in addresses. Its engine can be replaced while requests run.

    Args:
        name: as in addresses.
        opening: opens the detector; called again for each reload.
        limits: of the server.
        watch: called with the number of images of each batch that begins.
    Raises:
        UserError: a model that cannot be opened, a name that cannot stand in an address.
    """

    def __init__(self, name: str, opening: Callable[[], Detector], limits: Limits,
                 watch: Callable[[int], object] = int) -> None:  # fmt: skip
        if not NAME.fullmatch(name):
            raise ConfigError(f"model: the name {name!r}; expected letters, digits, '.', '_' and '-', as in cells=PATH")
        self.name = name
        self._open: Callable[[], Engine] = lambda: Engine(opening(), limits, watch)
        self.engine = self._open()
        self._reloading = asyncio.Lock()
        self._ending: set[asyncio.Task[None]] = set()

    async def detect(self, uploads: Sequence[Upload], options: Options) -> list[Found]:
        """Return the detections on the images of a request. Raises RequestError as the engine does."""
        try:
            return await self.engine.detect(uploads, options)
        except ClosedError:  # replaced since it was looked up, or the server ends
            pass
        try:
            return await self.engine.detect(uploads, options)
        except ClosedError:
            raise RequestError(503, "the server is shutting down", retry_after=5, error="shutting_down") from None

    async def reload(self) -> None:
        """Open the model's files again; requests go to the old detector until the new one is ready.

        Raises RequestError 409 if they cannot be opened; the old detector stays.
        """
        async with self._reloading:
            try:
                engine = await asyncio.to_thread(self._open)
            except UserError as error:
                raise RequestError(409, f"{self.name}: not replaced, the old model stays: {error}") from None
            old, self.engine = self.engine, engine
            task = asyncio.create_task(old.batcher.close())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
            log.info("%s: loaded again, %s", self.name, engine.digest)

    async def close(self) -> None:
        """Answer what is admitted, then take nothing more."""
        await asyncio.gather(self.engine.batcher.close(), *self._ending)

    def to_json(self) -> dict[str, Any]:
        """Return what a client needs to know about the model; its path is not among it."""
        detector = self.engine.detector
        labels = detector.labels
        thresholds = [round(v, 6) for v in detector.thresholds.tolist()]
        return {
            "name": self.name,
            "digest": self.engine.digest,
            "labels": labels,
            "thresholds": dict(zip(labels, thresholds, strict=True)),
            "iou_threshold": detector.selection.iou_threshold,
            "colours": {name: "#{:02x}{:02x}{:02x}".format(*class_colour(name, labels)) for name in labels},
            "input_size": detector.about.input_size,
            "pixel_range": detector.about.pixel_range,
            "tree": detector.about.tree is not None,
            "backend": str(detector.backend.info),
        }


def find(models: Mapping[str, ServedModel], name: str | None) -> ServedModel:
    """Return the model of a name, or the first. Raises RequestError 404 for a name that is not served."""
    if name is None:
        return next(iter(models.values()))
    if name not in models:
        raise RequestError(404, f"model {name[:100]!r}; expected one of {', '.join(models)}", error="unknown_model")
    return models[name]
