"""Tests of lookonce.data.archives."""

import errno
import gzip
import io
import os
import random
import shutil
import stat
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from lookonce.data import archives
from lookonce.data.archives import tar_members, unpack
from lookonce.errors import UserError

CASES = Path(__file__).parents[1] / "cases"
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


def test_unpacking_again_only_adds_what_is_missing(tmp_path):
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
    assert "exists, but not as in a.tar (4 bytes; expected 200)" in refused(archive, tmp_path)
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
    assert "exists, but" in refused(tar(tmp_path / "a.tar", FILES.items()), tmp_path)


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
    assert f"is {what}; expected files and folders; nothing was unpacked" in refused(archive, tmp_path)


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
    assert "damaged" in refused(archive, tmp_path)
    if kind != "w":  # a plain tar has no checksum of its content: the download's own is for that
        data[int(len(data) * part)] ^= 0xFF
        archive.write_bytes(data)
        assert "damaged" in refused(archive, tmp_path)


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x03\x04" + b"\0" * 100])
def test_what_is_no_archive_is_refused(tmp_path, data):
    (tmp_path / "a.tar").write_bytes(data)
    assert "not an archive" in refused(tmp_path / "a.tar", tmp_path)


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


def raw(path, *parts):
    """A tar of headers and contents as they are, each filled up to a whole block."""
    blocks = b"".join(part + bytes(-len(part) % 512) for part in parts)
    path.write_bytes(blocks + bytes(1024))
    return path


def header(name, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % (sum(block) & 0o777777)
    return bytes(block)


LONG_NAME, PAX, SPARSE = tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.GNUTYPE_SPARSE


@pytest.mark.parametrize("parts, said", [
    ([header("a", -512)], "'a' claims to have -512 bytes"),
    ([header("a", 4, LONG_NAME), b"name", header("x", -(1 << 40))], "bytes"),
    ([header("a", 8 << 30, LONG_NAME)], "claims to have 8,589,934,592 bytes"),
    ([header("a", 1 << 60, PAX)], "claims to have"), ([header("a", -1, PAX)], "damaged"),
    ([header("a", 1 << 60)], "more than 20 times as many"), ([header("a", 4000)], "unexpected end of data"),
    ([header("a", 9, SPARSE), b"123456789"], "is a sparse file"),
    ([header("a", 26, PAX), b"26 size=-99999999999999999\n", header("x", 1), b"x"], "claims to have -|invalid header"),
    ([header("a", 30, PAX), b"30 GNU.sparse.map=0,1,99999,1\n", header("x", 1), b"x"], "is a sparse file"),
    ([header("a", 4, LONG_NAME), b"name"], "damaged"),
])  # fmt: skip
def test_sizes_that_a_tar_states_are_not_believed(tmp_path, parts, said):
    began = time.thread_time()
    message = refused(raw(tmp_path / "a.tar", *parts), tmp_path)
    assert any(words in message for words in said.split("|")) or said == "damaged"  # Python's patch releases differ
    packed = tmp_path / "b.tgz"
    packed.write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    refused(packed, tmp_path)
    assert time.thread_time() - began < 2


def test_long_names_and_attributes_are_read(tmp_path):
    names = ["VOC/" + "n" * 200 + ".txt", "VOC/\u732b" * 60 + ".txt"]
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / f"{form}.tar", "w", format=form) as file:
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = 3
                file.addfile(info, io.BytesIO(b"abc"))
        assert unpack(tmp_path / f"{form}.tar", tmp_path / f"out{form}") == 2
        assert contents(tmp_path / f"out{form}") == dict.fromkeys(names, b"abc")


def test_many_small_files_that_pack_well_are_no_bomb(tmp_path):
    archive = tar(tmp_path / "a.tgz", [(f"labels/{n:06}.txt", b"0 .5 .5 .1 .1\n") for n in range(500)], "w:gz")
    assert unpack(archive, tmp_path / "out") == 500


