"""Tests of lookonce.model.tree. Oracles: Darknet's numbers for a tree of 30 classes, and its loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import CASES, GOLDEN
from lookonce.model.tree import Tree, TreeError, read_tree, write_tree

TREE = read_tree((GOLDEN / "dk_tree30.tree").read_text())
NUMBERS = np.load(GOLDEN / "dk_tree_96x64.npz")


def cells(name):
    """Class entries of a region map [C, H, W] as [A*H*W, classes]."""
    return torch.from_numpy(NUMBERS[name]).reshape(3, 35, 8, 12)[:, 5:].permute(0, 2, 3, 1).reshape(-1, 30)


def test_siblings_exclude_each_other_as_in_darknet():
    found = TREE.softmax(cells("region_before"))
    torch.testing.assert_close(found, cells("region_after"), atol=1e-6, rtol=0)
    torch.testing.assert_close(found[:, :4].sum(1), torch.ones(len(found)))


def test_probabilities_multiply_along_paths_as_in_darknet():
    found = TREE.along_paths(cells("region_after"))
    torch.testing.assert_close(found, torch.from_numpy(NUMBERS["abs_prob"]), atol=1e-6, rtol=0)


def test_the_named_class_is_darknets():
    tree = replace(TREE, threshold=float(NUMBERS["hier_thresh"]))
    likely = torch.from_numpy(NUMBERS["dets_pre_obj"] > NUMBERS["thresh"])
    theirs = torch.from_numpy(NUMBERS["top_node"]).long()[likely]
    assert likely.sum() > 100
    assert torch.equal(tree.top(torch.from_numpy(NUMBERS["abs_prob"]))[likely], theirs)
    single = torch.from_numpy(NUMBERS["top_node_single_product"]).long()[likely]
    assert not torch.equal(theirs, single)  # Darknet's second product shows


def descend(absolute, parents, threshold):
    """Darknet's hierarchy_top_prediction, as a loop."""
    p, parent = 1.0, -1
    while True:
        group = [i for i, found in enumerate(parents) if found == parent]
        best = max(group, key=lambda i: absolute[i])  # the first of equals
        if p * absolute[best] <= threshold:
            return best if parent < 0 else parent
        p *= absolute[best]
        if best not in parents:
            return best
        parent = best


@pytest.mark.parametrize("threshold", [0.0, 0.02, 0.2, 0.9])
def test_the_named_class_is_that_of_the_loop(threshold):
    scores = torch.randn(200, 30, generator=torch.Generator().manual_seed(0)) * 3
    scores[:20] = 0  # equals
    tree = Tree(TREE.parents, threshold=threshold)
    absolute = tree.along_paths(tree.softmax(scores))
    assert tree.top(absolute).tolist() == [descend(row, tree.parents, threshold) for row in absolute.tolist()]
    only = tree.top_only(absolute)
    assert torch.equal(only.argmax(1), tree.top(absolute))
    assert torch.equal(only.sum(1), torch.ones(200))


def test_large_scores_stay_finite():
    assert TREE.softmax(torch.full((30,), 1e4)).isfinite().all()


def test_a_tree_survives_the_way_to_text_and_back():
    assert read_tree(write_tree(TREE)) == TREE
    assert read_tree(write_tree(Tree((-1, 0)))) == Tree((-1, 0), ("class0", "class1"))


@pytest.mark.parametrize("text, message", [
    ("a -1\nb\n", "x.tree:2: 'b'; expected a name and its parent's number"),
    ("a -1\nb one\n", "x.tree:2: 'b one'"),
    ("a -1\nb 2\nc 0\n", "x.tree:2: 'b' has the parent 2, which stands later; put each class after its parent"),
    ("a -1\nb 0\nc -1\n", "x.tree: .*siblings apart"),
    ("", "x.tree: a tree without classes"),
])  # fmt: skip
def test_a_tree_that_is_none_is_told(text, message):
    with pytest.raises(TreeError, match=message):
        read_tree(text, "x.tree")


