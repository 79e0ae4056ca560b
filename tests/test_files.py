"""Tests of lookonce.files."""

import os
import subprocess
import sys
import threading

import pytest

from lookonce.errors import UserError
from lookonce.files import (
    HOST,
    LOCK,
    check_output,
    held,
    is_running,
    new_folder,
    numbered_folder,
    optional_output,
    replacing,
    sweep,
    temporary,
    write_text,
)


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


@pytest.mark.parametrize("held", [2, 1000])
def test_a_file_that_another_program_holds_for_a_moment_is_tried_again(held, tmp_path, monkeypatch):
    """As virus scanners and Excel do on Windows."""
    tries = iter(range(held))

    def replace(source, target):
        if next(tries, None) is not None:
            raise PermissionError(13, "Access is denied")
        os.replace(source, target)

    monkeypatch.setattr("pathlib.Path.replace", replace)
    monkeypatch.setattr("lookonce.files.PATIENCE", 0.15)
    if held == 2:
        write_text(tmp_path / "a.txt", "x")
    else:
        with pytest.raises(UserError, match=r"a.txt: cannot be written: Access is denied"):
            write_text(tmp_path / "a.txt", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"] * (held == 2)


def test_output_that_is_optional_only_warns(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with optional_output():
        write_text(tmp_path / "file" / "report.html", "x")
    assert "report.html: cannot be written" in caplog.text
    assert caplog.text.strip().endswith("the training goes on without it")
    with pytest.raises(KeyError), optional_output():
        raise KeyError


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "x")


def dead_process():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_process_runs_or_not():
    assert is_running(os.getpid())
    assert not is_running(dead_process())
    assert not is_running(0)
    assert not is_running(2**40)


def test_what_a_dead_process_left_is_swept_and_nothing_else(tmp_path):
    dead = dead_process()
    gone = (f".writing-{HOST}-{dead}-1-last.ckpt", f".writing-00000000-{dead}-1-old.ckpt")
    kept = (".hidden", "last.ckpt", f".{dead}-notes.txt", ".writing-notes.txt",
            f".writing-{HOST}-{os.getpid()}-1-a.txt",
            f".writing-00000000-{dead}-1-new.ckpt")  # fmt: skip
    for name in (*gone, *kept):
        (tmp_path / name).write_text("x")
    os.utime(tmp_path / gone[1], (1e9, 1e9))  # of another machine, and old
    folder = tmp_path / f".writing-{HOST}-{dead}-1-out"
    folder.mkdir()
    (folder / "a.txt").write_text("x")
    sweep(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == set(kept)
    sweep(tmp_path / "none")


def test_a_writer_that_is_killed_leaves_what_the_next_sweep_removes(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from lookonce.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as beside: beside.write_text('half'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.onnx")], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    sweep(tmp_path)
    assert not list(tmp_path.iterdir())


def test_threads_and_long_names_have_temporary_names_of_their_own(tmp_path):
    found = []
    other = threading.Thread(target=lambda: found.append(temporary(tmp_path / "a.png")))
    other.start()
    other.join()
    assert found[0] != temporary(tmp_path / "a.png") == temporary(tmp_path / "a.png")
    for name in ("x" * 251 + ".png", "\N{HIRAGANA LETTER A}" * 83 + ".png"):
        with replacing(tmp_path / name) as beside:
            assert beside.suffix == ".png"
            beside.write_text("whole")
        assert (tmp_path / name).read_text() == "whole"


def test_output_replaces_nothing_and_joins_no_data_set_unless_told(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "page.html").write_text("the user's")
    check_output(tmp_path / "new.html", data=data)
    with pytest.raises(UserError, match=r"page\.html: already exists; give another name, or --overwrite"):
        check_output(tmp_path / "page.html", data=data)
    with pytest.raises(UserError, match=r"new\.html: is inside the data set .*data; give a place outside it"):
        check_output(tmp_path / "else" / ".." / "data" / "new.html", data=data)
    check_output(tmp_path / "page.html", overwrite=True, data=data)
    check_output(data / "new.html", overwrite=True, data=data)
    (data / "data.yaml").write_text("")
    check_output(tmp_path / "new.html", data=data / "data.yaml")


def test_a_folder_that_holds_files_is_refused_and_an_empty_one_taken(tmp_path):
    for name in ("new", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with new_folder(tmp_path / name) as folder:
            (folder / "a.txt").write_text("x")
        assert [p.name for p in folder.iterdir()] == ["a.txt"]
    with pytest.raises(UserError, match="new: holds files already; give another name"), new_folder(tmp_path / "new"):
        pass
    with new_folder(tmp_path / "new", reuse=True):
        pass
    assert (tmp_path / "new" / "a.txt").read_text() == "x"


@pytest.mark.parametrize("make", [new_folder, numbered_folder])
def test_an_error_removes_what_is_still_empty(make, tmp_path):
    with pytest.raises(KeyError), make(tmp_path / "out" / "deep" / "a"):
        raise KeyError
    assert not list(tmp_path.iterdir())
    with make(tmp_path / "out" / "a") as folder:
        write_text(folder / "worth.txt", "x")
    with pytest.raises(UserError), make(folder / "worth.txt" / "a"):
        pass
    assert [p.name for p in folder.iterdir()] == ["worth.txt"]


def test_numbers_go_to_the_first_folder_that_does_not_exist(tmp_path):
    for expected in ("a-1", "a-2"):
        with numbered_folder(tmp_path / "a") as folder:
            assert folder.name == expected
    for expected in ("b", "b-2", "b-3"):
        with numbered_folder(tmp_path / "b", start=2) as folder:
            assert folder.name == expected
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"), numbered_folder(tmp_path / "file" / "a"):
        pass


def test_of_many_that_want_a_name_at_once_each_gets_its_own(tmp_path):
    found, start = [], threading.Barrier(8)

    def take():
        start.wait()
        with numbered_folder(tmp_path / "out" / "run") as folder:
            found.append(folder.name)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [f"run-{n}" for n in range(1, 9)]


def test_a_folder_that_another_process_holds_is_refused(tmp_path):
    code = "import sys; from pathlib import Path; from lookonce.files import held\n"
    code += "with held(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline().strip() == b"held"
        with pytest.raises(UserError, match="is in use by another process"), held(tmp_path):
            pass
        other.stdin.close()
        other.wait()
    with held(tmp_path):
        assert (tmp_path / LOCK).exists()
    assert not list(tmp_path.iterdir())
