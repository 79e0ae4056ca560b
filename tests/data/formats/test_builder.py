"""Tests of lookonce.data.formats.builder."""

import numpy as np
import pytest
from PIL import Image

from layouts import ALL, image, labelimg_voc, ultralytics_folders, voc_lists, written
from lookonce.data.formats.builder import MOST_LISTED, Builder, first_few, repeated_names
from lookonce.data.read import read_splits, read_whole


@pytest.fixture
def found(tmp_path):
    return Builder(tmp_path, "drop", "test")


def test_numbers_are_packed_in_order(found):
    found.add_image("a", "a.jpg", (60, 40), found.root / "a.xml")
    found.add_object("cat", (1, 2, 3, 4), 5)
    found.add_image("b", "b.jpg", (10, 20), found.root / "b.xml")
    found.add_image("c", "c.jpg", (10, 20), found.root / "c.xml")
    found.add_object("dog", (0, 0, 1, 1), 1, difficult=True)
    found.add_object("cat", (0, 0, 2, 2), 2, crowd=True)
    assert (found.lines.tolist(), found.files[1].name) == ([5, 1, 2], "b.xml")
    assert found.counts.tolist() == [1, 0, 2]
    assert np.array(found.sizes).reshape(-1, 2).tolist() == [[60, 40], [10, 20], [10, 20]]
    assert found.names.tolist() == [0, 1, 0]
    assert found.ids == {"cat": 0, "dog": 1}
    assert (found.difficult.tolist(), found.crowd.tolist()) == ([0, 1, 1], [0, 0, 1])
    assert found.index == {"a": 0, "b": 1, "c": 2}


@pytest.mark.parametrize("box, policy, expected, kinds", [
    ((0, 0, 64, 48), "drop", (0, 0, 64, 48), []),
    ((-1, -0.5, 65, 49), "drop", (0, 0, 64, 48), []),
    ((10, 10, 10, 20), "clip", None, ["box with no area"]),
    ((10, 10, 70, 20), "drop", (10, 10, 64, 20), ["box over the edge"]),
    ((10, 10, 118, 20), "drop", (10, 10, 64, 20), ["box over the edge"]),
    ((10, 10, 118.1, 20), "drop", None, ["box outside"]),
    ((10, 10, 118.1, 20), "clip", (10, 10, 64, 20), ["box outside"]),
    ((-20, -20, 40, 40), "drop", None, ["box outside"]),
    ((40, 10, 10, 20), "drop", (10, 10, 40, 20), ["corners exchanged"]),
    ((40, 50, 10, 20), "drop", (10, 20, 40, 48), ["corners exchanged", "box over the edge"]),
    ((40, 20, 10, 20), "drop", None, ["corners exchanged", "box with no area"]),
    ((64.5, 10, 64.9, 20), "clip", None, ["box outside"]),
    ((float("nan"), 10, 64.9, 20), "clip", None, ["box with no area"]),
])  # fmt: skip
def test_boxes_are_settled_by_the_policy(found, box, policy, expected, kinds):
    found.policy = policy
    assert found.fit_box("a", (found.root / "l.txt", 3), box, (64, 48)) == expected
    assert [(p.kind, p.place) for _, p in found.problems] == [(kind, "l.txt:3") for kind in kinds]


@pytest.mark.parametrize("box, policy, expected, kinds", [
    ((1, 1, 64, 48), "drop", (0, 0, 64, 48), []),
    ((0, 0, 65, 49), "drop", (0, 0, 64, 48), []),
    ((10, 10, 10, 20), "clip", None, ["box with no area"]),
    ((11, 10, 10, 20), "drop", None, ["box with no area"]),
    ((40, 40, 10, 10), "drop", (9, 9, 40, 40), ["corners exchanged"]),
    ((10, 10, 70, 20), "drop", (9, 9, 64, 20), ["box over the edge"]),
    ((-5, 10, 20, 20), "drop", (0, 9, 20, 20), ["box over the edge"]),
    ((100, 10, 170, 20), "clip", None, ["box outside"]),
])  # fmt: skip
def test_boxes_that_count_pixels_from_one_are_settled_likewise(found, box, policy, expected, kinds):
    found.policy = policy
    assert found.fit_box("a", (found.root / "l.txt", 3), box, (64, 48), first=1) == expected
    assert [p.kind for _, p in found.problems] == kinds


def test_names_that_several_ids_have_are_told_with_the_first_ids():
    assert list(repeated_names([(1, "a"), (2, "b"), (5, "a")])) == ["'a' has the ids 1, 5"]
    assert first_few(range(9)) == "0, 1, 2, 3, 4 and more"
    assert first_few(range(5)) == "0, 1, 2, 3, 4"


