"""Tests of lookonce.data.images."""

import importlib.util
import io
import random
import struct
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, PngImagePlugin, features

from lookonce.data import images
from lookonce.data.images import (
    FORMATS,
    IMAGE_SUFFIXES,
    Decoded,
    image_size,
    inspect,
    load_for,
    load_rgb,
    measure_range,
    open_ahead,
)
from lookonce.errors import ImageError, UserError

CASES = Path(__file__).parents[1] / "cases"

EXIF_TURNED = 6


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
    assert image_size(tmp_path / "x.jpg") == (30, 40)
    found = load_rgb(tmp_path / "x.jpg")
    assert found.shape == (40, 30, 3)
    assert found[0].mean() < 20 < 200 < found[-1].mean()  # the dark left side is now at the top


def test_reduced_images_keep_their_shape_and_content(tmp_path):
    gradient(800, 400).save(tmp_path / "x.jpg", quality=95)
    found = load_rgb(tmp_path / "x.jpg", reduce_to=100)
    assert found.shape == (50, 100, 3)
    np.testing.assert_allclose(found[25, :, 0], np.linspace(0, 255, 100), atol=4)
    assert load_rgb(tmp_path / "x.jpg", reduce_to=1000).shape == (400, 800, 3)


@pytest.mark.parametrize("size", [(1, 1), (20_000, 10)])
def test_extreme_shapes_are_images_too(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "x.png")
    assert load_rgb(tmp_path / "x.png").shape == (size[1], size[0], 3)
    assert inspect(tmp_path / "x.png") == size
    assert max(load_rgb(tmp_path / "x.png", reduce_to=64).shape) <= 64


@pytest.mark.parametrize("content, message", [
    (b"hello, I am text\n", "a text file, not an image"),
    (b"", "an empty file"),
    (b"\x00\x01\x02\x03" * 9, "not an image of a known format"),
])  # fmt: skip
def test_what_is_no_image_is_named(tmp_path, content, message):
    (tmp_path / "x.jpg").write_bytes(content)
    for read in (load_rgb, image_size, inspect):
        with pytest.raises(ImageError, match=f"x.jpg: {message}"):
            read(tmp_path / "x.jpg")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        load_rgb(tmp_path / "no.jpg")
    with pytest.raises(ImageError, match="a folder"):
        load_rgb(tmp_path)


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_cut_image_is_found_without_decoding_it(tmp_path, ending):
    file = tmp_path / f"x.{ending}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)).save(file)
    assert inspect(file) == (200, 200)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ImageError, match="is incomplete"):
        inspect(file)
    with pytest.raises(ImageError, match="is incomplete"):
        load_rgb(file)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.parametrize("behind", [100, 100_000])
def test_bytes_behind_the_end_do_no_harm(tmp_path, ending, behind):
    """A phone's motion photo has its film there, a Samsung its trailer, an MPO its other images."""
    file = tmp_path / f"x.{ending}"
    gradient().save(file)
    with file.open("ab") as more:
        more.write(np.random.default_rng(0).bytes(behind))
    assert inspect(file) == (40, 30)
    assert load_rgb(file).shape == (30, 40, 3)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_an_image_is_incomplete_if_and_only_if_it_does_not_decode(tmp_path, ending):
    """A PNG without its last chunk, say, has all its pixels."""
    file = tmp_path / f"x.{ending}"
    gradient().save(file)
    data, whole = file.read_bytes(), 0
    for cut in range(1, 40):
        file.write_bytes(data[:-cut])
        try:
            load_rgb(file)
        except ImageError:
            with pytest.raises(ImageError, match="x"):
                inspect(file)
        else:
            whole += 1
            assert inspect(file) == (40, 30)
    assert whole > 5 or ending != "png"


