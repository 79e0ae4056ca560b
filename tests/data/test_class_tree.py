"""Tests of lookonce.data.class_tree. Oracle: classes counted by hand."""

from dataclasses import replace

import numpy as np
import pytest

from lookonce.data.class_tree import in_tree, read_for
from lookonce.data.read import read_dataset
from lookonce.errors import UserError
from lookonce.model.tree import read_tree
from sets import SQUARE_TREE

TREE = read_tree(SQUARE_TREE)  # square, round, red, blue, green, ball


def counted(dataset):
    return {name: int((dataset.classes == n).sum()) for n, name in enumerate(dataset.labels)}


def test_classes_become_the_trees_by_name(squares):
    plain = read_dataset(squares, "train")
    found = in_tree(plain, TREE)
    assert found.labels == TREE.names
    assert counted(found) == {**dict.fromkeys(TREE.names, 0), **counted(plain)}
    np.testing.assert_array_equal(found.boxes, plain.boxes)


def test_other_names_of_the_nodes_are_known_too(squares):
    names = ("n1", "n2", "red", "blue", "n5", "n6")
    tree = replace(TREE, names=("a", "b", "c", "d", "e", "f"))
    assert in_tree(read_dataset(squares, "train"), tree, names).labels == names


def test_a_map_decides_where_names_are_not_in_the_tree(squares):
    plain = read_dataset(squares, "train")  # blue, red
    foreign = replace(plain, labels=("bleu", "rouge"))
    found = in_tree(foreign, replace(TREE, map=(3, 2)))
    np.testing.assert_array_equal(found.classes, in_tree(plain, TREE).classes)
    with pytest.raises(
        UserError, match="'bleu' is not in the tree of 6 classes, and its map has 3 lines for 2 classes"
    ):
        in_tree(foreign, replace(TREE, map=(3, 2, 1)))


def test_an_unknown_class_names_the_nearest_node(squares):
    wrong = replace(read_dataset(squares, "train"), labels=("blue", "redd"))
    with pytest.raises(
        UserError, match=r"squares: the class 'redd' is not in the tree of 6 classes; did you mean 'red'"
    ):
        in_tree(wrong, TREE)


def test_image_labels_become_nodes_too(squares):
    plain = read_dataset(squares, "train")  # blue, red
    labels = np.full(len(plain), -1)
    labels[:2] = 1
    assert in_tree(replace(plain, image_labels=labels), TREE).image_labels[:3].tolist() == [2, 2, -1]


def test_a_model_without_a_tree_reads_its_own_classes(squares):
    assert read_for(("red", "blue"), None, squares, ["test"])[0].labels == ("red", "blue")
    assert [len(part) for part in read_for(TREE.names, TREE, squares, ["val", "test"], ("red",))] == [8, 8]
