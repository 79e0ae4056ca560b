"""Tests of lookonce.data.formats.coco."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

from conftest import CASES, SHARED, needs_shared
from lookonce.data.formats.coco import find_coco, is_coco, split_name, write_coco
from lookonce.data.read import read_dataset
from lookonce.errors import UserError


def add(root, name, images, annotations=(), folder="images", categories=((3, "dog"), (90, "cat"))):
    """Write a json and its images. annotations: (image id, category id, bbox, more)."""
    for _, file in images:
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48)).save(root / folder / file)
    entries = [{"id": n, "image_id": i, "category_id": c, "bbox": b, **more}
               for n, (i, c, b, more) in enumerate(annotations)]  # fmt: skip
    found = {"images": [{"id": n, "file_name": f, "width": 64, "height": 48} for n, f in images],
             "categories": [{"id": n, "name": name} for n, name in categories], "annotations": entries}  # fmt: skip
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(found, indent=1))


@pytest.fixture
def root(tmp_path):
    boxes = [(5, 90, [1, 2, 30, 20], {}), (5, 3, [0, 0, 64, 48], {"iscrowd": 1}), (9, 3, [1, 1, 2, 2], {"ignore": 1})]
    add(tmp_path, "annotations/instances_train2017.json", [(5, "a.jpg"), (7, "b.jpg"), (9, "c.jpg")], boxes,
        "train2017")  # fmt: skip
    add(tmp_path, "annotations/instances_val2017.json", [(5, "d.jpg")], [(5, 90, [5, 5, 5, 5], {})], "val2017")
    (tmp_path / "annotations" / "captions_val2017.json").write_text('{"images": [], "annotations": [{"caption": ""}]}')
    return tmp_path


def test_ids_with_gaps_become_places_and_images_without_boxes_stay(root, caplog):
    with caplog.at_level(logging.INFO, "lookonce"):
        found = read_dataset(root)
    assert found.labels == ("dog", "cat")
    assert [r.path.name for r in found.records] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert [r.labels.tolist() for r in found.records] == [[1, 0], [], [0], [1]]
    assert found.records[0].boxes.tolist() == [[1, 2, 31, 22], [0, 0, 64, 48]]
    assert found.difficult.tolist() == [False, True, True, False]
    assert found.crowd.tolist() == [False, True, False, False]
    assert "1 crowd boxes are read as difficult objects" in caplog.text


@pytest.mark.parametrize("split, count", [("train", 3), ("train2017", 3), ("val", 1), ("val2017", 1)])
def test_each_file_is_a_split(root, split, count):
    assert len(read_dataset(root, split)) == count


def test_all_that_is_wrong_is_told_with_its_line(tmp_path):
    boxes = [(1, 4, [1, 2, 3, 4], {}), (8, 3, [1, 2, 3, 4], {}), (1, 3, [1, 2, 0, 4], {}), (1, 3, [60, 2, 30, 4], {}),
             (1, 3, "x", {}), (1, 3, [1, 2, 3, 4], {"id": 0})]  # fmt: skip
    add(tmp_path, "instances.json", [(1, "a.jpg"), (2, "gone.jpg")], boxes)
    (tmp_path / "images" / "gone.jpg").unlink()
    found = read_dataset(tmp_path)
    kinds = {p.kind: p for p in found.problems}
    assert set(kinds) == {"category missing", "image missing", "image id unknown", "box with no area", "box outside",
                          "object unreadable", "annotation id twice"}  # fmt: skip
    assert len(found.boxes) == 1
    assert {kind: kinds[kind].place for kind in ("category missing", "image id unknown", "box with no area")} == {
        "category missing": "instances.json: $.annotations[0].category_id (id 0, images/a.jpg)",
        "image id unknown": "instances.json: $.annotations[1].image_id (id 1)",
        "box with no area": "instances.json: $.annotations[2].bbox (id 2, images/a.jpg)",
    }


def test_an_image_in_two_files_is_read_once_and_differences_are_told(tmp_path):
    add(tmp_path, "annotations/train.json", [(1, "a.jpg")], [(1, 3, [1, 2, 3, 4], {})])
    add(tmp_path, "annotations/trainval.json", [(8, "a.jpg")], [(8, 3, [1, 2, 3, 4], {})])
    found = read_dataset(tmp_path)
    assert (len(found), len(found.boxes), found.problems) == (1, 1, ())
    assert len(read_dataset(tmp_path, "trainval")) == 1
    add(tmp_path, "annotations/z.json", [(8, "a.jpg")], [(8, 3, [1, 2, 3, 9], {})])
    assert [p.kind for p in read_dataset(tmp_path).problems] == ["image annotated twice"]


def test_places_in_a_file_of_one_line_are_told_by_annotation(tmp_path):
    boxes = [(1, 3, [1, 2, 3, 4], {}), (1, 3, "x", {}), (1, "9", [1, 2, 3, 4], {}), (1, 3, "x", {"id": None})]
    add(tmp_path, "instances.json", [(1, "a.jpg")], boxes)
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(json.loads(file.read_text())))
    assert [p.place for p in read_dataset(tmp_path).problems] == [
        "instances.json: $.annotations[1].bbox (id 1, images/a.jpg)",
        "instances.json: $.annotations[2].category_id (id 2, images/a.jpg)",
        "instances.json: $.annotations[3].bbox (images/a.jpg)",
    ]


def test_roboflows_folders_are_splits(tmp_path):
    for folder in ("train", "valid", "test"):
        add(tmp_path, f"{folder}/_annotations.coco.json", [(0, f"{folder}.jpg")], [(0, 3, [1, 2, 3, 4], {})], folder)
    for split, name in (("train", "train.jpg"), ("val", "valid.jpg"), ("test", "test.jpg")):
        assert [r.path.name for r in read_dataset(tmp_path, split).records] == [name]


def test_a_file_may_be_named_itself_and_holds_all_or_a_split(root, tmp_path):
    found = read_dataset(root / "annotations" / "instances_val2017.json")
    assert [r.path.name for r in found.records] == ["d.jpg"]
    with pytest.raises(UserError, match="a file; expected the folder"):
        read_dataset(root / "annotations" / "instances_val2017.json", format="voc")


@pytest.mark.parametrize("path, split", [
    ("annotations/instances_train2017.json", "train2017"), ("instances.json", "instances"),
    ("train/_annotations.coco.json", "train"), ("valid/_annotations.coco.json", "val"), ("val_coco.json", "val"),
    ("train/labels.json", "train"), ("cells_train.json", "cells_train"), ("labels.json", "labels"),
])  # fmt: skip
def test_splits_are_named_by_their_file(tmp_path, path, split):
    assert split_name(tmp_path / path) == split


def test_what_is_written_reads_back_the_same(root, tmp_path):
    dataset = read_dataset(root)
    out = tmp_path / "out"
    write_coco(out, dataset, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"], {"x": np.arange(4)})
    (out / "images").mkdir()
    for name in "abcd":
        (out / "images" / f"{name}.jpg").touch()
    back = read_dataset(out)
    assert back.labels == dataset.labels
    for name in ("boxes", "classes", "difficult", "crowd", "first", "sizes"):
        np.testing.assert_array_equal(getattr(back, name), getattr(dataset, name))


def test_only_coco_files_are_found(root):
    (root / "results.json").write_text('[{"image_id": 1}]')
    (root / "package.json").write_text('{"name": "x"}')
    assert [file.name for file in find_coco(root)] == ["instances_train2017.json", "instances_val2017.json"]


CAT_DOG = ("cat", "dog")


@pytest.mark.parametrize("case, labels, objects, kinds", [
    ("03-roboflow-root-named-as-class/rf-root-same", ("cat",), 12, ["group category"] * 3),
    ("47-roboflow-phantom-class/rf-root-other", CAT_DOG, 12, ["group category"] * 3),
    ("23-coco-string-category-ids/coco-strcat", CAT_DOG, 4, []),
    ("23-coco-string-category-ids/coco-strcat-ann", CAT_DOG, 4, []),
    ("28-coco-url-without-file_name/coco-url-only", CAT_DOG, 4, []),
    ("28-coco-url-without-file_name/coco-urlpath", CAT_DOG, 4, []),
    ("30-coco-duplicate-image/coco-dupimg-identical", CAT_DOG, 4, ["image listed twice"]),
    ("30-coco-duplicate-image/coco-dupimg-other", CAT_DOG, 4, ["image id twice"]),
    ("30-coco-duplicate-image/coco-samefile-twoids", CAT_DOG, 5, ["image under two ids"]),
    ("32-coco-number-names/coco-dupcatname", CAT_DOG, 4, ["category name twice"]),
    ("32-coco-number-names/coco-int-catname", ("0", "1"), 4, []),
    ("33-coco-segmentation-only/coco-seg-no-bbox", CAT_DOG, 4, ["polygon"] * 4),
])  # fmt: skip
def test_odd_files_of_other_tools_are_read_whole(case, labels, objects, kinds):
    found = read_dataset(CASES / case)
    assert found.labels == labels
    assert len(found.boxes) == objects
    assert [p.kind for p in found.problems] == kinds
    assert len(read_dataset(CASES / case, "train")) == 4


def test_a_group_with_annotations_stays_a_class(tmp_path):
    categories = ((1, "vehicle"), (2, "car"))
    add(tmp_path, "train.json", [(1, "a.jpg")], [(1, 2, [1, 2, 3, 4], {})], categories=categories)
    add(tmp_path, "val.json", [(1, "b.jpg")], [(1, 2, [1, 2, 3, 4], {})], categories=categories)
    for name in ("train", "val"):
        file = tmp_path / f"{name}.json"
        file.write_text(file.read_text().replace('"name": "car"', '"name": "car", "supercategory": "vehicle"'))
    assert read_dataset(tmp_path).labels == ("car",)
    assert [p.kind for p in read_dataset(tmp_path, "val").problems] == ["group category"] * 2
    (tmp_path / "val.json").write_text(
        (tmp_path / "val.json").read_text().replace('category_id": 2', 'category_id": 1')
    )
    assert read_dataset(tmp_path).labels == ("vehicle", "car")


def test_equal_boxes_of_an_image_under_two_ids_are_kept_once(tmp_path):
    boxes = [(1, 3, [1, 2, 3, 4], {}), (9, 3, [1, 2, 3, 4], {}), (9, 90, [1, 2, 3, 4], {})]
    add(tmp_path, "train.json", [(1, "a.jpg"), (9, "a.jpg")], boxes)
    found = read_dataset(tmp_path, "train")
    assert (len(found), found.classes.tolist()) == (1, [0, 1])
    assert [p.kind for p in found.problems] == ["image under two ids"]


def test_boxes_that_are_clear_are_kept_and_counted_as_fixed(tmp_path):
    boxes = [(1, 3, [40, 30, -20, -10], {}), (1, 3, [-5, -3, 40, 40], {}), (1, 3, ["1", 2, 3, 4], {}),
             (1, 3, [-30, 0, 40, 40], {})]  # fmt: skip
    add(tmp_path, "instances.json", [(1, "a.jpg")], boxes)
    found = read_dataset(tmp_path)
    assert found.boxes.tolist() == [[20, 20, 40, 30], [0, 0, 35, 37], [1, 2, 4, 6]]
    assert [(p.kind, p.action) for p in found.problems] == [
        ("corners exchanged", "fixed"), ("box over the edge", "fixed"), ("number as text", "fixed"),
        ("box outside", "dropped"),
    ]  # fmt: skip


@needs_shared
def test_voc_photographs_are_the_same_from_coco_json():
    voc, coco = read_dataset(SHARED / "data" / "voc100"), read_dataset(SHARED / "data" / "voc100", format="coco")
    assert coco.problems == ()
    other = {record.path.name: record for record in coco.records}
    assert other.keys() == {record.path.name for record in voc.records}
    for a in voc.records:
        b = other[a.path.name]
        order_a, order_b = (np.lexsort(r.boxes.T) for r in (a, b))
        assert [voc.labels[i] for i in a.labels[order_a]] == [coco.labels[i] for i in b.labels[order_b]]
        # that file keeps VOC's xmin and ymin, which count from 1
        np.testing.assert_array_equal(a.boxes[order_a] + [1, 1, 0, 0], b.boxes[order_b])


@pytest.mark.parametrize("text, expected", [
    ('{"images": [], "annotations": []}', True), ('\ufeff{"annotations" : [],\n"images":[]}', True),
    ('{"categories": []}', False), ('{"images": []}', False), ('[{"images": [], "annotations": []}]', False),
    ('{"images": 3, "annotations": []}', False), ("", False),
])  # fmt: skip
def test_coco_has_lists_of_images_and_of_annotations(tmp_path, text, expected):
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    assert is_coco(tmp_path / "a.json") == expected


def test_a_large_file_may_have_its_lists_far_apart(tmp_path):
    (tmp_path / "a.json").write_text('{"images": [' + " " * (2 << 20) + '], "annotations": []}')
    assert is_coco(tmp_path / "a.json")


def test_a_name_that_images_of_two_folders_share_means_neither_of_them_alone(tmp_path):
    add(tmp_path, "instances.json", [], [(n, 3, [n, 2, 3, 4], {}) for n in (1, 2, 3)])
    file = tmp_path / "instances.json"
    images = [{"id": n, "file_name": name, "width": 64, "height": 48}
              for n, name in ((1, "cam0/a.jpg"), (2, "cam1/a.jpg"), (3, "cam0/b.jpg"))]  # fmt: skip
    file.write_text(json.dumps(json.loads(file.read_text()) | {"images": images}))
    for name in ("cam1/a.jpg", "elsewhere/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 48)).save(tmp_path / name)
    found = read_dataset(tmp_path)
    assert {str(path): x for path, x in zip(found.paths, found.boxes[:, 0].tolist(), strict=True)} == {
        "cam1/a.jpg": 2, "elsewhere/b.jpg": 3,
    }  # fmt: skip
    assert [p.kind for p in found.problems] == ["image missing"]


def test_images_of_one_name_in_split_folders_keep_their_own_boxes(tmp_path):
    for number, split in enumerate(("train", "val")):
        add(tmp_path, f"{split}/labels.json", [(1, "a.jpg")], [(1, 3, [1 + number, 2, 3, 4], {})], f"{split}/data")
    for number, split in enumerate(("train", "val")):
        assert read_dataset(tmp_path, split).boxes[:, 0].tolist() == [1 + number]


def test_images_that_no_file_names_are_counted(tmp_path):
    add(tmp_path, "instances.json", [(1, "a.jpg")], [(1, 3, [1, 2, 3, 4], {})])
    Image.new("RGB", (64, 48)).save(tmp_path / "images" / "b.jpg")
    assert [(p.kind, p.times) for p in read_dataset(tmp_path).problems] == [("image without annotation", 1)]
    add(tmp_path, "val.json", [(1, "b.jpg")], [(1, 3, [1, 2, 3, 4], {})])
    assert read_dataset(tmp_path / "val.json").problems == ()
