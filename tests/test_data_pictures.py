"""Mirrors src/lookonce/data/pictures.py."""

import os

import numpy as np
import pytest
from PIL import Image

from lookonce.data.pictures import (
    find_pictures,
    inspect,
    load_for,
    load_rgb,
    open_ahead,
    picture_size,
    walk_files,
    walk_images,
)
from lookonce.errors import PictureError, UserError

EXIF_TURNED = 6

needs_links = pytest.mark.skipif(os.name == "nt", reason="links need rights there")


def gradient(width=40, height=30):
    row = np.linspace(0, 255, width).astype(np.uint8)
    return Image.fromarray(np.repeat(row[None, :, None].repeat(height, 0), 3, 2))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "CMYK", "RGB"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    file = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    gradient().convert(mode).save(file)
    found = load_rgb(file)
    assert found.shape == (30, 40, 3)
    assert found.dtype == np.uint8
    if mode in ("L", "LA", "RGBA", "RGB"):
        np.testing.assert_allclose(found, np.asarray(gradient()), atol=1)


def test_sixteen_bits_are_scaled_not_cut(tmp_path):
    values = np.linspace(0, 65535, 40).astype(np.uint16)[None].repeat(30, 0)
    Image.fromarray(values).save(tmp_path / "x.png")
    np.testing.assert_allclose(load_rgb(tmp_path / "x.png")[0, :, 0], values[0] / 257, atol=1)


def test_transparent_parts_lie_on_white(tmp_path):
    Image.new("RGBA", (4, 4), (10, 20, 30, 0)).save(tmp_path / "x.png")
    assert (load_rgb(tmp_path / "x.png") == 255).all()


def test_exif_rotation_is_applied_to_pixels_and_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = EXIF_TURNED
    gradient().save(tmp_path / "x.jpg", exif=exif, quality=95)
    assert picture_size(tmp_path / "x.jpg") == (30, 40)
    found = load_rgb(tmp_path / "x.jpg")
    assert found.shape == (40, 30, 3)
    assert found[0].mean() < 20 < 200 < found[-1].mean()  # the dark left side is now at the top


def test_reduced_pictures_keep_their_shape_and_content(tmp_path):
    gradient(800, 400).save(tmp_path / "x.jpg", quality=95)
    found = load_rgb(tmp_path / "x.jpg", reduce_to=100)
    assert found.shape == (50, 100, 3)
    np.testing.assert_allclose(found[25, :, 0], np.linspace(0, 255, 100), atol=4)
    assert load_rgb(tmp_path / "x.jpg", reduce_to=1000).shape == (400, 800, 3)


@pytest.mark.parametrize("size", [(1, 1), (20_000, 10)])
def test_extreme_shapes_are_pictures_too(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "x.png")
    assert load_rgb(tmp_path / "x.png").shape == (size[1], size[0], 3)
    assert inspect(tmp_path / "x.png") == size
    assert max(load_rgb(tmp_path / "x.png", reduce_to=64).shape) <= 64


@pytest.mark.parametrize("content, message", [
    (b"hello, I am text\n", "a text file, not a picture"),
    (b"", "an empty file"),
    (b"\x00\x01\x02\x03" * 9, "not a picture of a known format"),
])  # fmt: skip
def test_what_is_no_picture_is_named(tmp_path, content, message):
    (tmp_path / "x.jpg").write_bytes(content)
    for read in (load_rgb, picture_size, inspect):
        with pytest.raises(PictureError, match=f"x.jpg: {message}"):
            read(tmp_path / "x.jpg")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(PictureError, match="no such file"):
        load_rgb(tmp_path / "no.jpg")
    with pytest.raises(PictureError, match="a folder"):
        load_rgb(tmp_path)


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_cut_picture_is_found_without_decoding_it(tmp_path, ending):
    file = tmp_path / f"x.{ending}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)).save(file)
    assert inspect(file) == (200, 200)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(PictureError, match="is cut"):
        inspect(file)
    with pytest.raises(PictureError, match="is cut"):
        load_rgb(file)


def test_bytes_after_the_end_marker_do_no_harm(tmp_path):
    gradient().save(tmp_path / "x.jpg")
    with (tmp_path / "x.jpg").open("ab") as file:
        file.write(b"\0" * 100)
    assert inspect(tmp_path / "x.jpg") == (40, 30)


