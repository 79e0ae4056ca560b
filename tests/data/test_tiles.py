"""Tests of lookonce.data.tiles."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookonce.data import tiles
from lookonce.data.dataset import Record, pack
from lookonce.data.images import load_rgb
from lookonce.data.tiles import Tile, TileReader, Tiling, auto_tile, box_sizes, in_tiles, read_tile, size_text
from lookonce.errors import ConfigError, ImageError


@pytest.mark.parametrize(("size", "tile", "overlap"), [
    ((1000, 700), (320, 320), 0.2), ((1000, 700), (320, 200), 0.0), ((321, 320), (320, 320), 0.5),
    ((5000, 33), (64, 64), 0.9), ((640, 640), (320, 320), 0.0),
])  # fmt: skip
def test_tiles_cover_every_pixel_with_the_overlap(size: tuple[int, int], tile: tuple[int, int], overlap: float) -> None:
    *tiles, whole = Tiling(tile, overlap).of(size)
    assert whole == Tile(0, 0, *size)
    covered = np.zeros(size[::-1], bool)
    for one in tiles:
        assert one.crop(covered).shape == (min(tile[1], size[1]), min(tile[0], size[0]))
        one.crop(covered)[:] = True
    assert covered.all()
    columns = sorted({one.x for one in tiles})
    assert all(right - left <= tile[0] - overlap * tile[0] + 1 for left, right in pairwise(columns))


def test_there_are_no_more_tiles_than_needed() -> None:
    assert len(Tiling((320, 320), 0.0).of((640, 640))) == 4 + 1
    assert len(Tiling((320, 320), 0.2).of((576, 320))) == 2 + 1
    assert Tiling((320, 320)).of((300, 200)) == [Tile(0, 0, 300, 200)]


@pytest.mark.parametrize(("given", "size"), [
    ("640x480", (640, 480)), (" 640 X 480 ", (640, 480)), ("640×480", (640, 480)), ((64, 32), (64, 32)),
    ([64, 32], (64, 32)), ("AUTO", "auto"),
])  # fmt: skip
def test_a_size_is_read(given, size) -> None:
    assert read_tile(given) == size
    if size != "auto":
        assert read_tile(size_text(size)) == size


@pytest.mark.parametrize("given", ["", "big", "640", "640x", "x480", "-640x480", "6.5x480", "64x31", "0x0",
                                   "64x48x3", "9999999x64", "100001x64", 640, (640,), (6.0, 48), None])  # fmt: skip
def test_what_is_no_size_is_an_error_of_one_line(given) -> None:
    with pytest.raises(ConfigError, match=r"tile: .*; expected auto, or WIDTHxHEIGHT in pixels") as caught:
        read_tile(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("overlap", [1, -0.1, 1.5, float("nan"), "much", True])
def test_an_overlap_outside_its_range_is_an_error(overlap) -> None:
    with pytest.raises(ConfigError, match=r"overlap: .*; expected a part of a tile, 0 to below 1"):
        Tiling((64, 64), overlap)


def boxes_of(*sides: float, size: tuple[int, int] = (640, 480)):
    """A data set of squares, one an image."""
    records = [Record(Path(f"{n}.png"), size, np.array([[10, 10, 10 + side, 10 + side]], np.float32),
                      np.array([0]), np.array([False])) for n, side in enumerate(sides)]  # fmt: skip
    return pack("s", Path(), ("a",), records)


def test_auto_gives_small_objects_32_pixels_at_the_input() -> None:
    known = {"boxes": box_sizes(boxes_of(20, *[24.0] * 98, 300))}
    assert known == {"boxes": {"small_side": 24.0, "image_size": [640, 480]}}
    assert auto_tile(known, (320, 320), "letterbox") == (240, 240)  # 320 px show 240 px: 24 px become 32
    assert auto_tile(known, (640, 320), "letterbox_antialias") == (480, 240)
    width, height = auto_tile(known, (320, 320), "stretch")  # as the training images, of the same area
    assert (width / height, width * height) == pytest.approx((640 / 480, 240 * 240), rel=0.01)


def test_auto_enlarges_at_most_twice_and_never_cuts_for_large_objects() -> None:
    assert auto_tile({"boxes": box_sizes(boxes_of(4))}, (320, 320), "letterbox") == (160, 160)
    size = auto_tile({"boxes": box_sizes(boxes_of(64))}, (320, 320), "letterbox")
    assert size == (640, 640)
    assert Tiling(size).of((640, 480)) == [Tile(0, 0, 640, 480)]


def test_auto_of_a_model_that_was_trained_in_tiles_is_their_size() -> None:
    known = {"boxes": box_sizes(boxes_of(24)), "recipe": {"tile": "400x300"}}
    assert auto_tile(known, (320, 320), "letterbox") == (400, 300)
    assert auto_tile({**known, "recipe": {"tile": None}}, (320, 320), "letterbox") == (240, 240)


@pytest.mark.parametrize("boxes", [None, {}, [], {"small_side": 0, "image_size": [640, 480]}, {"small_side": 20},
                                   {"small_side": "x", "image_size": [640, 480]},
                                   {"small_side": 20, "image_size": [640]}])  # fmt: skip
def test_auto_of_a_model_that_does_not_know_its_boxes_is_an_error(boxes) -> None:
    with pytest.raises(ConfigError, match=r"tile: auto goes by .* which this model does not know; give the size of a"):
        auto_tile({"boxes": boxes}, (320, 320), "letterbox")


def test_a_data_set_in_tiles_has_the_boxes_that_a_loop_cuts() -> None:
    rng = np.random.default_rng(2)
    records = []
    for n, size in enumerate([(300, 200), (100, 90), (210, 100)]):
        low = rng.uniform(0, 1, (12, 2)) * np.subtract(size, 8)
        box = np.concatenate((low, np.minimum(low + rng.uniform(4, 80, (12, 2)), size)), 1).astype(np.float32)
        records.append(Record(Path(f"{n}.png"), size, box, rng.integers(0, 2, 12), rng.random(12) < 0.3))
    whole, tiling = pack("s", Path(), ("a", "b"), records), Tiling((120, 100))
    found, place = in_tiles(whole, tiling), 0
    for record in records:
        *tiles, _ = tiling.of(record.size)
        for tile in tiles:
            part = found.records[place]
            assert (part.path, part.size, part.corner) == (record.path, (tile.width, tile.height), (tile.x, tile.y))
            rows = []
            for box, label, difficult in zip(record.boxes.tolist(), record.labels, record.difficult, strict=True):
                x1, y1 = max(box[0] - tile.x, 0), max(box[1] - tile.y, 0)
                x2, y2 = min(box[2] - tile.x, tile.width), min(box[3] - tile.y, tile.height)
                shown = max(x2 - x1, 0) * max(y2 - y1, 0) / ((box[2] - box[0]) * (box[3] - box[1]))
                if shown > 0.25 and x2 - x1 >= 1 and y2 - y1 >= 1:
                    rows.append((x1, y1, x2, y2, label, difficult))
            expected = np.array(rows).reshape(-1, 6)
            np.testing.assert_allclose(part.boxes, expected[:, :4], atol=1e-4)
            assert (part.labels.tolist(), part.difficult.tolist()) == tuple(expected[:, 4:].T.tolist())
            place += 1
        part = found.records[place]
        assert (part.size, part.corner, part.boxes.tolist()) == (record.size, None, record.boxes.tolist())
        place += 1
    assert len(found) == place


def test_without_tiles_a_data_set_stays_as_it_is() -> None:
    whole = boxes_of(20, 30)
    assert in_tiles(whole, None) is whole
    same = in_tiles(whole, Tiling((640, 480)))
    assert [record.corner for record in same.records] == [None, None]
    assert same.boxes.tolist() == whole.boxes.tolist()


def test_images_labelled_as_a_whole_are_not_cut() -> None:
    whole = replace(boxes_of(20, 30), image_labels=np.array([-1, 0]))
    found = in_tiles(whole, Tiling((400, 480)))
    assert [record.image_label for record in found.records] == [-1, -1, -1, 0]


def test_a_selection_of_tiles_keeps_their_places() -> None:
    found = in_tiles(boxes_of(20, 30), Tiling((400, 480)))
    some = found.select([4, 1, 2])
    assert [record.corner for record in some.records] == [(240, 0), (240, 0), None]
    assert [str(record.path) for record in some.records] == ["1.png", "0.png", "0.png"]


def test_tiles_are_read_from_images_that_are_decoded_once(tmp_path, monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(tiles, "load_rgb", lambda path, *rest: calls.append(path) or load_rgb(path, *rest))
    files = [tmp_path / f"{n}.png" for n in range(3)]
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    for file in files:
        Image.fromarray(pixels).save(file)
    reader = TileReader(None)
    for file in files * 2:
        for x, y in ((0, 0), (30, 20)):
            np.testing.assert_array_equal(reader.read(file, Tile(x, y, 50, 40)), pixels[y : y + 40, x : x + 50])
    assert calls == files
    monkeypatch.setattr(tiles, "MOST_KEPT", 1)  # two images stay
    for file in files[:2]:
        reader.read(file, Tile(0, 0, 50, 40))
    assert (calls, list(reader.kept)) == ([*files, files[1]], files[:2])


def test_an_image_that_became_smaller_is_an_error(tmp_path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a.png: 40 x 30 pixels, fewer than when the labels were read"):
        TileReader(None).read(tmp_path / "a.png", Tile(20, 0, 40, 30))


def test_more_tiles_than_anyone_wants_are_an_error() -> None:
    assert len(Tiling((32, 32), 0).of((3200, 3200))) == 10_000 + 1
    with pytest.raises(ConfigError, match=r"overlap 0.99: 11,783,961 tiles for an image of 4000 x 3000 px; .* smaller"):
        Tiling((32, 32), 0.99).of((4000, 3000))
