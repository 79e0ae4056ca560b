"""The classes of a data set as nodes of a tree of classes. Source: YOLO9000, section 4; Darknet's map= files."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lookonce.data.dataset import Dataset
from lookonce.data.read import read_splits
from lookonce.errors import UserError
from lookonce.model.tree import Tree


def read_for(labels: tuple[str, ...], tree: Tree | None, data: Path, splits: Sequence[str | None],
             wanted: tuple[str, ...] | None = None) -> list[Dataset]:  # fmt: skip
    """Read splits of a data set for a model: with its classes, or of a tree with all of them.

    labels, tree: the model's; wanted: keep these classes only. Arguments and errors otherwise as read_splits.
    """
    if tree is None:
        return read_splits(data, splits, wanted or labels)
    return [in_tree(part, tree, labels) for part in read_splits(data, splits, wanted)]


def in_tree(dataset: Dataset, tree: Tree, labels: Sequence[str] = ()) -> Dataset:
    """Return a data set whose classes are all those of a tree. Arguments and errors as nodes_of."""
    index = np.array(nodes_of(dataset, tree, labels), np.int64)
    whole = dataset.image_labels
    whole = None if whole is None else np.where(whole < 0, -1, index[whole])
    return replace(dataset, labels=tuple(labels) or tree.names, classes=index[dataset.classes], image_labels=whole)


def nodes_of(dataset: Dataset, tree: Tree, labels: Sequence[str] = ()) -> list[int]:
    """Return the node of each class of a data set.

    A class is found by its name. Where a name is not in the tree, the tree's map decides: class i is node map[i].

    Args:
        dataset: any.
        tree: with names.
        labels: [C] other names of the nodes, such as those of a .names file; empty: the tree's.
    Raises:
        UserError: a class that is no node, with the nearest name.
    """
    names = tuple(labels) or tree.names
    node_of = {name: node for node, name in enumerate(tree.names)} | {name: node for node, name in enumerate(names)}
    unknown = [name for name in dataset.labels if name not in node_of]
    if not unknown:
        return [node_of[name] for name in dataset.labels]
    if len(tree.map) == len(dataset.labels):
        return list(tree.map)
    near = difflib.get_close_matches(unknown[0], node_of, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    mapped = f", and its map has {len(tree.map)} lines for {len(dataset.labels)} classes" if tree.map else ""
    raise UserError(f"{dataset.root}: the class {unknown[0]!r} is not in the tree of {len(names)} classes{mapped}; "
                    f"{hint}rename it, add it to the tree, or choose classes with --labels")  # fmt: skip
