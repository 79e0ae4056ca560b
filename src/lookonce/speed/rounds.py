"""Rounds: everything is run once a round, in turn, so that what else a machine does meets all alike.

A ratio of two is the median over rounds of their ratio within a round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Generic, NamedTuple, TypeVar

import numpy as np

T = TypeVar("T")

REST = 0.05
"""Seconds of rest before each run: threads of the runtime before spin for some 20 ms in wait of more work."""


@dataclass(frozen=True)
class Rounds(Generic[T]):
    """What the whole rounds gave."""

    found: list[list[T]]
    """[rounds][runs]"""
    stopped: bool
    """Whether Ctrl-C came before the last round; the round that it broke is left out."""

    def of(self, place: int) -> list[T]:
        """What one of the runs gave, round by round."""
        return [each[place] for each in self.found]


class Spent(NamedTuple):
    """What a run took."""

    seconds: float
    """Of the clock."""
    processor: float
    """Seconds of the processor, over all threads."""


def interleave(
    runs: Sequence[Callable[[], T]], rounds: int, warm_up: int, each: Callable[[int], None] = lambda _: None
) -> Rounds[T]:
    """Run everything once a round, in turn.

    Args:
        runs: what is run; what it returns is kept.
        rounds: how many count.
        warm_up: rounds before these, which do not.
        each: called with the place of each run before it.
    """
    kept: list[list[T]] = []
    try:
        for number in range(warm_up + rounds):
            found = []
            for place, run in enumerate(runs):
                each(place)
                found.append(run())
            if number >= warm_up:
                kept.append(found)
    except KeyboardInterrupt:
        return Rounds(kept, stopped=True)
    return Rounds(kept, stopped=False)


def timed(
    run: Callable[[], object],
    rest: float = REST,
    clock: Callable[[], float] = time.perf_counter,
    processor: Callable[[], float] = time.process_time,
) -> Callable[[], Spent]:
    """The same run, which returns what it took."""

    def measured() -> Spent:
        time.sleep(rest)
        used, began = processor(), clock()
        run()
        return Spent(clock() - began, processor() - used)

    return measured


def p95(values: Sequence[float]) -> float:
    """The value that nineteen in twenty do not exceed, between two by linear interpolation."""
    return float(np.quantile(values, 0.95))


def ratio(values: Sequence[float], of: Sequence[float]) -> float:
    """The median over rounds of `values` divided by `of` within the round."""
    return median(a / b for a, b in zip(values, of, strict=True))