@pytest.mark.parametrize("name", sorted(path.name for path in (CASES / "11-broken-exif").iterdir()))
def test_damaged_exif_means_not_rotated(name, recwarn):
    file = CASES / "11-broken-exif" / name
    assert image_size(file) == inspect(file) == (96, 64)
    assert load_rgb(file).shape == (64, 96, 3)
    with Image.open(file) as image:
        recwarn.clear()  # what Pillow itself says of it
        assert load_rgb(image).shape == (64, 96, 3)
    assert not recwarn.list


def with_xmp(turn):
    return f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{turn}"/>'


@pytest.mark.parametrize("turn", range(1, 9))
def test_size_and_pixels_turn_together_wherever_the_orientation_stands(tmp_path, turn):
    """Oracle: Pillow's exif_transpose of the decoded image."""
    exif = Image.Exif()
    exif[0x0112] = turn
    block, xmp = exif.tobytes(), with_xmp(turn).encode()
    itxt, raw = PngImagePlugin.PngInfo(), PngImagePlugin.PngInfo()
    itxt.add_itxt("XML:com.adobe.xmp", with_xmp(turn))
    raw.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n", zip=True)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8))
    for name, options in {
        "exif.jpg": {"exif": block}, "exif.png": {"exif": block}, "exif.webp": {"exif": block, "lossless": True},
        "exif.tif": {"exif": block}, "xmp.jpg": {"xmp": xmp}, "xmp.webp": {"xmp": xmp, "lossless": True},
        "xmp.png": {"pnginfo": itxt}, "raw.png": {"pnginfo": raw}, "xmp.tif": {"tiffinfo": {700: xmp}},
    }.items():  # fmt: skip
        file = tmp_path / name
        noise.save(file, **options)
        with Image.open(file) as image:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        height, width = expected.shape[:2]
        assert (width, height) == ((30, 40) if turn > 4 else (40, 30))
        assert image_size(file) == (width, height), name
        np.testing.assert_array_equal(load_rgb(file), expected, err_msg=name)
        decoded = load_for(file, (96, 96))
        assert (decoded.size, decoded.reduced) == ((width, height), False)
        with Image.open(file) as image:
            np.testing.assert_array_equal(load_rgb(image), expected, err_msg=name)


def test_every_format_that_pillow_decodes_has_its_endings():
    """Oracle: Pillow's own registry; .mpo is of JPEG's family, and HEIC of a package beside."""
    Image.init()
    known = {end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN and kind in FORMATS}
    assert known <= IMAGE_SUFFIXES
    assert IMAGE_SUFFIXES - known <= {".mpo", ".heic", ".heif", ".hif", ".avif", ".avifs"}
    assert not IMAGE_SUFFIXES & {".pdf", ".ps", ".eps", ".mpg", ".h5", ".hdf", ".txt", ".xml"}


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) =\n%%EOF\n"


def test_postscript_called_a_photograph_is_not_run(tmp_path, monkeypatch):
    """Pillow gives it to Ghostscript, here a program that leaves a file."""
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "photo.jpg").write_bytes(POSTSCRIPT)
    for read in (load_rgb, image_size, inspect, lambda file: load_rgb(Image.open(file))):
        with pytest.raises(ImageError):
            read(tmp_path / "photo.jpg")
    assert not (tmp_path / "ran").exists()


def test_a_format_that_another_package_adds_to_pillow_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setitem(Image.OPEN, "MINE", (Image.OPEN["PNG"][0], lambda prefix: prefix.startswith(b"mine")))
    monkeypatch.setattr(Image, "ID", ["MINE", *Image.ID])
    (tmp_path / "a.png").write_bytes(b"mine" + bytes(99))
    with pytest.raises(ImageError, match="not an image of a known format"):
        load_rgb(tmp_path / "a.png")


@pytest.mark.parametrize("name", sorted(path.name for path in (CASES / "10-image-endings").iterdir()))
def test_rarer_endings_are_images_too(name):
    file = CASES / "10-image-endings" / name
    assert file.suffix in IMAGE_SUFFIXES
    width, height = inspect(file)
    assert load_rgb(file).shape == (height, width, 3)


