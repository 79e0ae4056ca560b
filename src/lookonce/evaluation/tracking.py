"""Scores of tracks against the truth: HOTA with its two parts, IDF1, MOTA and the number of id switches.

Letters: F frames, N true objects and M tracks in all, n and m of them in one frame. A track only ever matches an object
of its class: IoU counts as 0 between classes.
Sources: HOTA: Luiten et al., HOTA (2021), equations 3 to 9, at the 19 IoU thresholds .05 to .95. IDF1: Ristani et al.,
Performance Measures (2016). MOTA and switches: Bernardin & Stiefelhagen, CLEAR MOT (2008), at IoU .5.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lookonce.errors import UserError
from lookonce.inference.tracking import assign
from lookonce.model.boxes import iou
from lookonce.model.detections import Detections

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
ALPHAS = np.arange(1, 20) / 20
"""IoU thresholds of HOTA."""
MATCHED = 0.5
"""IoU from which a box is that of an object, for IDF1, MOTA and switches."""
ROUNDING = 1e-10
"""Of an IoU that is compared with a threshold."""


@dataclass(frozen=True)
class TrackingScores:
    """How well tracks follow the objects. Scores in percent, as they are published."""

    hota: float
    """Geometric mean of the next two, averaged over the IoU thresholds."""
    detection: float
    """DetA: objects found, over objects and false detections."""
    association: float
    """AssA: how much of an object and its track, over all frames, is one and the same."""
    idf1: float
    """F1 of the best one-to-one map of objects to tracks."""
    mota: float
    """100 less misses, false detections and switches; below 0 if those are more than the objects."""
    switches: int
    """How often an object's track changes."""

    def to_json(self) -> dict[str, float | int]:
        """Return the scores, rounded."""
        return {"hota": round(self.hota, 3), "detection": round(self.detection, 3),
                "association": round(self.association, 3), "idf1": round(self.idf1, 3), "mota": round(self.mota, 3),
                "switches": self.switches}  # fmt: skip

    def __str__(self) -> str:
        return (f"HOTA {self.hota:.1f} (DetA {self.detection:.1f}, AssA {self.association:.1f}), IDF1 {self.idf1:.1f}, "
                f"MOTA {self.mota:.1f}, id switches {self.switches}")  # fmt: skip


class _Frame(NamedTuple):
    """The objects and the tracks of a frame."""

    objects: Indices  # [n] which of N
    tracks: Indices  # [m] which of M
    overlap: Floats  # [n, m] IoU; 0 between classes


def score(truth: Iterable[Detections], tracked: Iterable[Detections]) -> TrackingScores:
    """Score the tracks of one video.

    Args:
        truth:   the true objects of each frame, with `ids`; their scores do not matter.
        tracked: what a tracker found in each frame, with `ids`, such as Tracker.update returns. Detections without a
            number (-1) are left out. Class names the same as in truth, in any order.
    Raises:
        UserError: unequal numbers of frames, no true objects, a number twice in a frame, boxes without numbers, or an
            unknown class.

    >>> truth = [Detections([[0, 0, 10, 10]], [1], [0], ("cat",), ids=[7])] * 2
    >>> tracked = [Detections([[0, 0, 10, 10]], [0.9], [0], ("cat",), ids=[1])] * 2
    >>> score(truth, tracked).hota
    100.0
    """
    frames, objects, tracks = _paired(list(truth), list(tracked))
    sizes = [(len(frame.objects), len(frame.tracks)) for frame in frames]
    total, given = (sum(counts) for counts in zip(*sizes, strict=True))
    detection, association = _hota(frames, objects, tracks)
    together = np.zeros((objects, tracks))  # frames in which a track is at an object
    for frame in frames:
        together[np.ix_(frame.objects, frame.tracks)] += frame.overlap >= MATCHED - ROUNDING
    rows, columns = assign(together, 1)
    identical = together[rows, columns].sum()
    hits, switches = _hits_and_switches(frames)
    return TrackingScores(
        hota=100 * float(np.sqrt(detection * association).mean()),
        detection=100 * float(detection.mean()),
        association=100 * float(association.mean()),
        idf1=100 * float(2 * identical / (total + given)),
        mota=100 * (hits - (given - hits) - switches) / total,
        switches=switches,
    )


