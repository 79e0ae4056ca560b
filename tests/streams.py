"""Synthetic streams of detections with known truth, and the scores HOTA and IDF1, written from their papers.

A stream is a list of frames: (time, true boxes [N, 4], true numbers [N], Detections).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from lookonce.model.detections import Detections

WIDTH, HEIGHT = 640, 480
NAMES = ("car", "person")


class StreamFrame(NamedTuple):
    time: float
    boxes: np.ndarray
    ids: np.ndarray
    found: Detections


def inner(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Area that boxes [N, 4] and [M, 4] share: [N, M]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    return np.clip(np.minimum(a[:, None, 2:], b[None, :, 2:]) - low, 0, None).prod(-1)


def area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).prod(-1)


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    both = inner(a, b)
    return both / (area(a)[:, None] + area(b)[None] - both)


def hidden(boxes: np.ndarray) -> np.ndarray:
    """The largest part of each box that one object before it covers; later objects are nearer."""
    return np.triu(inner(boxes, boxes) / area(boxes)[:, None], 1).max(1)


def stream(seed: int, objects: int = 8, seconds: float = 10, rate: float = 30, every: int = 1) -> list[StreamFrame]:
    """Objects that cross the image at constant speed and turn at its edges. What is mostly hidden is not found, what is
    partly hidden has a low score; a detection is now and then missed, and some are wrong. every: keep each n-th frame.
    """
    rng = np.random.default_rng(seed)
    size = rng.uniform(40, 90, (objects, 2))
    place, speed = rng.uniform(0, 1, (objects, 2)) * ((WIDTH, HEIGHT) - size), rng.uniform(-120, 120, (objects, 2))
    labels, frames = rng.integers(0, 2, objects), []
    for n in range(int(seconds * rate)):
        boxes = np.concatenate((place, place + size), 1)
        covered = hidden(boxes)
        scores = np.clip(0.9 - 0.9 * covered + rng.normal(0, 0.05, objects), 0.02, 0.98)
        found = (covered < 0.75) & (rng.uniform(size=objects) > 0.03)
        noise = rng.normal(0, 1, (objects, 4))
        wrong = rng.uniform(size=1) < 0.1
        at = rng.uniform(0, (WIDTH - 60, HEIGHT - 60), (1, 2))
        extra = np.concatenate((at, at + 50), 1)[wrong]
        detections = Detections(
            np.concatenate(((boxes + noise)[found], extra)), np.concatenate((scores[found], [0.55] * len(extra))),
            np.concatenate((labels[found], [0] * len(extra))), NAMES,
        )  # fmt: skip
        frames.append(StreamFrame(n / rate, boxes, np.arange(objects), detections))
        place = place + speed / rate
        beyond = (place < 0) | (place > (WIDTH, HEIGHT) - size)
        speed = np.where(beyond, -speed, speed)
        place = np.clip(place, 0, (WIDTH, HEIGHT) - size)
    return frames[::every]


Frames = list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]
"""True numbers and boxes, tracked numbers and boxes, for each frame."""


def hota(frames: Frames) -> float:
    """Luiten et al., HOTA (2021): mean over alpha of sqrt(DetA * AssA), in percent. Numbers count from 0."""
    true = max((int(t.max()) for t, *_ in frames if len(t)), default=-1) + 1
    own = max((int(f.max()) for _, _, f, _ in frames if len(f)), default=-1) + 1
    potential, of_true, of_own = np.zeros((true, own)), np.zeros(true), np.zeros(own)
    overlaps = [overlap(boxes, found) for _, boxes, _, found in frames]
    for (t, _, f, _), s in zip(frames, overlaps, strict=True):
        total = s.sum(0, keepdims=True) + s.sum(1, keepdims=True) - s
        potential[np.ix_(t, f)] += np.divide(s, total, out=np.zeros_like(s), where=total > 0)
        of_true[t] += 1
        of_own[f] += 1
    alignment = potential / (of_true[:, None] + of_own[None] - potential)
    scores = []
    for alpha in np.arange(0.05, 0.99, 0.05):
        matches, hits = np.zeros((true, own)), 0
        for (t, _, f, _), s in zip(frames, overlaps, strict=True):
            rows, columns = linear_sum_assignment(alignment[np.ix_(t, f)] * s, maximize=True)
            good = s[rows, columns] >= alpha - 1e-12
            matches[t[rows[good]], f[columns[good]]] += 1
            hits += good.sum()
        misses, wrong = of_true.sum() - hits, of_own.sum() - hits
        association = (matches * matches / np.maximum(1, of_true[:, None] + of_own[None] - matches)).sum() / max(
            1, hits
        )
        scores.append(np.sqrt(hits / (hits + misses + wrong) * association))
    return 100 * float(np.mean(scores))


def idf1(frames: Frames) -> float:
    """Ristani et al. (2016): F1 of the best one-to-one map of true and tracked numbers, at IoU .5, in percent."""
    true = max(int(t.max()) for t, *_ in frames if len(t)) + 1
    own = max(int(f.max()) for _, _, f, _ in frames if len(f)) + 1
    together, of_true, of_own = np.zeros((true, own)), 0, 0
    for t, boxes, f, found in frames:
        together[np.ix_(t, f)] += overlap(boxes, found) >= 0.5
        of_true, of_own = of_true + len(t), of_own + len(f)
    rows, columns = linear_sum_assignment(together, maximize=True)
    return 100 * 2 * together[rows, columns].sum() / (of_true + of_own)


def switches(frames: Frames) -> int:
    """How often the tracked number of a true object changes."""
    last: dict[int, int] = {}
    changed = 0
    for t, boxes, f, found in frames:
        s = overlap(boxes, found)
        for n, m in zip(*linear_sum_assignment(s, maximize=True), strict=True):
            if s[n, m] >= 0.5:
                changed += last.get(int(t[n]), int(f[m])) != int(f[m])
                last[int(t[n])] = int(f[m])
    return changed
