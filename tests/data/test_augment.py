"""Tests of lookonce.data.augment. Oracle: the resize of detection, and boxes painted into the image."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lookonce.data.augment import PARAMETERS, augment_batch, colour, mosaic, sample_parameters
from lookonce.data.augmentation import Augmentation
from lookonce.data.dataset import Record, pack
from lookonce.data.images import load_for
from lookonce.data.loader import ImageCache, Sample, TrainingImages, collate
from lookonce.errors import ConfigError
from lookonce.model.resize import boxes_to_input, to_input
from lookonce.training.run import CACHE_TO_INPUT

MODES = ("letterbox_antialias", "stretch_antialias")


def smooth(height, width):
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / width * 5 + c) + np.cos(y / height * 4 + c) for c in range(3)]
    return ((np.stack(waves, -1) + 2) / 4 * 255).astype(np.uint8)


def batch_of(*images, boxes=None):
    boxes = boxes or [np.zeros((0, 4), np.float32)] * len(images)
    return collate([Sample(i, p, p.shape[1::-1], b, np.zeros(len(b), np.int64), np.zeros(len(b), bool))
                    for i, (p, b) in enumerate(zip(images, boxes, strict=True))])  # fmt: skip


def photograph(width, height):
    """Soft shapes with sharp edges and the noise of a camera."""
    rng = np.random.default_rng(width)
    image = smooth(height, width).astype(np.float32)
    image[height // 4 : height // 2, width // 3 : width // 2] = 240
    return np.clip(image + rng.normal(0, 6, (height, width, 1)), 0, 255).astype(np.uint8)


def seen_in_training(file, input_size, mode):
    """The input of an image file that is not augmented, by way of the image cache; and its box from 10 to 20 px."""
    with Image.open(file) as image:
        size = image.size
    box = np.array([[10, 10, 20, 20]], np.float32)
    record = Record(file, size, box, np.zeros(1, np.int64), np.zeros(1, bool))
    cache = ImageCache(pack("a", file.parent, ("a",), [record]), round(CACHE_TO_INPUT * max(input_size)), None)
    batch = collate([TrainingImages(cache)[0]])
    return augment_batch(batch, input_size, mode, Augmentation.none(), np.full((1, PARAMETERS), 0.3))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(30, 45), (97, 211), (128, 96), (150, 113), (190, 143), (640, 480), (1600, 1200)])
def test_without_augmentation_training_sees_what_detection_sees(mode, size, tmp_path):
    """Oracle: detection's path from the same file, for images smaller than the input, a little and a lot larger."""
    file, input_size = tmp_path / "a.png", (128, 96)
    Image.fromarray(photograph(*size)).save(file)
    found = seen_in_training(file, input_size, mode)
    difference = (
        found.images[0] - torch.from_numpy(to_input(load_for(file, input_size).pixels, input_size, mode))
    ).abs() * 255
    cached_is_smaller = max(size) > CACHE_TO_INPUT * max(input_size)
    assert difference.mean() < 1.2
    if (mode, size) != (
        "stretch_antialias",
        (97, 211),
    ):  # the cached image is narrower than the input
        assert difference.quantile(0.999) < (13 if cached_is_smaller else 1.1)  # two roundings
    expected = boxes_to_input(torch.tensor([[10.0, 10, 20, 20]]), size, input_size, mode)
    assert (len(found.boxes) == 0) == bool((expected[:, 2:] - expected[:, :2]).min() < 1)
    for box in found.boxes:
        torch.testing.assert_close(box[None], expected, atol=0.2, rtol=0)  # a cached image has whole pixels


def test_detection_and_training_see_the_same_detail_of_a_large_image(tmp_path):
    """The gradient's energy: point sampling sees four times as much in a noisy image as averaging does."""
    file = tmp_path / "a.png"
    Image.fromarray(photograph(1600, 1200)).save(file)
    energy = [float(image.diff(dim=1).square().sum() + image.diff(dim=2).square().sum()) for image in (
        seen_in_training(file, (416, 416), "letterbox_antialias").images[0],
        torch.from_numpy(to_input(load_for(file, (416, 416)).pixels, (416, 416), "letterbox_antialias")))]  # fmt: skip
    assert energy[0] == pytest.approx(energy[1], rel=0.06)