def test_a_heic_file_says_what_is_missing(tmp_path):
    pytest.importorskip("PIL")
    (tmp_path / "x.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 99)
    message = "a HEIC image: install pillow-heif" if importlib.util.find_spec("pillow_heif") is None else "x.heic"
    with pytest.raises(ImageError, match=message):
        load_rgb(tmp_path / "x.heic")


def test_a_postscript_file_is_no_image(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    with pytest.raises(ImageError, match="a text file"):
        image_size(tmp_path / "x.jpg")


def test_what_may_be_given_as_an_image(tmp_path):
    file = tmp_path / "x.png"
    gradient().save(file)
    expected = load_rgb(file)
    with file.open("rb") as opened:
        data, tensor = file.read_bytes(), torch.from_numpy(expected)
        opaque = np.dstack((expected, np.full((30, 40), 255, np.uint8)))
        for given in (str(file), data, bytearray(data), io.BytesIO(data), opened, Image.open(file), expected, opaque,
                      tensor, tensor.permute(2, 0, 1)):  # fmt: skip
            np.testing.assert_array_equal(load_rgb(given), expected)
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for given in (grey, grey[..., None], torch.from_numpy(grey[..., None])):
        np.testing.assert_array_equal(load_rgb(given), np.repeat(grey[..., None], 3, 2))
    np.testing.assert_array_equal(load_rgb(grey > 5)[..., 0], (grey > 5) * 255)
    assert (load_rgb(np.zeros((2, 2, 4), np.uint8)) == 255).all()  # transparent parts lie on white
    assert max(load_rgb(np.zeros((300, 200, 3), np.uint8), reduce_to=60).shape) == 60
    flipped = expected[:, ::-1]  # a view with negative strides
    np.testing.assert_array_equal(load_rgb(flipped), flipped)


@pytest.mark.parametrize("given, message", [
    (None, "cv2.imread returns None"), (0, "int '0' is not an image"), ({"a": 1}, "dict"), (object(), "object"),
    (np.zeros((3, 4, 3)), "float64 .*give .255 . image"), (np.zeros((3, 4, 2), np.uint8), r"uint8 \[3, 4, 2\]"),
    (np.zeros((0, 4, 3), np.uint8), r"\[0, 4, 3\]"), (np.zeros((2, 3, 4, 3), np.uint8), r"\[2, 3, 4, 3\]"),
    (torch.zeros(3, 8, 8), "Tensor of float32"), (np.zeros((3, 4), np.int64), "int64"),
    (io.StringIO("text"), "open it with 'rb'"),
])  # fmt: skip
def test_what_is_not_an_image_is_refused_with_what_may_be_given(given, message):
    with pytest.raises(UserError, match=message) as error:
        load_rgb(given)
    assert "\n" not in str(error.value)
    assert "BGR" in str(error.value) or "rb" in str(error.value)


def test_an_incomplete_image_is_refused_however_it_is_given(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)).save(tmp_path / "x.jpg")
    data = (tmp_path / "x.jpg").read_bytes()[:5000]
    (tmp_path / "x.jpg").write_bytes(data)
    with (tmp_path / "x.jpg").open("rb") as opened:
        for given in (tmp_path / "x.jpg", data, io.BytesIO(data), opened, Image.open(io.BytesIO(data)),
                      Image.open(tmp_path / "x.jpg")):  # fmt: skip
            with pytest.raises(ImageError, match="is incomplete"):
                load_rgb(given)
    for empty in (b"", io.BytesIO()):
        with pytest.raises(ImageError, match="an empty file"):
            load_rgb(empty)
    with pytest.raises(ImageError, match="a web address"):
        load_rgb("https://example.org/a.jpg")
    with pytest.raises(ImageError, match="no such file"):
        load_rgb("a\0b.jpg")


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("lookonce.data.images.MOST_PIXELS", 100)
    gradient().save(tmp_path / "x.png")
    for given in (tmp_path / "x.png", gradient()):
        with pytest.raises(ImageError, match="40 x 30 pixels; at most 100"):
            load_rgb(given)


def test_the_limit_of_pixels_is_ours_alone(tmp_path, monkeypatch, recwarn):
    """Pillow warns above its own limit, and refuses above twice that; ours is another, and Pillow's stays."""
    Image.new("L", (300, 300)).save(tmp_path / "x.png")
    for pillows in (60_000, 20_000):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
        assert image_size(tmp_path / "x.png") == (300, 300)
        assert load_rgb(tmp_path / "x.png", reduce_to=10).shape == (10, 10, 3)
        assert pillows == Image.MAX_IMAGE_PIXELS
    assert not recwarn.list


def test_more_pixels_than_a_file_can_hold_are_made_up(tmp_path):
    """A header that says 12000 x 12000 pixels takes no time and no memory; a small blank image is read."""
    file = tmp_path / "x.jpg"
    gradient().save(file)
    data = bytearray(file.read_bytes())
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", 12000, 12000)
    file.write_bytes(data)
    started = time.thread_time()
    for read in (image_size, load_rgb, inspect):
        with pytest.raises(ImageError, match=r"says 12000 x 12000 pixels in .* bytes, so its header is damaged"):
            read(file)
    assert time.thread_time() - started < 3  # decoding them takes minutes
    Image.new("1", (3000, 3000)).save(tmp_path / "x.png")
    assert load_rgb(tmp_path / "x.png").shape == (3000, 3000, 3)


def test_warnings_of_pillow_come_back_after_an_image(tmp_path):
    """The filter that keeps them away holds for our calls alone, however many threads read."""
    before = list(warnings.filters)
    gradient().save(tmp_path / "x.png")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(load_rgb, [tmp_path / "x.png"] * 64))
    assert list(warnings.filters) == before


