"""A tree of classes that contain each other (dog > terrier > airedale).

Scores of siblings exclude each other: a softmax in each group. Along a path they multiply.
Source: YOLO9000, section 4; darknet/src/tree.c; darknet/src/blas.c, softmax_tree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from lookonce.errors import UserError
from lookonce.model.boxes import Array

if TYPE_CHECKING:
    from torch import Tensor


class TreeError(UserError):
    """A class tree that is not valid."""


@dataclass(frozen=True)
class Tree:
    """C classes in G groups of siblings; parents before their children, the siblings of a group consecutive."""

    parents: tuple[int, ...]
    """[C] index of each class's parent; -1: none."""
    names: tuple[str, ...] = ()
    """[C] class names; empty: unknown."""
    threshold: float = 0.5
    """Probability above which a path continues to a child. Source: darknet/examples/detector.c, hier_thresh=.5."""

    def __post_init__(self) -> None:
        for index, parent in enumerate(self.parents):
            if not -1 <= parent < index:
                raise TreeError(f"class {index} has the parent {parent}; expected -1 or a class before it")
        if len(self.names) not in (0, len(self.parents)):
            raise TreeError(f"{len(self.names)} names for {len(self.parents)} classes; expected one each")
        if not 0 <= self.threshold <= 1:
            raise TreeError(f"threshold {self.threshold}; expected 0 to 1")
        runs = [parent for parent, _ in groupby(self.parents)]
        if not runs or len(set(runs)) != len(runs):
            raise TreeError("a tree without classes, or with siblings apart; expected the children of a class in a row")

    def softmax(self, scores: Tensor) -> Tensor:
        """Turn scores [..., C] into each class's probability given its parent; each group of siblings sums to 1."""
        group = self._groups(scores)  # [..., C]
        maximum = self._reduce(scores, group, "amax")
        exp = (scores - maximum.gather(-1, group)).exp()
        return exp / self._reduce(exp, group, "sum").gather(-1, group)

    def along_paths(self, values: Tensor) -> Tensor:
        """Return values [..., C], each multiplied by those of all its ancestors."""
        import torch

        result = values.clone()
        parents = torch.tensor(self.parents, device=values.device)
        for nodes in self._levels()[1:]:
            result[..., nodes] *= result[..., parents[nodes]]
        return result

    def top(self, absolute: Tensor) -> Tensor:
        """Return the class [...] that Darknet selects: the best child, while the path is above the threshold.

        absolute: [..., C], each class's own probability (softmax, then along_paths). Darknet multiplies these
        along the path once more before it compares, and so does this. Source: tree.c, hierarchy_top_prediction.
        """
        import torch

        index = torch.arange(len(self.parents), device=absolute.device)
        group = self._groups(absolute)
        best = self._reduce(absolute, group, "amax").gather(-1, group) == absolute
        first = self._reduce(torch.where(best, index, len(index)), group, "amin")  # [..., G] the first of equals
        taken = (first.gather(-1, group) == index) & (self.along_paths(absolute) > self.threshold)
        parents = torch.tensor(self.parents, device=absolute.device)
        for nodes in self._levels()[1:]:
            taken[..., nodes] &= taken[..., parents[nodes]]
        deepest = torch.where(taken, index, -1).amax(-1)
        return torch.where(deepest < 0, first[..., 0], deepest)

    def top_only(self, scores: Array) -> Array:
        """Turn scores [..., C] into 1 at the selected class and 0 elsewhere, same shape.

        Darknet gives a detection its objectness as probability, on that class alone.
        """
        import torch

        if isinstance(scores, np.ndarray):
            return self.top_only(torch.from_numpy(scores)).numpy()
        top = self.top(self.along_paths(self.softmax(scores)))
        return torch.zeros_like(scores).scatter_(-1, top[..., None], 1)

    def _levels(self) -> list[Tensor]:
        """Return the indices of the classes at each depth, roots first."""
        import torch

        depth: list[int] = []
        levels: list[list[int]] = []
        for index, parent in enumerate(self.parents):
            depth.append(0 if parent < 0 else depth[parent] + 1)
            if depth[index] == len(levels):
                levels.append([])
            levels[depth[index]].append(index)
        return [torch.tensor(level) for level in levels]

    def _groups(self, like: Tensor) -> Tensor:
        """Return [..., C] the index of each class's group of siblings."""
        import torch

        numbers = [number for number, (_, run) in enumerate(groupby(self.parents)) for _ in run]
        return torch.tensor(numbers, device=like.device).expand(like.shape)

    def _reduce(self, values: Tensor, group: Tensor, how: str) -> Tensor:
        """Reduce values [..., C] over each group: [..., G]."""
        groups = len({*self.parents})
        empty = values.new_zeros((*values.shape[:-1], groups))
        return empty.scatter_reduce(-1, group, values, how, include_self=False)


def read_tree(text: str, place: str = "tree") -> Tree:
    """Read a tree file: one `name parent` a line, the parent as its line number from 0, or -1.

    Raises TreeError that names the bad line.
    """
    names, parents = [], []
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or not re.fullmatch(r"-1|[0-9]{1,9}", words[1]):
            raise TreeError(f"{place}:{number}: {line.strip()[:60]!r}; expected a name and its parent's number")
        names.append(words[0])
        parents.append(int(words[1]))
    try:
        return Tree(tuple(parents), tuple(names))
    except TreeError as error:
        raise TreeError(f"{place}: {error}") from None


def write_tree(tree: Tree) -> str:
    """Return the tree as Darknet reads it; a class without a name gets its number."""
    names = tree.names or tuple(f"class{index}" for index in range(len(tree.parents)))
    return "".join(f"{name} {parent}\n" for name, parent in zip(names, tree.parents, strict=True))
