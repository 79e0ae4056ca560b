"""Tests of lookonce.data.tars. Oracle: tarfile. Remote tars are tested with data.formats.shards."""

import io
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from lookonce.data import tars
from lookonce.data.images import image_size, inspect, load_rgb
from lookonce.data.tars import Members, open_file, read_bytes, split_tar
from lookonce.errors import ImageError


@pytest.fixture
def tar(tmp_path):
    """A tar with a long and a short name, and the contents."""
    Image.fromarray(np.arange(12 * 9 * 3, dtype=np.uint8).reshape(12, 9, 3)).save(tmp_path / "x.png")
    contents = {"deep/" + "n" * 150 + ".png": (tmp_path / "x.png").read_bytes(), "b.txt": b"text", "c.bin": bytes(5000)}
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return tmp_path / "a.tar", contents


def test_members_are_read_by_their_path(tar):
    path, contents = tar
    for name, content in contents.items():
        assert read_bytes(path / name) == content
    with open_file(path / "b.txt") as file:
        assert file.read() == b"text"
    assert read_bytes(path.parent / "x.png") == contents[next(iter(contents))]


def test_images_in_tars_are_images_like_any_other(tar):
    path, contents = tar
    inside = path / next(iter(contents))
    assert image_size(inside) == (9, 12)
    assert inspect(inside) == (9, 12)
    assert np.array_equal(load_rgb(inside), load_rgb(path.parent / "x.png"))


@pytest.mark.parametrize("name, message", [
    ("none.png", "no such file"),
    ("b.txt", "a text file, not an image"),
])  # fmt: skip
def test_errors_name_tar_and_member(tar, name, message):
    with pytest.raises(ImageError, match=rf"a\.tar/{name}: {message}"):
        load_rgb(tar[0] / name)


def test_a_tar_that_is_not_there_or_cut_is_an_error(tar, tmp_path):
    path, contents = tar
    with pytest.raises(ImageError, match="no such file"):
        load_rgb(tmp_path / "none.tar" / "x.png")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(Exception, match="damaged or not a tar"):
        load_rgb(path / next(iter(contents)))


def test_a_tar_that_is_written_again_is_read_again(tar):
    path, _ = tar
    assert read_bytes(path / "b.txt") == b"text"
    with tarfile.open(path, "w") as file:
        info = tarfile.TarInfo("b.txt")
        info.size = 3
        file.addfile(info, io.BytesIO(b"new"))
    os.utime(path, ns=(1, 1))
    assert read_bytes(path / "b.txt") == b"new"


def test_folders_that_end_like_a_tar_are_folders(tmp_path):
    (tmp_path / "odd.tar").mkdir()
    (tmp_path / "odd.tar" / "a.txt").write_bytes(b"x")
    assert split_tar(tmp_path / "odd.tar" / "a.txt") is None
    assert read_bytes(tmp_path / "odd.tar" / "a.txt") == b"x"


def test_many_members_are_found_among_many():
    places = {f"{n}.jpg": (512 * n, n) for n in range(5000)}
    members = Members(places)
    assert all(members.find(name) == place for name, place in places.items())
    with pytest.raises(FileNotFoundError):
        members.find("5000.jpg")
    with pytest.raises(FileNotFoundError):
        Members({}).find("0.jpg")


def test_a_member_above_the_bound_is_not_read(tar, monkeypatch):
    monkeypatch.setattr(tars, "MOST_BYTES", 100)
    with pytest.raises(OSError, match="5,000 bytes; at most 100"):
        read_bytes(tar[0] / "c.bin")
