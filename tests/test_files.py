"""Mirrors src/lookonce/files.py."""

import os
import subprocess
import sys

import pytest

from lookonce.errors import UserError
from lookonce.files import replacing, sweep, write_text


def test_text_is_written_whole_with_plain_line_ends(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "x\ny\n")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"x\ny\n"


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")

    def fail(error):
        with replacing(tmp_path / "a.txt") as beside:
            beside.write_text("half")
            raise error

    with pytest.raises(KeyError):
        fail(KeyError("bug"))
    with pytest.raises(UserError, match=r"a.txt: cannot be written: No space left on device; nothing was changed"):
        fail(OSError(28, "No space left on device"))
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "x")


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    living = {f".{os.getpid()}-last.ckpt", f".{os.getppid()}-last.ckpt", f".{10**30}-last.ckpt"}
    others = {".hidden", "last.ckpt", "1-2.txt", ".1st-plan.txt"}
    for name in (f".{dead.pid}-last.ckpt", f".{dead.pid}-best.ckpt", *living, *others):
        (tmp_path / name).write_text("x")
    sweep(tmp_path, "last.*")
    assert {p.name for p in tmp_path.iterdir()} == living | others | {f".{dead.pid}-best.ckpt"}
    sweep(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == living | others
    sweep(tmp_path / "none")
