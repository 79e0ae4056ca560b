"""Mirrors src/lookonce/data/leftovers.py."""

import pytest
from PIL import Image

from layouts import ALL, image, labelimg_voc, ultralytics_folders, voc_lists, written
from lookonce.data.read import read_splits, read_whole


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
