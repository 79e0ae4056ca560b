"""Run the application: its socket, its connections, and its signals."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lookonce.errors import UserError
from lookonce.server.api import Service, replaced
from lookonce.server.app import Access, make_app
from lookonce.server.limits import RequestError

log = logging.getLogger("lookonce")
HEADER_SECONDS = 15
"""Seconds for the headers of a connection's first request."""
LONGEST_HEAD = 32 << 10
"""Bytes of the headers of a request, after the first piece that comes."""
BACKLOG = 512
"""Connections that the system keeps until they are taken."""
MOST_CONNECTIONS = 900
"""Open connections; a further one is closed at once. A process may usually have 1024 open files."""


class Protocol(HttpToolsProtocol):
    """Connections of HTTP/1.1 that end if no request comes, so that slow clients take nobody's place."""

    _in_head, _head = False, 0
    """A request has begun whose headers are incomplete, and their bytes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection."""
        super().connection_made(transport)
        self._late = self.loop.call_later(HEADER_SECONDS, self._close_unless_asked)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        self._late.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._in_head, self._head = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Answer a request, whose body may still come."""
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Parse what came. Headers that do not end are refused, since they are kept in memory."""
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head += len(data)
        super().data_received(data)
        if self._in_head and self._head > LONGEST_HEAD and not self.transport.is_closing():
            self.send_400_response("The headers are too long.")

    def on_response_complete(self) -> None:
        """Wait for the next request, no longer than for the first; not for the rest of a body that nobody reads."""
        super().on_response_complete()
        self._late.cancel()
        if self.cycle.response_complete and self.cycle.more_body:
            self.transport.close()
        if not self.transport.is_closing():
            self._late = self.loop.call_later(HEADER_SECONDS, self._close_unless_asked)

    def _close_unless_asked(self) -> None:
        if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self.transport.close()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises UserError for a port that is taken or an address that is not here."""
    try:
        if not 0 <= port <= 65535:
            raise OverflowError("no such port")
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        found = socket.socket(family, kind, protocol)
        try:
            if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # on Windows others could take the port as well
                found.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            found.listen(BACKLOG)
        except BaseException:
            found.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise UserError(f"port: {port} on {host} is taken by another program; give another --port") from None
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"host, port: {host}:{port} cannot be used ({reason}); expected an address of this machine and "
                        "a port of 0 to 65535") from None  # fmt: skip
    found.setblocking(False)
    return found


class Server(uvicorn.Server):
    """A server that ends at SIGTERM or Ctrl-C after it has answered what it accepted; SIGHUP replaces its models."""

    def __init__(self, shared: Service, access: Access) -> None:
        self.shared = shared
        super().__init__(uvicorn.Config(
            make_app(shared, access), http=Protocol, ws="none", lifespan="on", log_config=None, access_log=False,
            server_header=False, proxy_headers=False, timeout_keep_alive=HEADER_SECONDS,
            timeout_graceful_shutdown=max(1, round(shared.limits.timeout)),
        ))  # fmt: skip
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while the server runs; in other threads than the main one there are none."""
        names = [name for name in ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP") if hasattr(signal, name)]
        loop, before = asyncio.get_running_loop(), {}

        def handle(number: int, _: Any) -> None:
            loop.call_soon_threadsafe(self._signalled, number)

        with contextlib.suppress(ValueError):  # not the main thread
            for name in names:
                number = getattr(signal, name)
                before[number] = signal.signal(number, handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _signalled(self, number: int) -> None:
        if number == getattr(signal, "SIGHUP", None):
            task = asyncio.create_task(self._reload())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        if not self.should_exit:
            log.info("stopping: requests that were accepted are answered; once more stops at once")
        self.force_exit = self.should_exit
        self.should_exit = True
        self.shared.is_ready = False

    async def _reload(self) -> None:
        for model in self.shared.models.values():
            try:
                await replaced(self.shared, model)
            except RequestError as error:
                log.warning("%s", error)
