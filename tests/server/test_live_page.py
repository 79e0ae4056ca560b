"""Tests of lookonce.server.live_page."""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browser import Tab, needs_tab
from lookonce.server.live_page import HEAD, LivePage


def plain(level: int, size: tuple[int, int] = (80, 60)) -> np.ndarray:
    return np.full((size[1], size[0], 3), level, np.uint8)


@pytest.fixture
def page() -> Iterator[LivePage]:
    opened = LivePage()
    opened.begin(["door", "<yard>"])
    yield opened
    opened.close()


def get(page: LivePage, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(page.address.split("/")[2], timeout=20)
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def next_image(answer: http.client.HTTPResponse) -> Image.Image:
    content = b""
    while not content.endswith(HEAD):
        content += answer.read(1)
    return Image.open(io.BytesIO(content[: -len(HEAD)].removeprefix(HEAD)))


def test_a_viewer_gets_each_new_frame_of_its_source(page: LivePage) -> None:
    page.put("door", plain(10))
    answer = get(page, "/0")
    assert answer.getheader("Content-Type") == "multipart/x-mixed-replace; boundary=frame"
    assert answer.read(len(HEAD)) == HEAD
    assert next_image(answer).getpixel((5, 5)) == (10, 10, 10)
    page.put("<yard>", plain(99))
    page.put("door", plain(200))
    assert next_image(answer).getpixel((5, 5)) == (200, 200, 200)


def test_a_viewer_who_takes_nothing_holds_up_nobody_and_then_sees_the_newest_frame(page: LivePage) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (600, 1000, 3), np.uint8)
    host, port = page.address.split("/")[2].split(":")
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect((host, int(port)))
    slow.sendall(f"GET /0 HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    spent = []
    for n in range(60):
        frame = noise.copy()
        frame[:120] = 4 * n
        start = time.perf_counter()
        page.put("door", frame)
        spent.append(time.perf_counter() - start)
        time.sleep(0.001)
    assert np.median(spent) < 0.1  # it does not wait for the slow reader
    slow.settimeout(20)
    content = b""
    while not content.endswith(HEAD) or content.count(HEAD) < 3:
        content += slow.recv(1 << 16)
    slow.close()
    parts = content.split(HEAD)[1:-1]
    levels = [round(np.asarray(Image.open(io.BytesIO(part)))[:100].mean() / 4) for part in parts]
    assert levels[0] < levels[1] == 59  # what was on its way, then the newest


def test_names_are_text_and_the_policy_is_strict(page: LivePage) -> None:
    answer = get(page, "/")
    text = answer.read().decode()
    assert "&lt;yard&gt;" in text
    assert "<yard>" not in text
    policy = answer.getheader("Content-Security-Policy") or ""
    assert policy.startswith("default-src 'none'; img-src 'self' data:; style-src 'sha256-")
    assert "script" not in policy
    assert answer.getheader("Cross-Origin-Resource-Policy") == "same-origin"


@pytest.mark.parametrize(("path", "host", "status"), [("/2", "localhost:1", 404), ("/../etc", "localhost", 404),
                                                      ("/", "evil.example", 421), ("/0", "", 421)])  # fmt: skip
def test_other_addresses_and_other_names_of_the_host_are_refused(page: LivePage, path: str, host: str,
                                                                status: int) -> None:  # fmt: skip
    assert get(page, path, Host=host).status == status


def test_a_taken_port_is_replaced_by_a_free_one(page: LivePage) -> None:
    other = LivePage()
    assert other.address != page.address
    other.close()


@needs_tab
def test_a_browser_shows_the_frames_without_an_error(page: LivePage, tmp_path: Path) -> None:
    page.put("door", plain(10))
    page.put("<yard>", plain(60))
    with Tab(tmp_path) as tab:
        tab.size(390, 700)
        tab.go(page.address)
        tab.until("document.images.length === 2 && [...document.images].every(i => i.naturalWidth === 80)")
        assert tab.run("document.documentElement.scrollWidth") <= 390
        assert tab.errors == []
        assert {url.rsplit("/", 1)[0] + "/" for url in tab.requests} == {page.address}
