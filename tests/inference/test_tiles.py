"""Tests of lookonce.inference.tiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lookonce.data.tiles import Tile, Tiling
from lookonce.inference.tiles import merged
from lookonce.model.detections import Detections
from lookonce.model.postprocess import Selection
from lookonce.model.tree import Tree

NAMES = ("cell", "worm")
CHOSEN = Selection(0.3)


def tiles_of(size, tile, overlap=0.2):
    return Tiling(tile, overlap).of(size)


def seen(objects: np.ndarray, labels: np.ndarray, tile: Tile) -> Detections:
    """What a perfect detector finds in a tile: every object of which a third is inside, clipped to the tile."""
    low, high = np.array((tile.x, tile.y)), np.array((tile.x + tile.width, tile.y + tile.height))
    clipped = np.concatenate((np.maximum(objects[:, :2], low), np.minimum(objects[:, 2:], high)), 1)
    sides = np.clip(clipped[:, 2:] - clipped[:, :2], 0, None)
    share = sides.prod(1) / (objects[:, 2:] - objects[:, :2]).prod(1)
    visible = share > 1 / 3
    return Detections(clipped[visible] - [*low, *low], 0.5 + 0.4 * share[visible], labels[visible], NAMES)


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
    one = merged((1000, 700), tiles[:-1], parts, CHOSEN)
    order = np.lexsort(objects.T)
    found = np.lexsort(one.boxes.T)
    assert np.array_equal(one.boxes[found], objects[order])
    assert np.array_equal(one.labels[found], labels[order])


@pytest.mark.parametrize("seed", range(4))
def test_a_grid_of_objects_has_no_doubles_at_seams_if_boxes_are_a_few_pixels_off(seed: int) -> None:
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(np.arange(5, 960, 60), np.arange(5, 660, 60)), -1).reshape(-1, 2)
    objects = np.concatenate((places, places + 45), 1).astype(float)
    labels = np.zeros(len(objects), int)
    tiles = tiles_of((1000, 700), (200, 200), 0.2)  # they share 40 px: objects are cut by both tiles
    parts = []
    for tile in tiles:
        part = seen(objects, labels, tile)
        moved = part.boxes + rng.uniform(-3, 3, part.boxes.shape)
        parts.append(replace(part, boxes=np.clip(moved, 0, (tile.width, tile.height) * 2)))
    one = merged((1000, 700), tiles[:-1], parts[:-1], CHOSEN)
    centres = (one.boxes[:, :2] + one.boxes[:, 2:]) / 2
    owner = (np.abs(centres[:, None] - (objects[:, :2] + 22.5)).max(-1)).argmin(1)
    assert sum(len(part) for part in parts[:-1]) > 1.3 * len(objects)
    assert np.bincount(owner, minlength=len(objects)).tolist() == [1] * len(objects)
    assert len(merged((1000, 700), tiles, parts, CHOSEN)) == len(objects)


def test_an_object_larger_than_a_tile_is_that_of_the_whole_image() -> None:
    objects, labels = np.array([[50.0, 60, 650, 400]]), np.array([0])
    tiles = tiles_of((1000, 700), (200, 200), 0.2)
    parts = [seen(objects, labels, tile) for tile in tiles]
    parts = [
        Detections([[0, 0, 200, 200]], [0.95], [0], NAMES) if tile == Tile(200, 175, 200, 200) else part
        for tile, part in zip(tiles, parts, strict=True)
    ]
    one = merged((1000, 700), tiles, parts, CHOSEN)
    assert one.boxes.tolist() == objects.tolist()


def test_objects_that_overlap_and_are_whole_both_stay() -> None:
    objects, labels = np.array([[20.0, 20, 60, 60], [40, 20, 80, 60]]), np.array([0, 0])
    tiles = tiles_of((400, 400), (200, 200), 0.2)
    assert len(merged((400, 400), tiles, [seen(objects, labels, tile) for tile in tiles], CHOSEN)) == 2


def test_classes_do_not_suppress_each_other() -> None:
    objects, labels = np.array([[150.0, 20, 190, 60], [150, 20, 190, 60]]), np.array([0, 1])
    tiles = tiles_of((400, 400), (200, 200), 0.2)
    one = merged((400, 400), tiles, [seen(objects, labels, tile) for tile in tiles], CHOSEN)
    assert sorted(one.names) == ["cell", "worm"]


def test_a_cut_object_that_no_tile_shows_whole_stays() -> None:
    tiles = tiles_of((400, 200), (200, 200), 0.0)
    half = Detections([[150, 50, 200, 90]], [0.8], [0], NAMES)
    nothing = half[:0]
    assert merged((400, 200), tiles, [half, nothing, nothing], CHOSEN).boxes.tolist() == [[150, 50, 200, 90]]


def test_a_box_that_is_cut_by_a_seam_gives_way_to_the_whole_one_though_it_scores_more():
    tiles = tiles_of((400, 200), (200, 200), 0.0)
    part, rest = Detections([[150, 50, 200, 90]], [0.9], [0], NAMES), Detections([[0, 50, 60, 90]], [0.8], [0], NAMES)
    whole = Detections([[150, 50, 260, 90]], [0.4], [0], NAMES)
    one = merged((400, 200), tiles, [part, rest, whole], CHOSEN)
    assert one.boxes.tolist() == [[150, 50, 260, 90]]
    assert merged((400, 200), tiles, [part, rest, whole.above(0.5)], CHOSEN).boxes.tolist() == [
        [150, 50, 200, 90], [200, 50, 260, 90]]  # fmt: skip


def test_two_halves_at_a_seam_are_one_and_neighbours_in_one_tile_are_two():
    tiles = tiles_of((200, 380), (200, 200), 0.1)
    upper = Detections([[50, 164, 80, 200], [70, 164, 100, 200]], [0.9, 0.8], [0, 0], NAMES)  # overlap by a third
    lower = Detections([[50, 0, 80, 40]], [0.7], [0], NAMES)  # from 180: half of the first
    one = merged((200, 380), tiles, [upper, lower, lower[:0]], CHOSEN)
    assert one.boxes.tolist() == upper.boxes.tolist()


def test_of_a_class_and_its_parent_in_a_tree_one_stays():
    tree = Tree((-1, -1, 0, 0), ("animal", "car", "dog", "cat"))
    tiles = tiles_of((400, 200), (200, 200), 0.5)
    box, nothing = [[110, 50, 150, 90]], np.zeros(1)
    parts = [
        Detections(box, [0.9], [0], tree.names, backed_off=[2]),  # the animal is likeliest a dog
        Detections(np.subtract(box, [100, 0, 100, 0]), [0.8], [2], tree.names, backed_off=[-1]),  # a dog
        Detections(np.zeros((0, 4)), nothing[:0], nothing[:0].astype(int), tree.names, backed_off=[]),
        Detections(box, [0.7], [1], tree.names, backed_off=[-1]),  # a car in the same place
    ]
    one = merged((400, 200), tiles, parts, Selection(0.3, tree=tree))
    assert (one.labels.tolist(), one.backed_off.tolist()) == ([0, 1], [2, -1])
    siblings = [replace(parts[1], labels=[3]), parts[1], parts[2], parts[2]]
    assert merged((400, 200), tiles, siblings, Selection(0.3, tree=tree)).labels.tolist() == [3, 2]


@pytest.mark.parametrize("selection", [CHOSEN, Selection(0.3, 0.3, distance_exponent=0.6)])
def test_merging_keeps_what_a_loop_over_all_pairs_keeps(selection):
    rng = np.random.default_rng(5)
    size, tiles = (300, 200), tiles_of((300, 200), (120, 120))
    parts = []
    for tile in tiles:
        low = rng.uniform(0, 1, (40, 2)) * (tile.width - 10, tile.height - 10)
        high = np.minimum(low + rng.uniform(4, 60, (40, 2)), (tile.width, tile.height))
        parts.append(Detections(np.concatenate((low, high), 1), rng.random(40), rng.integers(0, 2, 40), NAMES))
    rows = []
    for number, (tile, part) in enumerate(zip(tiles, parts, strict=True)):
        for (x1, y1, x2, y2), score, label in zip(part.boxes.tolist(), part.scores, part.labels, strict=True):
            near_x, near_y = max(2, 0.03 * tile.width), max(2, 0.03 * tile.height)
            cut = ((x1 < near_x and tile.x > 0) or (y1 < near_y and tile.y > 0)
                   or (x2 > tile.width - near_x and tile.x + tile.width < size[0])
                   or (y2 > tile.height - near_y and tile.y + tile.height < size[1]))  # fmt: skip
            box = (x1 + tile.x, y1 + tile.y, x2 + tile.x, y2 + tile.y)
            rows.append((score * (0.25 if cut else 1), cut, score, label, box, number))
    kept = []
    for row in sorted(rows, key=lambda row: -row[0]):
        if not any(is_double(row, better, selection) for better in kept):
            kept.append(row)
    one = merged(size, tiles, parts, selection)
    assert len(kept) == len(one) < len(rows) - 20
    np.testing.assert_allclose(one.scores, sorted((row[2] for row in kept), reverse=True))
    np.testing.assert_allclose(sorted(one.boxes.tolist()), sorted(list(row[4]) for row in kept), atol=1e-4)


def is_double(row, better, selection):
    """Whether two detections are one object, computed by hand."""
    (_, cut_a, _, label_a, a, tile_a), (_, cut_b, _, label_b, b, tile_b) = row, better
    width, height = (max(0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    shared = width * height
    overlap = shared / (sum(areas) - shared)
    if selection.distance_exponent is not None:
        hull = [max(a[i + 2], b[i + 2]) - min(a[i], b[i]) for i in (0, 1)]
        apart = [(a[i] + a[i + 2] - b[i] - b[i + 2]) / 2 for i in (0, 1)]
        overlap -= (sum(v * v for v in apart) / sum(v * v for v in hull)) ** selection.distance_exponent
    part = tile_a != tile_b and (cut_a or cut_b) and shared > min(areas) / (4 if cut_a and cut_b else 2)
    return label_a == label_b and bool(overlap > selection.iou_threshold or part)
