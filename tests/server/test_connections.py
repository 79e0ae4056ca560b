"""Tests of lookonce.server.connections: sockets, slow connections, and damaged requests."""

import socket
import time
from contextlib import suppress

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
import httpx
import numpy as np
from serve import damaged, genuine

from lookonce import Detector, UserError
from lookonce.server import connections as module
from lookonce.server.connections import listen
from served import serving


def address(running):
    host, port = running.url.removeprefix("http://").split(":")
    return host, int(port)


def said(running, content, wait=0.3, until=None):
    """What the server answers to raw bytes until it closes, has sent this, or sends nothing for so many seconds."""
    answer = b""
    with socket.create_connection(address(running), wait) as sock, suppress(OSError):
        sock.sendall(content)
        while not (until and until in answer) and (part := sock.recv(1 << 16)):
            answer += part
    return answer


def test_a_port_that_is_taken_is_one_line():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"^port: {port} on 127.0.0.1 is taken by another program; give another"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("host, port", [("127.0.0.1", 70000), ("127.0.0.1", -1), ("192.0.2.1", 0), ("", 70000)])
def test_an_address_that_is_not_here_is_one_line(host, port):
    with pytest.raises(UserError, match=r"cannot be used \(.*\); expected an address of this machine"):
        listen(host, port)


def test_a_body_longer_than_allowed_is_refused_by_its_header(server):
    request = b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\nx"
    answer = said(server, request, 20, b"}")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"error":"too_large"' in answer


@pytest.mark.parametrize("content", [
    b"\x00" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/detect HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    b"POST /v1/detect HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20000,
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
])  # fmt: skip
def test_what_is_no_http_is_400_or_closed(content, server, http):
    answer = said(server, content)
    assert not answer or answer.split(b" ")[1][:1] == b"4", answer[:200]
    assert b"Traceback" not in answer
    assert http.get("/healthz").status_code == 200


def test_slow_connections_stop_nobody_and_are_closed(detector, monkeypatch, files):
    monkeypatch.setattr(module, "HEADER_SECONDS", 1.0)
    with serving({"m": lambda: Detector(detector.backend)}) as running:
        slow = [socket.create_connection(address(running), 10) for _ in range(100)]
        for sock in slow[:50]:
            sock.sendall(b"POST /v1/detect HTTP/1.1\r\nHost: loc")
        start = time.monotonic()
        answer = httpx.post(f"{running.url}/v1/detect", content=files[0].read_bytes())
        assert answer.status_code == 200
        for sock in slow:
            assert sock.recv(1) == b""
            sock.close()
        assert time.monotonic() - start < 10


def test_connections_have_a_limit(detector, monkeypatch):
    monkeypatch.setattr(module, "MOST_CONNECTIONS", 5)
    with serving({"m": lambda: Detector(detector.backend)}) as running:
        open_ = [socket.create_connection(address(running), 10) for _ in range(8)]
        closed = sum(sock.recv(1) == b"" for sock in open_[5:])
        assert closed == 3
        for sock in open_:
            sock.close()
        for _ in range(100):
            try:
                assert httpx.get(f"{running.url}/healthz").status_code == 200
                break
            except httpx.HTTPError:
                time.sleep(0.02)
        else:
            raise AssertionError("no place became free")


def test_damaged_requests_are_4xx_and_the_server_lives(server, http, files, caplog):
    draw, kinds = np.random.default_rng(0), list(genuine(files[0].read_bytes()[:3000], "squares"))
    for number in range(300):
        content = damaged(draw, kinds, number)
        answer = said(server, content)
        assert not answer or answer[9:10] in b"24", (content[:300], answer[:300])
    assert http.get("/healthz").status_code == 200
    assert "Traceback" not in caplog.text
    assert server.shared.bodies.taken == 0
