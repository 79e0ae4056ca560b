"""Tests of lookonce.data.download; the answers of the server are in mirrors.py."""

import contextlib
import errno
import hashlib
import re
import threading
import time
from types import SimpleNamespace
from urllib.parse import urlsplit

import httpx
import pytest
import torch

from lookonce.data import download
from lookonce.data.download import DOWNLOADS, MirrorError
from lookonce.errors import Interrupted, UserError
from lookonce.model import zoo
from lookonce.model.network import Network
from mirrors import CONTENT, PAGE, remote_file, serving

BY_NAME = {wanted.name: wanted for wanted in DOWNLOADS}


def numbers(layers):
    """How many float32 a network's file holds: each tensor of it once; a convolution with batch norm has no bias."""
    with torch.device("meta"):
        state = Network(layers).state_dict()
    return sum(value.numel() for name, value in state.items() if "num_batches" not in name)


def test_the_table_has_what_was_asked_for_once():
    assert set(BY_NAME) == {
        "voc2007-trainval", "voc2007-test", "voc2012-trainval", "yolov2", "yolov2-voc", "yolov2-tiny",
        "yolov2-tiny-voc", "yolo9000", "darknet19_448.conv.23", "yolov3", "yolov3-tiny", "darknet53.conv.74", "yolov4",
        "yolov4-tiny", "yolov4.conv.137", "yolov4-tiny.conv.29", "yolo-fastest-1.1", "yolo-fastest-1.1-xl",
    }  # fmt: skip
    assert len(BY_NAME) == len({wanted.file for wanted in DOWNLOADS}) == len(DOWNLOADS)


@pytest.mark.parametrize("name", list(BY_NAME))
def test_each_line_is_well_formed(name):
    wanted = BY_NAME[name]
    assert len(set(wanted.mirrors)) == len(wanted.mirrors) >= 2
    for url in wanted.mirrors:
        assert urlsplit(url).scheme in ("http", "https")
        assert url.endswith("/" + wanted.file)
    if wanted.checksum:
        algorithm, _, value = wanted.checksum.partition(":")
        assert len(bytes.fromhex(value)) == hashlib.new(algorithm, usedforsecurity=False).digest_size
    assert (wanted.folder is None) != wanted.file.endswith(".tar")


@pytest.mark.parametrize("name, layers, left_out", [
    ("yolov2", zoo.yolov2(80, zoo.VOC_ANCHORS), 0),
    ("yolov2-voc", zoo.yolov2(20, zoo.VOC_ANCHORS), 0),
    ("yolov2-tiny", zoo.yolov2_tiny(80, zoo.VOC_ANCHORS), 0),
    ("yolov2-tiny-voc", zoo.yolov2_tiny_voc(20, zoo.VOC_ANCHORS), 0),
    ("darknet19_448.conv.23", zoo.darknet19(), 1000 + 1024 * 1000),
])  # fmt: skip
def test_weights_are_as_long_as_their_network(name, layers, left_out):
    lengths = {header + 4 * (numbers(layers) - left_out) for header in (16, 20)}
    assert set(BY_NAME[name].sizes) <= lengths


def test_archives_are_whole_blocks_of_tar():
    assert [wanted.sizes[0] % 512 for wanted in DOWNLOADS if wanted.folder] == [0, 0, 0]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setattr(download, "STEP", 50_000)
    with serving() as server:
        yield server


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.weights"


def part(path, server, answer="good"):
    return download.part_of(path, server.url(answer))


def refused(found, path):
    """The one line of a download that failed; nothing stands under the final name."""
    with pytest.raises(UserError) as error:
        download.fetch(found, path)
    assert "\n" not in str(error.value)
    assert "no mirror gave the file" in str(error.value)
    assert f"as {path} and run the same command again" in str(error.value)
    assert not path.exists()
    return str(error.value)


@pytest.mark.parametrize("answer", ["good", "moved", "no-ranges", "no-length", "drops", "busy-once"])
@pytest.mark.parametrize("checksum", [True, False])
def test_the_file_comes_whole(server, path, answer, checksum):
    download.fetch(remote_file(server, answer, checksum=checksum), path)
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("answer, asked", [
    ("good", ["bytes=1000-"]), ("no-ranges", ["bytes=1000-"]), ("not-satisfied", ["bytes=1000-", None]),
    ("drops", ["bytes=1000-", "bytes=101000-", "bytes=201000-"]),
])  # fmt: skip
def test_what_stands_is_continued(server, path, answer, asked):
    part(path, server, answer).write_bytes(CONTENT[:1000])
    download.fetch(remote_file(server, answer), path)
    assert path.read_bytes() == CONTENT
    assert [found for _, found in server.asked][: len(asked)] == asked


