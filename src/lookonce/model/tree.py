"""A tree of classes that contain each other (dog > terrier > airedale).

Scores of siblings exclude each other: a softmax in each group. Along a path they multiply.
Source: YOLO9000, section 4; darknet/src/tree.c; darknet/src/blas.c, softmax_tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lookonce.errors import UserError
from lookonce.model.boxes import Array
from lookonce.text import clean_name

if TYPE_CHECKING:
    from torch import Tensor


NUMBER = re.compile(r"-1|[0-9]{1,9}")
"""A parent in Darknet's form."""


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
    map: tuple[int, ...] = ()
    """Class of the tree for each class of a data set that names its classes otherwise (Darknet's map=); empty: none."""

    def __post_init__(self) -> None:
        for index, parent in enumerate(self.parents):
            if not -1 <= parent < index:
                raise TreeError(f"class {index} has the parent {parent}; expected -1 or a class before it")
        if len(self.names) not in (0, len(self.parents)):
            raise TreeError(f"{len(self.names)} names for {len(self.parents)} classes; expected one each")
        if wrong := [node for node in self.map if not 0 <= node < len(self.parents)]:
            raise TreeError(f"a map to the class {wrong[0]}; expected 0 to {len(self.parents) - 1}")
        if not 0 <= self.threshold <= 1:
            raise TreeError(f"threshold {self.threshold}; expected 0 to 1")
        runs = [parent for parent, _ in groupby(self.parents)]
        if not runs or len(set(runs)) != len(runs):
            raise TreeError("a tree without classes, or with siblings apart; expected the children of a class in a row")

    def softmax(self, scores: Tensor) -> Tensor:
        """Turn scores [..., C] into each class's probability given its parent; each group of siblings sums to 1."""
        return self.log_softmax(scores).exp()

    def log_softmax(self, scores: Tensor) -> Tensor:
        """Return the logarithm of softmax(scores), [..., C], finite also where softmax rounds to 0."""
        group = self._groups(scores)  # [..., C]
        lower = scores - self._reduce(scores, group, "amax").gather(-1, group)
        return lower - self._reduce(lower.exp(), group, "sum").log().gather(-1, group)

    def path(self, index: int) -> tuple[int, ...]:
        """Return a class and its ancestors, the root last."""
        found = [index]
        while (parent := self.parents[found[-1]]) >= 0:
            found.append(parent)
        return tuple(found)

    def absolute(self, scores: Array) -> Array:
        """Turn scores [..., C] into the probability of each class: along its path, those of it and its ancestors."""
        import torch

        if isinstance(scores, np.ndarray):
            return self.absolute(torch.from_numpy(scores)).numpy()
        return self.along_paths(self.softmax(scores))

    def along_paths(self, values: Tensor) -> Tensor:
        """Return values [..., C], each multiplied by those of all its ancestors."""
        result = values.clone()
        for nodes, parents in self._below(values):
            result[..., nodes] *= result[..., parents]
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
        for nodes, parents in self._below(absolute):
            taken[..., nodes] &= taken[..., parents]
        deepest = torch.where(taken, index, -1).amax(-1)
        return torch.where(deepest < 0, first[..., 0], deepest)

    def top_only(self, absolute: Tensor) -> Tensor:
        """Turn probabilities [..., C] from absolute() into 1 at the selected class and 0 elsewhere, same shape.

        Darknet gives a detection its objectness as probability, on that class alone.
        """
        import torch

        return torch.zeros_like(absolute).scatter_(-1, self.top(absolute)[..., None], 1)

    def best_child(self, index: int, absolute: NDArray[np.floating]) -> int:
        """Return the most probable child of a class, -1 if it has none. absolute: [C]."""
        first, end = self.children[index]
        return first + int(absolute[first:end].argmax()) if end > first else -1

    @cached_property
    def children(self) -> tuple[tuple[int, int], ...]:
        """[C] (first, end) of each class's children."""
        found = [(0, 0)] * len(self.parents)
        for index, parent in enumerate(self.parents):
            if parent >= 0:
                found[parent] = (found[parent][0] or index, index + 1)
        return tuple(found)

    @cached_property
    def groups(self) -> tuple[int, ...]:
        """[C] index of each class's group of siblings."""
        return tuple(number for number, (_, run) in enumerate(groupby(self.parents)) for _ in run)

    @cached_property
    def depths(self) -> tuple[tuple[int, ...], ...]:
        """The indices of the classes at each depth, roots first."""
        depth: list[int] = []
        levels: list[list[int]] = []
        for index, parent in enumerate(self.parents):
            depth.append(0 if parent < 0 else depth[parent] + 1)
            if depth[index] == len(levels):
                levels.append([])
            levels[depth[index]].append(index)
        return tuple(map(tuple, levels))

    @cached_property
    def _indices(self) -> tuple[NDArray[np.int64], tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...]]:
        """The group of each class, and for each depth below the roots its classes and their parents."""
        parents = np.array(self.parents, np.int64)
        levels = tuple(np.array(level, np.int64) for level in self.depths[1:])
        return np.array(self.groups, np.int64), tuple((nodes, parents[nodes]) for nodes in levels)

    def _below(self, like: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (classes, their parents) of each depth below the roots.

        A tensor that outlives an export's trace would be wrong in the exported graph, so arrays are kept: these tensors
        share their memory.
        """
        import torch

        for nodes, parents in self._indices[1]:
            yield torch.from_numpy(nodes).to(like.device), torch.from_numpy(parents).to(like.device)

    def _groups(self, like: Tensor) -> Tensor:
        """Return [..., C] the index of each class's group of siblings."""
        import torch

        return torch.from_numpy(self._indices[0]).to(like.device).expand(like.shape)

    def _reduce(self, values: Tensor, group: Tensor, how: str) -> Tensor:
        """Reduce values [..., C] over each group: [..., G]."""
        groups = self.groups[-1] + 1
        empty = values.new_zeros((*values.shape[:-1], groups))
        return empty.scatter_reduce(-1, group, values, how, include_self=False)


def read_tree(text: str, place: str = "tree") -> Tree:
    """Read a tree.

    Either Darknet's form, one `name parent` a line, the parent as its line number from 0, or -1; or an outline, in
    which a class is indented below its parent. An outline may be YAML: nested keys and lists, one name a line.

    Raises TreeError that names the bad line.
    """
    lines = [(n, line) for n, line in enumerate(text.lstrip("\ufeff").splitlines(), start=1) if line.strip()]
    if lines and not any(re.match(r"\S+\s+[-+0-9]", line.strip()) for _, line in lines):
        return _outline(lines, place)
    names: list[str] = []
    parents: list[int] = []
    for number, line in lines:
        words = line.split()
        if len(words) != 2 or not NUMBER.fullmatch(words[1]):
            raise TreeError(f"{place}:{number}: {line.strip()[:60]!r}; expected a name and its parent's number")
        names.append(clean_name(words[0]))
        parents.append(int(words[1]))
    for index, (number, _) in enumerate(lines):
        if parents[index] >= index:
            raise TreeError(
                f"{place}:{number}: {names[index]!r} has the parent {parents[index]}, {_wrong(parents, index)}"
            )
    try:
        return Tree(tuple(parents), tuple(names))
    except TreeError as error:
        raise TreeError(f"{place}: {error}") from None


def _wrong(parents: list[int], index: int) -> str:
    """Return what is wrong with a parent that does not stand before its child, and what to do."""
    if parents[index] >= len(parents):
        return f"but there are {len(parents)} classes; expected -1 or the number of a line before it"
    node, seen = index, set[int]()
    while 0 <= node < len(parents) and node not in seen:
        seen.add(node)
        node = parents[node]
    if node in seen:
        return "which is below it: a cycle; give one class of it the parent -1"
    return "which stands later; put each class after its parent"


def _outline(lines: list[tuple[int, str]], place: str) -> Tree:
    """Read (line number, line) of an outline; classes are then ordered level by level, as Darknet's groups need."""
    above: list[tuple[int, int]] = [(-1, -1)]  # (indent, entry) of the entries that the line may be below
    entries: list[tuple[str, int, int]] = []  # (name, parent entry, depth)
    known: dict[str, int] = {}
    for number, line in lines:
        text = line.expandtabs(4)
        body = text.lstrip(" -")
        name, indent = body.strip().removesuffix(":").strip("'\""), len(text) - len(body)
        if len(name.split()) != 1:
            raise TreeError(f"{place}:{number}: {line.strip()[:60]!r}; expected one name without blanks, such as "
                            f"{'_'.join(name.split())[:60] or 'dog'}")  # fmt: skip
        if name in known:
            raise TreeError(f"{place}:{number}: {name!r} is in line {known[name]} already; expected each class once")
        known[name] = number
        while above[-1][0] >= indent:
            above.pop()
        entries.append((clean_name(name), above[-1][1], len(above)))
        above.append((indent, len(entries) - 1))
    order = sorted(range(len(entries)), key=lambda n: entries[n][2])  # stable: in a level, in order of the file
    by_parent: dict[int, list[int]] = {}
    for n in order:
        by_parent.setdefault(entries[n][1], []).append(n)
    place_of = {-1: -1}
    queue, found = [-1], list[int]()
    for parent in queue:  # parents first, and siblings together
        for n in by_parent.get(parent, ()):
            place_of[n] = len(found)
            found.append(n)
            queue.append(n)
    return Tree(tuple(place_of[entries[n][1]] for n in found), tuple(entries[n][0] for n in found))


def read_map(text: str, place: str, classes: int) -> tuple[int, ...]:
    """Read a map: one class of the tree a line, by number from 0, for each class of a data set. Raises TreeError."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        word = line.strip()
        if not re.fullmatch("[0-9]{1,9}", word) or int(word) >= classes:
            raise TreeError(f"{place}:{number}: {word[:60]!r}; expected the number of a class of the tree, 0 to "
                            f"{classes - 1}")  # fmt: skip
        found.append(int(word))
    return tuple(found)


def write_tree(tree: Tree) -> str:
    """Return the tree as Darknet reads it; a class without a name gets its number."""
    names = tree.names or tuple(f"class{index}" for index in range(len(tree.parents)))
    return "".join(f"{name} {parent}\n" for name, parent in zip(names, tree.parents, strict=True))