def _paired(truth: list[Detections], tracked: list[Detections]) -> tuple[list[_Frame], int, int]:
    """Return the frames with objects and tracks numbered from 0, and how many there are of both."""
    if len(truth) != len(tracked):
        raise UserError(f"tracks: {len(tracked)} frames; expected {len(truth)}, one for each frame of the truth")
    objects: dict[int, int] = {}
    tracks: dict[int, int] = {}
    frames = []
    for number, (true, found) in enumerate(zip(truth, tracked, strict=True)):
        if unknown := set(found.names) - set(true.class_names):
            raise UserError(f"tracks: frame {number}: class {min(unknown)!r}; expected one of {list(true.class_names)}")
        true, found = _numbered(true, f"truth: frame {number}"), _numbered(found, f"tracks: frame {number}")
        same = np.array(true.names, object)[:, None] == np.array(found.names, object)  # [n, m]
        overlap = iou(true.boxes[:, None].astype(np.float64), found.boxes[None].astype(np.float64))
        rows, columns = (
            np.array([known.setdefault(one, len(known)) for one in part.ids.tolist()], np.int64)  # type: ignore[union-attr]
            for known, part in ((objects, true), (tracks, found))
        )
        frames.append(_Frame(rows, columns, overlap * same))
    if not objects:
        raise UserError("truth: no objects in any frame; expected Detections with boxes and ids")
    return frames, len(objects), len(tracks)


def _numbered(found: Detections, place: str) -> Detections:
    """Return the detections that have a number."""
    if found.ids is None:
        if len(found):
            raise UserError(f"{place}: {len(found)} boxes without ids; expected Detections(..., ids=...)")
        return replace(found, ids=[])  # type: ignore[arg-type]
    known = found[found.ids >= 0]
    if len(set(known.ids.tolist())) < len(known):  # type: ignore[union-attr]
        raise UserError(f"{place}: an id is there twice; expected each id once in a frame")
    return known


def _hota(frames: Sequence[_Frame], objects: int, tracks: int) -> tuple[Floats, Floats]:
    """Return DetA and AssA at each of ALPHAS, 0 to 1.

    Objects and tracks of a frame are matched by IoU times how much the two are together over the whole video.
    """
    jaccard = np.zeros((objects, tracks))
    of_object, of_track = np.zeros(objects), np.zeros(tracks)  # frames with each
    for frame in frames:
        overlap = frame.overlap
        either = overlap.sum(0, keepdims=True) + overlap.sum(1, keepdims=True) - overlap
        jaccard[np.ix_(frame.objects, frame.tracks)] += np.divide(overlap, either, out=0 * overlap, where=either > 0)
        of_object[frame.objects] += 1
        of_track[frame.tracks] += 1
    frames_of_both = of_object[:, None] + of_track
    alignment = jaccard / (frames_of_both - jaccard)
    pairs, overlaps = [], []  # of the matches of all frames
    for frame in frames:
        rows, columns = assign(alignment[np.ix_(frame.objects, frame.tracks)] * frame.overlap, 0.0)
        pairs.append(frame.objects[rows] * tracks + frame.tracks[columns])
        overlaps.append(frame.overlap[rows, columns])
    pair, which = np.unique(np.concatenate(pairs), return_inverse=True)  # [P], [matches]
    good = np.concatenate(overlaps) >= ALPHAS[:, None] - ROUNDING  # [19, matches]
    together = np.stack([np.bincount(which, each, len(pair)) for each in good])  # [19, P] frames with a match of both
    hits = together.sum(1)
    detection = hits / (of_object.sum() + of_track.sum() - hits)
    jaccards = together / (frames_of_both.ravel()[pair] - together)
    return detection, (together * jaccards).sum(1) / np.maximum(hits, 1)


def _hits_and_switches(frames: Sequence[_Frame]) -> tuple[int, int]:
    """Return how many objects are found, over all frames, and how often an object's track changes.

    An object stays with its track of the frame before as long as their IoU allows; the others are matched by IoU.
    """
    hits = switches = 0
    track_of: dict[int, int] = {}  # the last one, however long ago
    before: dict[int, int] = {}  # of the frame before
    for frame in frames:
        stays = np.array([before.get(n, -1) for n in frame.objects.tolist()], np.int64)[:, None] == frame.tracks
        allowed = np.where(frame.overlap >= MATCHED - ROUNDING, frame.overlap + 1000 * stays, 0)
        rows, columns = assign(allowed, MATCHED / 2)
        before = dict(zip(frame.objects[rows].tolist(), frame.tracks[columns].tolist(), strict=True))
        hits += len(before)
        switches += sum(track_of.get(n, m) != m for n, m in before.items())
        track_of |= before
    return hits, switches
