"""Mirrors src/lookonce/data/loader.py."""

import numpy as np
import torch

from lookonce.data.dataset import Record, pack
from lookonce.data.loader import Batch, Canvases, Sample, Shuffled, TrainingImages, collate


def sample(index, height, width, boxes):
    canvas = np.full((height, width, 3), index, np.uint8)
    n = len(boxes)
    return Sample(
        index, canvas, (width, height), np.array(boxes, np.float32).reshape(-1, 4), np.arange(n), np.zeros(n, bool)
    )


def test_a_batch_packs_images_top_left_and_objects_in_order():
    batch = collate([sample(1, 4, 6, [[0, 0, 1, 1]]), sample(2, 5, 3, []), None, sample(7, 2, 2, [[0, 0, 2, 2]] * 2)])
    assert batch.canvas.shape == (3, 3, 6, 6)
    assert (batch.canvas[0, :, :4, :6] == 1).all()
    assert (batch.canvas[1, :, :5, :3] == 2).all()
    assert (batch.canvas[1, :, 5:] == 128).all()
    assert (batch.canvas[1, :, :, 3:] == 128).all()
    assert batch.sizes.tolist() == [[6, 4], [3, 5], [2, 2]]
    assert batch.image_index.tolist() == [0, 2, 2]
    assert batch.labels.tolist() == [0, 0, 1]
    assert batch.index.tolist() == [1, 2, 7]
    assert len(batch) == 3


def test_the_side_of_a_canvas_is_even():
    assert collate([sample(0, 5, 3, [])]).canvas.shape == (1, 3, 6, 6)


def test_a_batch_of_failures_is_empty():
    batch = collate([None, None])
    assert len(batch) == 0
    assert batch.boxes.shape == (0, 4)
    assert batch.labels.dtype == torch.int64
    assert batch.ignore.dtype == torch.bool


def test_a_batch_moves_as_one_thing():
    batch = collate([sample(1, 4, 6, [[0, 0, 1, 1]])]).with_outputs((torch.zeros(1, 2, 3, 3),))
    moved = batch.to("meta")
    assert isinstance(moved, Batch)
    tensors = [*(v for k, v in vars(moved).items() if k != "outputs"), *moved.outputs]
    assert len(tensors) == 9
    assert all(value.device.type == "meta" for value in tensors)


def test_difficult_objects_go_as_asked(tmp_path):
    from PIL import Image

    Image.new("RGB", (32, 16)).save(tmp_path / "a.png")
    box = np.array([[2, 2, 8, 8], [10, 2, 20, 12]], np.float32)
    record = Record(tmp_path / "a.png", (32, 16), box, np.array([0, 1]), np.array([False, True]))
    canvases = Canvases(pack("s", tmp_path, ("a", "b"), [record]), 16, None)
    found = {how: TrainingImages(canvases, how)[0] for how in ("ignore", "train", "drop")}
    assert found["ignore"].ignore.tolist() == [False, True]
    assert found["train"].ignore.tolist() == [False, False]
    assert found["drop"].labels.tolist() == [0]
    assert found["train"].boxes.tolist() == [[1, 1, 4, 4], [5, 1, 10, 6]]  # half the size, as the canvas


def test_the_order_depends_on_seed_and_epoch_alone():
    first, second = Shuffled(50, 3), Shuffled(50, 3)
    a = list(first)
    assert a == list(second)
    assert sorted(a) == list(range(50))
    second.set_epoch(1)
    assert a != list(second)
    assert a != list(Shuffled(50, 4))
    assert len(first) == 50
