"""What may be wrong with a data set, kind by kind, and the report of `lookonce check`.

Each rule takes what was read and returns findings: how many, where the first ones are, and what to do about them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, islice, starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lookonce.console import cell, cells, rendered
from lookonce.data.anchors import Collisions, every_anchor, input_boxes
from lookonce.data.duplicates import Looks, nearly_same, same_content
from lookonce.data.read import Whole
from lookonce.errors import printable
from lookonce.model.anchors import Anchors
from lookonce.model.layers import PlacedHead, Region
from lookonce.model.resize import ResizeMode
from lookonce.model.zoo import STRIDE

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

PLACES = 10
"""Places kept of each finding; SHOWN of them are printed."""
SHOWN = 3
MOST_CLASSES = 30
"""Classes in the printed table; the page has all."""
TINY = 3.0
"""px: a box whose shorter side is less at the network's input is too small (a tenth of a cell)."""
RARE = 0.05
"""A class with fewer than this ratio of another's objects, and nearly its name, may be a misspelling of it."""
MOST_SLIPS = 20
"""Most names that differ in one letter at one place and may be misspellings of each other."""
LONG_NAME = 60
"""Letters above which a name is not compared with others letter by letter."""
KINDS: dict[str, tuple[bool, str]] = {
    "image missing": (True, "add the image, or remove it from the annotations"),
    "image unreadable": (True, "copy the image again, or remove it"),
    "annotation missing": (True, "write the annotation, or remove the name from the list"),
    "annotation unreadable": (True, "write the file again"),
    "object unreadable": (True, "fix the line: until then the object counts as background"),
    "entry unreadable": (True, "fix the entry: until then it and everything that refers to it is ignored"),
    "two images for one annotation": (True, "rename one of the images and give each its own annotation"),
    "polygon": (False, "nothing to do: its bounding box is used"),
    "class id as a float": (False, "nothing to do: it is read as a whole number"),
    "number as text": (False, "nothing to do: it is read as a number"),
    "corners exchanged": (False, "nothing to do: they are swapped when read"),
    "box over the edge": (False, "nothing to do: at least half of it is in the image, and it is clipped at the edge"),
    "box with no area": (True, "draw the box again, or delete it: until then the object counts as background"),
    "box outside": (True, "draw the box again, or read with policy clip: until then the object counts as background"),
    "category missing": (True, "name the category, or delete the box"),
    "category id twice": (True, "give each category its own id: until then the first one has all boxes"),
    "category name twice": (False, "nothing to do if they are one class; otherwise give each its own name"),
    "group category": (False, "nothing to do: it only groups other classes, so it is ignored"),
    "names and nc differ": (True, "list all names and set nc to their number: labels may mean another class"),
    "image id unknown": (True, "add the image to the file, or delete its boxes"),
    "image id twice": (True, "give each image its own id: until then the first one has all boxes"),
    "image listed twice": (False, "nothing to do: it is read once"),
    "image under two ids": (True, "give the image one id and keep one set of boxes: until then it has all of them"),
    "list missing": (True, "fix the path in the description"),
    "encoding guessed": (False, "save the file as UTF-8 if the names are wrong"),
    "annotation id twice": (False, "number the annotations again: other tools keep only one of the two"),
    "image annotated twice": (True, "keep one annotation of the image"),
    "label file missing": (False, "write an empty file if the image shows no object; otherwise label it"),
    "image without annotation": (False, "annotate it if it shows objects; until then it is ignored"),
    "file not read": (False, "convert it to .jpg or .png if it is an image of the data set"),
    "size mismatch": (True, "write the image's own size into the annotation: until then the image is ignored"),
    "image in two splits (data leak)": (True, "keep it in one split: scores on training images say nothing"),
    "identical image in two splits (data leak)": (True, "keep one of them: scores on training images say nothing"),
    "nearly identical image in two splits (data leak)": (
        True, "look at them and move both into one split: scores on such images are too high"),
    "duplicate image": (False, "keep one of them: their boxes may contradict each other"),
    "near-duplicate image": (False, "look at them: many similar images weigh as much as many different ones"),
    "duplicate box": (False, "delete one: evaluation counts the second as a missed object"),
    "box with two classes": (False, "keep one class: of two objects in one place only the last is learnt"),
    "box too small at the input size": (False, "train at a larger --size, cut images into tiles, or drop such boxes"),
    "anchor collision (two objects share a cell and an anchor)": (
        False, "train at a larger --size or with more anchors; a few collisions do no harm"),
    "cell collision (two objects share a cell)": (
        False, "a detection layer of YOLOv1 learns one object in each cell: if there are many, use a network with "
               "anchors"),
    "object of an anchor that no head has": (
        True, "name every anchor in the mask= of a yolo layer, or cluster anchors: until then it counts as background"),
    "image without contrast": (False, "look at it: write it again or remove it if it is blank by mistake"),
    "class names alike": (True, "write the name in one way: two spellings are two classes"),
    "class names nearly alike": (False, "correct the name if one is a typing error: two spellings are two classes"),
    "class without objects": (False, "label some, or remove the class from the list"),
    "class missing from train": (True, "move some of its images into train: otherwise it cannot be learnt"),
}  # fmt: skip
"""Kind -> (whether it harms training or makes its score untrue, what to do)."""


