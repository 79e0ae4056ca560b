"""What may be wrong with a data set, kind by kind: the rules of `lookonce check`.

Every rule takes what was read, and gives findings: how many, where the first are, and what to do.

What `check` found: the report, as tables for a terminal and as JSON.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lookonce.console import cell, cells, rendered
from lookonce.data.anchors import input_boxes
from lookonce.data.duplicates import Looks, nearly_same, same_content
from lookonce.data.read import Whole
from lookonce.errors import printable
from lookonce.model.anchors import Anchors
from lookonce.model.resize import ResizeMode

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text


PLACES = 10
"""Places told of each finding."""


TINY = 3.0
"""px: a box whose shorter side is less at the network's input is implausibly small (a tenth of a cell)."""


RARE = 0.05
"""A class with less than this share of another's objects, and nearly its name, may be that one misspelt."""


KINDS: dict[str, tuple[bool, str]] = {
    "image missing": (True, "put the image there, or take it out of the annotations"),
    "image unreadable": (True, "copy the image again, or take it out"),
    "annotation missing": (True, "write the annotation, or take the name off the list"),
    "annotation unreadable": (True, "write the file again"),
    "object unreadable": (True, "fix the line: until then the object counts as background"),
    "entry unreadable": (True, "fix the entry: until then it and what belongs to it is left out"),
    "two images for one annotation": (True, "rename one of the images and give each its own annotation"),
    "polygon": (False, "nothing to do: its bounding box is used"),
    "class id as a float": (False, "nothing to do: it is read as a whole number"),
    "number as text": (False, "nothing to do: it is read as a number"),
    "corners exchanged": (False, "nothing to do: they are swapped when read"),
    "box over the edge": (False, "nothing to do: at least half of it is in the image, and it is cut at the edge"),
    "box without area": (True, "draw the box again, or delete it: until then the object counts as background"),
    "box outside": (True, "draw the box again, or read with policy clip: until then the object counts as background"),
    "category missing": (True, "name the category, or delete the box"),
    "category id twice": (True, "give each category its own id: until then the first one has all boxes"),
    "category name twice": (False, "nothing to do if they are one class; otherwise give each its own name"),
    "group category": (False, "nothing to do: it only groups other classes, so it is left out"),
    "names and nc differ": (True, "write all names, and their number: labels may stand for another class"),
    "image id unknown": (True, "add the image to the file, or delete its boxes"),
    "image id twice": (True, "give each image its own id: until then the first one has all boxes"),
    "image listed twice": (False, "nothing to do: it is read once"),
    "image under two ids": (True, "give the image one id and keep one set of boxes: until then it has all of them"),
    "list missing": (True, "fix the path in the description"),
    "encoding guessed": (False, "if the names are wrong, save the file as UTF-8"),
    "annotation id twice": (False, "number the annotations anew: other tools keep only one of two"),
    "image annotated twice": (True, "keep one annotation of the image"),
    "label file missing": (False, "if nothing is on it, write an empty file; else its objects count as background"),
    "image without annotation": (False, "annotate it if it shows objects; it is left out until then"),
    "file not read": (False, "convert it to .jpg or .png if it is an image of the data set"),
    "size mismatch": (True, "write the image's own size: until then the image is left out"),
    "image in two splits": (True, "keep it in one: a detector is not to be scored on what it learnt from"),
    "same image in two splits": (True, "keep one: a detector is not to be scored on what it learnt from"),
    "nearly the same image in two splits": (True, "look at them; keep both on one side, or scores flatter"),
    "same image twice": (False, "keep one; their boxes may contradict each other"),
    "nearly the same image": (False, "look at them; many alike weigh as much as many different ones"),
    "box twice": (False, "delete one: in evaluation the second counts as missed"),
    "box with two classes": (False, "decide for one: of objects in one place only the last is learnt"),
    "box tiny at the input": (False, "train at a larger --size, cut images into tiles, or drop such boxes"),
    "object lost to another": (False, "train at a larger --size, or with more anchors; a few do no harm"),
    "image without contrast": (
        False,
        "look at it: if it is empty by mistake, write it again or take it out",
    ),
    "class names alike": (True, "write it one way: two spellings are two classes"),
    "class names nearly alike": (False, "if one is a slip, mend it: two spellings are two classes"),
    "class without objects": (False, "label some, or take the class off the list"),
    "class not in train": (True, "put some of its images into train: it cannot be learnt"),
}
"""Kind -> whether it would harm training or make its score untrue, and what to do."""


