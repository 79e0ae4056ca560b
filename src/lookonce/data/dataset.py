"""A data set in memory: packed arrays, and a light view of each image.

Boxes are xyxy float32 image pixels. No Python object is kept for a box or an image.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lookonce.errors import UserError, plural, printable

if TYPE_CHECKING:
    from PIL.Image import Image

SHOWN, SIDE = 4, 320
"""Images that a notebook shows of a data set, and their longest side in pixels."""
DataPolicy = Literal["error", "drop", "clip"]
"""How to handle a box more than half outside its image: refuse the data set, drop the box, or clip it to the image.

"error" refuses the data set for any other problem, too. A box at least half inside is always clipped."""


@dataclass(frozen=True, eq=False, repr=False)
class Record:
    """One image and its N objects."""

    path: Path
    size: tuple[int, int]  # (width, height), image px, as seen (EXIF applied)
    boxes: NDArray[np.float32]  # [N, 4] xyxy image px
    labels: NDArray[np.int64]  # [N] index into Dataset.labels
    difficult: NDArray[np.bool_]  # [N]
    image_label: int = -1  # class of an image that is labelled as a whole and has no boxes; -1: none
    corner: tuple[int, int] | None = None  # (x, y) in the file of an image that is a part of it; None: the whole

    def __repr__(self) -> str:
        width, height = self.size
        return f"Record({printable(str(self.path))}: {width} x {height}, {plural(len(self.labels), 'object')})"


@dataclass(frozen=True)
class Problem:
    """A problem of the data, and what was done about it."""

    place: str
    """file:line, or file."""
    kind: str
    """Kind of problem: "box with no area", "image missing" ..."""
    found: str
    """What was found, and what is expected."""
    action: str
    """dropped, clipped, skipped or fixed; or how it was read."""
    times: int = 1
    """Number of problems: of very many in one file, the last represents the rest."""
    box: tuple[float, float, float, float] | None = None
    """The box in question, as the file gives it: xyxy image px; None: the problem is not one box."""


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Labelled images; M images, N objects, C classes.

    >>> dataset = read_dataset("cells")                # doctest: +SKIP
    >>> dataset.draw(0).show()                         # doctest: +SKIP
    """

    name: str
    root: Path
    labels: tuple[str, ...]  # [C] class names
    paths: NDArray[np.str_]  # [M] images, relative to root, with forward slashes
    sizes: NDArray[np.int32]  # [M, 2] (width, height)
    first: NDArray[np.int64]  # [M + 1] objects of image i are first[i]:first[i + 1]
    boxes: NDArray[np.float32]  # [N, 4] xyxy image px
    classes: NDArray[np.int64]  # [N] index into labels
    difficult: NDArray[np.bool_]  # [N]
    problems: tuple[Problem, ...] = ()
    crowd: NDArray[np.bool_] | None = None
    """[N] difficult objects that COCO calls a crowd (one box around many); None: the format has none."""
    area: NDArray[np.float64] | None = None
    """[N] image px² from COCO, of the mask if there is one; 0, or None for all: of the box."""
    pixel_range: tuple[float, float] | None = None
    """Values of images of more than 8 bits that become black and white; None: the default of data.images.load_rgb."""
    image_labels: NDArray[np.int64] | None = None
    """[M] class of each image that is labelled as a whole and has no boxes, else -1; None: there are no such images."""
    corners: NDArray[np.int32] | None = None
    """[M, 2] (x, y) in its file of each image that is a tile, else -1 (data.tiles.in_tiles); None: all are whole."""

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        """Return one line: the number of images, objects and classes."""
        counts = (plural(len(self), "image"), plural(len(self.boxes), "object"), plural(len(self.labels), "class"))
        return f"Dataset {printable(self.name)}: {', '.join(counts)}"

    def _repr_html_(self) -> str:
        """Return the line of __repr__ and the first SHOWN images with their objects, for notebooks."""
        images = []
        for index in range(min(SHOWN, len(self))):
            with suppress(UserError):  # an image that cannot be read
                thin = round(int(self.sizes[index].max()) * 2 / SIDE)  # 2 pixels of the page
                drawn, content = self.draw(index, line_width=min(max(thin, 1), 100)), BytesIO()
                drawn.thumbnail((SIDE, SIDE))
                drawn.save(content, "JPEG", quality=87)
                code = base64.b64encode(content.getvalue()).decode()
                images.append(f'<img src="data:image/jpeg;base64,{code}" style="display: inline; margin: 4px">')
        return f"<p>{html.escape(repr(self))}</p>{''.join(images)}"

    def draw(self, index: int, *, hide_labels: bool = False, line_width: int | None = None) -> Image:
        """Return an image with its objects drawn on it, as a PIL image.

        Args:
            index: of the image.
            hide_labels: draw boxes alone.
            line_width: pixels; None: 1/200 of the image's shorter side.
        Raises:
            UserError: the image cannot be read.
        """
        from lookonce import draw  # of a higher package: this method is short for that function

        record = self.records[index]
        names = [self.labels[label] for label in record.labels]
        areas = (record.boxes[:, 2:] - record.boxes[:, :2]).prod(1)
        found = (record.boxes, names, (-areas).tolist())  # small boxes on top
        return draw(record.path, found, class_names=self.labels, hide_labels=hide_labels, hide_scores=True,
                    line_width=line_width)  # fmt: skip

    @property
    def records(self) -> Records:
        """Return the images one by one; each is built when it is accessed."""
        return Records(self)

    @property
    def image_of_box(self) -> NDArray[np.int64]:
        """Return the image of each object [N]."""
        return np.repeat(np.arange(len(self)), np.diff(self.first))

    @property
    def object_side(self) -> float:
        """Return the median ratio of an object's longer side to its image's longer side; 1 without objects."""
        sides = (self.boxes[:, 2:] - self.boxes[:, :2]).max(-1) / self.sizes.max(-1)[self.image_of_box]
        return float(np.median(sides)) if len(sides) else 1.0

    def select(self, index: ArrayLike) -> Dataset:
        """Return these images (indices, or a mask), in this order."""
        chosen = np.arange(len(self))[np.asarray(index, dtype=None if len(np.atleast_1d(index)) else np.int64)]
        counts = np.diff(self.first)[chosen]
        first = np.concatenate(([0], counts.cumsum())).astype(np.int64)
        objects = np.repeat(self.first[chosen] - first[:-1], counts) + np.arange(first[-1])
        return replace(
            self,
            paths=self.paths[chosen],
            sizes=self.sizes[chosen],
            first=first,
            boxes=self.boxes[objects],
            classes=self.classes[objects],
            difficult=self.difficult[objects],
            crowd=None if self.crowd is None else self.crowd[objects],
            area=None if self.area is None else self.area[objects],
            image_labels=None if self.image_labels is None else self.image_labels[chosen],
            corners=None if self.corners is None else self.corners[chosen],
        )

    def with_objects(self) -> Dataset:
        """Return the images that have at least one object."""
        return self.select(np.flatnonzero(np.diff(self.first)))


