"""Results of a network: predictions of a batch in input pixels, and detections on one image in image pixels."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lookonce.errors import UserError
from lookonce.model.boxes import Array


@dataclass(frozen=True)
class Predictions(Generic[Array]):
    """Every prediction of a batch: head by head, and within a head anchor by anchor, then row by row; N in all."""

    boxes: Array  # [B, N, 4] xyxy, input pixels, not clipped
    objectness: Array  # [B, N] in (0, 1)
    class_prob: Array  # [B, N, C], sums to 1 under softmax and with a tree

    def numpy(self) -> Predictions[NDArray[Any]]:
        """Return the same as numpy arrays, float32."""
        return Predictions(*(
            value if isinstance(value, np.ndarray) else value.detach().float().cpu().numpy()
            for value in (self.boxes, self.objectness, self.class_prob)
        ))  # fmt: skip


@dataclass(frozen=True, eq=False)
class Detections:
    """Detections on ONE image; N detections, C classes.

    They are sorted by descending score; equal scores keep their order. A box appears once for each of its classes.
    Raises UserError if lengths differ, a number is not finite or a label has no class.
    """

    boxes: NDArray[np.float32]  # [N, 4] xyxy, image pixels
    scores: NDArray[np.float32]  # [N] descending
    labels: NDArray[np.int64]  # [N] index into class_names
    class_names: tuple[str, ...]  # [C]

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
        object.__setattr__(self, "class_names", tuple(self.class_names))

    def __len__(self) -> int:
        return len(self.scores)

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
        return Detections(self.boxes[keep], self.scores[keep], self.labels[keep], self.class_names)

    def of_classes(self, class_names: tuple[str, ...]) -> Detections:
        """Return those of the named classes. Their labels are indices into class_names.

        Raises UserError for a name that is not one of the detector's classes.
        """
        unknown = [name for name in class_names if name not in self.class_names]
        if unknown:
            raise UserError(f"class {unknown[0]!r}; expected one of the detector's: {', '.join(self.class_names)}")
        index = np.array([class_names.index(n) if n in class_names else -1 for n in self.class_names], np.int64)
        labels = index[self.labels]
        keep = labels >= 0
        return Detections(self.boxes[keep], self.scores[keep], labels[keep], class_names)

    def to_json(self) -> list[dict[str, Any]]:
        """Return {"label", "score", "box"} of each detection; score to 6 digits, box xyxy to 1/100 pixel."""
        return [
            {"label": name, "score": round(float(score), 6), "box": [round(float(v), 2) for v in box]}
            for name, score, box in zip(self.names, self.scores, self.boxes, strict=True)
        ]

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
        return supervision.Detections(xyxy=self.boxes, confidence=self.scores, class_id=self.labels, data=data)
