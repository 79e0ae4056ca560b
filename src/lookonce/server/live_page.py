"""A page in the browser that shows the newest frames of one or several sources while detect runs.

Each source is an image that the server replaces as frames come (multipart/x-mixed-replace, MJPEG), so the page needs no
script. It listens on this machine alone. Each viewer has a thread, which sends the newest frame when the last one is
through: a slow viewer misses frames and holds up nothing.
"""

from __future__ import annotations

import html
import io
import logging
import socket
from base64 import b64encode
from contextlib import suppress
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread

import numpy as np
from numpy.typing import NDArray
from PIL import Image

log = logging.getLogger("lookonce")
HOST = "127.0.0.1"
PORT = 8010
"""Port, or a free one where it is taken."""
BOUNDARY = "frame"
HEAD = f"\r\n--{BOUNDARY}\r\nContent-Type: image/jpeg\r\n\r\n".encode()
"""Between two frames. It is sent behind a frame, as browsers show one when the next begins."""
SENT_AHEAD = 1 << 16
"""Bytes that wait for a viewer, who would otherwise see old frames."""
TIMEOUT = 10
"""Seconds that a viewer has to take a frame."""
STYLE = """:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif; } figure { margin: 0; }
body { margin: 0; padding: .6rem; display: grid; gap: .6rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
img { display: block; max-width: 100%; max-height: 92vh; margin: auto; background: #7773; min-height: 6rem; }
figcaption { text-align: center; padding: .2rem; overflow-wrap: anywhere; }"""
STYLE_HASH = "sha256-" + b64encode(sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; img-src 'self' data:; style-src '{STYLE_HASH}'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


class LivePage:
    """The server of the page, whose address it logs."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.newest: dict[str, NDArray[np.uint8]] = {}
        self.is_open, self.changed = True, Condition()
        try:
            self._server = _Server((HOST, PORT), _Viewer)
        except OSError:
            self._server = _Server((HOST, 0), _Viewer)
        self._server.page = self
        self.address = f"http://{HOST}:{self._server.server_address[1]}/"
        Thread(target=self._server.serve_forever, args=(0.1,), name="live page", daemon=True).start()
        log.info("live page: %s", self.address)

    def begin(self, names: list[str]) -> None:
        """Show these sources in place of those before."""
        with self.changed:
            self.names, self.newest = names, {}

    def put(self, name: str, pixels: NDArray[np.uint8]) -> None:
        """Show a frame [h, w, 3] RGB."""
        with self.changed:
            self.newest[name] = pixels
            self.changed.notify_all()

    def update(self) -> None:
        """Do nothing: threads serve the viewers."""

    def close(self) -> None:
        """End all viewers and stop listening."""
        with self.changed:
            self.is_open = False
            self.changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def next_frame(self, place: int, last: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
        """Wait for another frame of a source than the last one; None: the page was closed."""
        with self.changed:
            while self.is_open:
                name = self.names[place] if place < len(self.names) else ""
                frame = self.newest.get(name)
                if frame is not None and frame is not last:
                    return frame
                self.changed.wait(1)
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a viewer that takes nothing does not hold up the end
    page: LivePage

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: viewers leave at any time."""


class _Viewer(BaseHTTPRequestHandler):
    """Answers one browser."""

    server: _Server
    timeout = TIMEOUT

    def do_GET(self) -> None:
        """Answer for the page, or for the frames of a source."""
        host = (self.headers.get("Host") or "").partition(":")[0]
        if host not in (HOST, "localhost"):  # another site's name for this machine; a tunnel may change the port
            self.send_error(421)
        elif self.path == "/":
            self._send("text/html; charset=utf-8", self._page().encode())
        elif self.path[1:].isdecimal() and int(self.path[1:]) < len(self.server.page.names):
            self._send_frames(int(self.path[1:]))
        else:
            self.send_error(404)

    def _page(self) -> str:
        figures = "".join(
            f'<figure><img src="/{n}" alt="Newest frame of {html.escape(name)}">'
            f"<figcaption>{html.escape(name)}</figcaption></figure>"
            for n, name in enumerate(self.server.page.names)
        )
        return (
            '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            '<link rel="icon" href="data:,"><title>lookonce: live</title>'
            f"<style>{STYLE}</style><body>{figures}</body></html>"
        )

    def _send(self, kind: str, content: bytes | None) -> None:
        """Send the head, and content if it has an end."""
        self.send_response(200)
        headers = {"Content-Type": kind, "Content-Security-Policy": POLICY, "Cache-Control": "no-store",
                   "X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin",
                   "Referrer-Policy": "no-referrer"}  # fmt: skip
        for name, value in headers.items():
            self.send_header(name, value)
        if content is not None:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content or b"")

    def _send_frames(self, place: int) -> None:
        """Send the newest frame of a source, again and again."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT_AHEAD)
        self._send(f"multipart/x-mixed-replace; boundary={BOUNDARY}", None)
        self.wfile.write(HEAD)
        frame = None
        with suppress(OSError):  # the viewer left, or takes nothing
            while (frame := self.server.page.next_frame(place, frame)) is not None:
                content = io.BytesIO()
                Image.fromarray(frame).save(content, "JPEG", quality=80)
                self.wfile.write(content.getvalue() + HEAD)

    def log_message(self, format: str, *args: object) -> None:
        """Write no log."""
