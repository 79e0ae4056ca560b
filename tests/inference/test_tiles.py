"""Tests of lookonce.inference.tiles."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from lookonce.errors import ConfigError
from lookonce.inference.tiles import Tile, merged, tiles_of
from lookonce.model.detections import Detections

NAMES = ("cell", "worm")


def seen(objects: np.ndarray, labels: np.ndarray, tile: Tile) -> Detections:
    """What a perfect detector finds in a tile: every object of which a third is inside, clipped to the tile."""
    low, high = np.array((tile.x, tile.y)), np.array((tile.x + tile.width, tile.y + tile.height))
    clipped = np.concatenate((np.maximum(objects[:, :2], low), np.minimum(objects[:, 2:], high)), 1)
    sides = np.clip(clipped[:, 2:] - clipped[:, :2], 0, None)
    share = sides.prod(1) / (objects[:, 2:] - objects[:, :2]).prod(1)
    visible = share > 1 / 3
    return Detections(clipped[visible] - [*low, *low], 0.5 + 0.4 * share[visible], labels[visible], NAMES)


@pytest.mark.parametrize(("size", "tile", "overlap"), [
    ((1000, 700), (320, 320), 0.2), ((1000, 700), (320, 200), 0.0), ((321, 320), (320, 320), 0.5),
    ((5000, 33), (64, 64), 0.9), ((640, 640), (320, 320), 0.0),
])  # fmt: skip
def test_tiles_cover_every_pixel_with_the_overlap(size: tuple[int, int], tile: tuple[int, int], overlap: float) -> None:
    *tiles, whole = tiles_of(size, tile, overlap)
    assert whole == Tile(0, 0, *size)
    covered = np.zeros(size[::-1], bool)
    for one in tiles:
        assert one.crop(covered).shape == (min(tile[1], size[1]), min(tile[0], size[0]))
        one.crop(covered)[:] = True
    assert covered.all()
    columns = sorted({one.x for one in tiles})
    assert all(right - left <= tile[0] - overlap * tile[0] + 1 for left, right in pairwise(columns))


def test_there_are_no_more_tiles_than_needed() -> None:
    assert len(tiles_of((640, 640), (320, 320), 0.0)) == 4 + 1
    assert len(tiles_of((576, 320), (320, 320), 0.2)) == 2 + 1
    assert tiles_of((300, 200), (320, 320)) == [Tile(0, 0, 300, 200)]


@pytest.mark.parametrize("seed", range(8))
def test_objects_at_seams_are_found_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(np.arange(10, 960, 62), np.arange(10, 660, 62)), -1).reshape(-1, 2)
    places = places + rng.integers(-8, 9, places.shape)
    objects = np.concatenate((places, places + rng.integers(20, 44, places.shape)), 1).astype(float)  # apart
    labels = rng.integers(0, 2, len(objects))
    tiles = tiles_of((1000, 700), (200, 200), 0.25)
    [*parts, _] = [seen(objects, labels, tile) for tile in tiles]
    assert sum(len(one) for one in parts) > 1.5 * len(objects)  # there are doubles
    one = merged((1000, 700), tiles[:-1], parts, 0.45)
    order = np.lexsort(objects.T)
    found = np.lexsort(one.boxes.T)
    assert np.array_equal(one.boxes[found], objects[order])
    assert np.array_equal(one.labels[found], labels[order])


def test_an_object_larger_than_a_tile_is_that_of_the_whole_image() -> None:
    objects, labels = np.array([[50.0, 60, 650, 400]]), np.array([0])
    tiles = tiles_of((1000, 700), (200, 200), 0.2)
    parts = [seen(objects, labels, tile) for tile in tiles]
    parts = [
        Detections([[0, 0, 200, 200]], [0.95], [0], NAMES) if tile == Tile(200, 175, 200, 200) else part
        for tile, part in zip(tiles, parts, strict=True)
    ]
    one = merged((1000, 700), tiles, parts, 0.45)
    assert one.boxes.tolist() == objects.tolist()


def test_objects_that_overlap_and_are_whole_both_stay() -> None:
    objects, labels = np.array([[20.0, 20, 60, 60], [40, 20, 80, 60]]), np.array([0, 0])
    tiles = tiles_of((400, 400), (200, 200), 0.2)
    assert len(merged((400, 400), tiles, [seen(objects, labels, tile) for tile in tiles], 0.45)) == 2


def test_classes_do_not_suppress_each_other() -> None:
    objects, labels = np.array([[150.0, 20, 190, 60], [150, 20, 190, 60]]), np.array([0, 1])
    tiles = tiles_of((400, 400), (200, 200), 0.2)
    one = merged((400, 400), tiles, [seen(objects, labels, tile) for tile in tiles], 0.45)
    assert sorted(one.names) == ["cell", "worm"]


def test_a_cut_object_that_no_tile_shows_whole_stays() -> None:
    tiles = tiles_of((400, 200), (200, 200), 0.0)
    half = Detections([[150, 50, 200, 90]], [0.8], [0], NAMES)
    nothing = half[:0]
    assert merged((400, 200), tiles, [half, nothing, nothing], 0.45).boxes.tolist() == [[150, 50, 200, 90]]


def test_wrong_sizes_are_errors() -> None:
    with pytest.raises(ConfigError, match="tile: 31x64; expected sides of 32 pixels or more"):
        tiles_of((100, 100), (31, 64))
    with pytest.raises(ConfigError, match="overlap: 1; expected a part of a tile"):
        tiles_of((100, 100), (64, 64), 1)
