"""Tests of lookonce.data.image_labels."""

import numpy as np
import pytest

from lookonce.data.class_tree import in_tree
from lookonce.data.image_labels import join, read_image_labels
from lookonce.data.read import read_dataset
from lookonce.errors import UserError
from lookonce.model.tree import read_tree
from sets import SQUARE_TREE, write_labelled, write_squares


@pytest.fixture
def labelled(tmp_path):
    return write_labelled(tmp_path / "labelled", {"green": 3, "red": 2})


def test_each_sub_folder_is_a_class(labelled):
    (labelled / "red" / "more").mkdir()
    (labelled / "red" / "000.png").rename(labelled / "red" / "more" / "x.PNG")
    (labelled / "red" / "notes.txt").write_text("none")
    found = read_image_labels(labelled)
    assert found.labels == ("green", "red")
    assert found.image_labels.tolist() == [0, 0, 0, 1, 1]
    assert found.paths.tolist()[3:] == ["red/001.png", "red/more/x.PNG"]
    assert not len(found.boxes)
    assert (found.sizes == 96).all()
    assert [record.image_label for record in found.records] == [0, 0, 0, 1, 1]


def test_images_that_cannot_be_used_are_problems(labelled):
    (labelled / "loose.png").write_bytes(b"")
    (labelled / "green" / "000.png").write_bytes(b"no image")
    found = read_image_labels(labelled)
    assert [problem.kind for problem in found.problems] == ["image without a class", "image unreadable"]
    assert len(found) == 4
    with pytest.raises(UserError, match="image without a class"):
        read_image_labels(labelled, policy="error")


def test_a_folder_without_classes_is_an_error(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="no image in a sub-folder; expected one sub-folder of images for each class"):
        read_image_labels(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        read_image_labels(tmp_path / "none")


def test_joined_sets_keep_their_images_and_labels(labelled, squares):
    tree = read_tree(SQUARE_TREE)
    boxed, whole = in_tree(read_dataset(squares, "train"), tree), in_tree(read_image_labels(labelled), tree)
    both = join(boxed, whole)
    assert len(both) == 24 + 5
    assert both.image_labels.tolist() == [-1] * 24 + [4] * 3 + [2] * 2
    assert [len(record.labels) for record in both.records[24:]] == [0] * 5
    assert all(record.path.is_file() for record in both.records)
    part = both.select([24, 0])
    assert part.image_labels.tolist() == [4, -1]
    np.testing.assert_array_equal(part.boxes, boxed.select([0]).boxes)


def test_a_folder_in_the_data_set_has_relative_paths(tmp_path):
    root = write_squares(tmp_path / "squares", {"train": 2})
    tree = read_tree(SQUARE_TREE)
    whole = in_tree(read_image_labels(write_labelled(root / "whole", {"green": 1})), tree)
    assert join(in_tree(read_dataset(root, "train"), tree), whole).paths.tolist()[-1] == "whole/green/000.png"
