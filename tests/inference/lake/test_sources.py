"""Tests of lookonce.inference.lake.sources."""

import tarfile

import numpy as np
import pytest
from PIL import Image

from lookonce.data.images import load_rgb
from lookonce.errors import ImageError, UserError
from lookonce.inference.lake import sources
from lookonce.inference.lake.job import Job
from lookonce.inference.lake.sources import open_sources


@pytest.fixture
def photos(tmp_path):
    """Six images of one grey each, 0.png has 0, 1.png has 10, ..."""
    for n in range(6):
        Image.fromarray(np.full((8, 9, 3), 10 * n, np.uint8)).save(tmp_path / f"{n}.png")
    return tmp_path


def found(names, base=""):
    """(name, grey value or the error) of each image."""
    result = []
    for source in open_sources(names, Job("m", "", "jsonl", base=str(base))):
        try:
            result.append((str(source), int(load_rgb(source)[0, 0, 0])))
        except ImageError as error:
            result.append((str(source), error.found))
    return result


def packed(photos, name="a.tar", more=()):
    with tarfile.open(photos / name, "w") as tar:
        for n in (2, 0, 1):
            tar.add(photos / f"{n}.png", f"deep/{n}.png")
        for file in more:
            tar.add(file, file.name)
    return photos / name


def test_files_are_read_from_the_base_and_keep_their_names(photos):
    assert found(["3.png", str(photos / "4.png"), "no.png"], photos) == [
        ("3.png", 30), (str(photos / "4.png"), 40), ("no.png", "no such file")]  # fmt: skip


def test_many_addresses_come_in_their_order(photos):
    names = [f"file://{photos}/{n % 6}.png" for n in range(40)]
    assert found(names) == [(name, 10 * (n % 6)) for n, name in enumerate(names)]


def test_an_address_that_is_not_there_is_one_bad_image(photos, monkeypatch):
    monkeypatch.setattr(sources, "PAUSES", (0.0,))
    assert found([f"file://{photos}/x.png"]) == [(f"file://{photos}/x.png", "no such file or folder")]


def test_an_address_is_tried_again(photos, monkeypatch):
    tries = []

    def fails_twice(address, most):
        tries.append(address)
        if len(tries) < 3:
            raise UserError(f"{address}: cannot be read (timeout)")
        return (photos / "5.png").read_bytes()

    monkeypatch.setattr(sources, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(sources, "read_remote", fails_twice)
    assert found(["s3://b/a.png"]) == [("s3://b/a.png", 50)]


def test_the_images_of_a_tar_come_in_its_order(photos):
    (photos / "notes.json").write_text("{}")
    tar = packed(photos, more=[photos / "notes.json"])
    wanted = [("deep/2.png", 20), ("deep/0.png", 0), ("deep/1.png", 10)]
    assert found(["a.tar"], photos) == [(f"a.tar/{name}", value) for name, value in wanted]
    assert found([f"file://{tar}"]) == [(f"file://{tar}/{name}", value) for name, value in wanted]


@pytest.mark.parametrize("damage, message", [
    (lambda file: file.write_bytes(file.read_bytes()[:3000]), "damaged or not a tar"),
    (lambda file: file.write_bytes(b"\x1f\x8b" + bytes(600)), "a compressed tar"),
    (lambda file: file.unlink(), "No such file"),
])  # fmt: skip
def test_a_tar_that_is_no_good_is_one_bad_image(photos, damage, message):
    damage(packed(photos))
    (name, error), (good, value) = found(["a.tar", "1.png"], photos)
    assert (name, good, value) == ("a.tar", "1.png", 10)
    assert message in error
