"""Mirrors src/lookonce/fetching.py; the manners of the server are in mirrors.py."""

import errno
import logging

import pytest

from lookonce.data import download as fetching
from lookonce.errors import UserError
from mirrors import CONTENT, offer, serving


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetching, "PAUSE", 0.0)
    monkeypatch.setattr(fetching, "STEP", 50_000)
    with serving() as server:
        yield server


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.weights"


def part(path):
    return path.with_name(path.name + ".part")


def refused(found, path):
    """The one line of a download that failed; nothing stands under the final name."""
    with pytest.raises(UserError) as error:
        fetching.fetch(found, path)
    assert "\n" not in str(error.value)
    assert "no mirror gave the file" in str(error.value)
    assert f"as {path} and run the same command again" in str(error.value)
    assert not path.exists()
    return str(error.value)


@pytest.mark.parametrize("manner", ["good", "moved", "no-ranges", "no-length", "drops", "busy-once"])
@pytest.mark.parametrize("checksum", [True, False])
def test_the_file_comes_whole(server, path, manner, checksum):
    fetching.fetch(offer(server, manner, checksum=checksum), path)
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("manner, asked", [
    ("good", ["bytes=1000-"]), ("no-ranges", ["bytes=1000-"]), ("not-satisfied", ["bytes=1000-", None]),
    ("drops", ["bytes=1000-", "bytes=101000-", "bytes=201000-"]),
])  # fmt: skip
def test_what_stands_is_continued(server, path, manner, asked):
    part(path).write_bytes(CONTENT[:1000])
    fetching.fetch(offer(server, manner), path)
    assert path.read_bytes() == CONTENT
    assert [found for _, found in server.asked][: len(asked)] == asked


def test_another_mirror_continues(server, path):
    fetching.fetch(offer(server, "stalls", "gone", "good"), path)
    assert path.read_bytes() == CONTENT
    assert server.asked[-1] == ("/good", f"bytes={fetching.TRIES}-")


@pytest.mark.parametrize("wrong, asked", [
    (b"?" * 1000, ["bytes=1000-", None]), (CONTENT + b"?", [None]), (b"?" * len(CONTENT), [None]),
])  # fmt: skip
def test_a_wrong_beginning_costs_only_a_second_start(server, path, wrong, asked):
    part(path).write_bytes(wrong)
    fetching.fetch(offer(server, "good"), path)
    assert path.read_bytes() == CONTENT
    assert [found for _, found in server.asked] == asked


def test_a_whole_part_is_checked_not_fetched_again(server, path):
    part(path).write_bytes(CONTENT)
    fetching.fetch(offer(server, "good"), path)
    assert server.asked == []
    assert path.read_bytes() == CONTENT


def test_of_two_lengths_the_mirror_says_which(server, path):
    both = (len(CONTENT) - 4, len(CONTENT))
    part(path).write_bytes(CONTENT[:-4])
    fetching.fetch(offer(server, "good", sizes=both, checksum=False), path)
    assert path.read_bytes() == CONTENT
    path.unlink()
    part(path).write_bytes(CONTENT)
    fetching.fetch(offer(server, "good", sizes=(len(CONTENT), len(CONTENT) + 4), checksum=False), path)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("manner, message", [
    ("page", "sends a web page instead of the file"),
    ("page-as-file", "sends a web page instead of the file"),
    ("file-as-page", "sends a web page instead of the file"),
    ("text", "sends text instead of the file"),
    ("packed", "sends it packed as gzip"),
    ("short", "offers 300,007 bytes; expected 300,008"),
    ("changed", "of the right length; expected "),
    ("endless", "sends more than 300,008 bytes"),
    ("stalls", "broke off at 3 of 300,008 bytes, 3 times in a row"),
    ("nothing", "offers 0 bytes; expected 300,008"),
    ("busy", "answers 503 Service Unavailable, 3 times in a row"),
    ("hangs-up", "Remote end closed connection without response, 3 times in a row"),
    ("for-ever", "redirects more than 5 times"),
    ("to-file", "which is neither http nor https"),
    ("gone", "answers 404 Not Found"),
    ("never-in-range", "answers 416"),
])  # fmt: skip
def test_a_failure_is_one_line_and_leaves_nothing_under_the_final_name(server, path, manner, message):
    assert message in refused(offer(server, manner), path)


@pytest.mark.parametrize(
    "manner", ["page", "text", "gone", "short", "for-ever", "busy", "shifted", "never-in-range", "says-nothing"]
)
def test_a_mirror_that_has_something_else_leaves_what_stands(server, path, manner):
    part(path).write_bytes(CONTENT[:1000])
    assert "1,000 bytes are kept" in refused(offer(server, manner), path)
    assert part(path).read_bytes() == CONTENT[:1000]


def test_every_mirror_is_named_with_its_reason(server, path):
    said = refused(offer(server, "gone", "page"), path)
    host = f"127.0.0.1:{server.server_port}"
    assert f"({host}: answers 404 Not Found; {host}: sends a web page instead of the file)" in said
    assert f"save {server.url('gone')} (300,008 bytes)" in said


def test_a_wrong_file_is_thrown_away(server, path):
    refused(offer(server, "changed"), path)
    assert not part(path).exists()


def test_an_interrupt_keeps_what_has_come(server, path, monkeypatch, caplog):
    monkeypatch.setattr(fetching, "CHUNK", 10_000)
    read, calls = fetching.read, []

    def stopped(*arguments):
        calls.append(0)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return read(*arguments)

    monkeypatch.setattr(fetching, "read", stopped)
    with caplog.at_level(logging.WARNING, "lookonce"), pytest.raises(KeyboardInterrupt):
        fetching.fetch(offer(server, "good"), path)
    kept = 1024 + 3 * 10_000
    assert part(path).read_bytes() == CONTENT[:kept]
    assert f"{kept:,} of 300,008 bytes kept; the same command goes on from there" in caplog.text
    assert not path.exists()
    fetching.fetch(offer(server, "good"), path)
    assert server.asked[-1] == ("/good", f"bytes={kept}-")
    assert path.read_bytes() == CONTENT


def test_a_full_disk_is_one_line_and_no_mirrors_fault(server, path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetching, "_write", full)
    with pytest.raises(UserError, match=r"x.weights.part: cannot be written: No space left on device; make room"):
        fetching.fetch(offer(server, "good", "good"), path)
    assert len(server.asked) == 1
    assert not path.exists()


def test_a_terminal_sees_a_bar(server, path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    fetching.fetch(offer(server, "good"), path)
    assert path.read_bytes() == CONTENT
