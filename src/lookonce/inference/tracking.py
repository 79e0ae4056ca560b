"""ByteTrack: numbers that objects keep from frame to frame.

A Kalman filter predicts where each object is at the time of the next frame. Confident detections are assigned to the
predictions by IoU, then the weaker ones to the objects that are left: an object that is partly hidden keeps its number.
The filter works in seconds, not in frames, so that frame rates may vary and frames may be missing. Boxes are widened by
the uncertainty of the prediction before they are compared: at low frame rates objects move by more than their size, and
the IoU of their boxes alone would be 0.
Letters: N objects, M detections. State of an object: (centre x, centre y, width, height), each with its velocity.
Sources: Zhang et al., ByteTrack (2022), section 3 and its code. Widened boxes: Yang et al., C-BIoU (2023), where they
are of fixed size.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lookonce.errors import ConfigError, UserError
from lookonce.model.boxes import cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from lookonce.model.detections import Detections

Floats = NDArray[np.float64]
POSITION_NOISE = 0.03
"""Growth of the variance of a position or side, in squared sides of the object a second."""
VELOCITY_NOISE = 10.0
"""Growth of the variance of a velocity, in squared sides a second, a second. The paper's is 1; objects that turn are
followed better with more at 4 frames a second, and as well at 30."""
MEASURED_NOISE = 1 / 20
"""Standard deviation of a detected position or side, in sides of the object."""
FIRST_VELOCITY = 2.0
"""Standard deviation of the velocity of a new object, in sides a second."""
LOWEST_IOU = 0.1
"""Of a prediction and its detection, both widened."""
SAME_PLACE = 0.7
"""IoU with another box above which a detection begins no object: it is a second class of the same object."""
WIDEST = 1.0
"""Most that a box is widened by on each side, in sides of the object."""
WEAK_SCORE = 0.1
"""Lowest score of a weak detection where the detector's own threshold is at least twice this; else half of that."""
KEPT_SECONDS, KEPT_FRAMES = 1.0, 3
"""An object that is not seen for longer than both is forgotten. Source: track_buffer, 30 frames at 30 a second."""
HISTORY = 300
"""Sightings that an object remembers."""


class Sighting(NamedTuple):
    """Where an object was seen."""

    time: float  # seconds
    box: tuple[float, float, float, float]  # xyxy, image pixels
    score: float


@dataclass
class Track:
    """One object."""

    label: int
    """Index of its class."""
    id: int = -1
    """From 1; -1 until it is seen in two frames running."""
    missed: int = 0
    """Frames since it was seen."""
    history: deque[Sighting] = field(default_factory=lambda: deque(maxlen=HISTORY))
    """Its last HISTORY detections, oldest first."""