def deep(values, name, folder):
    Image.fromarray(values).save(folder / name)
    return folder / name


def test_a_pixel_range_makes_deep_images_bytes_and_leaves_bytes_alone(tmp_path):
    ramp = np.linspace(0, 1, 40)[None].repeat(30, 0)
    files = {
        deep((51_000 + 1000 * ramp).astype(np.uint16), "thermal.png", tmp_path): (51_000, 52_000),
        deep((4095 * ramp).astype(np.uint16), "twelve.png", tmp_path): (0, 4095),
        deep(ramp.astype(np.float32), "float.tif", tmp_path): (0, 1),
        deep((3000 * ramp - 1000).astype(np.int32), "int.tif", tmp_path): (-1000, 2000),
    }
    for file, (low, high) in files.items():
        found = load_rgb(file, pixel_range=(low, high))
        np.testing.assert_allclose(found[..., 0], ramp * 255, atol=1.1)
        np.testing.assert_array_equal(found, load_for(file, (96, 96), (low, high)).pixels)
    twelve = (4095 * ramp).astype(np.uint16)
    np.testing.assert_allclose(load_rgb(twelve, pixel_range=(0, 4095))[..., 1], ramp * 255, atol=1.1)
    gradient().save(tmp_path / "x.png")
    np.testing.assert_array_equal(load_rgb(tmp_path / "x.png", pixel_range=(0, 9)), load_rgb(tmp_path / "x.png"))
    holes = np.array([[np.nan, np.inf, -np.inf, 0.5]], np.float32)
    assert load_rgb(deep(holes, "holes.tif", tmp_path))[0, :, 0].tolist() == [0, 255, 0, 128]


