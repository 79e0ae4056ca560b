"""Tests of lookonce.data.loader."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lookonce.data import loader
from lookonce.data.dataset import Record, pack
from lookonce.data.images import load_rgb
from lookonce.data.loader import (
    Batch,
    ImageCache,
    Sample,
    Share,
    Shuffled,
    TrainingImages,
    collate,
    reduced_sizes,
    tile_blocks,
)
from lookonce.data.read import read_dataset
from lookonce.data.tiles import Tiling, in_tiles
from lookonce.errors import ImageError
from sets import write_squares


def sample(index, height, width, boxes):
    pixels = np.full((height, width, 3), index, np.uint8)
    n = len(boxes)
    return Sample(
        index, pixels, (width, height), np.array(boxes, np.float32).reshape(-1, 4), np.arange(n), np.zeros(n, bool)
    )


def test_a_batch_packs_images_top_left_and_objects_in_order():
    batch = collate([sample(1, 4, 6, [[0, 0, 1, 1]]), sample(2, 5, 3, []), None, sample(7, 2, 2, [[0, 0, 2, 2]] * 2)])
    assert batch.images.shape == (3, 3, 6, 6)
    assert (batch.images[0, :, :4, :6] == 1).all()
    assert (batch.images[1, :, :5, :3] == 2).all()
    assert (batch.images[1, :, 5:] == 128).all()
    assert (batch.images[1, :, :, 3:] == 128).all()
    assert batch.sizes.tolist() == [[6, 4], [3, 5], [2, 2]]
    assert batch.image_index.tolist() == [0, 2, 2]
    assert batch.labels.tolist() == [0, 0, 1]
    assert batch.index.tolist() == [1, 2, 7]
    assert len(batch) == 3


def test_the_side_of_a_batch_is_even():
    assert collate([sample(0, 5, 3, [])]).images.shape == (1, 3, 6, 6)


def test_a_batch_of_failures_is_empty():
    batch = collate([None, None])
    assert len(batch) == 0
    assert batch.boxes.shape == (0, 4)
    assert batch.labels.dtype == torch.int64
    assert batch.ignore.dtype == torch.bool


def test_what_the_network_sees_moves_and_the_objects_stay_on_the_host():
    batch = collate([sample(1, 4, 6, [[0, 0, 1, 1]])]).with_outputs((torch.zeros(1, 2, 3, 3),))
    moved = batch.to("meta")
    assert isinstance(moved, Batch)
    assert {value.device.type for value in (moved.images, *moved.outputs)} == {"meta"}
    rest = [value for name, value in vars(moved).items() if name not in ("images", "outputs")]
    assert {value.device.type for value in rest} == {"cpu"}


def test_difficult_objects_go_as_asked(tmp_path):
    Image.new("RGB", (32, 16)).save(tmp_path / "a.png")
    box = np.array([[2, 2, 8, 8], [10, 2, 20, 12]], np.float32)
    record = Record(tmp_path / "a.png", (32, 16), box, np.array([0, 1]), np.array([False, True]))
    cache = ImageCache(pack("s", tmp_path, ("a", "b"), [record]), 16, None)
    found = {how: TrainingImages(cache, how)[0] for how in ("ignore", "train", "drop")}
    assert found["ignore"].ignore.tolist() == [False, True]
    assert found["train"].ignore.tolist() == [False, False]
    assert found["drop"].labels.tolist() == [0]
    assert found["train"].boxes.tolist() == [[1, 1, 4, 4], [5, 1, 10, 6]]  # half the size, as the cached image


def test_the_order_depends_on_seed_and_epoch_alone():
    first, second = Shuffled(50, 3), Shuffled(50, 3)
    a = list(first)
    assert a == list(second)
    assert sorted(a) == list(range(50))
    second.set_epoch(1)
    assert a != list(second)
    assert a != list(Shuffled(50, 4))
    assert len(first) == 50


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_processes_share_each_batch_of_one_and_a_small_batch_is_everybodys(size):
    order = Shuffled(23, 5)
    shares = [Share(order, 7, rank, size, None) for rank in range(size)]
    order.begin(2, 7)  # resumed after the first batch
    read = [list(share) for share in shares]
    for step, start in enumerate(range(7, 23, 7)):
        batch = list(order)[start - 7 : start]
        parts = [each[step] for each in read]
        if len(batch) < size:
            assert parts == [batch] * size
            assert shares[0].copies(2, step + 1) == size
        else:
            assert [image for part in parts for image in part] == batch
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert [share.own(2, step + 1).tolist() for share in shares] == parts
    assert len(shares[0]) == 4


@pytest.mark.parametrize("size", [2, 3])
def test_a_share_reads_what_its_mosaics_show(size):
    """Oracle: the mosaics of the whole batch, a loop over its quarters: image n shows n, n + 1, n + 2, n + 3 of it."""
    order, alone = Shuffled(11, 0), np.zeros(11, bool)
    alone[order.order(0)[[1, 6]]] = True  # labelled as a whole: in no mosaic
    batch = order.order(0).tolist()
    boxed = [image for image in batch if not alone[image]]
    for rank in range(size):
        share = Share(order, 11, rank, size, alone)
        own, read = share.own(0, 0).tolist(), share.read(0, 0).tolist()
        assert read[: len(own)] == own
        mine = [image for image in read if not alone[image]]
        for image in set(own) & set(boxed):
            wanted = [boxed[(boxed.index(image) + n) % len(boxed)] for n in range(4)]
            assert [mine[(mine.index(image) + n) % len(mine)] for n in range(4)] == wanted
        assert len(read) <= len(own) + 3


@pytest.fixture
def dataset(tmp_path):
    return read_dataset(write_squares(tmp_path / "set", {"train": 3}))


def test_reduced_sizes_shrink_the_large_and_leave_the_small():
    sizes = np.array([[640, 480], [100, 50], [20_000, 10]])
    assert reduced_sizes(sizes, 320).tolist() == [[320, 240], [100, 50], [320, 1]]


def test_an_image_is_decoded_once(dataset, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(loader, "load_rgb", lambda path, *_: calls.append(path) or load_rgb(path))
    found = ImageCache(dataset, 96, tmp_path / "run")
    for _ in range(3):
        np.testing.assert_array_equal(found.read(1), load_rgb(dataset.records[1].path))
    assert len(calls) == 1
    found.close()
    assert not list((tmp_path / "run").iterdir())


def test_cached_images_are_reduced_and_lie_side_by_side(dataset, tmp_path):
    found = ImageCache(dataset, 48, tmp_path / "run")
    for i in (2, 0, 1, 0, 2):
        expected = load_rgb(dataset.records[i].path, reduce_to=48)
        np.testing.assert_array_equal(found.read(i), expected)
        assert expected.shape == (48, 48, 3)


def test_an_image_that_fails_is_remembered(dataset, tmp_path):
    dataset.records[1].path.write_bytes(dataset.records[1].path.read_bytes()[:80])
    found = ImageCache(dataset, 96, tmp_path / "run")
    for _ in range(2):
        with pytest.raises(ImageError):
            found.read(1)
    assert found.read(0).shape == (96, 96, 3)
    assert found.failed() == [1]


def test_without_a_place_to_keep_them_images_are_decoded_each_time(dataset, tmp_path, caplog):
    assert ImageCache(dataset, 96, None).read(0).shape == (96, 96, 3)
    (tmp_path / "file").write_text("")
    found = ImageCache(dataset, 96, tmp_path / "file")
    assert found.read(0).shape == (96, 96, 3)
    assert found.failed() == []
    assert "decoded again in every epoch" in caplog.text


def test_a_cache_that_would_fill_the_disk_is_not_kept(dataset, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(loader.shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * 3 * 96 * 96 * 3 - 1))
    found = ImageCache(dataset, 96, tmp_path / "run")
    assert found.read(0).shape == (96, 96, 3)
    assert not list((tmp_path / "run").iterdir())
    assert "decoded again in every epoch" in caplog.text


def test_files_of_a_killed_run_of_version_0_1_are_removed(dataset, tmp_path):
    (tmp_path / "canvas.u8").write_bytes(b"old")
    ImageCache(dataset, 48, tmp_path)
    assert not (tmp_path / "canvas.u8").exists()


def test_tiles_are_cut_from_the_image_and_never_written(dataset, tmp_path):
    tiled = in_tiles(dataset, Tiling((64, 48)))
    found = ImageCache(tiled, 40, tmp_path / "run")
    images = TrainingImages(found)
    assert found.file.stat().st_size == 3 * 40 * 40 * 3  # the three whole images
    for index, record in enumerate(tiled.records):
        sample = images[index]
        pixels = load_rgb(record.path)
        if record.corner is not None:
            x, y = record.corner
            pixels = pixels[y : y + 48, x : x + 64]
        np.testing.assert_array_equal(sample.pixels, load_rgb(pixels, reduce_to=40))
        assert sample.size == ((40, 30) if record.corner else (40, 40))
        np.testing.assert_allclose(sample.boxes, record.boxes * 40 / (64 if record.corner else 96), rtol=1e-6)
    assert sum(record.corner is not None for record in tiled.records) == 3 * 6


def test_an_epoch_of_tiles_has_each_once_file_by_file_and_depends_on_seed_and_epoch_alone(tmp_path, monkeypatch):
    dataset = read_dataset(write_squares(tmp_path / "many", {"train": 20}))
    tiled = in_tiles(dataset, Tiling((64, 96)))
    assert tile_blocks(dataset) is None
    assert tile_blocks(tiled).files == 64
    monkeypatch.setattr(loader, "MOST_FILES", 4)
    blocks = tile_blocks(tiled)
    order, again = (Shuffled(len(tiled), 3, blocks=blocks) for _ in range(2))
    first = list(order)
    assert sorted(first) == list(range(60)) == list(range(len(tiled)))
    assert first == list(again)
    files = tiled.paths[first]
    parts = [set(files[start : start + 12]) for start in range(0, 60, 12)]
    assert [len(part) for part in parts] == [4] * 5  # the tiles of four files each
    assert len(set(files[:4])) > 1  # which are mixed
    order.set_epoch(1)
    assert first != list(order)
    assert parts[0] != set(tiled.paths[list(order)[:12]])
    again.begin(0, 17)
    assert list(again) == first[17:]
