"""Results of a network: predictions of a batch in input pixels, and detections on one image in image pixels."""

from __future__ import annotations

import html
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lookonce.choices import choose
from lookonce.errors import UserError, printable
from lookonce.files import replacing
from lookonce.model.boxes import Array, library

if TYPE_CHECKING:
    from PIL.Image import Image

SHOWN = 3
"""Scores of a class in the one line that shows detections."""
COLUMNS = ("label", "class_id", "score", "xmin", "ymin", "xmax", "ymax")
"""Of a table of detections: label is the class name, class_id its index from 0, corners are image pixels."""
ROWS = 20
"""Detections in the table that a notebook shows."""


@dataclass(frozen=True)
class Predictions(Generic[Array]):
    """Every prediction of a batch: head by head, and within a head anchor by anchor, then row by row; N in all."""

    boxes: Array  # [B, N, 4] xyxy, input pixels, not clipped
    objectness: Array  # [B, N] in (0, 1)
    class_prob: Array  # [B, N, C], sums to 1 under softmax; with a tree each is that of the class's path

    def numpy(self) -> Predictions[NDArray[Any]]:
        """Return the same as numpy arrays, float32."""
        return Predictions(*(
            value if isinstance(value, np.ndarray) else value.detach().float().cpu().numpy()
            for value in (self.boxes, self.objectness, self.class_prob)
        ))  # fmt: skip

    def followed_by_mirrored(self, mirrored: Predictions[Array], width: int) -> Predictions[Array]:
        """Return these predictions and then those of the mirrored inputs, mirrored back; 2 N in all.

        width: of the input, pixels.
        """
        lib, boxes = library(self.boxes), mirrored.boxes
        back = lib.stack((width - boxes[..., 2], boxes[..., 1], width - boxes[..., 0], boxes[..., 3]), -1)
        return Predictions(lib.concat((self.boxes, back), 1), lib.concat((self.objectness, mirrored.objectness), 1),
                           lib.concat((self.class_prob, mirrored.class_prob), 1))  # fmt: skip


