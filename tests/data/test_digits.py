"""Tests of lookonce.data.digits."""

from __future__ import annotations

import builtins
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lookonce.data import digits
from lookonce.data.read import read_dataset
from lookonce.errors import UserError
from lookonce.model import boxes as geometry

pytest.importorskip("sklearn", reason="the digits come with scikit-learn: the demo extra")
SIDE = 128


@pytest.fixture(scope="module")
def pages():
    scans, labels = digits.load_scans()
    pool = digits.divide(labels, 0)[0]
    return [digits.draw_page(scans, pool, SIDE, np.random.default_rng((0, 0, i))) for i in range(60)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return digits.write_digits(tmp_path_factory.mktemp("set") / "digits", pages=(6, 2, 3), seed=3)


def test_train_val_and_test_share_no_scan_and_every_class_is_divided_alike():
    _, labels = digits.load_scans()
    parts = digits.divide(labels, 7)
    assert sorted(np.concatenate(parts).tolist()) == list(range(1797))
    for part, ratio in zip(parts, digits.RATIOS, strict=True):
        np.testing.assert_allclose(np.bincount(labels[part]), ratio * np.bincount(labels), atol=1)
    assert not np.array_equal(digits.divide(labels, 8)[0], parts[0])


def test_each_page_has_up_to_7_digits_each_scan_once(pages):
    counts = [len(page.boxes) for page in pages]
    assert min(counts) >= 1
    assert max(counts) <= 7
    assert np.mean(counts) > 2
    assert all(len(set(page.scans.tolist())) == len(page.scans) == len(page.boxes) for page in pages)


def test_boxes_lie_on_the_page_and_hardly_on_each_other(pages):
    for page in pages:
        boxes = torch.from_numpy(page.boxes)
        assert boxes.min() >= 0
        assert boxes.max() <= SIDE
        assert all(geometry.iou(a, b) < 0.05 for a, b in combinations(boxes, 2))


def test_a_box_is_tight_around_its_ink(pages):
    """The oracle looks at the ink alone: every edge row and column of a box is inked, and all ink is in a box."""
    for page in pages:
        inked = page.ink >= digits.INK
        covered = np.zeros_like(inked)
        for x1, y1, x2, y2 in page.boxes.astype(int):
            inside = inked[y1:y2, x1:x2]
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()
            covered[y1:y2, x1:x2] = True
        assert not (inked & ~covered).any()


def test_ink_stands_out_from_the_paper_around_it(pages):
    """The oracle reads the finished image: dense ink against bare paper within the box, in grey levels."""
    grey = np.array((0.299, 0.587, 0.114))
    differences = []
    for page in pages:
        bright = page.pixels @ grey
        for x1, y1, x2, y2 in page.boxes.astype(int):
            ink, values = page.ink[y1:y2, x1:x2], bright[y1:y2, x1:x2]
            if (ink == 0).any():
                differences.append(abs(values[ink > 0.9].mean() - values[ink == 0].mean()))
    assert min(differences) > 0.2 * 255


def test_digits_come_small_and_large(pages):
    longest = np.concatenate([(page.boxes[:, 2:] - page.boxes[:, :2]).max(1) for page in pages])
    assert SIDE * 3 / 8 * 0.8 < longest.min() < SIDE * 3 / 8 * 1.1
    assert SIDE * 3 / 4 * 0.9 < longest.max() < SIDE * 3 / 4 * 1.3


@pytest.mark.parametrize("length", [20.0, 40.0, 80.0])
def test_every_scan_gives_ink_of_about_the_length_asked(length):
    scans, _ = digits.load_scans()
    rng = np.random.default_rng(1)
    for scan in scans[::20]:
        shape = digits.shape_digit(scan, length, rng)
        assert 0.7 * length < max(shape.shape) < 1.3 * length
        assert shape.max() > 0.9


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_pages(written, tmp_path):
    again = digits.write_digits(tmp_path / "again" / "digits", pages=(6, 2, 3), seed=3)
    other = digits.write_digits(tmp_path / "other" / "digits", pages=(6, 2, 3), seed=4)
    assert contents(again) == contents(written)
    assert contents(other)["JPEGImages/train_00000.jpg"] != contents(written)["JPEGImages/train_00000.jpg"]


def test_more_pages_leave_the_earlier_ones_as_they_were(written, tmp_path):
    more = contents(digits.write_digits(tmp_path / "more" / "digits", pages=(7, 2, 3), seed=3))
    assert all(more[name] == data for name, data in contents(written).items() if name.startswith(("JPEG", "Annot")))


def test_what_is_written_reads_back_as_a_voc_data_set(written):
    sets = {split: read_dataset(written, split) for split in (*digits.SPLITS, "trainval")}
    assert {split: len(found) for split, found in sets.items()} == {"train": 6, "val": 2, "test": 3, "trainval": 8}
    for found in sets.values():
        assert found.labels == tuple("0123456789")
        assert not found.problems
        assert not found.difficult.any()
        for record in found.records:
            with Image.open(record.path) as image:
                assert image.size == record.size == (SIDE, SIDE)
                assert image.mode == "RGB"


def test_a_page_reads_back_with_its_boxes_and_classes_and_its_split_has_its_own_scans(written):
    scans, labels = digits.load_scans()
    for number, (split, pool) in enumerate(zip(digits.SPLITS, digits.divide(labels, 3), strict=True)):
        record = read_dataset(written, split).records[1]
        page = digits.draw_page(scans, pool, SIDE, np.random.default_rng((3, number, 1)))
        assert set(page.scans.tolist()) <= set(pool.tolist())
        assert np.array_equal(record.boxes, page.boxes)
        assert np.array_equal(record.labels, labels[page.scans])


def test_progress_counts_every_page(tmp_path):
    seen: list[tuple[int, int]] = []
    digits.write_digits(tmp_path / "digits", pages=(2, 1, 1), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_same_set_is_not_written_twice_and_nothing_else_is_overwritten(written, tmp_path):
    before = (written / "JPEGImages" / "train_00000.jpg").stat().st_mtime_ns
    assert digits.write_digits(written, pages=(6, 2, 3), seed=3) == written
    assert (written / "JPEGImages" / "train_00000.jpg").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="other files"):
        digits.write_digits(written, pages=(6, 2, 3), seed=5)
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match="other files"):
        digits.write_digits(tmp_path, pages=(1, 1, 1))
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_run_cut_short_leaves_nothing(tmp_path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        digits.write_digits(tmp_path / "digits", pages=(2, 1, 1), progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"pages": (0, 1, 1)}, {"pages": (5, 5)}, {"side": 32}])
def test_numbers_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(UserError, match="expected three counts of at least 1 and a side of at least 64 px"):
        digits.write_digits(tmp_path / "digits", **wrong)


