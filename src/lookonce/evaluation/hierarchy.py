"""Scores along a tree of classes: a terrier that is found as a dog is not all wrong.

Each object counts for its class and for all ancestors of it, and each detection has a score for every class: objectness
times the probability of the class's path. Then AP is computed for each class of the tree, and precision and recall over
all pairs of object and class.
Source: Kiritchenko, Matwin, Famili, Functional Annotation of Genes Using Hierarchical Text Categorization (2005): the
hierarchical measures hP and hR, here with boxes that match by IoU; YOLO9000, section 4: scores along paths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lookonce.console import rendered
from lookonce.data.dataset import Dataset
from lookonce.evaluation.average_precision import OperatingPoint, Rules, best_point, ignored_objects, score_matched
from lookonce.evaluation.matching import match
from lookonce.model.detections import Detections
from lookonce.model.tree import Tree

if TYPE_CHECKING:
    from rich.console import Group


@dataclass(frozen=True)
class DepthScore:
    """The score of the classes at one depth of the tree."""

    depth: int  # 0: classes without a parent
    classes: int  # those with objects, of their own or of a class below
    objects: int
    mean_ap: float


@dataclass(frozen=True)
class HierarchyScore:
    """Scores along the tree of classes."""

    depths: tuple[DepthScore, ...]
    best: OperatingPoint | None
    """hP, hR and their F1 at the score of best F1; None: no true positives."""

    def __rich__(self) -> Group:
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
        for heading in ("depth in the tree", "AP", "classes", "objects"):
            table.add_column(heading, justify="left" if heading.startswith("depth") else "right", no_wrap=True)
        for one in self.depths:
            table.add_row(str(one.depth), f"{one.mean_ap:.3f}", f"{one.classes:,}", f"{one.objects:,}")
        return Group(Text("objects count for their class and its ancestors"), table, Text(self.line))

    @property
    def line(self) -> str:
        """hP, hR and F1 in one line."""
        if self.best is None:
            return "hierarchical precision and recall: no true positives"
        b = self.best
        return (f"hierarchical precision {b.precision:.3f}, recall {b.recall:.3f}, F1 {b.f1:.3f}, at score "
                f"{b.threshold:.3f}")  # fmt: skip

    def __str__(self) -> str:
        return rendered(self, blank_lines=False)


def score_hierarchy(dataset: Dataset, detections: Sequence[Detections], tree: Tree,
                    rules: Rules = Rules()) -> HierarchyScore:  # fmt: skip
    """Score detections along a tree.

    Args:
        dataset:    M images; its labels are the classes of the tree, in their order.
        detections: M, in the same order; of every class, by path (Selection.tree is None).
    """
    rolled = roll_up(dataset, tree)
    ignore = ignored_objects(rolled, rules)
    found = match(rolled, detections, ignore, rules.iou_threshold)
    classes = score_matched(rolled, found, rules).classes
    depths = []
    for depth, nodes in enumerate(tree.depths):
        scored = [(classes[node].objects, ap) for node in nodes if (ap := classes[node].ap) is not None]
        if scored:
            objects, aps = zip(*scored, strict=True)
            depths.append(DepthScore(depth, len(scored), sum(objects), sum(aps) / len(aps)))
    counted = ~found.ignored
    best = None
    if found.true_positive.any():
        hits = np.cumsum(found.true_positive[counted]).astype(np.float64)
        best = best_point(found.score[counted], hits, int((~ignore).sum()), rules.score_threshold or 0.0)
    return HierarchyScore(tuple(depths), best)


def roll_up(dataset: Dataset, tree: Tree) -> Dataset:
    """Return a data set in which each object stands for its class and for each of its ancestors.

    It also stands, as one to ignore, for each class below its own that other objects have: a dog may be a terrier.
    """
    paths = {node: tree.path(node) for node in np.unique(dataset.classes).tolist()}
    below: dict[int, list[int]] = {node: [] for node in paths}
    for node in {node for path in paths.values() for node in path}:
        for ancestor in tree.path(node)[1:]:
            if ancestor in below:
                below[ancestor].append(node)
    copies = {node: np.array([*path, *below[node]]) for node, path in paths.items()}
    unsure = {node: np.arange(len(copies[node])) >= len(path) for node, path in paths.items()}
    own = dataset.classes.tolist()
    counts = np.array([len(copies[node]) for node in own], np.int64)
    rows = np.repeat(np.arange(len(own)), counts)
    maybe = np.concatenate([np.zeros(0, bool), *(unsure[node] for node in own)])
    crowd = np.zeros(len(own), bool) if dataset.crowd is None else dataset.crowd
    return replace(
        dataset,
        first=np.concatenate(([0], counts.cumsum())).astype(np.int64)[dataset.first],
        boxes=dataset.boxes[rows],
        classes=np.concatenate([np.zeros(0, np.int64), *(copies[node] for node in own)]),
        difficult=dataset.difficult[rows] | maybe,
        crowd=crowd[rows] | maybe,
        area=None if dataset.area is None else dataset.area[rows],
    )


def in_use(dataset: Dataset, detections: Sequence[Detections], tree: Tree | None
           ) -> tuple[Dataset, list[Detections]]:  # fmt: skip
    """Return both with the classes of the tree that have objects alone; without a tree both as they are."""
    if tree is None:
        return dataset, list(detections)
    used = np.unique(dataset.classes)
    index = np.full(len(dataset.labels), -1)
    index[used] = np.arange(len(used))
    labels = tuple(dataset.labels[node] for node in used)
    part = replace(dataset, labels=labels, classes=index[dataset.classes])
    return part, [one.of_classes(labels) for one in detections]