@pytest.mark.parametrize("seed", range(8))
def test_boxes_move_with_what_they_enclose(seed):
    """A white block is painted where the box is; after augmentation it is bright inside the box, and only there."""
    image = np.zeros((160, 200, 3), np.uint8)
    image[50:110, 60:130] = 255
    augment = Augmentation(aspect=0.3, zoom=(0.6, 1.6), flip=0.5, hue=0.1, saturation=1.5, exposure=1.0)
    batch = batch_of(image, boxes=[np.array([[60, 50, 130, 110]], np.float32)])
    found = augment_batch(batch, (128, 128), "letterbox", augment, sample_parameters(seed, 0, np.array([0])))
    bright = found.images[0].amin(0) > 0.9
    assert len(found.boxes) == 1
    x1, y1, x2, y2 = found.boxes[0].tolist()
    ys, xs = bright.nonzero(as_tuple=True)
    assert max(abs(xs.min() - x1), abs(ys.min() - y1), abs(xs.max() + 1 - x2), abs(ys.max() + 1 - y2)) <= 2


def test_a_mosaic_shows_each_image_in_four_inputs_with_its_boxes():
    """Five grey arrays, each with a white block: every box must be bright inside, and its quarter the array's."""
    greys, input_size = [30, 60, 90, 120, 150], (128, 96)
    arrays = [np.full((100, 120, 3), grey, np.uint8) for grey in greys]
    for array in arrays:
        array[40:60, 50:75] = 255
    batch = batch_of(*arrays, boxes=[np.array([[50, 40, 75, 60]], np.float32)] * 5)
    batch.labels = torch.arange(5)
    augment = Augmentation(aspect=0.1, zoom=(0.6, 0.9), hue=0, saturation=1, exposure=1, keep=0)
    found = mosaic(batch, input_size, "stretch", augment, sample_parameters(3, 0, np.arange(5)))
    assert found.images.shape == (5, 3, 96, 128)
    assert found.images.is_contiguous(memory_format=torch.channels_last)
    assert len(found.boxes) >= 15
    assert set(found.image_index.tolist()) == set(range(5))
    for (x1, y1, x2, y2), label, image in zip(found.boxes.tolist(), found.labels, found.image_index, strict=True):
        inside = found.images[image, :, math.ceil(y1) + 1 : int(y2) - 1, math.ceil(x1) + 1 : int(x2) - 1]
        assert inside.numel() == 0 or inside.min() > 0.9
        quarter = int(x1 >= 64) + 2 * int(y1 >= 48)
        assert label == (image + quarter) % 5
        left, top = 64 * (quarter % 2), 48 * (quarter // 2)
        part = found.images[image, 0, top : top + 48, left : left + 64] * 255
        assert ((part - greys[label]).abs() < 1).float().mean() > 0.3


def test_an_image_that_is_labelled_as_a_whole_is_in_no_mosaic():
    """Oracle: without it the batch gives the same mosaics, and alone it gives the same image."""
    images = [smooth(60 + n, 80) for n in range(4)]
    boxes = [np.array([[8, 8, 30, 40]], np.float32), *[np.zeros((0, 4), np.float32)] * 3]
    batch = batch_of(*images, boxes=boxes)
    labels = torch.tensor([-1, 5, -1, -1])
    u = sample_parameters(3, 0, np.arange(4))
    found = mosaic(replace(batch, image_labels=labels), (128, 96), "stretch", Augmentation(), u)
    others = [0, 2, 3]
    without = mosaic(batch_of(*(images[n] for n in others), boxes=[boxes[n] for n in others]), (128, 96), "stretch",
                     Augmentation(), u[others])  # fmt: skip
    torch.testing.assert_close(found.images[others], without.images)
    torch.testing.assert_close(found.boxes, without.boxes)
    assert found.image_index.tolist() == [others[n] for n in without.image_index]
    torch.testing.assert_close(found.images[1], augment_batch(batch, (128, 96), "stretch", Augmentation(), u).images[1])
    assert torch.equal(found.image_labels, labels)


def test_the_quarters_of_a_mosaic_have_parameters_of_their_own():
    """The same image four times: no two quarters show the same part of it."""
    batch = batch_of(*[smooth(100, 120)] * 4)
    found = mosaic(batch, (128, 128), "letterbox", Augmentation(), np.full((4, PARAMETERS), 0.4))
    quarters = [found.images[0, :, y : y + 64, x : x + 64] for y in (0, 64) for x in (0, 64)]
    assert all((a - b).abs().mean() > 0.02 for i, a in enumerate(quarters) for b in quarters[:i])


def test_an_image_that_shrinks_a_lot_is_not_aliased():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    found = augment_batch(
        batch_of(stripes, smooth(256, 256)), (64, 64), "letterbox", Augmentation.none(), np.zeros((2, PARAMETERS))
    )
    assert (found.images[0, :, :, 1:-1] - 0.5).abs().max() < 0.02


def test_objects_hardly_in_view_are_ignored_and_slivers_dropped():
    """At twice the size from the upper left corner, the pixels 0..50 of 100 stay in view."""
    whole, half, sliver, gone = [0, 0, 20, 20], [40, 10, 60, 30], [49.8, 0, 70, 20], [70, 70, 90, 90]
    boxes = np.array([whole, half, sliver, gone], np.float32)
    zoomed = Augmentation(aspect=0, zoom=(2.0, 2.0), flip=0, hue=0, saturation=1, exposure=1, keep=0.6)
    found = augment_batch(
        batch_of(smooth(100, 100), boxes=[boxes]), (96, 96), "letterbox", zoomed, np.zeros((1, PARAMETERS))
    )
    torch.testing.assert_close(found.boxes, torch.tensor([[0, 0, 38.4, 38.4], [76.8, 19.2, 96, 57.6]]))
    assert found.ignore.tolist() == [False, True]


def test_colour_of_nothing_is_nothing_and_grey_keeps_its_hue():
    u = np.random.default_rng(0).random((4, PARAMETERS))
    np.testing.assert_allclose(colour(Augmentation.none(), u), np.eye(3)[None].repeat(4, 0), atol=1e-9)
    strong = colour(
        Augmentation(hue=0.5, saturation=2.0, exposure=1.0), np.random.default_rng(0).random((9, PARAMETERS))
    )
    np.testing.assert_allclose(strong @ np.ones(3), 1, atol=1e-9)
    exposure = colour(Augmentation(hue=0, saturation=1.0, exposure=2.0), np.full((1, PARAMETERS), 1.0))
    np.testing.assert_allclose(exposure[0], 2 * np.eye(3))


def test_parameters_depend_on_seed_epoch_and_image_alone():
    a = sample_parameters(1, 2, np.array([5, 6, 7]))
    np.testing.assert_array_equal(a[[2, 0]], sample_parameters(1, 2, np.array([7, 5])))
    assert not np.array_equal(a, sample_parameters(1, 3, np.array([5, 6, 7])))
    assert sample_parameters(0, 0, np.array([], np.int64)).shape == (0, PARAMETERS)


def test_augmentation_leaves_its_batch_alone():
    batch = batch_of(smooth(64, 64), boxes=[np.array([[5, 5, 20, 20]], np.float32)])
    before = batch.images.clone(), batch.boxes.clone()
    augment_batch(batch, (64, 64), "letterbox", Augmentation(), sample_parameters(0, 0, np.array([0])))
    assert torch.equal(batch.images, before[0])
    assert torch.equal(batch.boxes, before[1])


@pytest.mark.parametrize(
    "wrong", [{"aspect": 1.0}, {"zoom": (2.0, 1.0)}, {"flip": 2.0}, {"hue": 0.6}, {"saturation": 0.5}, {"keep": -1}]
)
def test_settings_outside_their_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"augment.{next(iter(wrong))}"):
        Augmentation(**wrong)