@pytest.mark.parametrize("checksum", [True, False])
def test_another_mirror_starts_anew_and_continues_its_own_part(server, path, checksum):
    """Without a checksum nobody would see that a file was made of two."""
    part(path, server, "wrong").write_bytes(b"?" * 1000)
    part(path, server).write_bytes(CONTENT[:2000])
    found = remote_file(server, "stalls", "wrong", "drops", "good", checksum=checksum)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(download, "TRIES", 1)
        download.fetch(found, path)
    assert path.read_bytes() == CONTENT
    assert ("/drops", None) in server.asked
    assert server.asked[-1] == ("/good", "bytes=2000-")
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("wrong, asked", [
    (b"?" * 1000, ["bytes=1000-", None]), (CONTENT + b"?", [None]), (b"?" * len(CONTENT), [None]),
])  # fmt: skip
def test_a_wrong_beginning_costs_only_a_second_start(server, path, wrong, asked):
    part(path, server).write_bytes(wrong)
    download.fetch(remote_file(server, "good"), path)
    assert path.read_bytes() == CONTENT
    assert [found for _, found in server.asked] == asked


def test_a_whole_part_is_checked_not_fetched_again(server, path):
    part(path, server).write_bytes(CONTENT)
    download.fetch(remote_file(server, "good"), path)
    assert server.asked == []
    assert path.read_bytes() == CONTENT


def test_of_two_lengths_the_mirror_says_which(server, path):
    both = (len(CONTENT) - 4, len(CONTENT))
    part(path, server).write_bytes(CONTENT[:-4])
    download.fetch(remote_file(server, "good", sizes=both, checksum=False), path)
    assert path.read_bytes() == CONTENT
    path.unlink()
    part(path, server).write_bytes(CONTENT)
    download.fetch(remote_file(server, "good", sizes=(len(CONTENT), len(CONTENT) + 4), checksum=False), path)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("answer, message", [
    ("page", "sends a web page instead of the file"),
    ("page-as-file", "sends a web page instead of the file"),
    ("file-as-page", "sends a web page instead of the file"),
    ("text", "sends text instead of the file"),
    ("packed", "sends the file compressed as gzip"),
    ("short", "offers 300,007 bytes; expected 300,008"),
    ("changed", ": damaged, or another file"),
    ("endless", "sends more than 300,008 bytes"),
    ("stalls", "broke off at 3 of 300,008 bytes, 3 times in a row"),
    ("nothing", "offers 0 bytes; expected 300,008"),
    ("busy", "answers 503 Service Unavailable, 3 times in a row"),
    ("hangs-up", "Server disconnected without sending a response., 3 times in a row"),
    ("for-ever", "redirects more than 5 times"),
    ("to-file", "redirects from http to file:"),
    ("gone", "answers 404 Not Found"),
    ("never-in-range", "answers 416"),
    ("shouts", r"answers 404 \x1b[31mNo"),
    ("many-digits", "digits"),
])  # fmt: skip
def test_a_failure_is_one_line_and_leaves_nothing_under_the_final_name(server, path, answer, message):
    assert message in refused(remote_file(server, answer), path)


@pytest.mark.parametrize(
    "answer", ["page", "text", "gone", "short", "for-ever", "busy", "shifted", "never-in-range", "says-nothing"]
)
def test_a_mirror_that_has_something_else_leaves_what_stands(server, path, answer):
    part(path, server, answer).write_bytes(CONTENT[:1000])
    assert "1,000 bytes are kept" in refused(remote_file(server, answer), path)
    assert part(path, server, answer).read_bytes() == CONTENT[:1000]


def test_every_mirror_is_named_with_its_reason(server, path):
    said = refused(remote_file(server, "gone", "page"), path)
    host = f"127.0.0.1:{server.server_port}"
    assert f"({host}: answers 404 Not Found; {host}: sends a web page instead of the file)" in said
    assert f"save {server.url('gone')} (300,008 bytes)" in said


def test_a_wrong_file_is_thrown_away(server, path):
    refused(remote_file(server, "changed"), path)
    assert not part(path, server, "changed").exists()