def test_a_place_is_a_line_and_an_entry(found):
    file = found.root / "a.json"
    assert found.location((file, 0)) == "a.json"
    assert found.location((file, 1)) == "a.json:1"
    assert found.location((file, "$.images[0]")) == "a.json: $.images[0]"


def test_problems_that_stand_for_many_are_counted_as_many(found):
    for n in range(MOST_LISTED + 50):
        found.problem("a", (found.root / "a.txt", n + 1), "polygon", "x", "fixed", times=10)
    assert len(found.problems) == MOST_LISTED + 1
    assert sum(p.times for _, p in found.problems) == 10 * (MOST_LISTED + 50)


def test_very_many_problems_of_one_file_stay_few_and_counted(found):
    for line in range(1, 5001):
        found.problem("a", (found.root / "a.txt", line), "object unreadable", "x", "dropped")
    found.problem("b", (found.root / "b.txt", 1), "object unreadable", "x", "dropped")
    assert len(found.problems) == MOST_LISTED + 2
    assert sum(p.times for _, p in found.problems) == 5001
    assert found.problems[MOST_LISTED][1].place == f"a.txt:{MOST_LISTED + 1}"


@pytest.mark.parametrize("names, splits", [
    (["train", "valid"], {"train": "train", "val": "valid"}),
    (["cells_train", "cells_test"], {"train": "cells_train", "test": "cells_test"}),
    (["train2014", "train2017", "val2017"], {"train2014": "train2014", "train2017": "train2017", "val": "val2017"}),
    (["train", "train_small"], {"train": "train", "train_small": "train_small"}),
    (["fold1", "trainval"], {"fold1": "fold1", "trainval": "trainval"}),
])  # fmt: skip
def test_a_split_is_named_by_the_one_name_that_speaks_of_it(found, names, splits):
    found.add_splits({name: lambda name=name: [name] for name in names})
    assert {split: keys() for split, keys in found.splits.items()} == {split: [name] for split, name in splits.items()}
    assert found.aliases == {name: split for split, name in splits.items() if name != split}


def test_folders_of_images_are_splits_where_there_are_no_lists(found):
    for path in ("images/train/a.jpg", "images/val/b.jpg", "images/c.jpg"):
        found.add_image(path, path, (9, 9), found.root)
    found.problem("images/val/d.jpg", (found.root, 0), "image unreadable", "x", "skipped")
    found.add_folder_splits()
    assert {name: keys() for name, keys in found.splits.items()} == {
        "train": ["images/train/a.jpg"], "val": ["images/val/b.jpg", "images/val/d.jpg"],
    }  # fmt: skip
    assert found.source == "the folders images/train, images/val"


def problems(root):
    return [(p.kind, p.place, p.times) for _, p in read_whole(root).found.problems if p.kind != "file not read"]


def ignored(root):
    return {p.found: p.times for _, p in read_whole(root).found.problems if p.kind == "file not read"}


def test_an_image_without_annotation_is_counted_with_its_folder(tmp_path):
    root = written(labelimg_voc, tmp_path)
    image(root / "other.jpg")
    image(root / "another.jpg")
    [(kind, _, times)] = problems(root)
    assert (kind, times) == ("image without annotation", 2)


def test_a_label_file_without_an_image_is_one_problem(tmp_path):
    root = written(ultralytics_folders, tmp_path)
    (root / "images" / "val" / "val0.jpg").unlink()
    assert problems(root) == [("image missing", "labels/val/val0.txt", 1)]


def test_a_label_file_of_an_image_that_is_in_no_list_is_none(tmp_path):
    root = written(ultralytics_folders, tmp_path)
    (root / "data.yaml").write_text("train: images/train\nval: val.txt\nnames: [cat, dog]\n")
    (root / "val.txt").write_text("images/val/val1.jpg\n")
    assert problems(root) == []


@pytest.mark.parametrize("ending, said", [(".dng", "1 .dng file"), (".MP4", "1 .mp4 file")])
def test_files_that_may_be_images_of_another_kind_are_counted(tmp_path, ending, said):
    root = written(voc_lists, tmp_path)
    (root / "JPEGImages" / f"{ALL[0]}.jpg").rename(root / "JPEGImages" / f"{ALL[0]}{ending}")
    assert said in ignored(root)


def test_an_xml_file_of_something_else_is_ignored_and_said(tmp_path):
    root = written(labelimg_voc, tmp_path)
    (root / "project.xml").write_text("<project/>")
    assert ignored(root) == {"an .xml file that is no VOC annotation": 1}


def test_what_is_left_over_is_warned_of_once_for_all_splits(tmp_path, caplog):
    root = written(ultralytics_folders, tmp_path)
    Image.new("RGB", (8, 8)).save(root / "images" / "train" / "x.png")
    (root / "labels" / "train" / "gone.txt").write_text("0 .5 .5 .5 .5\n")
    read_splits(root, ["train", "val"])
    assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 1
    assert "1 x image missing" in caplog.text
