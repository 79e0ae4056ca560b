"""The routes of /v1, of health and of metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeVar

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lookonce.server.answers import times, to_csv, to_jpeg, to_json
from lookonce.server.limits import Limits, RequestError
from lookonce.server.metrics import Metrics
from lookonce.server.models import Found, ServedModel, find
from lookonce.server.requests import Bodies, Options, Upload, read_request

Result = TypeVar("Result")


@dataclass
class Service:
    """What all routes share."""

    models: Mapping[str, ServedModel]
    """By name; the first is the default."""
    limits: Limits
    metrics: Metrics
    has_token: bool
    is_ready: bool = True
    """False while the server ends."""
    bodies: Bodies = field(init=False)

    def __post_init__(self) -> None:
        self.bodies = Bodies(self.limits)

    async def detect(self, request: Request, uploads: list[Upload], options: Options) -> list[Found]:
        """Return the detections on images, and count them. Stop if the client is gone."""
        model = find(self.models, options.model)
        found = await unless_gone(request, model.detect(uploads, options))
        self.metrics.answered(model, found)
        return found


def as_json(content: object, status: int = 200) -> Response:
    """Return an answer in JSON."""
    return Response(msgspec.json.encode(content), status, media_type="application/json")


async def unless_gone(request: Request, work: Awaitable[Result]) -> Result:
    """Return the result of work for a request whose body was read; cancel it when the client has gone."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise RequestError(400, "the client has closed the connection")
        return await task
    finally:
        for each in (task, leaving):
            each.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


def service(request: Request) -> Service:
    """Return what the routes share."""
    found: Service = request.app.state.service
    return found


async def detect(request: Request) -> Response:
    """Answer POST /v1/detect."""
    start = perf_counter()
    shared = service(request)
    default = next(iter(shared.models.values())).engine.batcher
    if len(shared.models) == 1 and default.is_full:  # before the body is read
        raise RequestError(503, f"the queue is full; try again in {default.retry_after} s", default.retry_after)
    uploads, options = await read_request(request, shared.bodies)
    if options.format == "image" and len(uploads) > 1:
        raise RequestError(400, f"format: 'image' with {len(uploads)} images; expected one, or format=json")
    shared.metrics.seconds.labels("read").observe(perf_counter() - start)
    found = await shared.detect(request, uploads, options)
    model = find(shared.models, options.model)
    ran = perf_counter()
    headers = {"Server-Timing": ", ".join(f"{name};dur={ms}" for name, ms in times(found, start).items())}
    if options.format == "csv":
        response = Response(to_csv(found), headers=headers, media_type="text/csv")
    elif options.format == "image":
        drawn = await asyncio.to_thread(to_jpeg, found[0], model.engine.detector.about.pixel_range)
        response = Response(drawn, headers=headers, media_type="image/jpeg")
    else:
        content = to_json(model.name, found, options.rounded, start)
        response = Response(msgspec.json.encode(content), headers=headers, media_type="application/json")
    shared.metrics.seconds.labels("answer").observe(perf_counter() - ran)
    return response


async def models(request: Request) -> Response:
    """Answer GET /v1/models."""
    shared = service(request)
    limits: dict[str, Any] = {"max_mb": shared.limits.max_mb, "max_pixels": shared.limits.max_pixels,
                              "max_images": shared.limits.max_images}  # fmt: skip
    return as_json({"models": [model.to_json() for model in shared.models.values()], "limits": limits})


async def model(request: Request) -> Response:
    """Answer GET /v1/models/NAME."""
    return as_json(find(service(request).models, request.path_params["name"]).to_json())


async def reload(request: Request) -> Response:
    """Answer POST /v1/models/NAME/reload. Without a token anybody on the machine could ask for it."""
    shared = service(request)
    if not shared.has_token:
        raise RequestError(403, "reload needs a token; start the server with --token, or send it SIGHUP")
    served = find(shared.models, request.path_params["name"])
    await replaced(shared, served)
    return as_json(served.to_json())


async def replaced(shared: Service, served: ServedModel) -> None:
    """Load a model again and count it. Raises RequestError if it cannot be opened."""
    result = "failed"
    try:
        await served.reload()
        result = "done"
    finally:
        shared.metrics.reloads.labels(served.name, result).inc()


async def alive(request: Request) -> Response:
    """Answer GET /healthz: the process works."""
    return as_json({"status": "ok"})


async def ready(request: Request) -> Response:
    """Answer GET /readyz: requests are taken."""
    shared = service(request)
    if not shared.is_ready:
        raise RequestError(503, "the server is shutting down", retry_after=5, error="shutting_down")
    return as_json({"status": "ready", "models": list(shared.models)})


async def metrics(request: Request) -> Response:
    """Answer GET /metrics."""
    shared = service(request)
    return Response(shared.metrics.text(shared.models), media_type=CONTENT_TYPE_LATEST)


ROUTES = (
    Route("/v1/detect", detect, methods=["POST"]),
    Route("/v1/models", models),
    Route("/v1/models/{name}", model),
    Route("/v1/models/{name}/reload", reload, methods=["POST"]),
    Route("/healthz", alive),
    Route("/readyz", ready),
    Route("/metrics", metrics),
)
