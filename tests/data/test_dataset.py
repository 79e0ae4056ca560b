"""Tests of lookonce.data.dataset."""

import gc
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lookonce.data.dataset import Record, pack
from lookonce.data.read import read_dataset
from lookonce.errors import plural
from lookonce.inference.draw import class_colour

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


def test_one_line_shows_a_data_set_and_an_image(squares):
    dataset = read_dataset(squares, "test")
    objects = len(dataset.boxes)
    assert repr(dataset) == f"Dataset squares: 8 images, {objects} objects, 2 classes"
    record = dataset.records[0]
    assert repr(record) == f"Record({record.path}: 96 x 96, {plural(len(record.labels), 'object')})"


def test_an_image_is_drawn_with_its_objects(squares):
    dataset = read_dataset(squares, "test")
    record = dataset.records[1]
    drawn = np.asarray(dataset.draw(1, hide_labels=True))
    assert drawn.shape == (96, 96, 3)
    (x1, y1, *_), name = record.boxes[0], dataset.labels[record.labels[0]]
    assert tuple(drawn[int(y1), int(x1)]) == class_colour(name, dataset.labels)


def test_notebooks_show_some_images_and_leave_out_what_cannot_be_read(squares):
    dataset = read_dataset(squares, "test")
    assert dataset._repr_html_().count('<img src="data:image/jpeg;base64,') == 4
    gone = replace(dataset.select([0, 1]), paths=np.array(["<nowhere>.png", dataset.paths[1]]))
    assert gone._repr_html_().count("<img") == 1
    assert replace(gone, name="<b>")._repr_html_().startswith("<p>Dataset &lt;b&gt;: 2 images, ")