@dataclass(frozen=True)
class Finding:
    """One kind of thing that is wrong: how many, where, and what to do."""

    kind: str
    count: int
    places: tuple[str, ...]
    """The first PLACES: file:line or file, and what was found there."""

    @property
    def harms(self) -> bool:
        """Whether it would harm training, or make its score untrue."""
        return KINDS[self.kind][0]

    @property
    def remedy(self) -> str:
        """What to do."""
        return KINDS[self.kind][1]


def finding(kind: str, places: Iterable[str], count: int) -> list[Finding]:
    """A finding of `count` things, the first of them at `places`; none where the count is 0."""
    first = [place for place, _ in zip(places, range(PLACES), strict=False)] if count else []
    return [Finding(kind, count, tuple(first))] if count else []


def all_findings(whole: Whole, looks: Looks | None, input_size: tuple[int, int], resize: ResizeMode) -> list[Finding]:
    """Everything but what depends on anchors. input_size: (width, height) of the network's input, px."""
    for split in whole.splits:
        whole.members(split)  # notes names without an annotation
    splits = training_splits(whole)
    found = [*read_findings(whole), *class_findings(whole, splits), *split_findings(whole, splits)]
    if looks is not None:
        found += image_findings(whole, looks, splits)
    return [*found, *box_findings(whole, input_size, resize)]


def training_splits(whole: Whole) -> dict[str, NDArray[np.int64]]:
    """train, val and test as training and evaluation take them, those that there are."""
    found = {name: whole.members(name) for name in whole.training}
    return {name: members for name, members in found.items() if len(members)}


def read_findings(whole: Whole) -> Iterator[Finding]:
    """What the reader noted."""
    problems = [p for _, p in whole.found.problems]
    for kind in dict.fromkeys(p.kind for p in problems):
        mine = [p for p in problems if p.kind == kind]
        yield from finding(kind, (f"{p.place}: {p.found}" for p in mine), sum(p.times for p in mine))


def class_findings(whole: Whole, splits: dict[str, NDArray[np.int64]]) -> Iterator[Finding]:
    """Names of classes that differ by a letter, case or blanks; classes without objects, or none to learn from."""
    dataset = whole.dataset
    counts = np.bincount(dataset.classes, minlength=len(dataset.labels))

    def described(i: int, j: int) -> str:
        return f"{dataset.labels[i]!r} ({counts[i]} objects) and {dataset.labels[j]!r} ({counts[j]})"

    many, same = alike_pairs(dataset.labels)
    yield from finding("class names alike", starmap(described, same), many)
    pairs = letter_apart_pairs(dataset.labels)
    near = [(i, j) for i, j in pairs if min(counts[i], counts[j]) < RARE * max(counts[i], counts[j])]
    yield from finding("class names nearly alike", starmap(described, near), len(near))
    empty = [name for name, count in zip(dataset.labels, counts, strict=True) if not count]
    yield from finding("class without objects", empty, len(empty))
    if "train" in splits and len(splits) > 1:
        learnt = set(dataset.select(splits["train"]).classes.tolist())
        lost = [name for n, name in enumerate(dataset.labels) if counts[n] and n not in learnt]
        yield from finding("class not in train", lost, len(lost))


def alike(a: str, b: str) -> bool:
    """Whether two names differ by case, blanks and signs at most."""
    return _letters(a) == _letters(b)


