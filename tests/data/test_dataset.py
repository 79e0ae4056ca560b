"""Tests of lookonce.data.dataset."""

import gc
import pickle
from pathlib import Path

import numpy as np
import pytest

from lookonce.data.dataset import Record, pack

ROOT = Path("set")


def record(name, count, difficult=False):
    boxes = np.arange(4 * count, dtype=np.float32).reshape(-1, 4)
    return Record(ROOT / name, (640, 480), boxes, np.full(count, count), np.full(count, difficult))


def dataset(*counts):
    return pack("set", ROOT, ("a", "b", "c", "d"), [record(f"{i}.jpg", n) for i, n in enumerate(counts)])


def test_records_give_back_what_was_packed():
    found = dataset(2, 0, 3)
    assert [len(r.labels) for r in found.records] == [2, 0, 3]
    assert [r.path for r in found.records] == [ROOT / "0.jpg", ROOT / "1.jpg", ROOT / "2.jpg"]
    np.testing.assert_array_equal(found.records[-1].boxes, record("2.jpg", 3).boxes)
    assert found.records[0].size == (640, 480)
    assert len(found.records[1:]) == 2
    assert found.image_of_box.tolist() == [0, 0, 2, 2, 2]
    with pytest.raises(IndexError):
        found.records[3]


def test_select_keeps_images_whole_and_in_the_order_asked():
    found = dataset(2, 0, 3).select([2, 0])
    assert [len(r.labels) for r in found.records] == [3, 2]
    np.testing.assert_array_equal(found.records[0].boxes, record("2.jpg", 3).boxes)
    assert len(dataset(1, 2).select([])) == 0
    assert len(dataset(1, 2).select(np.array([True, False]))) == 1


def test_with_objects_leaves_out_the_empty():
    assert [len(r.labels) for r in dataset(0, 2, 0).with_objects().records] == [2]


def test_the_index_holds_no_object_for_a_box():
    few, many = dataset(*[1] * 10), dataset(*[500] * 10)
    gc.collect()
    assert len(gc.get_referents(few)) == len(gc.get_referents(many))
    assert all(isinstance(v, np.ndarray) for k, v in vars(many).items() if k in ("boxes", "paths", "sizes", "classes"))
    assert len(pickle.dumps(many)) < 5000 * 30


def test_the_typical_side_of_objects_is_a_share_of_the_images_longer_side():
    boxes = np.array([[0, 0, 64, 10], [0, 0, 10, 128], [5, 5, 325, 15]], np.float32)
    one = Record(ROOT / "a.jpg", (640, 480), boxes, np.zeros(3, int), np.zeros(3, bool))
    assert pack("set", ROOT, ("a",), [one]).object_side == 0.2
    tall = Record(ROOT / "b.jpg", (100, 320), boxes[:1], np.zeros(1, int), np.zeros(1, bool))
    assert pack("set", ROOT, ("a",), [tall, record("c.jpg", 0)]).object_side == pytest.approx(0.2)
    assert dataset(0).object_side == 1.0