class Detection(NamedTuple):
    """One object found on an image."""

    name: str
    """Class name."""
    score: float
    box: tuple[float, float, float, float]
    """(xmin, ymin, xmax, ymax), image pixels."""
    label: int
    """Index into Detections.class_names."""
    backed_off_from: str | None = None
    """With a tree of classes: the child class that was likeliest but not likely enough; None: there is none."""
    id: int | None = None
    """Number of the tracked object, from 1; None: it is not tracked, or has no number yet."""


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """Detections on ONE image; N detections, C classes.

    They are sorted by descending score; equal scores keep their order. A box appears once for each of its classes.
    Raises UserError if lengths differ, a number is not finite or a label has no class.

    >>> found = Detector("runs/cells-1")("image.jpg")                # doctest: +SKIP
    >>> found[0].name, found[0].score, found[0].box                  # doctest: +SKIP
    >>> found[:5].draw().show()                                      # doctest: +SKIP
    """

    boxes: NDArray[np.float32]  # [N, 4] xyxy, image pixels
    scores: NDArray[np.float32]  # [N] descending
    labels: NDArray[np.int64]  # [N] index into class_names
    class_names: tuple[str, ...]  # [C]
    file: str | None = None
    """The image file, if known: draw, save and crops use it unless another image is given."""
    backed_off: NDArray[np.int64] | None = None
    """[N] With a tree: index of the child class that was likeliest but not likely enough, or -1; None: no tree."""
    ids: NDArray[np.int64] | None = None
    """[N] Numbers of the tracked objects, from 1; -1: no number yet; None: not tracked."""

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, np.float32).reshape(-1, 4)  # [N, 4]
        scores = np.asarray(self.scores, np.float32)
        labels = np.asarray(self.labels, np.int64)
        if scores.shape != (len(boxes),) or labels.shape != (len(boxes),):
            raise UserError(
                f"detections: {len(boxes)} boxes, scores {scores.shape}, labels {labels.shape}; expected one score "
                "and one label for each box"
            )
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise UserError("detections: a box or score is not a finite number; drop it first")
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.class_names):
            raise UserError(
                f"detections: labels {labels.min()} to {labels.max()}; expected 0 to {len(self.class_names) - 1}, "
                f"as there are {len(self.class_names)} class names"
            )
        order = np.argsort(-scores, kind="stable")
        for name, value in (("boxes", boxes[order]), ("scores", scores[order]), ("labels", labels[order])):
            object.__setattr__(self, name, value)
        for name in ("backed_off", "ids"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, np.asarray(value, np.int64)[order])
        object.__setattr__(self, "class_names", tuple(self.class_names))

    def __len__(self) -> int:
        return len(self.scores)

    @overload
    def __getitem__(self, index: int) -> Detection: ...

    @overload
    def __getitem__(self, index: slice | ArrayLike) -> Detections: ...

    def __getitem__(self, index: int | slice | ArrayLike) -> Detection | Detections:
        """Return one Detection, or the Detections of a slice, a mask [N] or indices."""
        if isinstance(index, int | np.integer):
            if not -len(self) <= index < len(self):
                raise IndexError(f"detection {index} of {len(self)}")
            label, (x1, y1, x2, y2) = int(self.labels[index]), self.boxes[index].tolist()
            child = -1 if self.backed_off is None else int(self.backed_off[index])
            return Detection(self.class_names[label], float(self.scores[index]), (x1, y1, x2, y2), label,
                             self.class_names[child] if child >= 0 else None, self._id(int(index)))  # fmt: skip
        rows = index if isinstance(index, slice) else np.asarray(index, None if np.size(index) else np.int64)
        return replace(self, boxes=self.boxes[rows], scores=self.scores[rows], labels=self.labels[rows],
                       backed_off=None if self.backed_off is None else self.backed_off[rows],
                       ids=None if self.ids is None else self.ids[rows])  # fmt: skip

    def _id(self, index: int) -> int | None:
        return None if self.ids is None or self.ids[index] < 0 else int(self.ids[index])

    def __iter__(self) -> Iterator[Detection]:
        return (self[n] for n in range(len(self)))

    def __repr__(self) -> str:
        """Return one line: the number of each class and its best scores."""
        parts = []
        for label in dict.fromkeys(self.labels.tolist()):  # the class of the best detection first
            scores = self.scores[self.labels == label]
            best = " ".join(f"{score:.2f}".removeprefix("0") for score in scores[:SHOWN])
            more = " ..." if len(scores) > SHOWN else ""
            parts.append(f"{len(scores)}x {printable(self.class_names[label])!r} {best}{more}")
        return f"Detections({len(self)}{': ' if parts else ''}{', '.join(parts)})"

    def _repr_html_(self) -> str:
        """Return a table for notebooks: the best ROWS detections."""
        cells = [
            (html.escape(printable(one.name)), f"{one.score:.3f}", *(f"{side:.1f}" for side in one.box))
            for one in self[:ROWS]
        ]
        rows = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in cells)
        head = "".join(f"<th>{name}</th>" for name in ("class", "score", "xmin", "ymin", "xmax", "ymax"))
        rest = f"<p>and {len(self) - ROWS} more</p>" if len(self) > ROWS else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{rest}"

    @property
    def names(self) -> tuple[str, ...]:
        """[N] class name of each detection."""
        return tuple(self.class_names[label] for label in self.labels)

    def above(self, thresholds: ArrayLike) -> Detections:
        """Return those with a score above the threshold of their class. thresholds: one number, or one a class [C]."""
        limits = np.asarray(thresholds, np.float64)
        if limits.shape not in ((), (len(self.class_names),)):
            raise UserError(
                f"thresholds: {limits.shape} numbers; expected one, or one for each of the "
                f"{len(self.class_names)} classes"
            )
        keep = self.scores > np.broadcast_to(limits, len(self.class_names))[self.labels]
        return self if keep.all() else self[keep]

    def of_classes(self, class_names: tuple[str, ...]) -> Detections:
        """Return those of the named classes. Their labels are indices into class_names.

        Raises UserError for a name that is not one of the detector's classes.
        """
        if class_names == self.class_names:
            return self
        index = _class_indices(self.class_names, class_names)
        labels = index[self.labels]
        keep = labels >= 0
        return replace(
            self, boxes=self.boxes[keep], scores=self.scores[keep], labels=labels[keep], class_names=class_names,
            backed_off=None if self.backed_off is None else index[self.backed_off[keep]],
            ids=None if self.ids is None else self.ids[keep],
        )  # fmt: skip

    def only(self, labels: str | Sequence[str]) -> Detections:
        """Return those of the named classes; class_names stay. Raises UserError for an unknown class."""
        names = [labels] if isinstance(labels, str) else labels
        wanted = [self.class_names.index(choose(name, self.class_names, "labels")) for name in names]
        return self[np.isin(self.labels, wanted)]

    def draw(self, image: Any = None, *, hide_labels: bool = False, hide_scores: bool = False,
             line_width: int | None = None) -> Image:  # fmt: skip
        """Return the image with these detections drawn on it, as a PIL image.

        Args:
            image: a path, a PIL image, or an array [h, w, 3] RGB; None: the file that the detector was given.
            hide_labels: draw boxes alone.
            hide_scores: leave the scores out of the labels.
            line_width: pixels; None: 1/200 of the image's shorter side.
        Raises:
            UserError: no image is known, or it cannot be read.
        """
        from lookonce import draw  # in a higher package: this method is a short form of that function

        return draw(self._image(image), self, hide_labels=hide_labels, hide_scores=hide_scores, line_width=line_width)

    def save(self, path: Path | str, image: Any = None, *, hide_labels: bool = False, hide_scores: bool = False,
             line_width: int | None = None) -> Path:  # fmt: skip
        """Write the image with these detections drawn on it, in the format of the path's ending. Options as in draw.

        An existing file is replaced. Raises UserError for an ending that names no format, and for the image itself.
        """
        place = Path(path).expanduser()
        drawn = self.draw(image, hide_labels=hide_labels, hide_scores=hide_scores, line_width=line_width)
        with replacing(place) as beside:
            try:
                drawn.save(beside, quality=90)
            except ValueError:
                raise UserError(f"{place}: names no image format; give an ending such as .jpg or .png") from None
        return place

    def crops(self, image: Any = None) -> list[Image]:
        """Return the part of the image in each box, as PIL images; at least one pixel. image: as in draw."""
        whole = self[:0].draw(self._image(image))  # the image itself, read in the same way
        sides = (*whole.size, *whole.size)
        found = []
        for box in self.boxes:
            left, top, right, bottom = (min(max(round(float(v)), 0), side) for v, side in zip(box, sides, strict=True))
            left, top = min(left, whole.width - 1), min(top, whole.height - 1)
            found.append(whole.crop((left, top, max(right, left + 1), max(bottom, top + 1))))
        return found

    def _image(self, image: Any) -> Any:
        if image is None and self.file is None:
            raise UserError("these detections know no image file; give the image, as in draw(image)")
        return self.file if image is None else image

    def to_json(self) -> list[dict[str, Any]]:
        """Return {"label", "class_id", "score", "box"} of each detection.

        label is the class name, class_id its index from 0; score to 6 digits, box xyxy to 1/100 pixel. With a tree of
        classes also "backed_off_from": the likeliest child class if it was not likely enough, else None. Of tracked
        objects also "id", None for a detection without a number yet.
        """
        return [
            {
                "label": one.name,
                "class_id": one.label,
                "score": round(one.score, 6),
                "box": [round(v, 2) for v in one.box],
                **({} if self.backed_off is None else {"backed_off_from": one.backed_off_from}),
                **({} if self.ids is None else {"id": one.id}),
            }
            for one in self
        ]

    def to_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """Return the entries of a COCO results file: image_id, category_id (from 1), bbox [x, y, width, height], score.

        Boxes are in image pixels, to 1/100 pixel.
        """
        return [
            {
                "image_id": image_id,
                "category_id": one.label + 1,
                "bbox": [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
                "score": round(one.score, 6),
            }
            for one in self
            for x1, y1, x2, y2 in [one.box]
        ]

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame with the COLUMNS, one row a detection.

        Raises UserError if pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError:
            raise UserError("to_pandas needs pandas, which is not installed; run: pip install pandas") from None
        rows = [(one.name, one.label, one.score, *one.box) for one in self]
        table = pandas.DataFrame(rows, columns=list(COLUMNS))
        return table if self.ids is None else table.assign(id=self.ids)

    def to_supervision(self) -> Any:
        """Return a `supervision.Detections` with class names in data["class_name"].

        Raises UserError if that package is not installed.
        """
        try:
            supervision = importlib.import_module("supervision")
        except ImportError:
            raise UserError(
                "to_supervision needs the package supervision, which is not installed; run: pip install supervision"
            ) from None
        data = {"class_name": np.array(self.names, dtype=np.str_)}
        return supervision.Detections(xyxy=self.boxes, confidence=self.scores, class_id=self.labels, data=data,
                                      tracker_id=self.ids)  # fmt: skip


@lru_cache(maxsize=8)  # the same for every image of a data set, and thousands of names take milliseconds
def _class_indices(own: tuple[str, ...], wanted: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the index in `wanted` of each own class, else -1; and -1 at the end, for the index -1.

    Raises UserError for a wanted name that is not one of its own.
    """
    known = set(own)
    if unknown := [name for name in wanted if name not in known]:
        raise UserError(f"class {unknown[0]!r}; expected one of the detector's: {', '.join(own)}")
    place = {name: n for n, name in enumerate(wanted)}
    return np.array([*(place.get(name, -1) for name in own), -1], np.int64)