def alike_pairs(names: Sequence[str]) -> tuple[int, Iterator[tuple[int, int]]]:
    """(how many pairs of names differ by case, blanks and signs at most, these pairs (i, j), i < j, in order)."""
    groups: dict[str, list[int]] = {}
    for n, name in enumerate(names):
        groups.setdefault(_letters(name), []).append(n)
    many = sum(len(group) * (len(group) - 1) // 2 for group in groups.values())
    place = {n: k for group in groups.values() for k, n in enumerate(group)}
    return many, ((i, j) for i, name in enumerate(names) for j in groups[_letters(name)][place[i] + 1 :])


def _letters(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


def a_letter_apart(a: str, b: str) -> bool:
    """Whether two names differ by one letter put in, left out or changed; digits are no slips, nor are short names."""
    a, b = a.casefold(), b.casefold()
    if max(len(a), len(b)) < 4 or abs(len(a) - len(b)) > 1:
        return False
    edits = [e for e in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes() if e[0] != "equal"]
    changed = "".join(a[i1:i2] + b[j1:j2] for _, i1, i2, j1, j2 in edits)
    return sum(max(i2 - i1, j2 - j1) for _, i1, i2, j1, j2 in edits) <= 1 and not any(c.isdigit() for c in changed)


def letter_apart_pairs(names: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, in order, of names that are a letter apart and not alike.

    Such names give one text when at most one letter is left out of each. A name is therefore compared only with those
    that share such a text: 9,418 names take a third of a second, where comparing all pairs takes minutes.
    """
    sharing: dict[str, set[int]] = {}
    for n, name in enumerate(map(str.casefold, names)):
        sharing.setdefault(name, set()).add(n)
        for k, letter in enumerate(name):
            if not letter.isdigit():
                sharing.setdefault(name[:k] + name[k + 1 :], set()).add(n)
    pairs = {pair for group in sharing.values() if len(group) > 1 for pair in combinations(sorted(group), 2)}
    return sorted((i, j) for i, j in pairs if a_letter_apart(names[i], names[j]) and not alike(names[i], names[j]))


def split_findings(whole: Whole, splits: dict[str, NDArray[np.int64]]) -> list[Finding]:
    """Images that two of train, val and test name."""
    counts = Counter(n for members in splits.values() for n in set(members.tolist()))
    twice = sorted(n for n, count in counts.items() if count > 1)
    places = (f"{whole.dataset.paths[n]}: in {_in_which(n, splits)}" for n in twice)
    return finding("image in two splits", places, len(twice))


def _in_which(n: int, splits: dict[str, NDArray[np.int64]]) -> str:
    return " and ".join(name for name, members in splits.items() if n in members) or "no split"


def image_findings(whole: Whole, looks: Looks, splits: dict[str, NDArray[np.int64]]) -> Iterator[Finding]:
    """What the images themselves show: cut ones, other sizes than annotated, twins, and twins across splits."""
    dataset = whole.dataset
    wrong = sorted(looks.errors)
    yield from finding("image unreadable", (f"{dataset.paths[n]}: {looks.errors[n]}" for n in wrong), len(wrong))
    seen, said = looks.sizes, dataset.sizes
    other = np.flatnonzero((seen != said).any(1) & (seen[:, 0] > 0)).tolist()
    yield from finding("size mismatch", (_sizes(whole, n, seen[n]) for n in other), len(other))
    flat = np.flatnonzero(looks.flat).tolist()
    yield from finding("image without contrast", (f"{dataset.paths[n]}: one grey all over" for n in flat), len(flat))
    for twins, kind in ((same_content(looks), "same image"), (nearly_same(looks), "nearly the same image")):
        later = np.flatnonzero(twins >= 0)
        apart = _across(twins, later, splits)
        describe = _twin_words(dataset.paths, twins, splits)
        yield from finding(f"{kind} in two splits", map(describe, later[apart]), int(apart.sum()))
        together = later[~apart]
        name = "same image twice" if kind == "same image" else kind
        yield from finding(name, map(describe, together), len(together))


def _across(
    twins: NDArray[np.int64], later: NDArray[np.int64], splits: dict[str, NDArray[np.int64]]
) -> NDArray[np.bool_]:
    """[len(later)] whether each image and its twin lie in different splits."""
    of = np.full(len(twins), -1)
    for number, members in enumerate(splits.values()):
        of[members] = number
    return np.asarray((of[later] != of[twins[later]]) & (of[later] >= 0) & (of[twins[later]] >= 0), bool)


def _twin_words(paths: NDArray[np.str_], twins: NDArray[np.int64],
                splits: dict[str, NDArray[np.int64]]) -> Callable[[int], str]:  # fmt: skip
    def describe(n: int) -> str:
        first = int(twins[n])
        return f"{paths[n]} (in {_in_which(n, splits)}): as {paths[first]} (in {_in_which(first, splits)})"

    return describe


def _sizes(whole: Whole, n: int, seen: NDArray[np.int32]) -> str:
    said = whole.dataset.sizes[n]
    turned = "; turned by its EXIF tag?" if tuple(seen) == tuple(said[::-1]) else ""
    place = whole.found.location((whole.found.files[n], 0))
    return f"{place}: says {said[0]} x {said[1]}, and {whole.dataset.paths[n]} is {seen[0]} x {seen[1]}{turned}"


def box_findings(whole: Whole, input_size: tuple[int, int], resize: ResizeMode) -> Iterator[Finding]:
    """Boxes that are there twice, and boxes too small for the network's input."""
    dataset, image = whole.dataset, whole.dataset.image_of_box
    keys = np.column_stack((image, np.rint(dataset.boxes).astype(np.int64), dataset.classes))  # [N, 6]
    again = repeated(keys)
    yield from finding(
        "box twice", (f"{whole.place(n)}: {dataset.labels[dataset.classes[n]]}" for n in again), len(again)
    )
    other = np.setdiff1d(repeated(keys[:, :5]), again)
    yield from finding("box with two classes", map(whole.place, other.tolist()), len(other))
    boxes = input_boxes(dataset, input_size, resize)
    shapes = boxes[:, 2:] - boxes[:, :2]  # [N, 2] input px
    tiny = np.flatnonzero(shapes.min(1) < TINY)
    places = (f"{whole.place(n)}: {shapes[n, 0]:.1f} x {shapes[n, 1]:.1f} px of {input_size[0]}" for n in tiny.tolist())
    yield from finding("box tiny at the input", places, len(tiny))


def repeated(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows [N, k] that an earlier row equals: their places, growing."""
    if not len(rows):
        return np.zeros(0, np.int64)
    order = np.lexsort(rows.T[::-1])  # equal rows side by side, in their order
    same = (rows[order[1:]] == rows[order[:-1]]).all(1)
    return np.asarray(np.sort(order[1:][same]), np.int64)


def lost_finding(whole: Whole, lost: NDArray[np.int64], winner: NDArray[np.int64],
                 anchor: Sequence[str]) -> list[Finding]:  # fmt: skip
    """Objects whose cell and anchor a later one takes. lost: [L] objects; winner: [L]; anchor: [L] its shape."""
    dataset = whole.dataset
    names = [dataset.labels[n] for n in dataset.classes]
    places = (f"{whole.place(n)}: {names[n]}, to the {names[w]} of {whole.place(w)}; anchor {shape}"
              for n, w, shape in zip(lost.tolist(), winner.tolist(), anchor, strict=True))  # fmt: skip
    return finding("object lost to another", places, len(lost))


SHOWN = 3
"""Places told of each finding."""


MOST_CLASSES = 30
"""Classes in the table; the page has all."""


@dataclass(frozen=True)
class Counted:
    """How much of everything there is."""

    images: int
    objects: int
    empty: int
    """Images without objects."""
    difficult: int
    crowd: int
    classes: dict[str, tuple[int, int]]
    """Class -> (objects, images with it)."""
    splits: dict[str, tuple[int, int]]
    """Split -> (images, objects)."""
    split_source: str
    """Where train, val and test come from."""
    objects_an_image: tuple[float, int]
    """(mean, most)"""
    box_side: tuple[float, float, float]
    """Square root of a box's area at the input, px: a tenth of the boxes are below the first number, half of them
    below the second, nine tenths below the third."""


@dataclass(frozen=True)
class CheckReport:
    """What a data set holds, and what is wrong with it."""

    data: str
    format: str
    size: int
    """Side of the network's input for which it was checked, px."""
    counted: Counted
    anchors: Anchors
    lost: tuple[int, ...]
    """Objects lost to others in their cell, by anchor."""
    findings: tuple[Finding, ...]
    looked: bool
    """Whether the images were opened."""
    page: Path | None = None

    @property
    def harms(self) -> bool:
        """Whether something would harm training, or make its score untrue."""
        return any(finding.harms for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """1 where something would harm training, else 0."""
        return int(self.harms)

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        whole = asdict(self) | {"page": None if self.page is None else str(self.page), "harms": self.harms}
        whole["findings"] = [asdict(f) | {"harms": f.harms, "remedy": f.remedy} for f in self.findings]
        return whole

    def __rich__(self) -> Group:
        from rich.console import Group

        lines = summary(self).split("\n")
        return Group(cells(lines), _classes(self), _anchors(self), *_findings(self), cell(verdict(self)))

    def __str__(self) -> str:
        return rendered(self)


def summary(report: CheckReport) -> str:
    """What there is, in a few lines."""
    c = report.counted
    mean, most = c.objects_an_image
    marked = ", ".join(f"{n:,} {what}" for n, what in ((c.difficult - c.crowd, "difficult"), (c.crowd, "crowd")) if n)
    low, middle, high = c.box_side
    lines = [
        f"{printable(report.data)} ({report.format}): {c.images:,} images, {c.objects:,} objects of "
        f"{len(c.classes)} classes" + (f" ({marked})" if marked else ""),
        f"{mean:.1f} objects an image, {most} at most; {c.empty:,} images without any",
        f"side of a box at {report.size} px: {low:.0f} to {high:.0f} px (8 of 10), {middle:.0f} in the middle",
        "split: "
        + ", ".join(f"{printable(name)} {p:,} ({o:,} objects)" for name, (p, o) in c.splits.items())
        + f", {printable(c.split_source)}",
    ]
    if not report.looked:
        lines.append("the images were not opened")
    return "\n".join(lines)


def verdict(report: CheckReport) -> str:
    """One line: may it be trained on."""
    page = f"; page: {report.page}" if report.page else ""
    harmful = [finding.kind for finding in report.findings if finding.harms]
    if harmful:
        return f"To mend before training: {', '.join(harmful)}{page}"
    return f"Nothing that would harm training{page}"


def _classes(report: CheckReport) -> Table:
    table = _table("class", "objects", "images")
    order = sorted(report.counted.classes.items(), key=lambda entry: -entry[1][0])
    for name, (objects, images) in order[:MOST_CLASSES]:
        table.add_row(cell(name), f"{objects:,}", f"{images:,}")
    if len(order) > MOST_CLASSES:
        rest = order[MOST_CLASSES:]
        table.add_row(f"{len(rest)} more", f"{sum(objects for _, (objects, _) in rest):,}", "")
    return table


def _anchors(report: CheckReport) -> Table:
    fit = report.anchors
    table = _table(f"anchor, cells (mean best IoU {fit.mean_iou:.3f})", "boxes", "lost to another")
    for (w, h), boxes, lost in zip(fit.wh, fit.counts, report.lost, strict=True):
        table.add_row(f"{w:.2f} x {h:.2f}", f"{boxes:,}", f"{lost:,}")
    return table


def _findings(report: CheckReport) -> list[Text]:
    from rich.text import Text

    found = []
    for finding in report.findings:
        mark = "!!" if finding.harms else " -"
        text = Text(
            f"{mark} {finding.count:,} x {finding.kind}: {finding.remedy}", style="bold" if finding.harms else ""
        )
        text.append("".join(f"\n     {printable(place)}" for place in finding.places[:SHOWN]), style="not bold")
        if finding.count > SHOWN:
            text.append(f"\n     and {finding.count - SHOWN:,} more", style="not bold")
        found.append(text)
    return found


def _table(*headings: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    return table
