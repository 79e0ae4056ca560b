"""Tests of lookonce.inference.cache."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lookonce.cli import main
from lookonce.commands.cache import cache
from lookonce.inference import cache as home
from lookonce.inference.cache import CacheError, in_use, locked, make_room

KEYS = [f"{n:032x}" for n in range(6)]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LOOKONCE_CACHE", str(tmp_path / "c"))
    return tmp_path / "c"


def put(key, size=1000, used=None, kind="forms"):
    with locked(kind, key) as entry:
        entry.empty()
        (entry.folder / "a.bin").write_bytes(bytes(size))
        entry.finish(f"entry {key[-1]}", entry.folder / "a.bin")
        if used is not None:
            os.utime(entry.folder / "entry.json", (used, used))
    return entry


def test_an_entry_is_whole_only_as_it_was_finished(folder):
    entry = put(KEYS[0])
    assert entry.is_whole()
    (entry.folder / "a.bin").write_bytes(bytes(999) + b"x")
    assert not entry.is_whole()
    with locked("forms", KEYS[0]) as again:
        again.empty()
        assert list(again.folder.iterdir()) == []
        assert not again.is_whole()
    for text in ("", "[]", "null", '{"what": 1}', '{"digests": {"../../x": "0"}}', "\xff"):
        (entry.folder / "entry.json").write_bytes(text.encode("latin-1"))
        assert not entry.is_whole()
        str(cache())


def test_what_was_used_longest_ago_goes_first_and_never_what_is_in_use(folder, monkeypatch):
    monkeypatch.setattr(home, "MOST_BYTES", 3500)
    entries = [put(key, used=1e9 + n) for n, key in enumerate(KEYS)]
    with locked("forms", KEYS[0]):
        with locked("forms", KEYS[1]) as entry:
            use = in_use(entry)
            use.__enter__()
        assert entries[3].is_whole()  # which is a use
        make_room()
        assert [entry.folder.exists() for entry in entries] == [True, True, False, True, False, False]
    make_room(need=1000)
    assert [entry.folder.exists() for entry in entries] == [False, True, False, True, False, False]
    use.__exit__(None, None, None)
    make_room(need=1e9)
    assert not any(entry.folder.exists() for entry in entries)


def test_a_lock_is_waited_for_and_said(folder, caplog):
    caplog.set_level("INFO", "lookonce")
    order = []
    with locked("forms", KEYS[0]):
        other = threading.Thread(target=lambda: [put(KEYS[0]), order.append("other")])
        other.start()
        while "waiting for another process" not in caplog.text:
            other.join(0.05)
        order.append("first")
    other.join()
    assert order == ["first", "other"]


def test_a_process_that_was_killed_holds_nothing(folder):
    code = """
import os, sys
from lookonce.inference.cache import in_use, locked
with locked("forms", sys.argv[1]) as entry, in_use(entry):
    entry.finish("half")
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code, KEYS[0]], check=False).returncode == 9
    assert "half" in str(cache())
    assert main(["cache", "--clear"]) == 0
    assert "0 entries" in str(cache())


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOOKONCE_CACHE", str(tmp_path / "file" / "c"))
    with pytest.raises(CacheError, match="the cache folder cannot be written"), locked("forms", KEYS[0]):
        pass
    assert main(["cache"]) == 0


def test_without_a_word_it_lies_where_the_system_keeps_caches(monkeypatch):
    monkeypatch.delenv("LOOKONCE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/where")
    monkeypatch.setenv("HOME", "/home/me")
    expected = {"linux": Path("/some/where/lookonce"), "darwin": Path("/home/me/Library/Caches/lookonce")}
    if sys.platform in expected:
        assert home.cache_folder() == expected[sys.platform]
