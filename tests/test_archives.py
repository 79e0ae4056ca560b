"""Mirrors src/lookonce/archives.py."""

import errno
import gzip
import io
import os
import shutil
import stat
import tarfile
import zipfile

import pytest

from conftest import CASES
from lookonce import archives
from lookonce.archives import unpack
from lookonce.errors import UserError

FILES = {"VOC/a.xml": b"<a/>" * 50, "VOC/JPEGImages/a.jpg": bytes(range(256)) * 8, "VOC/é.txt": b""}


def tar(path, entries, mode="w"):
    """A tar of (name, bytes) or of ready TarInfos."""
    with tarfile.open(path, mode) as file:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                file.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                file.addfile(info, io.BytesIO(entry[1]))
    return path


def special(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zipped(path, entries, mode=0):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, data)
    return path


def contents(folder):
    return {str(p.relative_to(folder).as_posix()): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(archive, tmp_path):
    """The one line; nothing new stands anywhere."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as error:
        unpack(archive, tmp_path / "out")
    left = [p for p in sorted(tmp_path.rglob("*")) if p not in before and p != tmp_path / "out"]
    assert left == []
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(tmp_path))
    return str(error.value)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_everything_is_unpacked(tmp_path, mode):
    archive = tmp_path / "a.tar"
    zipped(archive, FILES.items()) if mode == "zip" else tar(archive, FILES.items(), mode)
    assert unpack(archive, tmp_path / "out") == 3
    assert contents(tmp_path / "out") == FILES


def test_two_archives_share_a_folder(tmp_path):
    first, second = tar(tmp_path / "1.tar", FILES.items()), tar(tmp_path / "2.tar", [("VOC/b.xml", b"b")])
    assert unpack(first, tmp_path / "out") == 3
    assert unpack(second, tmp_path / "out") == 1
    assert contents(tmp_path / "out") == {**FILES, "VOC/b.xml": b"b"}


def test_unpacking_again_changes_nothing_and_mends_what_is_missing(tmp_path):
    archive = tar(tmp_path / "a.tar", FILES.items())
    unpack(archive, tmp_path / "out")
    edited = tmp_path / "out" / "VOC" / "a.xml"
    edited.write_bytes(b"mine" * 50)
    assert unpack(archive, tmp_path / "out") == 0
    (tmp_path / "out" / "VOC" / "é.txt").unlink()
    assert unpack(archive, tmp_path / "out") == 1
    assert contents(tmp_path / "out") == {**FILES, "VOC/a.xml": b"mine" * 50}


def test_what_is_in_the_way_is_kept(tmp_path):
    archive, there = tar(tmp_path / "a.tar", FILES.items()), tmp_path / "out" / "VOC" / "a.xml"
    there.parent.mkdir(parents=True)
    there.write_bytes(b"mine")
    assert "there already, but not as in a.tar (4 bytes; expected 200)" in refused(archive, tmp_path)
    assert there.read_bytes() == b"mine"
    there.unlink()
    there.parent.rmdir()
    there.parent.write_bytes(b"no folder")
    assert "in the way of a.tar" in refused(archive, tmp_path)


@pytest.mark.parametrize("target", ["../../outside.txt", "x" * 200])
def test_a_link_in_the_way_is_not_followed(tmp_path, target):  # the second is as long as the file, as a link
    (tmp_path / "outside.txt").write_bytes(b"<a/>" * 50)
    (tmp_path / "out" / "VOC").mkdir(parents=True)
    (tmp_path / "out" / "VOC" / "a.xml").symlink_to(target)
    assert "there already" in refused(tar(tmp_path / "a.tar", FILES.items()), tmp_path)


@pytest.mark.parametrize("name", [
    "../a", "/a", "x/../../a", "..", "C:/a", "C:a", "\\a", "..\\a", "x\\..\\..\\a", "//host/share/a",
])  # fmt: skip
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_no_member_leaves_the_folder(tmp_path, name, kind):
    entries = [("VOC/a.xml", b"a"), (name, b"out")]
    archive = tar(tmp_path / "a.tar", entries) if kind == "tar" else zipped(tmp_path / "a.zip", entries)
    assert "would lie outside the folder; nothing was unpacked" in refused(archive, tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("entry, what", [
    (special("VOC/l", tarfile.SYMTYPE, "/etc/passwd"), "a link"),
    (special("VOC/l", tarfile.SYMTYPE, "a.xml"), "a link"),
    (special("VOC/l", tarfile.LNKTYPE, "VOC/a.xml"), "a link"),
    (special("VOC/d", tarfile.CHRTYPE), "a device or pipe"),
    (special("VOC/d", tarfile.BLKTYPE), "a device or pipe"),
    (special("VOC/p", tarfile.FIFOTYPE), "a device or pipe"),
])  # fmt: skip
def test_only_files_and_folders(tmp_path, entry, what):
    archive = tar(tmp_path / "a.tar", [("VOC/a.xml", b"a"), entry])
    assert f"is {what}; only files and folders are unpacked; none was" in refused(archive, tmp_path)


@pytest.mark.parametrize("mode, what", [(stat.S_IFLNK | 0o777, "a link"), (stat.S_IFIFO, "a device or pipe")])
def test_a_zip_may_hold_no_link_either(tmp_path, mode, what):
    archive = zipped(tmp_path / "a.zip", [("VOC/l", b"/etc/passwd")], mode)
    assert f"is {what}" in refused(archive, tmp_path)


@pytest.mark.parametrize("kind", ["w:gz", "zip"])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, kind):
    entries = [("VOC/a", bytes(3_000_000))]
    archive = zipped(tmp_path / "a", entries) if kind == "zip" else tar(tmp_path / "a", entries, kind)
    said = refused(archive, tmp_path)
    assert f"{archive.stat().st_size:,} bytes that would unpack to 3,000,000, more than 20 times as many" in said


def test_members_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MEMBERS", 2)
    assert "more than 2 members" in refused(tar(tmp_path / "a.tar", FILES.items()), tmp_path)


@pytest.mark.parametrize("kind", ["w", "w:gz", "w:xz", "zip"])
@pytest.mark.parametrize("part", [0.2, 0.6])
def test_a_damaged_archive_is_one_line_and_leaves_nothing(tmp_path, kind, part):
    noise = os.urandom(20_000)
    entries = [("VOC/a", noise[:10_000]), ("VOC/b", noise[10_000:])]
    archive = tmp_path / "a"
    zipped(archive, entries) if kind == "zip" else tar(archive, entries, kind)
    data = bytearray(archive.read_bytes())
    archive.write_bytes(data[: int(len(data) * part)])
    assert "cut off" in (said := refused(archive, tmp_path)) or "damaged" in said
    if kind != "w":  # a plain tar has no checksum of its content: the download's own is for that
        data[int(len(data) * part)] ^= 0xFF
        archive.write_bytes(data)
        assert "cut off" in (said := refused(archive, tmp_path)) or "damaged" in said


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x03\x04" + b"\0" * 100])
def test_what_is_no_archive_is_refused(tmp_path, data):
    (tmp_path / "a.tar").write_bytes(data)
    assert "neither a tar nor a zip" in refused(tmp_path / "a.tar", tmp_path)


def test_a_locked_zip_is_refused(tmp_path):
    archive = zipped(tmp_path / "a.zip", FILES.items())
    data = bytearray(archive.read_bytes())
    data[6] |= 1  # the bit that says "encrypted", in the first file's own header and in the list at the end
    data[data.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(data)
    assert "damaged" in refused(archive, tmp_path)


def test_a_full_disk_is_said_before(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=2000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert "unpacks to 2,248 bytes" in refused(tar(tmp_path / "a.tar", FILES.items()), tmp_path)


def test_a_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    archive = tar(tmp_path / "a.tar", FILES.items())
    monkeypatch.setattr("tarfile.copyfileobj", full)
    said = refused(archive, tmp_path)
    assert "cannot be unpacked into" in said
    assert "No space left on device" in said


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    archive = tar(tmp_path / "a.tar", FILES.items())
    monkeypatch.setattr("tarfile.copyfileobj", stop)
    with pytest.raises(KeyboardInterrupt):
        unpack(archive, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_found_input_of_the_fuzz_test_is_told(tmp_path):
    for file in (CASES / "fuzz" / "zip").iterdir():
        refused(shutil.copy(file, tmp_path / "a.zip"), tmp_path)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK])
@pytest.mark.parametrize("size", [1 << 40, -512, (1 << 20) + 1])
def test_a_size_in_a_header_is_not_believed(tmp_path, kind, size):
    info = special("name", kind)
    info.size = size
    before = tarfile.TarInfo("a.txt").tobuf(tarfile.GNU_FORMAT)  # an empty file
    (tmp_path / "a.tar").write_bytes(before + info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    assert f"damaged (a header of {size} bytes)" in refused(tmp_path / "a.tar", tmp_path)


@pytest.mark.parametrize("size", ["99999999999999999999", "-1"])
def test_a_size_in_a_pax_record_is_not_believed(tmp_path, size):
    info = tarfile.TarInfo("a.txt")
    info.pax_headers = {"size": size}
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.PAX_FORMAT) + bytes(2048))
    refused(tmp_path / "a.tar", tmp_path)


def test_a_tail_of_zeros_is_not_read_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST_BEHIND", 3 << 20)
    path = tar(tmp_path / "a.tar", [("a.txt", b"x" * 5000)])
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(path.read_bytes() + bytes(8 << 20)))
    assert "3 MB behind its last member" in refused(tmp_path / "a.tar.gz", tmp_path)