@pytest.mark.parametrize("parent", ["--1", "-2", "\u00b2", "9" * 5000, "1e3", "0x1"])
def test_a_parent_that_is_no_number_of_a_line_is_told(parent):
    with pytest.raises(TreeError, match=r"x\.tree:2: .*; expected a name and its parent's number"):
        read_tree(f"a -1\nb {parent}\n", "x.tree")


def test_a_found_input_of_the_fuzz_test_is_told():
    file = next((CASES / "fuzz" / "tree").iterdir())
    with pytest.raises(TreeError, match="'a --1'; expected a name"):
        read_tree(file.read_text(), "x.tree")


def test_indices_are_made_once():
    scores = torch.zeros(2, 30)
    assert TREE._groups(scores).data_ptr() == TREE._groups(scores).data_ptr()
    pairs = list(zip(TREE._below(scores), TREE._below(scores), strict=True))
    assert len(pairs) == len(TREE.depths) - 1 > 0
    assert all(one[n].data_ptr() == other[n].data_ptr() for one, other in pairs for n in (0, 1))


def test_a_deep_tree_takes_no_longer_than_its_length():
    tree = Tree((-1, *range(20_000)))
    assert len(tree.depths) == 20_001


@pytest.mark.parametrize("given, message", [
    ({"names": ("a",)}, "1 names for 2 classes"),
    ({"threshold": float("nan")}, "threshold nan; expected 0 to 1"),
])  # fmt: skip
def test_a_tree_holds_together(given, message):
    with pytest.raises(TreeError, match=message):
        Tree((-1, 0), **given)


OUTLINE = "animal\n    dog\n        terrier\n        hound\n    cat\nvehicle\n    car\n"
YAML = "animal:\n  - dog:\n    - terrier\n    - hound\n  - cat\nvehicle:\n  - 'car'\n"


@pytest.mark.parametrize(
    "text", [OUTLINE, YAML, OUTLINE.replace("    ", "\t"), "\ufeff" + OUTLINE.replace("\n", "\r\n")]
)
def test_an_outline_becomes_levels_with_siblings_together(text):
    tree = read_tree(text)
    assert tree.names == ("animal", "vehicle", "dog", "cat", "car", "terrier", "hound")
    assert tree.parents == (-1, -1, 0, 0, 1, 2, 2)
    assert read_tree(write_tree(tree)) == tree


@pytest.mark.parametrize("text, message", [
    ("a -1\nb 2\nc 1\n", r"t:2: 'b' has the parent 2, which is below it: a cycle"),
    ("a -1\nb 2\nc -1\n", r"t:2: 'b' has the parent 2, which stands later; put each class after its parent"),
    ("a -1\nb 7\n", r"t:2: 'b' has the parent 7, but there are 2 classes"),
    ("a -1\nb 1\n", r"t:2: 'b' has the parent 1, which is below it: a cycle"),
    ("dog\n    shiba inu\n", r"t:2: 'shiba inu'; expected one name without blanks, such as shiba_inu"),
    ("dog\n    cat\ndog\n", r"t:3: 'dog' is in line 1 already"),
    ("a -1\nb\n", r"t:2: 'b'; expected a name and its parent's number"),
])  # fmt: skip
def test_a_wrong_tree_names_the_line_and_what_to_do(text, message):
    with pytest.raises(TreeError, match=message):
        read_tree(text, "t")


def test_logarithms_stay_finite_where_probabilities_round_to_zero():
    scores = torch.tensor([[200.0, 0.0, 0.0, -300.0, *[0.0] * 26]])
    found = TREE.log_softmax(scores)
    assert found[0, 3].item() == -500
    torch.testing.assert_close(TREE.log_softmax(cells("region_before")).exp(), cells("region_after"), atol=1e-6, rtol=0)


def test_a_path_ends_at_its_root():
    assert read_tree(OUTLINE).path(5) == (5, 2, 0)
