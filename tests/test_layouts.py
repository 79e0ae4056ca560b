"""Each layout of a data set that a tool of the field writes is read with its split, or refused with the way out."""

import logging

import numpy as np
import pytest

from conftest import CASES
from layouts import ALL, CLASSES, HASHED, READ, REFUSED, TRUTH, written
from lookonce.data.read import read_whole
from lookonce.errors import UserError

DAMAGE = ("image missing", "annotation missing", "object unreadable", "label file missing", "annotation unreadable",
          "list missing", "image annotated twice", "image without annotation")  # fmt: skip


def stems(whole, members):
    return [whole.dataset.records[i].path.stem for i in members.tolist()]


@pytest.mark.parametrize("layout", READ, ids=lambda layout: layout.__name__)
def test_a_layout_is_read_with_every_image_every_box_and_its_splits(tmp_path, layout):
    format, splits = READ[layout]
    whole = read_whole(written(layout, tmp_path))
    dataset = whole.dataset
    assert whole.found.format == format
    expected = set(ALL) if splits is HASHED else set().union(*splits.values())
    assert sorted(record.path.stem for record in dataset.records) == sorted(expected)
    assert all(record.path.is_file() for record in dataset.records)
    assert [name for name in dataset.labels if name != "animals"] == list(CLASSES)
    for record in dataset.records:
        truth = [(name, *box) for name, box in TRUTH[record.path.stem]]
        found = [(dataset.labels[n], *b) for n, b in zip(record.labels, record.boxes.tolist(), strict=True)]
        assert [name for name, *_ in found] == [name for name, *_ in truth]
        np.testing.assert_allclose([b for _, *b in found], [b for _, *b in truth], atol=0.01)
    assert not [p for _, p in whole.found.problems if p.kind in DAMAGE]
    if splits is HASHED:
        assert whole.brought == ()
        assert [len(whole.members(name)) for name in ("train", "val", "test")] == [8, 1, 1]
        assert "80/10/10 by a hash of the file names" in whole.say_splits()
    else:
        assert {name: set(stems(whole, whole.members(name))) for name in splits} == splits
        assert whole.say_splits().endswith(f"from {whole.found.source}")


@pytest.mark.parametrize("layout", REFUSED, ids=lambda layout: layout.__name__)
def test_a_layout_that_is_not_read_is_named_with_the_way_out(tmp_path, layout):
    with pytest.raises(UserError, match=REFUSED[layout]) as error:
        read_whole(written(layout, tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("layout, split, message", [
    ("voc_folds", "train", r"there are fold1 \(5 images\), fold2 \(3 images\).*--train-split NAME and --val-split"),
    ("voc_trainval", "train", r"no split 'train'; there are test \(2 images\), trainval \(8 images\).*--train-split"),
    ("voc_trainval", "val", "--val-split none"),
    ("cvat_yolo", "val", r"there are train \(10 images\).*train without validation: --val-split none"),
    ("named_json", "val", "--val-split none"),
    ("detr", "test", "--split NAME, or --split all"),
])  # fmt: skip
def test_a_split_that_is_not_there_is_refused_and_never_made_by_hash(tmp_path, layout, split, message):
    layout = next(one for one in READ if one.__name__ == layout)
    with pytest.raises(UserError, match=message):
        read_whole(written(layout, tmp_path)).members(split)


def test_there_are_thirty_layouts():
    assert len(READ) + len(REFUSED) >= 30


@pytest.mark.parametrize("place, format, splits", [
    ("02-labelstudio-notes-json/labelstudio", "yolo", {"train": 4, "val": 1, "test": 1}),
    ("04-roboflow-voc/rf-voc", "voc", {"train": 4, "val": 4, "test": 4}),
    ("04-roboflow-voc/voc-split", "voc", {"train": 4, "val": 4}),
    ("06-fiftyone-coco/fiftyone-coco", "coco", {"train": 2, "val": 1, "test": 1}),
    ("07-detr-layout/detr-layout", "coco", {"train": 4}),
    ("08-voc-folder-annots/kangaroo", "voc", {"train": 2, "val": 1, "test": 1}),
    ("13-train-val-folders-ignored/folders-no-yaml", "yolo", {"train": 6, "val": 4}),
    ("35-hidden-files/hidden", "yolo", {"train": 6, "val": 6}),
    ("35-hidden-files/hidden-voc", "voc", {"train": 2, "val": 1, "test": 1}),
    ("36-set-one-folder-below/deep", "yolo", {"train": 6, "val": 6}),
    ("41-labels-without-names/nc-only", "yolo", {"train": 6, "val": 6}),
    ("41-labels-without-names/names-file-labels", "yolo", {"train": 2, "val": 1, "test": 1}),
    ("42-small-set-without-val/tiny8", "voc", {"train": 6, "val": 1, "test": 1}),
    ("42-small-set-without-val/only-train", "voc", {"train": 6}),
])  # fmt: skip
def test_a_case_is_read_without_a_problem(place, format, splits):
    whole = read_whole(CASES / place)
    assert whole.found.format == format
    assert {name: len(whole.members(name)) for name in whole.training} == splits
    assert whole.found.problems == []
    assert len(whole.dataset.boxes) == len(whole.dataset)


@pytest.mark.parametrize("place, message", [
    ("38-other-formats-unnamed/labelme", "there are 3 .jpg, 3 .json; p0.json looks like labelme's JSON; convert it"),
    ("38-other-formats-unnamed/createml", "train/: 3 .jpg, 1 .json; train/_annotations.createml.json looks"),
    ("38-other-formats-unnamed/tfcsv", "train/_annotations.csv looks like a CSV file .*export it as COCO"),
    ("41-labels-without-names/no-names", "YOLO labels are here but no class names: write classes.txt"),
    ("41-labels-without-names/labels-root", "YOLO labels are here but no class names: write classes.txt"),
])  # fmt: skip
def test_a_case_is_refused_with_the_way_out(place, message):
    with pytest.raises(UserError, match=message):
        read_whole(CASES / place)


def test_a_set_one_folder_below_is_read_and_that_is_said(caplog):
    with caplog.at_level(logging.INFO, "lookonce"):
        read_whole(CASES / "36-set-one-folder-below" / "deep")
    assert "the data set is in its folder dataset" in caplog.text


def test_classes_without_names_are_numbered():
    assert read_whole(CASES / "41-labels-without-names" / "nc-only").dataset.labels == ("class0", "class1")


def test_label_files_without_an_image_are_counted():
    found = read_whole(CASES / "14-orphan-labels" / "orphan").found
    assert [(p.kind, p.place) for _, p in found.problems] == [
        ("image missing", "labels/gone.txt"),
        ("image missing", "labels/gone2.txt"),
    ]