def test_an_interrupt_keeps_what_has_come(server, path, monkeypatch):
    def chunks(_):
        yield CONTENT[:1024]
        yield CONTENT[1024:11_024]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(download, "_chunks", chunks)
        with pytest.raises(Interrupted) as stopped:
            download.fetch(remote_file(server, "good"), path)
    assert "11,024 of 300,008 bytes kept; run the same command again to continue" in str(stopped.value)
    assert stopped.value.exit_code == 130
    assert part(path, server).read_bytes() == CONTENT[:11_024]
    assert not path.exists()
    download.fetch(remote_file(server, "good"), path)
    assert server.asked[-1] == ("/good", "bytes=11024-")
    assert path.read_bytes() == CONTENT


def test_a_full_disk_is_one_line_and_no_mirrors_fault(server, path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")
        yield b""

    monkeypatch.setattr(download, "_chunks", full)
    with pytest.raises(
        UserError, match=r"x.weights.[0-9a-f]{8}.part: cannot be written: No space left on device; make room"
    ):
        download.fetch(remote_file(server, "good", "good"), path)
    assert len(server.asked) == 1
    assert not path.exists()


def test_a_terminal_sees_a_bar(server, path, monkeypatch):
    monkeypatch.setattr(download, "is_shown", lambda: True)
    download.fetch(remote_file(server, "good"), path)
    assert path.read_bytes() == CONTENT


@pytest.fixture
def client():
    with download._client() as client:
        client.headers["Connection"] = "close"  # the server may end a kept connection just when it is used again
        yield client


def body(client, url, start=0):
    response = download.request(client, url, start)
    return download.extent(response, start), response.read()


def test_the_whole_is_asked_for_without_a_range_the_rest_with_one(server, client):
    assert body(client, server.url("good")) == ((0, len(CONTENT)), CONTENT)
    assert body(client, server.url("good"), 1000) == ((1000, len(CONTENT)), CONTENT[1000:])
    assert server.asked == [("/good", None), ("/good", "bytes=1000-")]


def test_a_redirect_is_followed_with_its_range(server, client):
    assert body(client, server.url("moved"), 1000) == ((1000, len(CONTENT)), CONTENT[1000:])
    assert server.asked == [("/moved", "bytes=1000-"), ("/good", "bytes=1000-")]


def test_redirects_end(server, client):
    with pytest.raises(MirrorError, match="redirects more than 5 times"):
        download.request(client, server.url("for-ever"), 0)
    assert len(server.asked) == 6


def test_no_redirect_leads_from_https_back_to_http():
    def answer(request):
        return httpx.Response(302, headers={"Location": "http://example.invalid/x"})

    client = httpx.Client(transport=httpx.MockTransport(answer))
    with pytest.raises(MirrorError, match=r"redirects from https to http://example.invalid/x; expected https"):
        download.request(client, "https://example.invalid/x", 0)


@pytest.mark.parametrize("answer, message, retry", [
    ("to-file", r"redirects from http to file://.*; expected https", False),
    ("to-ftp", "redirects from http to ftp://127.0.0.1/x", False),
    ("to-nonsense", "Invalid URL in location header", True),
    ("nowhere", "answers 302", False),
    ("unknown", "answers 404 Not Found", False),
    ("busy", "answers 503", True),
    ("hangs-up", "Server disconnected", True),
])  # fmt: skip
@pytest.mark.parametrize("start", [0, 10])
def test_an_answer_without_the_file_says_whether_another_try_may_help(server, client, answer, message, retry, start):
    with pytest.raises(MirrorError, match=message) as error:
        download.request(client, server.url(answer), start)
    assert error.value.retry == retry


@pytest.mark.parametrize("answer, message", [("shifted", "sends another part"), ("packed", "compressed as gzip")])
def test_an_answer_to_another_question_is_refused(server, client, answer, message):
    with pytest.raises(MirrorError, match=message):
        download.extent(download.request(client, server.url(answer), 1000), 1000)


def test_nobody_there_is_refused_at_once(client):
    for url in ("http://127.0.0.1:1/x", "http:// /x", "https://127.0.0.1:999999/x"):
        with pytest.raises(MirrorError) as error:
            download.request(client, url, 0)
        assert not error.value.retry


def test_silence_is_bounded(server, monkeypatch):
    free = threading.Event()
    monkeypatch.setattr("mirrors.Handler.silent", lambda self: free.wait(60), raising=False)
    monkeypatch.setattr(download, "TIMEOUT", 0.05)
    with download._client() as client, pytest.raises(MirrorError, match=r"silent for 0\.05 s"):
        download.request(client, server.url("silent"), 0)
    free.set()


def test_an_answer_that_never_begins_is_given_up(server, monkeypatch):
    """Its head comes byte by byte, each before the time of one byte is over."""
    monkeypatch.setattr("mirrors.Handler.head_drips", head_drips, raising=False)
    monkeypatch.setattr(download, "WINDOW", 0.2)
    with download._client() as client, pytest.raises(MirrorError, match=r"does not answer within 0\.2 s"):
        download.request(client, server.url("head-drips"), 0)


def head_drips(handler):
    with contextlib.suppress(OSError):
        for _ in range(100):
            handler.wfile.write(b"H")
            time.sleep(0.02)


def test_a_mirror_that_drips_is_given_up_by_its_average_rate(server, path, monkeypatch):
    """Each byte comes before the time of one byte is over; what has come is kept, and the next mirror is asked."""
    monkeypatch.setattr("mirrors.Handler.drips", drips, raising=False)
    monkeypatch.setattr(download, "WINDOW", 0.2)
    monkeypatch.setattr(download, "SLOWEST", 100_000)
    assert re.search(
        r"sends [0-9.e+]+ bytes a second; expected at least 100000", refused(remote_file(server, "drips"), path)
    )
    download.fetch(remote_file(server, "drips", "good"), path)
    assert path.read_bytes() == CONTENT


def drips(handler):
    handler.send(CONTENT[:2000], length=len(CONTENT))
    with contextlib.suppress(OSError):
        for place in range(2000, 2100):
            handler.wfile.write(CONTENT[place : place + 1])
            time.sleep(0.02)


@pytest.mark.parametrize("headers", [
    {"Content-Length": "9" * 5000}, {"Content-Length": "-1"}, {"Content-Length": "\u0663"}, {"Content-Length": "1e9"},
])  # fmt: skip
def test_a_length_that_is_none_is_not_used(headers):
    assert download.extent(SimpleNamespace(status_code=200, headers=headers), 0) == (0, None)


@pytest.mark.parametrize("found", ["bytes 7-" + "9" * 5000 + "/*", "bytes 7-9/" + "9" * 5000, "bytes \u0667-9/10"])
def test_a_range_that_is_none_is_refused(found):
    with pytest.raises(MirrorError, match="another part"):
        download.extent(SimpleNamespace(status_code=206, headers={"Content-Range": found}), 7)


def test_a_proxy_that_cannot_be_used_is_one_line(server, path, monkeypatch):
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("HTTPS_PROXY", "gopher://127.0.0.1")
    with pytest.raises(UserError, match=r"the proxy .* cannot be used"):
        download.fetch(remote_file(server, "good"), path)


@pytest.mark.parametrize("head, kind", [
    (PAGE, "application/octet-stream"), (b"\xef\xbb\xbf  <HTML>\0", "application/octet-stream"),
    (b"\0\0\0\0", "text/html; charset=utf-8"), (b"<?xml version='1.0'?><Error/>", "application/xml"),
    (b"quota", "text/plain"),
])  # fmt: skip
def test_a_page_is_no_file(head, kind):
    with pytest.raises(MirrorError, match="instead of the file"):
        download.refuse_text(head, kind)


@pytest.mark.parametrize("head", [CONTENT[:100], b"VOCdevkit/VOC2007/" + b"\0" * 82, b""])
def test_a_file_is_no_page(head):
    download.refuse_text(head, "application/octet-stream")


def test_an_image_is_fetched_from_the_address_that_the_user_names(monkeypatch):
    with serving() as server:
        assert download.fetch_image(server.url("good")) == CONTENT
        assert download.fetch_image(server.url("moved")) == CONTENT
        with pytest.raises(UserError, match=r"/missing: answers 404 .*; check the address, or save the image"):
            download.fetch_image(server.url("missing"))
        monkeypatch.setattr(download, "MOST_BYTES", 1 << 10)
        with pytest.raises(UserError, match="sends more than 0 MB"):
            download.fetch_image(server.url("good"))
    with pytest.raises(UserError, match="file:///etc/passwd: expected the http or https address of one image"):
        download.fetch_image("file:///etc/passwd")
