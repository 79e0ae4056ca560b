"""Tests of lookonce.model.resize. Oracles: Darknet's letterbox_image, OpenCV-like loops."""

from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import GOLDEN, SHARED, needs_shared
from lookonce.model import resize

MODES = get_args(resize.ResizeMode)
CASES = {"tall_160x160": "synthetic_97x211", "tall_192x128": "synthetic_97x211", "small_up_128x192": "synthetic_45x30"}


def check(golden, case, name):
    input_size = tuple(int(v) for v in case.rsplit("_", 1)[1].split("x"))
    image = golden[f"decoded_{name}"].transpose(2, 0, 1)
    found = resize.to_input(golden[f"decoded_{name}"], input_size, "letterbox")
    np.testing.assert_allclose(found, golden[f"letterbox_{case}"], atol=1e-6)
    new_w, new_h, left, top = golden[f"geometry_{case}"]
    assert resize.fitted(np.array([image.shape[2], image.shape[1]]), input_size, "letterbox").tolist() == [new_w, new_h]
    sx, sy, ox, oy = resize.geometry(np.array([image.shape[2], image.shape[1]]), input_size, "letterbox")
    assert (sx * image.shape[2], sy * image.shape[1]) == (new_w, new_h)
    assert (int(ox), int(oy)) == (left, top)


@pytest.mark.parametrize("case, image", CASES.items())
def test_letterbox_is_darknets(case, image):
    check(np.load(GOLDEN / "dk_letterbox_synthetic.npz"), case, image)


@needs_shared
@pytest.mark.parametrize("case", ["bccd_416x416", "bccd_192x128"])
def test_letterbox_is_darknets_on_a_photograph(case):
    check(np.load(SHARED / "golden" / "dk_letterbox.npz"), case, "BloodImage_00000")


def test_stretch_is_bilinear_with_half_pixel_centres():
    """The blog's cv2.resize, written as a loop."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = pixels.transpose(2, 0, 1) / 255
    found = resize.to_input(pixels, (4, 9), "stretch")
    for y in range(9):
        for x in range(4):
            v, u = (min(max((n + 0.5) * old / new - 0.5, 0), old - 1) for n, old, new in ((y, 5, 9), (x, 7, 4)))
            y0, x0 = int(v), int(u)
            y1, x1, fy, fx = min(y0 + 1, 4), min(x0 + 1, 6), v - int(v), u - int(u)
            top = image[:, y0, x0] * (1 - fx) + image[:, y0, x1] * fx
            low = image[:, y1, x0] * (1 - fx) + image[:, y1, x1] * fx
            np.testing.assert_allclose(found[:, y, x], top * (1 - fy) + low * fy, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(640, 480), (97, 211), (1, 1), (20000, 10), (10, 20000)])
def test_boxes_go_to_the_input_and_back(mode, size):
    boxes = torch.tensor([[0.0, 0, size[0], size[1]], [0.2 * size[0], 0.1 * size[1], 0.5 * size[0], 0.9 * size[1]]])
    inside = resize.boxes_to_input(boxes, size, (416, 320), mode)
    assert (inside >= -1e-3).all()
    assert (inside <= torch.tensor([416, 320, 416, 320]) + 1e-3).all()
    back = resize.boxes_to_image(inside, size, (416, 320), mode)
    torch.testing.assert_close(back, boxes, atol=1e-2, rtol=1e-4)
    assert resize.to_input(np.zeros((size[1], size[0], 3), np.uint8), (416, 320), mode).shape == (3, 320, 416)


@pytest.mark.parametrize("size", [(640, 480), (3000, 40), (5, 900)])
def test_an_image_of_several_strips_is_one_of_many_rows(size):
    """Oracle: the formula on all pixels at once, in float64."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    new_w, new_h = resize.fitted(np.array(size), (416, 416), "letterbox").tolist()
    found = resize.to_input(pixels, (416, 416), "letterbox")
    top, left = (416 - new_h) // 2, (416 - new_w) // 2
    places = []
    for old, new in ((size[1], new_h), (size[0], new_w)):
        at = np.arange(new, dtype=np.float32) * np.float32((old - 1) / max(new - 1, 1))
        places.append(np.minimum(at.astype(np.float64), old - 1))
    (down, across), image = places, pixels / 255
    low, left_of = down.astype(int), across.astype(int)
    below, right_of = np.minimum(low + 1, size[1] - 1), np.minimum(left_of + 1, size[0] - 1)
    y, x = (down - low)[:, None, None], (across - left_of)[:, None]
    lines = image[low] * (1 - y) + image[below] * y
    expected = (lines[:, left_of] * (1 - x) + lines[:, right_of] * x).transpose(2, 0, 1)
    inside = found[:, top : top + new_h, left : left + new_w]
    np.testing.assert_allclose(inside[..., :-1], expected[..., :-1], atol=1e-4)  # the last row is Darknet's own