@dataclass(frozen=True)
class Evidence:
    """What the page shows of a problem: a box on an image, or two images side by side."""

    images: tuple[str, ...]
    """One path or two, relative to the data set's root."""
    box: tuple[float, float, float, float] | None = None
    """xyxy image px."""


@dataclass(frozen=True)
class Finding:
    """One kind of problem: how many there are, where, and what to do."""

    kind: str
    count: int
    places: tuple[str, ...]
    """The first PLACES: file:line or file, and what was found there."""
    evidence: tuple[Evidence, ...] = ()
    """Of the first PLACES, where there is something to see."""

    @property
    def harms(self) -> bool:
        """Whether it harms training, or makes its score untrue."""
        return KINDS[self.kind][0]

    @property
    def remedy(self) -> str:
        """What to do."""
        return KINDS[self.kind][1]


def finding(kind: str, places: Iterable[str], count: int, evidence: Iterable[Evidence] = ()) -> list[Finding]:
    """Return a finding of `count` problems, the first of them at `places`; none if the count is 0."""
    if not count:
        return []
    return [Finding(kind, count, tuple(islice(places, PLACES)), tuple(islice(evidence, PLACES)))]


def all_findings(whole: Whole, looks: Looks | None, input_size: tuple[int, int], resize: ResizeMode) -> list[Finding]:
    """Return every finding that does not depend on anchors. input_size: (width, height) of the input, px."""
    for split in whole.splits:
        whole.members(split)  # notes names without an annotation
    splits = training_splits(whole)
    found = [*read_findings(whole), *class_findings(whole, splits), *split_findings(whole, splits)]
    if looks is not None:
        found += image_findings(whole, looks, splits)
    return [*found, *box_findings(whole, input_size, resize)]


def training_splits(whole: Whole) -> dict[str, NDArray[np.int64]]:
    """Return the images of train, val and test as training and evaluation use them, where they exist."""
    found = {name: whole.members(name) for name in whole.training}
    return {name: members for name, members in found.items() if len(members)}


def read_findings(whole: Whole) -> Iterator[Finding]:
    """Yield what the reader noted."""
    problems, found = whole.found.problems, whole.found
    for kind in dict.fromkeys(p.kind for _, p in problems):
        mine = [(key, p) for key, p in problems if p.kind == kind]
        places = (f"{p.place}: {p.found}" for _, p in mine)
        boxes = (Evidence((found.paths[found.index[key]],), p.box) for key, p in mine if p.box and key in found.index)
        yield from finding(kind, places, sum(p.times for _, p in mine), boxes)


