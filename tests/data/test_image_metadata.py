"""Tests of lookonce.data.image_metadata. Oracle: Pillow's own exif_transpose and decoding."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from lookonce.data.image_metadata import has_end, orientation, png_chunks

XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{}"/></x:xmpmeta>'


def exif(turn):
    found = Image.Exif()
    found[0x0112] = turn
    return found.tobytes()


def photograph():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))


def encoded(format, **options):
    file = io.BytesIO()
    photograph().save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_orientation_is_that_of_pillow(turn):
    for format, options in (
        ("JPEG", {"exif": exif(turn)}), ("WEBP", {"exif": exif(turn), "lossless": True}), ("PNG", {"exif": exif(turn)}),
        ("JPEG", {"xmp": XMP.format(turn).encode()}), ("WEBP", {"xmp": XMP.format(turn).encode()}),
    ):  # fmt: skip
        with Image.open(io.BytesIO(encoded(format, **options))) as image:
            upright = ImageOps.exif_transpose(image)
            assert (orientation(image.info) > 4) == (upright.size != image.size)
            assert orientation(image.info) == turn


def test_a_long_run_of_fill_bytes_is_walked_once():
    """A marker of a JPEG may have any number of 0xFF before it."""
    began = time.thread_time()
    whole = encoded("JPEG")
    assert not has_end(io.BytesIO(whole[:-2] + b"\xff" * 2_000_000 + b"\0" * 5000))
    assert has_end(io.BytesIO(whole[:-2] + b"\xff" * 2_000_000 + b"\xd9" + b"\0" * 5000))
    assert time.thread_time() - began < 10


def test_texts_of_a_png_without_meaning_take_no_memory():
    """A thousand texts of a kilobyte each unpack to a megabyte each."""
    packed = zlib.compress(b"\0" * (1 << 20))
    parts = [b"k%d\0\0" % n + packed for n in range(1000)]
    chunks = b"".join(struct.pack(">I4s", len(part), b"zTXt") + part + b"\0\0\0\0" for part in parts)
    assert png_chunks(io.BytesIO(encoded("PNG")[:33] + chunks)) == (False, {})


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind, letter", [(1, "B"), (3, "H"), (4, "I")])
def test_both_byte_orders_and_all_whole_numbers_are_read(order, kind, letter):
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 1)
    entry = struct.pack(f"{order}HHI{letter}", 0x0112, kind, 1, 6)
    assert orientation({"exif": start + entry.ljust(12, b"\0")}) == 6
    assert orientation({"exif": b"Exif\0\0" + start + entry.ljust(12, b"\0")}) == 6


@pytest.mark.parametrize("damaged", [
    b"", b"Exif\0\0", b"garbage", b"II*\0", b"II*\0\xff\xff\xff\xff", 7, None,
    b"II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01",
    b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0",
    b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x01\0\0\0\x06\0\0\0",
])  # fmt: skip
def test_damaged_exif_means_not_rotated(damaged):
    assert orientation({"exif": damaged}) == 1
    assert orientation({"exif": damaged, "xmp": XMP.format(8).encode()}) == 8


def test_a_png_profile_and_xmp_are_read_wherever_they_stand():
    raw = exif(6)
    profile = f"\nexif\n{len(raw):8}\n{raw.hex()}\n"
    for add in (
        lambda info: info.add_text("Raw profile type exif", profile, zip=True),
        lambda info: info.add_text("Raw profile type exif", profile),
        lambda info: info.add_itxt("XML:com.adobe.xmp", XMP.format(6)),
        lambda info: info.add_itxt("XML:com.adobe.xmp", XMP.format(6), zip=True),
    ):
        info = PngImagePlugin.PngInfo()
        add(info)
        data = encoded("PNG", pnginfo=info)
        whole, found = png_chunks(io.BytesIO(data))
        assert (whole, orientation(found)) == (True, 6)
        moved = behind_the_pixels(data)
        assert orientation(png_chunks(io.BytesIO(moved))[1]) == 6
        with Image.open(io.BytesIO(moved)) as image:
            assert ImageOps.exif_transpose(image).size == (40, 60)


def behind_the_pixels(png):
    """The same PNG, its metadata moved behind its pixels, where Pillow finds it only after decoding."""
    chunks, place = [], 8
    while place < len(png):
        length, kind = struct.unpack_from(">I4s", png, place)
        chunks.append((kind, png[place : place + 12 + length]))
        place += 12 + length
    late = (b"tEXt", b"zTXt", b"iTXt", b"eXIf")
    order = [c for c in chunks if c[0] not in (*late, b"IEND")] + [c for c in chunks if c[0] in late] + chunks[-1:]
    return png[:8] + b"".join(content for _, content in order)


@pytest.mark.parametrize("format, options", [
    ("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"exif": exif(6), "restart_marker_blocks": 2}), ("PNG", {}),
    ("WEBP", {}), ("BMP", {}), ("GIF", {}),
])  # fmt: skip
@pytest.mark.parametrize("behind", [0, 100, 5000])
def test_whatever_stands_behind_the_end_does_not_count(format, options, behind):
    data = encoded(format, **options) + np.random.default_rng(1).bytes(behind)
    assert has_end(io.BytesIO(data))


@pytest.mark.parametrize("format, options", [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {})])
def test_the_end_of_a_cut_file_is_missing(format, options):
    data = encoded(format, **options)
    for cut in range(20, len(data) - 4, len(data) // 23):
        assert not has_end(io.BytesIO(data[:cut]))
    if format != "WEBP":  # which says its length alone
        assert not has_end(io.BytesIO(data[: len(data) // 2] + b"\0" * 5000))


def test_a_thumbnail_is_not_the_end():
    thumbnail = encoded("JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 8) + b"Exif\0\0" + thumbnail
    data = encoded("JPEG")
    whole = data[:2] + segment + data[2:]
    assert has_end(io.BytesIO(whole + b"\0" * 5000))
    assert not has_end(io.BytesIO(whole[: len(segment) + 300] + b"\0" * 5000))


def test_metadata_is_bounded():
    text = zlib.compress(b"x" * 50_000_000)
    chunk = b"Raw profile type exif\0\0" + text
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", len(chunk), b"zTXt") + chunk + b"\0\0\0\0"
    whole, found = png_chunks(io.BytesIO(data))
    assert not whole
    assert len(found["Raw profile type exif"]) <= 1 << 20
    assert orientation(found) == 1