def test_what_follows_the_end_of_a_tar_is_bounded(tmp_path):
    plain = tar(tmp_path / "a.tar", [("a", b"a")]).read_bytes()
    (tmp_path / "b.tgz").write_bytes(gzip.compress(plain + bytes(30 << 20)))
    assert "more than 20 times as many" in refused(tmp_path / "b.tgz", tmp_path)


def damage(data, draw):
    """Some bytes changed, a part cut out or doubled, or a field of a header set to a large number."""
    found = bytearray(data)
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(found))
        way = draw.randrange(5)
        if way == 0:
            found[at] = draw.randrange(256)
        elif way == 1:
            del found[at : at + draw.randint(1, 40)]
        elif way == 2:
            found[at:at] = found[at : at + draw.randint(1, 600)]
        elif way == 3:
            found[at : at + 4] = draw.choice([b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", b"7777"])
        else:
            block = at // 512 * 512
            part = found[block : block + 512]
            if len(part) == 512:
                part[124:136] = draw.choice([b"\xff" * 12, b"\x80" + b"\x7f" * 11, b"77777777777\0", b"-0000000001\0"])
                part[148:156] = b"        "
                part[148:156] = b"%06o\0 " % (sum(part) & 0o777777)
                found[block : block + 512] = part
        if not found:
            break
    return bytes(found)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_damaged_archives_are_unpacked_or_refused_in_one_line(tmp_path, mode):
    draw = random.Random(mode)
    entries = [*FILES.items(), ("VOC/" + "n" * 150, b"long")]
    archive = tmp_path / "whole"
    zipped(archive, entries) if mode == "zip" else tar(archive, entries, mode)
    whole, outside = archive.read_bytes(), sorted(tmp_path.iterdir())
    said: list[str] = []
    for n in range(200):
        damaged = tmp_path / "damaged"
        damaged.write_bytes(damage(whole, draw))
        try:
            unpack(damaged, tmp_path / "out")
        except UserError as error:
            said.append(str(error))
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        damaged.unlink(missing_ok=True)
        assert sorted(tmp_path.iterdir()) == outside, n
    assert len(said) > 50
    assert not any("\n" in line for line in said)


def test_a_zip_whose_extra_field_is_cut_is_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes((CASES / "fuzz-zip" / "b0f7f523.bin").read_bytes())
    assert "damaged" in refused(tmp_path / "a.zip", tmp_path)


def test_the_members_of_a_plain_tar_are_where_tarfile_finds_them(tmp_path):
    archive = tar(tmp_path / "a.tar", FILES.items())
    content = archive.read_bytes()
    found = tar_members(archive)
    assert {name: content[at : at + size] for name, (at, size) in found.items()} == FILES
    assert list(found) == list(FILES)


@pytest.mark.parametrize("entries, message", [
    ([("../a.jpg", b"x")], "would lie outside the folder"),
    ([("/a.jpg", b"x")], "would lie outside the folder"),
    ([special("a.jpg", tarfile.SYMTYPE, "/etc/passwd")], "is a link"),
    ([special("a.jpg", tarfile.FIFOTYPE)], "is a device or pipe"),
])  # fmt: skip
def test_members_outside_and_special_ones_are_refused(tmp_path, entries, message):
    with pytest.raises(UserError, match=message):
        tar_members(tar(tmp_path / "a.tar", entries))


def test_only_plain_whole_tars_have_members(tmp_path):
    whole = tar(tmp_path / "a.tar", FILES.items()).read_bytes()
    for damaged in (whole[:700], whole[:1500], b"", b"text"):
        (tmp_path / "b.tar").write_bytes(damaged)
        with pytest.raises(UserError, match="damaged or not a tar"):
            tar_members(tmp_path / "b.tar")
    for archive, message in ((tar(tmp_path / "c.tar", FILES.items(), "w:gz"), "a compressed tar"),
                             (zipped(tmp_path / "d.tar", FILES.items()), "a zip; expected a tar")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            tar_members(archive)