def test_without_scikit_learn_the_message_gives_the_command(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    for name in [n for n in sys.modules if n.startswith("sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r'pip install "lookonce\[demo\]"'):
        digits.write_digits(tmp_path / "digits", pages=(1, 1, 1))
    assert list(tmp_path.iterdir()) == []


def test_pages_are_colours_of_the_size_asked_whatever_the_pattern():
    for seed in range(40):
        page = digits.draw_background(96, np.random.default_rng(seed))
        assert page.shape == (96, 96, 3)
        assert page.dtype == np.float32
        assert 0 <= page.min() <= page.max() <= 1


def test_backgrounds_are_light_and_never_two_alike():
    pages = [digits.draw_background(64, np.random.default_rng(seed)) for seed in range(60)]
    bright = np.array([page.mean() for page in pages])
    assert (bright > 0.6).all()
    assert bright.std() > 0.03
    assert len({page.tobytes() for page in pages}) == 60


def test_ink_differs_in_brightness_and_leaves_the_background_as_it_was():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        page = digits.draw_background(64, rng)
        ink = np.zeros((64, 64), np.float32)
        ink[20:40, 20:40] = 1
        before = page.copy()
        done = digits.draw_ink(page, ink, rng)
        assert np.array_equal(page, before), "the page that was given is not written to"
        assert np.array_equal(done[ink == 0], page[ink == 0])
        difference = (done[ink == 1].mean(0) - page.mean((0, 1))) @ digits.BRIGHTNESS
        assert abs(difference) > 0.85 * digits.CONTRAST
