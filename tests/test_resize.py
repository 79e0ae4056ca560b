"""Mirrors src/lookonce/resize.py. Oracles: Darknet's letterbox_image, OpenCV-like loops."""

import numpy as np
import pytest
import torch

from conftest import GOLDEN, SHARED, needs_shared
from lookonce import resize

CASES = {"tall_160x160": "synthetic_97x211", "tall_192x128": "synthetic_97x211", "small_up_128x192": "synthetic_45x30"}


def check(golden, case, picture):
    frame = tuple(int(v) for v in case.rsplit("_", 1)[1].split("x"))
    image = golden[f"decoded_{picture}"].transpose(2, 0, 1)
    found = resize.to_input(golden[f"decoded_{picture}"], frame, "letterbox")
    np.testing.assert_allclose(found, golden[f"letterbox_{case}"], atol=1e-6)
    new_w, new_h, left, top = golden[f"geometry_{case}"]
    assert resize.fitted(np.array([image.shape[2], image.shape[1]]), frame, "letterbox").tolist() == [new_w, new_h]
    sx, sy, ox, oy = resize.geometry(np.array([image.shape[2], image.shape[1]]), frame, "letterbox")
    assert (sx * image.shape[2], sy * image.shape[1]) == (new_w, new_h)
    assert (int(ox), int(oy)) == (left, top)


@pytest.mark.parametrize("case, picture", CASES.items())
def test_letterbox_is_darknets(case, picture):
    check(np.load(GOLDEN / "dk_letterbox_synthetic.npz"), case, picture)


@needs_shared
@pytest.mark.parametrize("case", ["bccd_416x416", "bccd_192x128"])
def test_letterbox_is_darknets_on_a_photograph(case):
    check(np.load(SHARED / "golden" / "dk_letterbox.npz"), case, "BloodImage_00000")


def test_stretch_is_bilinear_with_half_pixel_centres():
    """The blog's cv2.resize, written as a loop."""
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = picture.transpose(2, 0, 1) / 255
    found = resize.to_input(picture, (4, 9), "stretch")
    for y in range(9):
        for x in range(4):
            v, u = (min(max((n + 0.5) * old / new - 0.5, 0), old - 1) for n, old, new in ((y, 5, 9), (x, 7, 4)))
            y0, x0 = int(v), int(u)
            y1, x1, fy, fx = min(y0 + 1, 4), min(x0 + 1, 6), v - int(v), u - int(u)
            top = image[:, y0, x0] * (1 - fx) + image[:, y0, x1] * fx
            low = image[:, y1, x0] * (1 - fx) + image[:, y1, x1] * fx
            np.testing.assert_allclose(found[:, y, x], top * (1 - fy) + low * fy, atol=1e-5)


@pytest.mark.parametrize("mode", ["letterbox", "stretch"])
@pytest.mark.parametrize("size", [(640, 480), (97, 211), (1, 1), (20000, 10), (10, 20000)])
def test_boxes_go_to_the_input_and_back(mode, size):
    boxes = torch.tensor([[0.0, 0, size[0], size[1]], [0.2 * size[0], 0.1 * size[1], 0.5 * size[0], 0.9 * size[1]]])
    inside = resize.boxes_to_input(boxes, size, (416, 320), mode)
    assert (inside >= -1e-3).all()
    assert (inside <= torch.tensor([416, 320, 416, 320]) + 1e-3).all()
    back = resize.boxes_to_image(inside, size, (416, 320), mode)
    torch.testing.assert_close(back, boxes, atol=1e-2, rtol=1e-4)
    assert resize.to_input(np.zeros((size[1], size[0], 3), np.uint8), (416, 320), mode).shape == (3, 320, 416)


def test_fitted_works_on_many_sizes_at_once():
    sizes = np.array([[640, 480], [480, 640], [500, 500], [20000, 10]])
    assert resize.fitted(sizes, (416, 416), "letterbox").tolist() == [[416, 312], [312, 416], [416, 416], [416, 1]]
    assert resize.fitted(sizes, (416, 416), "stretch").tolist() == [[416, 416]] * 4


def test_a_picture_of_the_frames_size_passes_unchanged():
    picture = np.random.default_rng(1).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    for mode in ("letterbox", "stretch"):
        found = resize.to_input(picture, (64, 32), mode)
        np.testing.assert_array_equal(found, picture.transpose(2, 0, 1).astype(np.float32) / 255)
