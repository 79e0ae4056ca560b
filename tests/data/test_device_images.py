"""Images that stay on a device: each is kept at its first use and given back as it was."""

import copy
import logging

import numpy as np
import pytest
import torch

from lookonce.data.device_images import DeviceStore, open_store
from lookonce.data.loader import ImageCache, Shuffled, TrainingImages, collate
from lookonce.data.read import read_dataset
from sets import write_squares


@pytest.fixture
def images(tmp_path):
    return TrainingImages(ImageCache(read_dataset(write_squares(tmp_path / "set", {"train": 5})), 90, None))


def test_kept_images_are_given_back_to_batches_without_pixels(images):
    store = DeviceStore(images.cache.sizes, torch.device("cpu"))
    for part in ([0, 3], [4, 1]):
        given = collate([images[n] for n in part])
        assert store.supply(given) is given
    assert store.held.tolist() == [True, True, False, True, True]
    whole, labels = collate([images[n] for n in (1, 4, 0)]), collate([images[~n] for n in (1, 4, 0)])
    assert labels.images.numel() == 0
    found = store.supply(labels)
    for n, (width, height) in enumerate(whole.sizes.tolist()):
        assert torch.equal(found.images[n, :, :height, :width], whole.images[n, :, :height, :width])
    assert torch.equal(found.boxes, whole.boxes)
    assert torch.equal(found.index, whole.index)


def test_a_copy_of_a_module_shares_the_images(images):
    store = DeviceStore(images.cache.sizes, torch.device("cpu"))
    assert copy.deepcopy({"store": store})["store"] is store


def test_a_batch_without_images_stays_empty(images):
    assert len(DeviceStore(images.cache.sizes, torch.device("cpu")).supply(collate([]))) == 0


def test_the_order_asks_for_pixels_of_images_that_are_not_held_and_is_otherwise_the_same():
    plain, sampler = Shuffled(6, seed=3), Shuffled(6, seed=3)
    sampler.held = np.array([True, False, True, True, True, False])
    order = list(sampler)
    assert [n for n in order if n >= 0] == [n for n in plain if n in (1, 5)]
    assert [~n if n < 0 else n for n in order] == list(plain)


def test_a_gpu_keeps_images_if_it_has_room(monkeypatch, caplog):
    sizes = np.array([[1000, 1000], [500, 400]])
    assert open_store(sizes, "cpu") is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (9_000_000, 10_000_000))
    with caplog.at_level(logging.INFO, "lookonce"):
        assert open_store(sizes, "cuda:0") is None
    assert "copied to it in every epoch" in caplog.text
