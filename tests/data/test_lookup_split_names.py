"""Mirrors src/lookonce/data/split_names.py."""

import pytest

from lookonce.data.lookup import contradict, folder_split, is_plain, is_split, split_word


@pytest.mark.parametrize("name, split", [
    ("train", "train"), ("train2017", "train"), ("cells_train", "train"), ("cellsTrain", "train"), ("TRAIN", "train"),
    ("valid", "val"), ("validation", "val"), ("val_coco", "val"), ("dev", "val"), ("holdout", "test"),
    ("trainval", None), ("fold1", None), ("train_val", None), ("constrained", None), ("default", None), ("2007", None),
])  # fmt: skip
def test_a_name_speaks_of_one_split_or_of_none(name, split):
    assert split_word(name) == split


@pytest.mark.parametrize("name, expected", [
    ("train", True), ("val2017", True), ("test_images", True), ("obj_train_data", True), ("Validation", True),
    ("train_station", False), ("images", False), ("trainval", False), ("", False),
])  # fmt: skip
def test_a_folder_is_a_split_where_its_name_says_nothing_else(name, expected):
    assert is_split(name) == expected


@pytest.mark.parametrize("folders, split", [
    (["images", "train"], "train"), (["train", "images"], "train"), (["valid"], "valid"),
    (["fold1", "val", "images"], "fold1/val"), (["images", "cats"], None), ([], None),
])  # fmt: skip
def test_folders_name_a_split(folders, split):
    assert folder_split(folders) == split


def test_plain_names_say_what_a_folder_holds():
    assert is_plain("_annotations.coco")
    assert is_plain("JPEGImages")
    assert not is_plain("cells")
    assert not is_plain("2017")


def test_two_paths_contradict_where_their_folders_are_of_different_splits():
    assert contradict(["images", "train"], ["labels", "val"])
    assert not contradict(["images", "train"], ["train2017"])
    assert not contradict(["images"], ["val"])
