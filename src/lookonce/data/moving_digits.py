"""The demo's video: handwritten digits that move over a page, with known truth, made offline.

Digits enter at one side and leave at the other, turn round, come back, meet and cover each other. Frames come at uneven
times, as those of a phone do. Boxes are xyxy image pixels around the ink, cut off at the frame; colours are RGB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lookonce.data.digits import INK, choose_colour, cover, divide, draw_background, load_scans, shape_digit

Floats = NDArray[np.float32]
SIDE = 256
"""Of the square frames, pixels."""
LENGTHS = (0.5, 0.6)
"""Shortest and longest digit relative to the frame, blank margin of the scan included."""
DIGITS, INTERVAL = 16, 1.5
"""Number of digits, and seconds from one to the next."""
MEETING = 0.9
"""Seconds by which each fourth digit is early: it comes from the other side than the one before it and meets it."""
SECONDS = (1.6, 2.6)
"""Shortest and longest time that a digit takes across the frame."""
GAPS = (1 / 25, 1 / 10)
"""Shortest and longest time from frame to frame, seconds."""
VISIBLE = 0.5
"""Part of its ink that must be in the image and not covered, for a digit to belong to the truth."""
LINE = SIDE / 2
"""x of the vertical line at which digits are counted."""


@dataclass(frozen=True)
class MovingDigit:
    """One digit and its way."""

    label: int  # 0 to 9
    ink: Floats  # [h, w] amount of ink, 0..1
    colour: Floats  # [3]
    times: NDArray[np.float64]  # [P] when it is at each point of its way, seconds
    points: NDArray[np.float64]  # [P, 2] centre (x, y), from outside the frame to outside

    def corner(self, time: float) -> tuple[int, int] | None:
        """Return (x, y) of its upper left pixel; None: it is not on its way."""
        if not self.times[0] <= time <= self.times[-1]:
            return None
        x, y = (np.interp(time, self.times, self.points[:, k]) for k in (0, 1))
        return round(x - self.ink.shape[1] / 2), round(y - self.ink.shape[0] / 2)


@dataclass(frozen=True)
class ClipFrame:
    """One frame and the digits that are seen in it."""

    time: float  # seconds
    pixels: NDArray[np.uint8]  # [SIDE, SIDE, 3]
    boxes: Floats  # [N, 4] xyxy px
    labels: NDArray[np.int64]  # [N] 0 to 9
    ids: NDArray[np.int64]  # [N] from 0


@dataclass(frozen=True)
class Clip:
    """The video before it is drawn."""

    page: Floats  # [SIDE, SIDE, 3] 0..1
    digits: tuple[MovingDigit, ...]
    """Later ones cover earlier ones."""
    times: tuple[float, ...]
    """Of the frames, seconds, in whole tenths of a millisecond."""

    def frames(self) -> Iterator[ClipFrame]:
        """Draw the frames in order."""
        return (self._draw(time) for time in self.times)

    def crossings(self) -> dict[str, int]:
        """Return how often digits go over LINE: {"left": n, "right": n}."""
        counts = {"left": 0, "right": 0}
        for digit in self.digits:
            for before, after in pairwise(digit.points[:, 0] - LINE):
                if before * after < 0:
                    counts["right" if after > 0 else "left"] += 1
        return counts

    def _draw(self, time: float) -> ClipFrame:
        image = self.page.copy()
        owner = np.full((SIDE, SIDE), -1)  # the digit whose ink each pixel shows
        at: dict[int, tuple[int, int]] = {}
        for number, digit in enumerate(self.digits):
            if (corner := digit.corner(time)) is None:
                continue
            at[number] = corner
            frame, own = _inside(corner, digit.ink.shape)
            image[frame] = cover(image[frame], digit.ink[own], digit.colour)
            owner[frame][digit.ink[own] >= INK] = number
        boxes, ids = [], []
        for number, (x, y) in at.items():
            ink = self.digits[number].ink
            if (owner == number).sum() >= VISIBLE * (ink >= INK).sum():
                boxes.append(np.clip((x, y, x + ink.shape[1], y + ink.shape[0]), 0, SIDE))
                ids.append(number)
        labels = [self.digits[number].label for number in ids]
        pixels = (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)
        return ClipFrame(time, pixels, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64),
                         np.array(ids, np.int64))  # fmt: skip


def make_clip(seed: int) -> Clip:
    """Return a video of digits that no training page of this seed has. Raises UserError without scikit-learn."""
    scans, labels = load_scans()
    rng = np.random.default_rng((seed, 3))
    page = draw_background(SIDE, rng)
    from_right = rng.uniform(size=DIGITS) < 0.5
    starts = INTERVAL * np.arange(DIGITS)
    meeting = np.arange(2, DIGITS, 4)
    from_right[meeting] = ~from_right[meeting - 1]
    starts[meeting] -= MEETING
    digits = []
    for number, scan in enumerate(rng.choice(divide(labels, seed)[2], DIGITS, replace=False)):
        ink = shape_digit(scans[scan], SIDE * rng.uniform(*LENGTHS), rng)
        colour = choose_colour(page, rng)
        seconds, points = _way(max(ink.shape), number % 4 == 3, rng)
        if from_right[number]:
            points[:, 0] = SIDE - points[:, 0]
        digits.append(MovingDigit(int(labels[scan]), ink, colour, starts[number] + seconds, points))
    end = max(digit.times[-1] for digit in digits)
    times = np.cumsum(rng.uniform(*GAPS, int(end / GAPS[0]))).round(4)
    return Clip(page, tuple(digits), (0.0, *times[times <= end].tolist()))


def _way(side: int, returns: bool, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return seconds [P] and points [P, 2] of a digit from the left: across the frame, or there and back.

    side: longer side of the digit, px. It turns before the line or behind it, by a quarter of the frame.
    """
    outside = side / 2
    turn = LINE + rng.choice((-1, 1)) * SIDE / 4
    x = np.array([-outside, turn, -outside] if returns else [-outside, SIDE + outside])
    y = rng.uniform(0.22, 0.78, len(x)) * SIDE
    speed = (SIDE + side) / rng.uniform(*SECONDS)  # px a second
    return np.concatenate(((0,), np.cumsum(np.abs(np.diff(x)) / speed))), np.stack((x, y), 1)


def _inside(corner: tuple[int, int], shape: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the pixels of the frame that an array [h, w] at a corner (x, y) covers, and which of its own they are."""
    (x, y), (h, w) = corner, shape
    rows, columns = (slice(max(at, 0), max(min(at + n, SIDE), 0)) for at, n in ((y, h), (x, w)))
    own = (slice(r.start - at, max(r.stop - at, r.start - at)) for r, at in ((rows, y), (columns, x)))
    return (rows, columns), tuple(own)  # type: ignore[return-value]
