"""Tests of lookonce.data.duplicates."""

import shutil
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageFilter

from lookonce.data.duplicates import difference_hash, look, nearly_same, same_content
from photographs import photograph


@pytest.fixture
def paths(tmp_path):
    for n in range(12):
        photograph(n).save(tmp_path / f"{n:02}.png")
    shutil.copyfile(tmp_path / "03.png", tmp_path / "12.png")
    photograph(4).resize((75, 57)).save(tmp_path / "13.jpg", quality=70)
    photograph(5).crop((2, 2, 118, 89)).save(tmp_path / "14.png")
    photograph(6).filter(ImageFilter.GaussianBlur(1)).save(tmp_path / "15.jpg")
    photograph(7).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "16.png")
    for n, grey in ((17, 128), (18, 129)):
        Image.new("L", (50, 50), grey).save(tmp_path / f"{n}.png")
    return sorted(tmp_path.iterdir())


@pytest.mark.parametrize("workers", [1, 3])
def test_duplicates_are_found_and_nothing_else(paths, workers):
    looks = look(paths, workers)
    assert looks.errors == {}
    assert np.flatnonzero(same_content(looks) >= 0).tolist() == [12]
    assert same_content(looks)[12] == 3
    near = nearly_same(looks)
    assert {n: near[n] for n in np.flatnonzero(near >= 0).tolist()} == {13: 4, 14: 5, 15: 6}


def test_images_without_contrast_are_found(paths, tmp_path):
    looks = look(paths)
    assert np.flatnonzero(looks.flat).tolist() == [17, 18]
    thermal = tmp_path / "thermal.png"
    Image.fromarray(np.linspace(51_000, 51_400, 4800).astype(np.uint16).reshape(60, 80)).save(thermal)
    assert look([thermal]).flat.tolist() == [True]
    assert look([thermal], pixel_range=(51_000, 51_400)).flat.tolist() == [False]


def test_sizes_are_as_seen_and_unreadable_images_have_a_reason(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph(0).save(tmp_path / "turned.jpg", exif=exif)
    photograph(1).save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.png").write_text("text")
    names = ["turned.jpg", "whole.jpg", "cut.jpg", "text.png", "none.jpg"]
    looks = look([tmp_path / name for name in names])
    assert looks.sizes.tolist() == [[90, 120], [120, 90], [0, 0], [0, 0], [0, 0]]
    assert list(looks.errors) == [2, 3, 4]
    assert "incomplete" in looks.errors[2]
    assert "text file" in looks.errors[3]
    assert looks.errors[4] == "no such file"


def test_the_hash_is_that_of_its_definition():
    small = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    edges = np.linspace(0, 32, 10).astype(int)
    bits = ""
    for row in range(8):
        places = [small[4 * row : 4 * row + 4, a:b].mean() for a, b in pairwise(edges)]
        bits += "".join("1" if b > a else "0" for a, b in pairwise(places))
    assert int(difference_hash(small)) == int(bits, 2)


def test_a_video_is_one_group_and_not_all_pairs(tmp_path):
    scene = photograph(0, (200, 150))
    for n in range(30):
        scene.crop((n % 3, 0, 196 + n % 3, 148)).save(tmp_path / f"{n:02}.jpg", quality=60 + n)
    near = nearly_same(look(sorted(tmp_path.iterdir())))
    assert near[0] == -1
    assert (near[1:] == 0).all()
