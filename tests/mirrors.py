"""A web server on this machine that answers as each test chooses: for the tests of downloading."""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest.mock import patch

import numpy as np

from lookonce.data.download import RemoteFile

CONTENT = b"\0\0\0\0\1\0\0\0" + np.random.default_rng(7).bytes(300_000)
"""What the good server has: like weights, it has zero bytes near its beginning."""
PAGE = b"\n<!DOCTYPE html>\n<html><body>Moved</body></html>" + b"\n" * 600


class Handler(BaseHTTPRequestHandler):
    """Answers /NAME as the method of that name says, and keeps the requests."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        self.close_connection = True
        getattr(self, self.path.strip("/").replace("-", "_"), self.missing)()

    def log_message(self, *_):
        pass

    def send(self, body, code=200, length=None, **headers):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    @property
    def start(self):
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))

    def good(self, most=None):
        content, start = self.server.content, self.start
        if start >= len(content):
            return self.send(b"", 416, Content_Range=f"bytes */{len(content)}")
        body = content[start:]
        if not start:
            return self.send(body[:most], length=len(body))
        where = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.send(body[:most], 206, length=len(body), Content_Range=where)

    def missing(self):
        self.send(b"<html>no</html>", 404)

    def drops(self):  # gives 100,000 bytes of what is left, then hangs up
        self.good(100_000)

    def stalls(self):  # gives one byte more than before, each time
        self.good(1)

    def no_ranges(self):
        self.send(self.server.content)

    def no_length(self):  # the connection's end is the file's
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.content)

    def says_nothing(self):
        self.send_response(200)
        self.end_headers()

    def endless(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.content + b"more")

    def short(self):
        self.send(self.server.content[:-1])

    def changed(self):
        self.send(self.server.content[:-1] + b"?")

    def page(self):
        self.send(PAGE, Content_Type="text/html; charset=utf-8")

    def page_as_file(self):
        self.send(PAGE, Content_Type="application/octet-stream")

    def file_as_page(self):
        self.send(self.server.content, Content_Type="text/html")

    def text(self):
        self.send(b'{"error": "quota"}' * 40, Content_Type="application/octet-stream")

    def nothing(self):
        self.send(b"")

    def packed(self):
        self.send(self.server.content, Content_Encoding="gzip")

    def shifted(self):
        content = self.server.content
        self.send(content, 206, Content_Range=f"bytes 0-{len(content) - 1}/{len(content)}")

    def never_in_range(self):
        self.send(b"", 416, Content_Range="bytes */7")

    def not_satisfied(self):  # refuses every range, gives the whole
        if self.headers.get("Range"):
            self.send(b"", 416, Content_Range="bytes */7")
        else:
            self.good()

    def hangs_up(self):
        self.close_connection = True

    def busy_once(self):
        if len(self.server.asked) == 1:
            self.send(b"", 503)
        else:
            self.good()

    def busy(self):
        self.send(b"", 503)

    def moved(self):
        self.send(b"", 302, Location="/good")

    def for_ever(self):
        self.send(b"", 302, Location="/for-ever")

    def nowhere(self):
        self.send(b"", 302)

    def shouts(self):
        self.wfile.write(b"HTTP/1.1 404 \x1b[31mNo\r\nContent-Length: 0\r\n\r\n")

    def many_digits(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n" % (b"9" * 5000))

    def to_file(self):
        self.send(b"", 302, Location="file:///etc/passwd")

    def to_ftp(self):
        self.send(b"", 301, Location="ftp://127.0.0.1/x")

    def to_nonsense(self):
        self.send(b"", 307, Location="http://[::1/x")


@contextmanager
def serving(content=CONTENT):
    """The server, running; `url(answer)` is an address on it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.content, server.asked = content, []
    server.url = lambda answer: f"http://127.0.0.1:{server.server_port}/{answer}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        with patch.dict(os.environ, {"no_proxy": "*"}):
            yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def remote_file(server, *answers, sizes=None, checksum=True, file="x.weights", folder=None):
    """What the server has, as an entry of DOWNLOADS."""
    content = server.content
    found = f"sha256:{hashlib.sha256(content).hexdigest()}" if checksum else None
    mirrors = tuple(server.url(answer) for answer in answers)
    return RemoteFile("x", file, sizes or (len(content),), "a test", "nowhere", mirrors, found, folder)