def test_the_pixel_range_of_a_data_set_is_measured_once(tmp_path):
    rng = np.random.default_rng(0)
    thermal = [deep(rng.integers(51_000, 52_000, (50, 60)).astype(np.uint16), f"{n}.png", tmp_path) for n in range(3)]
    assert measure_range(thermal) == pytest.approx((51_001, 51_998), abs=3)
    assert measure_range([deep(rng.random((9, 9), np.float32), "f.tif", tmp_path)]) == (0, 1)
    assert measure_range([deep(rng.integers(0, 200, (9, 9)).astype(np.uint16), "b.png", tmp_path)]) == (0, 255)
    assert measure_range([deep(np.full((9, 9), 700, np.uint16), "c.png", tmp_path)]) == (700, 701)
    gradient().save(tmp_path / "x.png")
    (tmp_path / "y.png").write_text("text")
    assert measure_range([tmp_path / "x.png", tmp_path / "y.png"]) is None
    assert measure_range([tmp_path / "x.png", *thermal]) == measure_range(thermal)
    assert measure_range([]) is None


def test_an_image_that_becomes_flat_is_reported_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("lookonce.data.images._flat_warned", set())
    case = CASES / "44-16-bit-grey" / "06-12of16bit.png"
    for _ in range(2):
        load_rgb(case)
    load_rgb(case, pixel_range=(0, 4095))
    load_rgb(np.zeros((4, 4), np.uint16))  # flat by itself
    assert len(caplog.records) == 1
    assert "06-12of16bit.png: its values, 0 to 3824, are nearly flat in the pixel range 0 to 65535" in caplog.text


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "TGA", "JPEG2000", "AVIF", "ICO"])
def test_whatever_a_file_holds_it_gives_an_image_or_an_image_error(format, recwarn):
    """Bytes changed at random; every reader of the module; the seed is fixed."""
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow has no AVIF here")
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    gradient().save(file, format, **({"exif": exif} if format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") else {}))
    data, rng, said = file.getvalue(), random.Random(format), []
    for _ in range(60):
        changed = bytearray(data)
        for _ in range(rng.randint(1, 6)):
            changed[rng.randrange(min(len(changed), 400) if rng.random() < 0.7 else len(changed))] = rng.randrange(256)
        if rng.random() < 0.2:
            del changed[rng.randrange(len(changed)) :]
        try:
            found = load_for(bytes(changed), (64, 64))
        except ImageError as error:
            said.append(str(error))
        else:
            assert found.reduced or found.size == found.pixels.shape[1::-1]
    assert not any("\n" in text for text in said)
    assert [str(warning.message) for warning in recwarn.list] == []


def test_images_that_take_much_memory_are_decoded_one_by_one(tmp_path, monkeypatch):
    """Eight threads; the most that decode at once is counted in the place of decoding."""
    running, most = [0], [0]
    decode = images._upright_rgb

    def counted(*given):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        try:
            time.sleep(0.001)  # so that threads overlap if they can
            return decode(*given)
        finally:
            with lock:
                running[0] -= 1

    lock = threading.Lock()
    gradient(100, 100).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "_upright_rgb", counted)
    for room in (1, 100 * 100 * images.BYTES_A_PIXEL * 3 // 2):  # less than one image takes, and than two
        monkeypatch.setattr(images, "DECODING", room)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(load_rgb, [tmp_path / "a.png"] * 40))
    assert most[0] == 1
    assert images._memory._taken == 0


def test_fewer_images_wait_where_they_are_large(tmp_path, monkeypatch):
    gradient(100, 100).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "WAITING", 3 * 100 * 100 * 2)
    taken = []
    paths = (taken.append(n) or tmp_path / "a.png" for n in range(9))
    opened = open_ahead(paths, (96, 96), ahead=6)
    next(opened)
    assert len(taken) == 3  # two wait, and the third has been looked at
    assert len(list(opened)) == 8


