"""Tests of lookonce.data.read."""

import logging

import numpy as np
import pytest
from PIL import Image

from conftest import SHARED, needs_shared
from lookonce.data.formats import voc
from lookonce.data.read import check_images, read_dataset, read_splits, read_whole
from lookonce.errors import UserError


def add(root, stem, objects, size=(64, 48), image=True, ending=".jpg"):
    if image:
        (root / "JPEGImages").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (90, 120, 30)).save(root / "JPEGImages" / f"{stem}{ending}")
    boxes = np.array([box for _, box in objects], np.float32).reshape(-1, 4)
    voc.write_annotation(
        root / "Annotations" / f"{stem}.xml", f"{stem}.jpg", size, boxes, [name for name, _ in objects]
    )


@pytest.fixture
def root(tmp_path):
    add(tmp_path, "a", [("cat", [1, 2, 30, 40]), ("dog", [5, 5, 20, 20])])
    add(tmp_path, "b", [("dog", [0, 0, 64, 48])], ending=".JPG")
    add(tmp_path, "c", [])
    voc.write_split(tmp_path / "ImageSets" / "Main" / "train.txt", ["a", "c"])
    voc.write_split(tmp_path / "ImageSets" / "Main" / "val.txt", ["b"])
    return tmp_path


def test_a_data_set_is_read_as_written(root):
    found = read_dataset(root)
    assert (len(found), found.labels) == (3, ("cat", "dog"))
    assert [r.path.name for r in found.records] == ["a.jpg", "b.JPG", "c.jpg"]
    assert found.records[0].boxes.tolist() == [[1, 2, 30, 40], [5, 5, 20, 20]]
    assert found.problems == ()
    assert [r.path.name for r in read_dataset(root, "val").records] == ["b.JPG"]


def test_labels_choose_classes_in_the_given_order_and_keep_every_image(root):
    found = read_dataset(root, labels=("dog", "cat"))
    assert found.labels == ("dog", "cat")
    assert found.records[0].labels.tolist() == [1, 0]
    only = read_dataset(root, labels=["dog"])
    assert [len(r.labels) for r in only.records] == [1, 1, 0]


def test_voc_names_keep_vocs_order(tmp_path):
    add(tmp_path, "a", [("person", [1, 2, 30, 40]), ("cat", [5, 5, 20, 20]), ("diningtable", [5, 5, 9, 9])])
    found = read_dataset(tmp_path)
    assert found.labels == ("cat", "diningtable", "person")
    assert [found.labels[i] for i in found.records[0].labels] == ["person", "cat", "diningtable"]


