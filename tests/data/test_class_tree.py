"""Tests of lookonce.data.class_tree, and of a run with a tree. Oracle: classes counted by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lookonce import Detector, detect, evaluate, train
from lookonce.data.class_tree import in_tree, read_for
from lookonce.data.read import read_dataset
from lookonce.errors import UserError
from lookonce.model.darknet.cfg import read_cfg
from lookonce.model.model_file import load_model
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


def test_a_run_keeps_the_tree(tree_run):
    model = load_model(tree_run)
    assert model.tree == TREE
    assert model.labels == TREE.names
    assert load_model(tree_run / "model.safetensors").tree == TREE
    assert read_cfg((tree_run / "network.cfg").read_text()).layers[-1].tree == "classes.tree"
    assert read_tree((tree_run / "classes.tree").read_text()) == TREE


def test_a_run_trains_on_images_with_boxes_and_on_whole_ones(tree_run):
    images = json.loads((tree_run / "data.json").read_text())["splits"]["train"]
    green = {name for name in images if "/green/" in name}
    assert (len(images), len(green)) == (30, 6)
    assert len({images[name] for name in green}) == 1  # the digest of no box and one label


def test_a_detection_says_which_child_it_backed_off_from(tree_run, squares, tmp_path):
    image = squares / "JPEGImages" / "test000.png"
    sure, unsure = (Detector(tree_run, "torch", threshold=0.05, tree_threshold=value)(image) for value in (0.0, 1.0))
    assert {one.name for one in sure} <= {"red", "blue", "green", "ball"}
    assert {one.backed_off_from for one in sure} == {None}
    assert {one.name for one in unsure} == {"square"}
    assert {one.backed_off_from for one in unsure} <= {"red", "blue", "green"}
    told = detect(tree_run, [str(image)], out=tmp_path / "d", threshold=0.05, tree_threshold=1.0, backend="torch")
    assert told.backed_off == told.detections > 0
    assert f"{told.detections} backed off to a parent class (see --tree-threshold)" in str(told)


def test_evaluate_scores_along_the_tree(tree_run, squares):
    report = evaluate(tree_run, squares, split="val", backend="torch")
    assert [one.name for one in report.metrics.classes] == ["red", "blue"]
    assert [(one.depth, one.classes) for one in report.hierarchy.depths] == [(0, 1), (1, 2)]
    objects = len(read_dataset(squares, "val").boxes)
    assert [one.objects for one in report.hierarchy.depths] == [objects, objects]
    assert report.to_json()["hierarchy"]["depths"][1]["mean_ap"] == pytest.approx(report.mean_ap, abs=1e-6)


@pytest.mark.parametrize("options, message", [
    ({"image_labels": "."}, "image-labels: images without boxes teach the classes of a tree; give --tree FILE too"),
    ({"tree": True, "network": "yolov3_tiny"}, "tree: yolov3_tiny has no region layer"),
    ({"tree": True, "network": "nano", "loss": "keras_yolo2"}, "loss: keras_yolo2 learns no tree of classes"),
    ({"tree": True, "network": "nano", "class_weights": ("red:2",)}, "class-weights: not used with a tree of classes"),
])  # fmt: skip
def test_settings_that_do_not_go_with_a_tree_are_errors(squares, tmp_path, options, message):
    if options.pop("tree", False):
        (tmp_path / "t").write_text(SQUARE_TREE)
        options = {**options, "tree": tmp_path / "t"}
    with pytest.raises(UserError, match=message):
        train(squares, out=tmp_path / "runs", weights="none", **options)