def class_findings(whole: Whole, splits: dict[str, NDArray[np.int64]]) -> Iterator[Finding]:
    """Yield similar class names, classes without objects, and classes that train lacks."""
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
        missing = [name for n, name in enumerate(dataset.labels) if counts[n] and n not in learnt]
        yield from finding("class missing from train", missing, len(missing))


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
    for _ in range(2):  # the start that they share, then the end
        shared = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        a, b = a[shared:][::-1], b[shared:][::-1]
    return max(len(a), len(b)) <= 1 and not any(c.isdigit() for c in a + b)


def letter_apart_pairs(names: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, in order, of names that are a letter apart and not alike.

    Such names give one text when at most one letter is left out of each. A name is therefore compared only with those
    that share such a text: 9,418 names take a third of a second, where comparing all pairs takes minutes. Where more
    than MOST_SLIPS names share one, its letters are a code (class a, class b, ...), no slips.
    """
    sharing: dict[str, list[int]] = {}
    for n, name in enumerate(map(str.casefold, names)):
        if len(name) <= LONG_NAME:
            for text in {name, *(name[:k] + name[k + 1 :] for k, letter in enumerate(name) if not letter.isdigit())}:
                sharing.setdefault(text, []).append(n)
    pairs = {pair for group in sharing.values() if 1 < len(group) <= MOST_SLIPS for pair in combinations(group, 2)}
    return sorted((i, j) for i, j in pairs if a_letter_apart(names[i], names[j]) and not alike(names[i], names[j]))


def split_findings(whole: Whole, splits: dict[str, NDArray[np.int64]]) -> list[Finding]:
    """Return the images that two of train, val and test name."""
    counts = Counter(n for members in splits.values() for n in set(members.tolist()))
    twice = sorted(n for n, count in counts.items() if count > 1)
    places = (f"{whole.dataset.paths[n]}: in {_splits_of(n, splits)}" for n in twice)
    return finding("image in two splits (data leak)", places, len(twice))


def _splits_of(n: int, splits: dict[str, NDArray[np.int64]]) -> str:
    return " and ".join(name for name, members in splits.items() if n in members) or "no split"


def image_findings(whole: Whole, looks: Looks, splits: dict[str, NDArray[np.int64]]) -> Iterator[Finding]:
    """Yield what the images themselves show: unreadable ones, other sizes than annotated, and duplicates."""
    dataset = whole.dataset
    wrong = sorted(looks.errors)
    yield from finding("image unreadable", (f"{dataset.paths[n]}: {looks.errors[n]}" for n in wrong), len(wrong))
    other = np.flatnonzero((looks.sizes != dataset.sizes).any(1) & (looks.sizes[:, 0] > 0)).tolist()
    yield from finding("size mismatch", (_size_mismatch(whole, n, looks.sizes[n]) for n in other), len(other))
    flat = np.flatnonzero(looks.flat).tolist()
    yield from finding(
        "image without contrast", (f"{dataset.paths[n]}: all of it is one grey" for n in flat), len(flat)
    )
    split_of = np.full(len(dataset), -1)
    for number, members in enumerate(splits.values()):
        split_of[members] = number
    for twins, leak, kind in (
        (same_content(looks), "identical image in two splits (data leak)", "duplicate image"),
        (nearly_same(looks), "nearly identical image in two splits (data leak)", "near-duplicate image"),
    ):
        later = np.flatnonzero(twins >= 0)
        here, there = split_of[later], split_of[twins[later]]
        across = (here != there) & (here >= 0) & (there >= 0)
        for name, images in ((leak, later[across]), (kind, later[~across])):
            places = (
                f"{dataset.paths[n]} (in {_splits_of(n, splits)}): same as {dataset.paths[twins[n]]} "
                f"(in {_splits_of(int(twins[n]), splits)})" for n in images.tolist()
            )  # fmt: skip
            pairs = (Evidence((str(dataset.paths[n]), str(dataset.paths[twins[n]]))) for n in images.tolist())
            yield from finding(name, places, len(images), pairs)


def _size_mismatch(whole: Whole, n: int, size: NDArray[np.int32]) -> str:
    annotated = whole.dataset.sizes[n]
    turned = "; rotated by its EXIF tag?" if tuple(size) == tuple(annotated[::-1]) else ""
    place, path = whole.found.location((whole.found.files[n], 0)), whole.dataset.paths[n]
    return f"{place}: says {annotated[0]} x {annotated[1]}, but {path} is {size[0]} x {size[1]}{turned}"


def box_findings(whole: Whole, input_size: tuple[int, int], resize: ResizeMode) -> Iterator[Finding]:
    """Yield duplicate boxes, and boxes that are too small at the network's input."""
    dataset = whole.dataset
    keys = np.column_stack((dataset.image_of_box, np.rint(dataset.boxes).astype(np.int64), dataset.classes))  # [N, 6]
    again = repeated(keys)
    places = (f"{whole.place(n)}: {dataset.labels[dataset.classes[n]]}" for n in again.tolist())
    yield from finding("duplicate box", places, len(again))
    other = np.setdiff1d(repeated(keys[:, :5]), again)
    yield from finding("box with two classes", map(whole.place, other.tolist()), len(other))
    boxes = input_boxes(dataset, input_size, resize)
    shapes = boxes[:, 2:] - boxes[:, :2]  # [N, 2] input px
    tiny = np.flatnonzero(shapes.min(1) < TINY)
    places = (f"{whole.place(n)}: {shapes[n, 0]:.1f} x {shapes[n, 1]:.1f} px of {input_size[0]}" for n in tiny.tolist())
    yield from finding("box too small at the input size", places, len(tiny))


def repeated(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indices of the rows [N, k] that equal an earlier row, in order."""
    if not len(rows):
        return np.zeros(0, np.int64)
    order = np.lexsort(rows.T[::-1])  # equal rows side by side, in their order
    same = (rows[order[1:]] == rows[order[:-1]]).all(1)
    return np.asarray(np.sort(order[1:][same]), np.int64)


def collision_findings(whole: Whole, found: Collisions, heads: Sequence[PlacedHead]) -> list[Finding]:
    """Return the objects that no head of a network learns."""
    dataset, (shapes, _) = whole.dataset, every_anchor(heads)
    names = [dataset.labels[n] for n in dataset.classes]
    scale = STRIDE if all(isinstance(head.layer, Region) for head in heads) else 1
    anchors = [f"; anchor {w / scale:.2f} x {h / scale:.2f}" + (" px" if scale == 1 else "") for w, h in shapes]
    places = (
        f"{whole.place(n)}: {names[n]}, collides with the {names[w]} of {whole.place(w)}" + "".join(anchors[a : a + 1])
        for n, w, a in zip(*(each.tolist() for each in found[:3]), strict=True)
    )
    kind = "anchor collision (two objects share a cell and an anchor)"
    if not shapes:
        kind = "cell collision (two objects share a cell)"
    alone = (f"{whole.place(n)}: {names[n]}" for n in found.unassigned.tolist())
    return [
        *finding(kind, places, len(found.objects)),
        *finding("object of an anchor that no head has", alone, len(found.unassigned)),
    ]


@dataclass(frozen=True)
class Counted:
    """How much there is of everything."""

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
    """(mean, most)."""
    box_side: tuple[float, float, float]
    """Square root of a box's area at the input, px: the 10th, 50th and 90th percentile."""


@dataclass(frozen=True)
class CheckReport:
    """What a data set holds, and what is wrong with it."""

    data: str
    format: str
    size: int
    """Side of the network's input for which it was checked, px."""
    counted: Counted
    network: str
    """The network for which it was checked; empty: one head of stride 32 with clustered anchors."""
    anchors: Anchors | None
    """Those of all heads, in cells of 32 px; None: the network has none (YOLOv1)."""
    strides: tuple[str, ...]
    """Of each anchor, the strides of the heads that have it, px."""
    lost: tuple[int, ...]
    """Anchor collisions of each anchor."""
    findings: tuple[Finding, ...]
    looked: bool
    """Whether the images were opened."""
    page: Path | None = None

    @property
    def harms(self) -> bool:
        """Whether something harms training, or makes its score untrue."""
        return any(finding.harms for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """1 if something harms training, else 0."""
        return int(self.harms)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        whole = asdict(self) | {"page": None if self.page is None else str(self.page), "harms": self.harms}
        whole["findings"] = [asdict(f) | {"harms": f.harms, "remedy": f.remedy} for f in self.findings]
        return whole

    def __rich__(self) -> Group:
        from rich.console import Group

        lines = summary(self).split("\n")
        return Group(
            cells(lines), _class_table(self), *_anchor_table(self), *_shown_findings(self), cell(verdict(self))
        )

    def __str__(self) -> str:
        return rendered(self)


def summary(report: CheckReport) -> str:
    """Return the counts in a few lines."""
    c = report.counted
    mean, most = c.objects_an_image
    marked = ", ".join(f"{n:,} {what}" for n, what in ((c.difficult - c.crowd, "difficult"), (c.crowd, "crowd")) if n)
    low, middle, high = c.box_side
    splits = ", ".join(
        f"{printable(name)} {images:,} ({objects:,} objects)" for name, (images, objects) in c.splits.items()
    )
    lines = [
        f"{printable(report.data)} ({report.format}): {c.images:,} images, {c.objects:,} objects of "
        f"{len(c.classes)} classes" + (f" ({marked})" if marked else ""),
        f"objects per image: mean {mean:.1f}, at most {most}; {c.empty:,} images without objects",
        f"box side at {report.size} px (root of area): median {middle:.0f} px, 80 % from {low:.0f} to {high:.0f} px",
        f"splits: {splits}, {printable(c.split_source)}",
    ]
    network = [f"network: {printable(report.network)}"] if report.network else []
    return "\n".join([*lines, *network, *([] if report.looked else ["the images were not opened"])])


def verdict(report: CheckReport) -> str:
    """Return one line: what to fix before training."""
    page = f"; page: {report.page}" if report.page else ""
    harmful = [finding.kind for finding in report.findings if finding.harms]
    if harmful:
        return f"Fix before training: {', '.join(harmful)}{page}"
    return f"Found nothing that harms training{page}"


def _class_table(report: CheckReport) -> Table:
    table = _table("class", "objects", "images")
    order = sorted(report.counted.classes.items(), key=lambda entry: -entry[1][0])
    for name, (objects, images) in order[:MOST_CLASSES]:
        table.add_row(cell(name), f"{objects:,}", f"{images:,}")
    if len(order) > MOST_CLASSES:
        rest = order[MOST_CLASSES:]
        table.add_row(f"{len(rest)} more", f"{sum(objects for _, (objects, _) in rest):,}", "")
    return table


def _anchor_table(report: CheckReport) -> list[Table]:
    """Return a table of the anchors; none for a network without anchors."""
    fit = report.anchors
    if fit is None:
        return []
    unit, scale = ("px", STRIDE) if report.network else ("cells", 1)
    head = ["head of stride"] if report.network else []
    table = _table(f"anchor, {unit} (mean best IoU {fit.mean_iou:.3f})", *head, "boxes", "collisions")
    for (w, h), stride, boxes, lost in zip(fit.wh, report.strides, fit.counts, report.lost, strict=True):
        table.add_row(f"{w * scale:.2f} x {h * scale:.2f}", *([stride] if head else []), f"{boxes:,}", f"{lost:,}")
    return [table]


def _shown_findings(report: CheckReport) -> list[Text]:
    from rich.text import Text

    found = []
    for finding in report.findings:
        mark, style = ("!!", "bold") if finding.harms else (" -", "")
        text = Text(f"{mark} {finding.count:,} x {finding.kind}: {finding.remedy}", style=style)
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