class Records(Sequence[Record]):
    """A data set's images as a sequence of Record."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        d = self._dataset
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        objects = slice(d.first[at], d.first[at + 1])
        size = (int(d.sizes[at, 0]), int(d.sizes[at, 1]))
        whole = -1 if d.image_labels is None else int(d.image_labels[at])
        x, y = (-1, -1) if d.corners is None else d.corners[at].tolist()
        return Record(d.root / str(d.paths[at]), size, d.boxes[objects], d.classes[objects], d.difficult[objects],
                      whole, (x, y) if x >= 0 else None)  # fmt: skip

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))


def pack(name: str, root: Path, labels: tuple[str, ...], records: Iterable[Record],
         problems: tuple[Problem, ...] = ()) -> Dataset:  # fmt: skip
    """Return records in memory as a Dataset; paths inside root become relative to it."""
    paths, sizes, counts = [], [], []
    boxes, classes, difficult = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.int64)], [np.zeros(0, bool)]
    for record in records:
        inside = record.path.is_relative_to(root)
        paths.append((record.path.relative_to(root) if inside else record.path).as_posix())
        sizes.append(record.size)
        counts.append(len(record.labels))
        boxes.append(record.boxes)
        classes.append(record.labels)
        difficult.append(record.difficult)
    return Dataset(
        name, root, labels, np.array(paths, np.str_), np.array(sizes, np.int32).reshape(-1, 2),
        np.concatenate(([0], np.cumsum(counts, dtype=np.int64))).astype(np.int64),
        np.concatenate(boxes).astype(np.float32), np.concatenate(classes), np.concatenate(difficult), problems,
    )  # fmt: skip