class Motion:
    """A Kalman filter for N boxes. The four numbers of a box move independently, each with its velocity."""

    def __init__(self) -> None:
        self.mean: Floats = np.empty((0, 4, 2))  # number and velocity, pixels and pixels a second
        self.covariance: Floats = np.empty((0, 4, 2, 2))

    @property
    def boxes(self) -> Floats:
        """[N, 4] xyxy."""
        return np.asarray(cxcywh_to_xyxy(self.mean[..., 0]))

    def overlap(self, boxes: Floats) -> Floats:
        """Return [N, M] the IoU of each object and each box [M, 4], both widened.

        The margin on each side is the standard deviation of the object's position, in x and in y.
        """
        deviation = np.sqrt(self.covariance[:, :2, 0, 0])  # [N, 2]
        margin = np.minimum(deviation, WIDEST * _sides(self.mean)[:, :2])
        wider = np.concatenate((-margin, margin), 1)  # [N, 4]
        return np.asarray(iou((self.boxes + wider)[:, None], boxes + wider[:, None]))

    def add(self, boxes: Floats) -> None:
        """Add objects that stand still as far as is known. boxes: [M, 4] xyxy."""
        mean = np.stack((xyxy_to_cxcywh(boxes), np.zeros_like(boxes)), -1)  # [M, 4, 2]
        sides = _sides(mean)[..., None]  # [M, 4, 1]
        deviation = sides * (2 * MEASURED_NOISE, FIRST_VELOCITY)  # [M, 4, 2]
        self.mean = np.concatenate((self.mean, mean))
        self.covariance = np.concatenate((self.covariance, deviation[..., None] ** 2 * np.eye(2)))

    def predict(self, seconds: float) -> None:
        """Move on in time. Two steps give the same as one of both times, for objects of constant size."""
        t = seconds
        step = np.array(((1, t), (0, 1)))
        noise = POSITION_NOISE * np.array(((t, 0), (0, 0)))
        noise = noise + VELOCITY_NOISE * np.array(((t**3 / 3, t**2 / 2), (t**2 / 2, t)))
        growth = _sides(self.mean)[..., None, None] ** 2 * noise  # [N, 4, 2, 2]
        self.mean = self.mean @ step.T
        self.covariance = step @ self.covariance @ step.T + growth

    def correct(self, objects: NDArray[np.intp], boxes: Floats) -> None:
        """Take detections into account. objects: [M] which objects they are; boxes: [M, 4] xyxy."""
        mean, covariance = self.mean[objects], self.covariance[objects]
        expected = covariance[..., 0, 0] + (MEASURED_NOISE * _sides(mean)) ** 2  # [M, 4] variance of a measurement
        gain = covariance[..., 0] / expected[..., None]  # [M, 4, 2]
        surprise = np.asarray(xyxy_to_cxcywh(boxes)) - mean[..., 0]  # [M, 4]
        self.mean[objects] = mean + gain * surprise[..., None]
        self.covariance[objects] = covariance - gain[..., :, None] * covariance[..., None, 0, :]

    def keep(self, objects: NDArray[np.bool_]) -> None:
        """Forget all but those of a mask [N]."""
        self.mean, self.covariance = self.mean[objects], self.covariance[objects]


def _sides(mean: Floats) -> Floats:
    """Return [N, 4] the side of each object along the axis of each number: (w, h, w, h), at least one pixel."""
    return np.maximum(np.tile(mean[:, 2:, 0], 2), 1.0)