def test_images_are_opened_ahead_in_order_and_no_further(tmp_path):
    for n in range(12):
        Image.new("RGB", (n + 1, 1)).save(tmp_path / f"{n:02d}.png")
    (tmp_path / "03.png").write_text("text")
    taken = []

    def paths():
        for path in sorted(tmp_path.iterdir()):
            taken.append(path)
            yield path

    opened = open_ahead(paths(), (96, 96), ahead=4)
    name, image = next(opened)
    assert (name, image.pixels.shape, image.size) == (str(tmp_path / "00.png"), (1, 1, 3), (1, 1))
    assert len(taken) == 5
    rest = list(opened)
    assert [n for n, (_, p) in enumerate(rest, start=1) if isinstance(p, ImageError)] == [3]
    assert [p.pixels.shape[1] for _, p in rest if not isinstance(p, ImageError)] == [2, 3, *range(5, 13)]


@pytest.mark.parametrize("size, by", [((800, 600), 2), ((1600, 1200), 4), ((799, 399), 1), ((800, 399), 1)])
def test_a_jpeg_far_larger_than_the_input_is_decoded_at_a_fraction(tmp_path, size, by):
    """Oracle: the mean of each block of by x by pixels of the whole image."""
    y, x = np.mgrid[: size[1], : size[0]]
    whole = np.stack((x * 255 / size[0], y * 255 / size[1], np.full_like(x, 90)), -1).astype(np.uint8)
    Image.fromarray(whole).save(tmp_path / "a.jpg", quality=98, subsampling=0)
    found = load_for(tmp_path / "a.jpg", (96, 100))  # twice 100 must be left of the shorter side
    assert (found.size, found.reduced) == (size, by > 1)
    assert found.pixels.shape == (size[1] // by, size[0] // by, 3)
    blocks = whole[: size[1] // by * by, : size[0] // by * by].reshape(size[1] // by, by, size[0] // by, by, 3)
    np.testing.assert_allclose(found.pixels, blocks.mean((1, 3)), atol=6)  # as lossy as JPEG is


def test_a_reduced_image_is_upright_and_other_formats_come_whole(tmp_path):
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


def test_a_process_can_be_limited_to_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(images, "_most_cores", None)
    everything = images.usable_cores()
    images.limit_cores(1)
    assert images.usable_cores() == 1
    images.limit_cores(everything + 5)
    assert images.usable_cores() == everything


def test_images_are_prepared_in_the_threads_that_decode_them(tmp_path):
    for number in range(3):
        Image.new("RGB", (40 + number, 30), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"")
    threads = set()

    def prepare(image):
        threads.add(threading.current_thread())
        return image.size

    found = [image for _, image in open_ahead([tmp_path / f"{n}.png" for n in range(3)], (96, 96), prepare=prepare)]
    assert [image.prepared for image in found[::2]] == [(40, 30), (42, 30)]
    assert isinstance(found[1], ImageError)
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_pixels_of_a_decoded_image_are_those_of_load_rgb(mode, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 4), np.uint8)
    Image.fromarray(pixels, "RGBA").convert(mode).save(tmp_path / "a.png")
    decoded = load_for(tmp_path / "a.png", (96, 96))
    assert np.array_equal(decoded.pixels, load_rgb(tmp_path / "a.png"))
    assert decoded.pixels is decoded.pixels
    assert (decoded.decoded_size, decoded.reduced) == ((30, 20), False)
    assert Decoded(decoded.pixels, (60, 40)).decoded_size == (30, 20)
    assert Decoded(decoded.pixels, (60, 40)).reduced


def test_without_an_input_size_a_file_is_decoded_in_full(tmp_path):
    Image.effect_noise((1600, 1200), 60).save(tmp_path / "a.jpg")
    assert load_for(tmp_path / "a.jpg", (64, 64)).reduced
    whole = load_for(tmp_path / "a.jpg", None)
    assert not whole.reduced
    np.testing.assert_array_equal(whole.pixels, load_rgb(tmp_path / "a.jpg"))
    [(_, ahead)] = open_ahead([tmp_path / "a.jpg"], None)
    np.testing.assert_array_equal(ahead.pixels, whole.pixels)
