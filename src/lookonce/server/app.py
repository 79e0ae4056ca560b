"""The application: all routes, the page, and errors as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lookonce.server import api, kserve, label_studio
from lookonce.server.api import Service, as_json, service
from lookonce.server.guard import Guard, error_response
from lookonce.server.label_studio import LabelStudio
from lookonce.server.limits import KINDS, RequestError
from lookonce.server.openapi import docs_page, openapi

if TYPE_CHECKING:
    from starlette.types import ASGIApp

HERE = Path(__file__).parent
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = {"/": "page.html", "/page.js": "page.js", "/page.css": "page.css", "/icon.svg": "icon.svg",
         "/view.js": "view.js", "/save.js": "save.js", "/docs.css": "docs.css"}  # fmt: skip
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""Content-Security-Policy of the page: nothing inline, nothing from another host."""


@dataclass(frozen=True)
class Access:
    """Who may use the server."""

    host: str = "127.0.0.1"
    """The address that it listens on."""
    token: str | None = None
    label_studio: LabelStudio | None = None


def make_app(shared: Service, access: Access) -> ASGIApp:
    """Return the application for a service."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        shared.is_ready = False
        await asyncio.gather(*(model.close() for model in shared.models.values()))

    routes = [*api.ROUTES, *kserve.ROUTES, *label_studio.ROUTES]
    routes += [Route(path, _file(name)) for path, name in FILES.items()]
    routes += [Route("/openapi.json", _openapi), Route("/docs", _docs)]
    handlers = {RequestError: _refused, HTTPException: _http_error, Exception: _failed}
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)  # type: ignore[arg-type]
    app.state.service, app.state.label_studio = shared, access.label_studio
    return Guard(app, shared.metrics, access.host, access.token)


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    """Return the route of a file of this package, read once."""
    content = (HERE / name).read_bytes()
    return partial(_static, content, TYPES[Path(name).suffix])


async def _static(content: bytes, kind: str, request: Request) -> Response:
    tag = f'"{sha256(content).hexdigest()[:16]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Content-Security-Policy": PAGE_POLICY}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=kind)


async def _openapi(request: Request) -> Response:
    return as_json(openapi())


async def _docs(request: Request) -> Response:
    return await _static(docs_page(openapi()).encode(), "text/html", request)


async def _refused(request: Request, error: RequestError) -> Response:
    return error_response(error, service(request).metrics)


async def _http_error(request: Request, error: HTTPException) -> Response:
    """Answer for an unknown route or method."""
    status = error.status_code if error.status_code in KINDS else 400
    if status == 404:
        detail = f"{request.url.path[:200]}: no such address; /docs lists all"
    elif status == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        detail = f"{request.method} {request.url.path[:200]}: expected {allowed}"
    else:
        detail = str(error.detail)
    response = error_response(RequestError(status, detail), service(request).metrics)
    response.headers.update(error.headers or {})
    return response


async def _failed(request: Request, error: Exception) -> Response:
    """Answer for a bug; its traceback is in the log of the server."""
    detail = "an error of the server, which its log explains"
    return error_response(RequestError(500, detail), service(request).metrics)