def _is_repeated(new: NDArray[np.intp], boxes: Floats, object_of: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return for some of the boxes [M] whether nearly the same is there: that of an object, or of a better detection.

    new: which of the boxes, by descending score as all are.
    """
    better = (object_of >= 0) | (np.arange(len(boxes)) < new[:, None])  # [new, M]
    return np.asarray((better & (iou(boxes[new, None], boxes) > SAME_PLACE)).any(1))


def assign(overlap: Floats, lowest: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows and columns of the pairs with the highest sum of overlaps [N, M], each at least `lowest`.

    Raises UserError if SciPy is not installed.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise UserError("tracking needs SciPy, which is not installed; run: pip install 'lookonce[video]'") from None
    allowed = np.where(overlap >= lowest, overlap, 0.0)
    rows, columns = linear_sum_assignment(allowed, maximize=True)
    kept = allowed[rows, columns] > 0
    return rows[kept], columns[kept]


class Tracker:
    """Numbers objects. An object keeps its class: detections of another class are other objects, unless their boxes are
    nearly the same: a detector that hesitates between two classes gives both.

    Args:
        thresholds: score above which a detection is confident: one number, or one for each class [C]. Only confident
            detections begin an object.
    """

    def __init__(self, thresholds: ArrayLike) -> None:
        self.thresholds = np.asarray(thresholds, np.float64)
        self.weakest = float(np.minimum(WEAK_SCORE, self.thresholds / 2).min())
        """Lowest score of a detection that is of use: let the detector give all above it."""
        self.tracks: list[Track] = []
        """Those that are remembered, seen or not."""
        self.motion = Motion()
        self.time: float | None = None
        self.numbers = 0
        """Numbers given so far."""

    def update(self, found: Detections, time: float) -> Detections:
        """Return the detections of the next frame with the numbers of their objects (`ids`).

        Weak detections that belong to no object are dropped. The id of an object's first detection is -1: it gets its
        number when it is seen again in the next frame.

        Args:
            found: all detections above `weakest`.
            time:  of the frame, in seconds.
        Raises:
            ConfigError: the time is before that of the last frame.
        """
        seconds = 0.0 if self.time is None else time - self.time
        if not seconds >= 0:
            raise ConfigError(f"time: {time} s after {self.time} s; expected frames in the order of their times")
        self.time = time
        self._forget()
        self._predict(seconds)
        boxes = found.boxes.astype(np.float64)  # [M, 4]
        limits = np.broadcast_to(self.thresholds, len(found.class_names))[found.labels]
        confident = found.scores > limits
        object_of = self._associate(boxes, found.labels, confident)  # [M]
        old = (object_of >= 0).nonzero()[0]
        self.motion.correct(object_of[old], boxes[old])
        new = (confident & (object_of < 0)).nonzero()[0]
        new = new[~_is_repeated(new, boxes, object_of)]
        object_of[new] = len(self.tracks) + np.arange(len(new))
        self.motion.add(boxes[new])
        self.tracks += [Track(int(found.labels[n])) for n in new]
        ids = self._number(object_of, found, time)
        self._forget()
        kept = confident | (ids > 0)
        return replace(found[kept], ids=ids[kept])

    def _predict(self, seconds: float) -> None:
        """Move on in time; an object that was not seen in the last frame keeps its size."""
        hidden = np.array([track.missed > 0 for track in self.tracks], np.bool_)
        self.motion.mean[hidden, 2:, 1] = 0
        self.motion.predict(seconds)

    def _associate(self, boxes: Floats, labels: NDArray[np.int64], confident: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Return [M] the object of each detection, or -1: confident ones first, then weak ones for the objects left."""
        object_of = np.full(len(boxes), -1)
        classes = np.array([track.label for track in self.tracks], np.int64)
        free = np.ones(len(self.tracks), np.bool_)
        overlap = self.motion.overlap(boxes) * (classes[:, None] == labels)  # [N, M]
        for detections in (confident, ~confident):
            rows, columns = free.nonzero()[0], detections.nonzero()[0]
            n, m = assign(overlap[np.ix_(rows, columns)], LOWEST_IOU)
            object_of[columns[m]] = rows[n]
            free[rows[n]] = False
        return object_of

    def _number(self, object_of: NDArray[np.intp], found: Detections, time: float) -> NDArray[np.int64]:
        """Add the detections to their objects; return [M] the number of each detection's object, or -1."""
        detection_of = {int(n): m for m, n in enumerate(object_of) if n >= 0}
        ids = np.full(len(object_of), -1, np.int64)
        for n, track in enumerate(self.tracks):
            m = detection_of.get(n)
            if m is None:
                track.missed += 1
                continue
            track.missed = 0
            x1, y1, x2, y2 = found.boxes[m].tolist()
            track.history.append(Sighting(time, (x1, y1, x2, y2), float(found.scores[m])))
            if track.id < 0 and len(track.history) > 1:
                self.numbers += 1
                track.id = self.numbers
            ids[m] = track.id
        return ids

    def _forget(self) -> None:
        """Forget objects that are not seen for long, and those that were seen once."""
        kept = np.array([self._is_remembered(track) for track in self.tracks], np.bool_)
        if not kept.all():
            self.motion.keep(kept)
            self.tracks = [track for track, stays in zip(self.tracks, kept, strict=True) if stays]

    def _is_remembered(self, track: Track) -> bool:
        assert self.time is not None
        if track.id < 0:
            return track.missed == 0
        return track.missed <= KEPT_FRAMES or self.time - track.history[-1].time <= KEPT_SECONDS