def test_fitted_works_on_many_sizes_at_once():
    sizes = np.array([[640, 480], [480, 640], [500, 500], [20000, 10]])
    assert resize.fitted(sizes, (416, 416), "letterbox").tolist() == [[416, 312], [312, 416], [416, 416], [416, 1]]
    assert resize.fitted(sizes, (416, 416), "stretch").tolist() == [[416, 416]] * 4


def test_an_image_of_the_frames_size_passes_unchanged():
    image = np.random.default_rng(1).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    for mode in MODES:
        found = resize.to_input(image, (64, 32), mode)
        np.testing.assert_array_equal(found, image.transpose(2, 0, 1).astype(np.float32) / 255)


def triangle(image, new, axis):
    """Averages along an axis, each new pixel by a triangle two new pixels wide, as a loop."""
    old = image.shape[axis]
    half = max(old / new, 1.0)
    lines = np.moveaxis(image, axis, 0).astype(np.float64)
    found = []
    for at in range(new):
        centre = (at + 0.5) * old / new
        weights = np.array([max(0.0, 1 - abs(n + 0.5 - centre) / half) for n in range(old)])
        found.append(np.tensordot(weights / weights.sum(), lines, 1))
    return np.moveaxis(np.array(found), 0, axis)


@pytest.mark.parametrize("size", [(50, 37), (37, 50), (20, 15), (33, 64)])
def test_antialias_averages_by_a_triangle(size):
    image = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    input_size = (24, 32)
    new_w, new_h = resize.fitted(np.array(size), input_size, "letterbox_antialias").tolist()
    found = resize.to_input(image, input_size, "letterbox_antialias")
    left, top = (24 - new_w) // 2, (32 - new_h) // 2
    expected = triangle(triangle(image, new_w, 1), new_h, 0).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(found[:, top : top + new_h, left : left + new_w], expected, atol=1.1 / 255)
    outside = found.copy()
    outside[:, top : top + new_h, left : left + new_w] = resize.FILL
    assert (outside == resize.FILL).all()


def test_a_large_image_keeps_its_mean_and_loses_its_noise():
    """Oracle: the variance of a mean. Point sampling would keep the noise's deviation of 40."""
    noise = np.clip(np.random.default_rng(0).normal(128, 40, (1200, 1600, 1)), 0, 255).astype(np.uint8).repeat(3, 2)
    small = resize.to_input(noise, (100, 75), "stretch_antialias") * 255
    assert abs(small.mean() - noise.mean()) < 0.5
    assert small.std() < 40 / 16  # means of at least 16 x 16 pixels
    assert resize.to_input(noise, (100, 75), "stretch").std() * 255 > 20


def test_boxes_and_pixels_of_an_odd_border_lie_together():
    """A white block, and the box around it, in an input with a border of 10.5 pixels at the top."""
    image = np.zeros((75, 96, 3), np.uint8)
    image[30:60, 40:70] = 255
    found = resize.to_input(image, (96, 96), "letterbox_antialias")[0]
    box = resize.boxes_to_input(torch.tensor([40.0, 30, 70, 60]), (96, 75), (96, 96), "letterbox_antialias").int()
    x1, y1, x2, y2 = box.tolist()
    assert (found[y1:y2, x1:x2] == 1).all()
    assert found[y1 - 1, x1] == found[y2, x1] == 0


@pytest.mark.parametrize("mode", get_args(resize.ResizeMode))
@pytest.mark.parametrize("size", [(64, 48), (31, 90), (1, 1), (300, 7)])
def test_an_image_of_pillow_becomes_the_same_input_as_its_pixels(mode, size):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    expected = resize.to_input(pixels, (96, 64), mode)
    assert np.array_equal(resize.to_input(Image.fromarray(pixels), (96, 64), mode), expected)


@pytest.mark.parametrize("mode", [mode for mode in MODES if resize.antialiases(mode)])
def test_bytes_become_the_same_input_on_their_device(mode):
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (height, width, 3), np.uint8) for width, height in ((64, 48), (31, 90), (300, 7))]
    framed = [resize.to_bytes(image, (96, 64), mode) for image in images]
    pixels, inside = (torch.from_numpy(np.array([one[n] for one in framed])) for n in (0, 1))
    expected = np.stack([resize.to_input(image, (96, 64), mode) for image in images])
    assert np.array_equal(resize.unframed(pixels, inside).numpy(), expected)
