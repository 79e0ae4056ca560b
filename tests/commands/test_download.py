"""Tests of lookonce.commands.download: the command as the user has it, against a server on this machine."""

import io
import shutil
import socket
import tarfile

import pytest

from lookonce.cli import main
from lookonce.commands import download as command
from lookonce.commands.download import DownloadTable, download, find
from lookonce.data import download as fetching
from lookonce.data.download import DOWNLOADS, part_of
from lookonce.errors import UserError
from mirrors import CONTENT, remote_file, serving


def voc_tar():
    """A tar of two small files where Pascal VOC has them."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as file:
        for name, data in (("VOCdevkit/VOC2007/a.xml", b"<a/>"), ("VOCdevkit/VOC2007/a.jpg", bytes(99))):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return held.getvalue()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetching, "PAUSE", 0.0)
    with serving() as server:
        monkeypatch.setattr(command, "DOWNLOADS", (remote_file(server, "good"),))
        yield server


@pytest.fixture
def archive(monkeypatch):
    with serving(voc_tar()) as server:
        found = remote_file(server, "good", file="voc.tar", folder="VOCdevkit/VOC2007")
        monkeypatch.setattr(command, "DOWNLOADS", (found,))
        yield server


def test_without_a_name_the_table(capsys):
    assert download() == DownloadTable(DOWNLOADS)
    assert main(["download"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for found in DOWNLOADS:
        line = next(line for line in lines if line.split()[:1] == [found.name])
        assert f" {max(found.sizes) / 1e6:,.0f} " in line
        assert found.content in line
        assert found.source in line
    assert len(lines) == len(DOWNLOADS) + 3


@pytest.mark.parametrize("name", ["x", "x.weights"])
def test_a_file_comes_by_its_name(server, tmp_path, name):
    path = download(name, out=tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "x.weights"
    assert path.read_bytes() == CONTENT


def test_a_file_put_there_by_hand_is_checked_and_used(server, tmp_path):
    (tmp_path / "x.weights").write_bytes(CONTENT)
    assert download("x", out=tmp_path) == tmp_path / "x.weights"
    assert server.asked == []


@pytest.mark.parametrize("wrong, message", [
    (CONTENT[:-1], "300,007 bytes; expected 300,008"),
    (CONTENT[:-1] + b"?", "damaged, or another file"),
])  # fmt: skip
def test_another_file_in_its_place_is_kept_and_named(server, tmp_path, wrong, message):
    (tmp_path / "x.weights").write_bytes(wrong)
    with pytest.raises(UserError, match=message) as error:
        download("x", out=tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'x.weights'}: ")
    assert "move it away or choose another --out" in str(error.value)
    assert (tmp_path / "x.weights").read_bytes() == wrong
    assert server.asked == []


def test_an_archive_is_unpacked_and_once_only(archive, tmp_path):
    folder = download("x", out=tmp_path)
    assert folder == tmp_path / "VOCdevkit" / "VOC2007"
    assert sorted(p.name for p in folder.iterdir()) == ["a.jpg", "a.xml"]
    assert download("x", out=tmp_path) == folder
    assert len(archive.asked) == 1


@pytest.mark.parametrize("answer", ["page", "short", "gone", "for-ever", "hangs-up", "changed", "to-file"])
def test_a_failed_download_is_one_line_and_code_2(server, tmp_path, capsys, monkeypatch, answer):
    monkeypatch.setattr(command, "DOWNLOADS", (remote_file(server, answer),))
    assert main(["download", "x", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"by hand, save {server.url(answer)} (300,008 bytes) as {tmp_path / 'x.weights'}" in said
    assert not (tmp_path / "x.weights").exists()


def test_an_interrupt_is_passed_on(server, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetching, "_transfer", stop)
    with pytest.raises(KeyboardInterrupt):
        download("x", out=tmp_path)
    assert not (tmp_path / "x.weights").exists()


def test_offline_is_said_at_once_with_the_place_for_the_file(tmp_path, monkeypatch, capsys):
    asked = []

    def nowhere(host, *_, **__):
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", nowhere)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waited for a network that is not there"))
    for found in DOWNLOADS:
        assert main(["download", found.name, "--out", str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert said.count("Name or service not known") == len(found.mirrors)
        assert f"by hand, save {found.mirrors[0]} (" in said
        assert f" as {tmp_path / found.file} and run the same command again" in said
    assert len(asked) == sum(len(found.mirrors) for found in DOWNLOADS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name, message", [
    ("yolo2", r"download: 'yolo2'; .*did you mean 'yolov2'\?"),
    ("voc2007", r"did you mean 'voc2007-t"),
    ("zzzzz", "expected one of voc2007-trainval, voc2007-test"),
])  # fmt: skip
def test_a_wrong_name_is_told_the_nearest(name, message):
    with pytest.raises(UserError, match=message):
        find(name)


def test_too_small_a_disk_is_said_before(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=300_007))
    with pytest.raises(UserError, match=r"room for 300,007 bytes; x needs 300,008: make room"):
        download("x", out=tmp_path)
    assert server.asked == []
    part_of(tmp_path / "x.weights", server.url("good")).write_bytes(CONTENT[:1])  # one byte is there: the rest has room
    assert download("x", out=tmp_path).read_bytes() == CONTENT


def test_an_archive_needs_room_twice(archive, tmp_path, monkeypatch):
    usage, size = shutil.disk_usage(tmp_path), len(archive.content)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=2 * size - 1))
    with pytest.raises(UserError, match=f"x needs {2 * size:,}"):
        download("x", out=tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        download("x", out=tmp_path / "file" / "out")
