"""Synthetic streams of detections with known truth."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lookonce.evaluation.tracking import TrackingScores, score
from lookonce.model.detections import Detections

WIDTH, HEIGHT = 640, 480
NAMES = ("car", "person")


class StreamFrame(NamedTuple):
    time: float
    truth: Detections
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
        truth = Detections(boxes, np.ones(objects), labels, NAMES, ids=np.arange(objects))
        frames.append(StreamFrame(n / rate, truth, detections))
        place = place + speed / rate
        beyond = (place < 0) | (place > (WIDTH, HEIGHT) - size)
        speed = np.where(beyond, -speed, speed)
        place = np.clip(place, 0, (WIDTH, HEIGHT) - size)
    return frames[::every]


def scored(frames: list[StreamFrame], tracked: list[Detections]) -> TrackingScores:
    """Score tracks whatever their classes are: the package trackers does not know classes."""
    classless = [[replace(one, labels=0 * one.labels) for one in part] for part in ((f.truth for f in frames), tracked)]
    return score(*classless)
