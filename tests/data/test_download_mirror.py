"""Mirrors src/lookonce/mirror.py; the manners of the server are in mirrors.py."""

import threading

import pytest

from lookonce.data import download as mirror
from mirrors import CONTENT, PAGE, serving


@pytest.fixture
def server():
    with serving() as server:
        yield server


def body(server, manner, start=0):
    with mirror.ask(server.url(manner), start, (len(CONTENT),)) as response:
        return mirror.extent(response, start), response.read()


def test_the_whole_is_asked_for_without_a_range_the_rest_with_one(server):
    assert body(server, "good") == ((0, len(CONTENT)), CONTENT)
    assert body(server, "good", 1000) == ((1000, len(CONTENT)), CONTENT[1000:])
    assert server.asked == [("/good", None), ("/good", "bytes=1000-")]


def test_a_redirect_is_followed_with_its_range(server):
    assert body(server, "moved", 1000) == ((1000, len(CONTENT)), CONTENT[1000:])
    assert server.asked == [("/moved", "bytes=1000-"), ("/good", "bytes=1000-")]


def test_redirects_end(server):
    with pytest.raises(mirror.Refused, match="redirects more than 5 times"):
        mirror.ask(server.url("for-ever"), 0, (1,))
    assert len(server.asked) == 6


@pytest.mark.parametrize("manner, message", [
    ("to-file", "redirects to file:///etc/passwd, which is neither http nor https"),
    ("to-ftp", "redirects to ftp://127.0.0.1/x, which is neither"),
    ("to-nonsense", "redirects to something that is no address"),
    ("nowhere", "redirects to nowhere"),
    ("unknown", "answers 404 Not Found"),
    ("never-in-range", "answers 416"),
])  # fmt: skip
@pytest.mark.parametrize("start", [0, 10])
def test_what_will_not_change_is_refused(server, manner, message, start):
    with pytest.raises(mirror.Refused, match=message):
        mirror.ask(server.url(manner), start, (len(CONTENT),))


@pytest.mark.parametrize("manner, message", [("busy", "answers 503"), ("hangs-up", "closed connection")])
def test_what_may_change_is_broken(server, manner, message):
    with pytest.raises(mirror.Broken, match=message):
        mirror.ask(server.url(manner), 0, (len(CONTENT),))


def test_a_refused_range_means_complete_only_at_an_allowed_length(server):
    assert mirror.ask(server.url("good"), len(CONTENT), (len(CONTENT),)) is None
    assert body(server, "not-satisfied", 1000) == ((0, len(CONTENT)), CONTENT)
    with mirror.ask(server.url("good"), len(CONTENT), (len(CONTENT) + 4,)) as response:
        assert response.status == 200


@pytest.mark.parametrize("manner, message", [
    ("shifted", "sends another part"), ("packed", "packed as gzip"),
])  # fmt: skip
def test_an_answer_to_another_question_is_refused(server, manner, message):
    with pytest.raises(mirror.Refused, match=message):
        body(server, manner, 1000)


def test_nobody_there_is_refused_at_once():
    with pytest.raises(mirror.Refused, match="refused"):
        mirror.ask("http://127.0.0.1:1/x", 0, (1,))
    with pytest.raises(mirror.Refused):
        mirror.ask("http:// /x", 0, (1,))


def test_silence_is_bounded(server, monkeypatch):
    free = threading.Event()
    monkeypatch.setattr("mirrors.Handler.silent", lambda self: free.wait(60), raising=False)
    monkeypatch.setattr(mirror, "TIMEOUT", 0.05)
    with pytest.raises(mirror.Broken, match=r"silent for 0\.05 s"):
        mirror.ask(server.url("silent"), 0, (1,))
    free.set()


@pytest.mark.parametrize("head, kind", [
    (PAGE, "application/octet-stream"), (b"\xef\xbb\xbf  <HTML>\0", "application/octet-stream"),
    (b"\0\0\0\0", "text/html"), (b"<?xml version='1.0'?><Error/>", "application/xml"), (b"quota", "text/plain"),
])  # fmt: skip
def test_a_page_is_no_file(head, kind):
    with pytest.raises(mirror.Refused, match="instead of the file"):
        mirror.refuse_text(head, kind)


@pytest.mark.parametrize("head", [CONTENT[:100], b"VOCdevkit/VOC2007/" + b"\0" * 82, b""])
def test_a_file_is_no_page(head):
    mirror.refuse_text(head, "application/octet-stream")
