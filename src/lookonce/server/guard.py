"""Who may ask, and what every answer carries: token, hosts, headers, and the count of answers.

Without a token, a page of another site that the user visits could send requests to this machine. A browser names the
site in Origin, and the host that it believes to ask in Host, so both are compared.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import logging
from time import perf_counter
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response

from lookonce.server.limits import RequestError
from lookonce.server.metrics import Metrics

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("lookonce")
OPEN = frozenset({
    "/", "/page.js", "/view.js", "/save.js", "/page.css", "/docs", "/docs.css", "/icon.svg", "/openapi.json",
    "/healthz", "/readyz", "/health", "/v2/health/live", "/v2/health/ready",
})  # fmt: skip
"""What needs no token: files of the page, and whether the server is there."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""Content-Security-Policy of an answer that is no page."""


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """The outermost layer of the server.

    Args:
        app: what answers requests that are let through.
        metrics: counts answers.
        host: the address that the server listens on.
        token: what clients show as Bearer token, or as password of Basic; None: none is asked for.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, host: str, token: str | None) -> None:
        self._app, self._metrics, self._host, self._token = app, metrics, host, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = perf_counter(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Content-Security-Policy", NOTHING)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        with self._metrics.running.track_inprogress():
            try:
                self._check(scope)
                await self._app(scope, receive, counted)
            except RequestError as error:
                await error_response(error, self._metrics)(scope, receive, counted)
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels("total").observe(perf_counter() - start)

    def _check(self, scope: Scope) -> None:
        """Raise RequestError for a request that is not let through."""
        headers = Headers(scope=scope)
        if self._token is not None:
            if scope["path"] not in OPEN and not self._shows_token(headers.get("authorization", "")):
                raise RequestError(401, "the token is missing or wrong; expected the header Authorization: Bearer "
                                   "TOKEN, with the token that the server was started with")  # fmt: skip
            return
        host = headers.get("host", "")
        if is_loopback(self._host) and not self._is_here(host):
            raise RequestError(403, f"host {host[:80]!r}; expected localhost or an IP address, since the server has no "
                               "token; start it with --token to use other names")  # fmt: skip
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            raise RequestError(403, f"a page of {origin[:80]!r} asks; expected the server's own page, since the server "
                               "has no token")  # fmt: skip

    def _shows_token(self, given: str) -> bool:
        assert self._token is not None
        scheme, _, value = given.partition(" ")
        shown = value.strip().encode("utf-8", "surrogateescape")
        if scheme.lower() == "basic":
            try:
                shown = base64.b64decode(shown, validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                return False
        return scheme.lower() in ("bearer", "basic") and hmac.compare_digest(shown, self._token.encode())

    def _is_here(self, host: str) -> bool:
        """Return whether a Host header names this machine in a way that no name server decides."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        name = name.lower().rstrip(".")
        if name in ("localhost", self._host.lower()) or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True


def error_response(error: RequestError, metrics: Metrics) -> Response:
    """Return the answer for a request that is refused, and count it. The connection ends: nobody reads the body."""
    import msgspec

    metrics.rejected.labels(error.error).inc()
    headers = {"Connection": "close"}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="lookonce"'
    return Response(msgspec.json.encode(error.to_json()), error.status, headers, "application/json")