def test_flat_folders_without_lists_are_split_80_10_10_by_count(tmp_path):
    for i in range(60):
        add(tmp_path, f"p{i}", [("cat", [1, 2, 30, 40])])
    parts = [{str(p) for p in read_dataset(tmp_path, split).paths} for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [48, 6, 6]
    assert len(set.union(*parts)) == 60
    assert parts == [{str(p) for p in read_dataset(tmp_path, split).paths} for split in ("train", "val", "test")]
    for i in range(2):
        add(tmp_path, f"more{i}", [("cat", [1, 2, 30, 40])])
    moved = parts[0] - {str(p) for p in read_dataset(tmp_path, "train").paths}
    assert len(moved) <= 2


@pytest.mark.parametrize("images, sizes", [(3, (1, 1, 1)), (4, (2, 1, 1)), (8, (6, 1, 1)), (25, (21, 2, 2))])
def test_each_split_by_hash_has_an_image(tmp_path, images, sizes):
    for i in range(images):
        add(tmp_path, f"p{i}", [("cat", [1, 2, 30, 40])])
    assert tuple(len(read_dataset(tmp_path, split)) for split in ("train", "val", "test")) == sizes


def test_too_few_images_to_split_say_how_to_train(tmp_path):
    for i in range(2):
        add(tmp_path, f"p{i}", [("cat", [1, 2, 30, 40])])
    with pytest.raises(UserError, match="2 images, too few for train, val and test; train with --val-split none"):
        read_dataset(tmp_path, "val")
    assert len(read_dataset(tmp_path, "train")) == 2


def test_the_splits_are_said_once_with_where_they_come_from(root, caplog):
    with caplog.at_level(logging.INFO, "lookonce"):
        read_splits(root, ["train", "val"])
    assert [r.getMessage() for r in caplog.records] == [
        f"{root}: split: train 2, val 1 images, from ImageSets/Main/*.txt"
    ]


def test_a_list_of_every_image_is_no_split(root):
    for name in ("train", "val"):
        (root / "ImageSets" / "Main" / f"{name}.txt").unlink()
    voc.write_split(root / "ImageSets" / "Main" / "all.txt", ["a", "b", "c"])
    assert [len(read_dataset(root, split)) for split in ("all", "train", "val", "test")] == [3, 1, 1, 1]


def test_a_list_that_cannot_be_read_is_an_error_and_no_new_split(root):
    (root / "ImageSets" / "Main" / "train.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"train\.txt"):
        read_dataset(root, "train")


def test_several_lists_that_speak_of_train_are_for_the_user_to_choose_from(root):
    lists = root / "ImageSets" / "Main"
    (lists / "train.txt").rename(lists / "train2014.txt")
    voc.write_split(lists / "train2017.txt", ["a"])
    assert len(read_dataset(root, "train2014")) == 2
    with pytest.raises(UserError, match=r"no split 'train'; there are .*train2014 \(2 images\), train2017 \(1 image\)"):
        read_dataset(root, "train")


def test_lists_of_one_class_are_no_splits_of_the_data_set(root):
    lists = root / "ImageSets" / "Main"
    voc.write_split(lists / "dog_train.txt", ["a"])
    voc.write_split(lists / "aeroplane_val.txt", ["b"])
    assert read_whole(root).splits == ("train", "val")
    assert len(read_dataset(root, "dog_train")) == 1


def test_the_format_with_more_labelled_images_is_read(root, caplog):
    (root / "labels").mkdir()
    for stem in ("a", "b", "c"):
        (root / "labels" / f"{stem}.txt").write_text("0 .5 .5 .5 .5\n")
        (root / "JPEGImages" / f"{stem}.JPG").exists()
    (root / "classes.txt").write_text("cat\n")
    with caplog.at_level(logging.INFO, "lookonce"):
        assert read_whole(root).found.format == "yolo"
    assert "read as yolo; it also holds voc" in caplog.text


def test_a_format_that_fails_is_no_end_where_another_can_be_read(root):
    (root / "data.yaml").write_text("names: []\ntrain: JPEGImages\n")
    assert read_whole(root).found.format == "voc"
    for file in (root / "Annotations").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="expected the names of the classes"):
        read_whole(root)


def test_a_format_that_is_not_there_is_told_with_the_one_that_is(root):
    with pytest.raises(UserError, match="it looks like voc; expected a COCO data set"):
        read_whole(root, format="coco")


def test_images_and_annotations_may_share_one_folder(tmp_path):
    add(tmp_path, "a", [("cat", [1, 2, 30, 40])])
    flat = tmp_path / "flat"
    flat.mkdir()
    (tmp_path / "Annotations" / "a.xml").rename(flat / "a.xml")
    (tmp_path / "JPEGImages" / "a.jpg").rename(flat / "a.jpg")
    assert [r.path for r in read_dataset(flat).records] == [flat / "a.jpg"]


def test_the_size_is_the_images_where_the_annotation_has_none(root):
    file = root / "Annotations" / "a.xml"
    file.write_text(file.read_text().replace("<width>64</width>", "<width>0</width>"))
    assert read_dataset(root).records[0].size == (64, 48)


def test_a_wrong_filename_does_no_harm(root):
    file = root / "Annotations" / "a.xml"
    file.write_text(file.read_text().replace("a.jpg", "C:\\photos\\other.jpg"))
    assert read_dataset(root).records[0].path.name == "a.jpg"


def test_all_problems_are_found_in_one_pass_with_file_and_line(root, caplog):
    add(root, "d", [("cat", [10, 10, 10, 30]), ("cat", [10, 10, 299, 30]), ("cat", [1, 1, 9, 9])])
    add(root, "e", [("cat", [1, 1, 9, 9])], image=False)
    (root / "Annotations" / "f.xml").write_text("<annotation><object>")
    bomb = '<!DOCTYPE z [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><annotation>&b;</annotation>'
    (root / "Annotations" / "g.xml").write_text(bomb)
    with caplog.at_level(logging.WARNING, "lookonce"):
        found = read_dataset(root)
    kinds = {(p.kind, p.action) for p in found.problems}
    assert kinds == {("box with no area", "dropped"), ("box outside", "dropped"), ("image missing", "skipped"),
                     ("annotation unreadable", "skipped")}  # fmt: skip
    assert {p.place for p in found.problems if p.kind == "box with no area"} == {"Annotations/d.xml:5"}
    assert len(caplog.records) == 1
    assert [len(r.labels) for r in found.records if r.path.name == "d.jpg"] == [1]
    assert [len(r.labels) for r in read_dataset(root, policy="clip").records if r.path.name == "d.jpg"] == [2]
    with pytest.raises(UserError, match=r"1 x box with no area.*fix them") as error:
        read_dataset(root, policy="error")
    assert "\n" not in str(error.value)


def test_a_nan_box_is_dropped_and_counted(root):
    file = root / "Annotations" / "b.xml"
    file.write_text(file.read_text().replace("<xmax>64", "<xmax>nan"))
    found = read_dataset(root)
    assert [(p.kind, p.place) for p in found.problems] == [("object unreadable", "Annotations/b.xml:5")]


@pytest.mark.parametrize("arguments, message", [
    ({"split": "tset"}, r"no split 'tset'; there are train \(2 images\), val \(1 image\): use one"),
    ({"labels": ["cow"]}, "no object is a 'cow'; there are cat .1., dog .2."),
    ({"labels": ["dgo"]}, "did you mean 'dog'"),
    ({"labels": []}, "expected one or more names"),
    ({"labels": ["cat", "cat"]}, "each once"),
    ({"format": "tfrecord"}, "format: 'tfrecord'"),
    ({"policy": "ignore"}, "policy: 'ignore'"),
])  # fmt: skip
def test_wrong_arguments_are_told(root, arguments, message):
    with pytest.raises(UserError, match=message):
        read_dataset(root, **arguments)


def test_places_without_data_are_told(tmp_path, root):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="no such folder"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no annotations found"):
        read_dataset(empty)
    with pytest.raises(UserError, match="a file; expected the folder"):
        read_dataset(root / "Annotations" / "a.xml")
    add(empty, "x", [])
    with pytest.raises(UserError, match="no objects in 1 annotated images"):
        read_dataset(empty)


def test_a_list_may_name_what_is_not_there(root):
    voc.write_split(root / "ImageSets" / "Main" / "train.txt", ["a", "zz"])
    found = read_dataset(root, "train")
    assert [(p.kind, p.action) for p in found.problems] == [("annotation missing", "skipped")]
    assert found.problems[0].place == "ImageSets/Main/train.txt"
    voc.write_split(root / "ImageSets" / "Main" / "train.txt", ["zz"])
    with pytest.raises(UserError, match="has no readable images"):
        read_dataset(root, "train")


def test_image_files_are_checked_before_training(root):
    add(root, "d", [("cat", [1, 1, 9, 9])], size=(20, 20))
    Image.new("RGB", (10, 20)).save(root / "JPEGImages" / "d.jpg")
    (root / "JPEGImages" / "a.jpg").write_bytes((root / "JPEGImages" / "a.jpg").read_bytes()[:400])
    (root / "JPEGImages" / "c.jpg").write_text("I am text")
    seen = []
    found = check_images(read_dataset(root), progress=seen.append)
    assert [r.path.name for r in found.records] == ["b.JPG"]
    assert {p.kind for p in found.problems} == {"size mismatch", "image unreadable"}
    assert seen == [1, 2, 3, 4]
    with pytest.raises(UserError, match="size mismatch"):
        check_images(read_dataset(root), "error")


def test_a_set_of_which_no_image_is_left_is_refused(root):
    for file in (root / "JPEGImages").iterdir():
        file.write_text("text")
    with pytest.raises(UserError, match="not one of 3 images can be used"):
        check_images(read_dataset(root))


@needs_shared
@pytest.mark.parametrize(
    "split, images, boxes",
    [("train", 205, 2804), ("val", 87, 1137), ("trainval", 292, 3941), ("test", 72, 945), (None, 364, 4886)],
)
def test_bccd_has_the_images_and_boxes_it_says(split, images, boxes):
    found = read_dataset(SHARED / "data" / "bccd", split)
    assert (len(found), len(found.boxes)) == (images, boxes)
    assert found.labels == ("Platelets", "RBC", "WBC")


@needs_shared
def test_voc_photographs_have_their_boxes_and_difficult_ones():
    found = read_dataset(SHARED / "data" / "voc100")
    assert (len(found), len(found.boxes), int(found.difficult.sum()), len(found.labels)) == (100, 273, 38, 20)
    assert found.problems == ()
