"""Mirrors src/lookonce/data/canvas.py."""

from types import SimpleNamespace

import numpy as np
import pytest

from lookonce.data import loader as canvas
from lookonce.data.images import load_rgb
from lookonce.data.read import read_dataset
from lookonce.errors import ImageError
from sets import write_squares


@pytest.fixture
def dataset(tmp_path):
    return read_dataset(write_squares(tmp_path / "set", {"train": 3}))


def test_canvas_sizes_shrink_the_large_and_leave_the_small():
    sizes = np.array([[640, 480], [100, 50], [20_000, 10]])
    assert canvas.canvas_sizes(sizes, 320).tolist() == [[320, 240], [100, 50], [320, 1]]


def test_an_image_is_decoded_once(dataset, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(canvas, "load_rgb", lambda path, *_: calls.append(path) or load_rgb(path))
    found = canvas.Canvases(dataset, 96, tmp_path / "run")
    for _ in range(3):
        np.testing.assert_array_equal(found.read(1), load_rgb(dataset.records[1].path))
    assert len(calls) == 1
    found.close()
    assert not list((tmp_path / "run").iterdir())


def test_canvases_are_reduced_and_lie_side_by_side(dataset, tmp_path):
    found = canvas.Canvases(dataset, 48, tmp_path / "run")
    for i in (2, 0, 1, 0, 2):
        expected = load_rgb(dataset.records[i].path, reduce_to=48)
        np.testing.assert_array_equal(found.read(i), expected)
        assert expected.shape == (48, 48, 3)


def test_an_image_that_fails_is_remembered(dataset, tmp_path):
    dataset.records[1].path.write_bytes(dataset.records[1].path.read_bytes()[:80])
    found = canvas.Canvases(dataset, 96, tmp_path / "run")
    for _ in range(2):
        with pytest.raises(ImageError):
            found.read(1)
    assert found.read(0).shape == (96, 96, 3)
    assert found.failed() == [1]


def test_without_a_place_to_keep_them_images_are_decoded_each_time(dataset, tmp_path, caplog):
    assert canvas.Canvases(dataset, 96, None).read(0).shape == (96, 96, 3)
    (tmp_path / "file").write_text("")
    found = canvas.Canvases(dataset, 96, tmp_path / "file")
    assert found.read(0).shape == (96, 96, 3)
    assert found.failed() == []
    assert "decoded in every epoch" in caplog.text


def test_canvases_that_would_fill_the_disk_are_not_kept(dataset, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(canvas.shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * 3 * 96 * 96 * 3 - 1))
    found = canvas.Canvases(dataset, 96, tmp_path / "run")
    assert found.read(0).shape == (96, 96, 3)
    assert not list((tmp_path / "run").iterdir())
    assert "decoded in every epoch" in caplog.text