def test_arrays_pass_or_are_refused():
    assert load_rgb(np.zeros((3, 4), np.uint8)).shape == (3, 4, 3)
    assert load_rgb(np.zeros((3, 4, 3), np.uint8)).shape == (3, 4, 3)
    for wrong in (np.zeros((3, 4, 3)), np.zeros((3, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(UserError, match=r"expected uint8, \[h, w, 3\] RGB"):
            load_rgb(wrong)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("lookonce.data.pictures.MOST_PIXELS", 100)
    gradient().save(tmp_path / "x.png")
    with pytest.raises(PictureError, match="40 x 30 pixels; at most 100"):
        load_rgb(tmp_path / "x.png")


def test_find_pictures_takes_files_folders_and_patterns(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.JPG", "a.png", "sub/c.jpeg", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert [os.path.basename(p) for p in find_pictures(tmp_path)] == ["a.png", "b.JPG", "c.jpeg"]
    assert [os.path.basename(p) for p in find_pictures(str(tmp_path / "*.png"))] == ["a.png"]
    assert find_pictures(tmp_path / "notes.txt") == [str(tmp_path / "notes.txt")]
    with pytest.raises(UserError, match="no pictures there"):
        find_pictures(tmp_path / "none" / "*.jpg")


def test_pictures_are_opened_ahead_in_order_and_no_further(tmp_path):
    for n in range(12):
        Image.new("RGB", (n + 1, 1)).save(tmp_path / f"{n:02d}.png")
    (tmp_path / "03.png").write_text("text")
    taken = []

    def paths():
        for path in sorted(tmp_path.iterdir()):
            taken.append(path)
            yield path

    opened = open_ahead(paths(), (96, 96), ahead=4)
    name, picture = next(opened)
    assert (name, picture.pixels.shape, picture.size) == (str(tmp_path / "00.png"), (1, 1, 3), (1, 1))
    assert len(taken) == 5
    rest = list(opened)
    assert [n for n, (_, p) in enumerate(rest, start=1) if isinstance(p, PictureError)] == [3]
    assert [p.pixels.shape[1] for _, p in rest if not isinstance(p, PictureError)] == [2, 3, *range(5, 13)]


@pytest.mark.parametrize("size, by", [((800, 600), 2), ((1600, 1200), 4), ((799, 399), 1), ((800, 399), 1)])
def test_a_jpeg_far_larger_than_the_input_is_decoded_at_a_fraction(tmp_path, size, by):
    """Oracle: the mean of each block of by x by pixels of the whole picture."""
    y, x = np.mgrid[: size[1], : size[0]]
    whole = np.stack((x * 255 / size[0], y * 255 / size[1], np.full_like(x, 90)), -1).astype(np.uint8)
    Image.fromarray(whole).save(tmp_path / "a.jpg", quality=98, subsampling=0)
    found = load_for(tmp_path / "a.jpg", (96, 100))  # twice 100 must be left of the shorter side
    assert (found.size, found.reduced) == (size, by > 1)
    assert found.pixels.shape == (size[1] // by, size[0] // by, 3)
    blocks = whole[: size[1] // by * by, : size[0] // by * by].reshape(size[1] // by, by, size[0] // by, by, 3)
    np.testing.assert_allclose(found.pixels, blocks.mean((1, 3)), atol=6)  # as lossy as JPEG is


def test_a_reduced_picture_is_upright_and_other_formats_come_whole(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (800, 400)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGB", (800, 400)).save(tmp_path / "a.png")
    turned, whole = load_for(tmp_path / "a.jpg", (96, 96)), load_for(tmp_path / "a.png", (96, 96))
    assert (turned.pixels.shape, turned.size) == ((400, 200, 3), (400, 800))
    assert (whole.pixels.shape, whole.size, whole.reduced) == ((400, 800, 3), (800, 400), False)


def test_what_is_opened_ahead_is_dropped_with_the_iterator(tmp_path):
    Image.new("RGB", (3, 1)).save(tmp_path / "a.png")
    opened = open_ahead([tmp_path / "a.png"] * 50, (96, 96), ahead=3)
    next(opened)
    opened.close()
    assert list(opened) == []


@pytest.mark.parametrize("folder, name, pattern", [
    ("dir[1]", "a.jpg", "dir[1]/*.jpg"), ("dir[1]", "a.jpg", "dir[1]"), ("dir", "photo[1].jpg", "dir/photo[1].jpg"),
    ("dir", "photo[1]a.jpg", "dir/photo[1]*.jpg"), ("a[b]/c[d]", "x.jpg", "a[b]/c[d]/?.jpg"),
    ("dir", "p1.jpg", "dir/p[1].jpg"), ("dir[1]", "a.jpg", "dir[1]/**/*.jpg"),
])  # fmt: skip
def test_brackets_in_names_that_exist_are_no_pattern(tmp_path, folder, name, pattern):
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / name).touch()
    assert find_pictures(tmp_path / pattern) == [str(tmp_path / folder / name)]


def test_an_existing_name_wins_over_what_its_pattern_means(tmp_path):
    for folder in ("dir1", "dir[1]"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jpg").touch()
    assert find_pictures(tmp_path / "dir[1]" / "*.jpg") == [str(tmp_path / "dir[1]" / "a.jpg")]


def test_hidden_files_and_folders_hold_no_images(tmp_path):
    for place in ("a.jpg", "._a.jpg", ".ipynb_checkpoints/b.jpg", "__MACOSX/c.jpg", "sub/.cache/d.jpg", "sub/e.jpg"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    assert list(walk_images(tmp_path)) == [str(tmp_path / "a.jpg"), str(tmp_path / "sub" / "e.jpg")]
    assert find_pictures(tmp_path) == list(walk_images(tmp_path))
    hidden = tmp_path / "sub" / ".cache"
    assert find_pictures(hidden) == [str(hidden / "d.jpg")]  # named, so meant


@needs_links
def test_links_to_folders_are_followed_once_and_loops_end(tmp_path):
    store = tmp_path / "store"
    (store / "deep").mkdir(parents=True)
    (store / "deep" / "a.jpg").touch()
    root = tmp_path / "set"
    root.mkdir()
    (root / "images").symlink_to(store)
    (root / "again").symlink_to(store / "deep")
    (store / "loop").symlink_to(root)
    (root / "broken").symlink_to(tmp_path / "gone")
    (root / "self").symlink_to(root / "self")
    assert [os.path.basename(path) for path in walk_images(root)] == ["a.jpg"]
    assert len(find_pictures(root)) == 1


def test_folders_are_left_out_where_they_are_not_to_be_entered(tmp_path):
    for place in ("a/x.txt", "b/a/y.txt", "z.txt"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    found = [
        (os.path.relpath(folder, tmp_path), names) for folder, names in walk_files(tmp_path, lambda p: p == ("a",))
    ]
    assert found == [(".", ["z.txt"]), ("a", ["x.txt"])]
