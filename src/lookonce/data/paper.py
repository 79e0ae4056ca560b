"""Paper and ink for the demo's pages: varied backgrounds, and ink that can be read on them.

Colours are RGB floats 0..1; every function draws from the generator that it is given.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]
CONTRAST = 0.4
"""Least difference of brightness between ink and the mean of the paper below it, of 0..1."""
BRIGHTNESS = np.array((0.299, 0.587, 0.114), np.float32)
"""Weights of R, G, B. Source: ITU-R BT.601."""


def draw_paper(side: int, rng: np.random.Generator) -> Floats:
    """An empty page [S, S, 3]: light, tinted, with one of six patterns and a little noise."""
    tint = rng.uniform(0.72, 0.97) + rng.uniform(-0.08, 0.08, 3)
    pattern = (_plain, _gradient, _fibres, _ruled, _grid, _blotches)[rng.integers(6)]
    page = tint + pattern(side, rng)  # [S, S, 3]
    noise = rng.standard_normal((side, side, 1), np.float32) * rng.uniform(0, 0.035)
    return np.clip(page + noise, 0, 1).astype(np.float32)


def draw_ink(page: Floats, ink: Floats, rng: np.random.Generator) -> Floats:
    """A piece of a page [h, w, 3] with ink [h, w] laid on it, in a colour that stands out from what is below."""
    ground = float(page.mean((0, 1)) @ BRIGHTNESS)
    colours = rng.uniform(0, 1, (24, 3)) * rng.uniform(0, 0.6, (24, 1))  # inks are dark, of any hue
    bright = colours @ BRIGHTNESS
    enough = np.flatnonzero(np.abs(bright - ground) >= CONTRAST)
    colour = colours[enough[0]] if len(enough) else np.full(3, float(ground < 0.5))
    cover = ink[..., None] * np.float32(rng.uniform(0.9, 1))
    return page * (1 - cover) + colour.astype(np.float32) * cover  # [h, w, 3]


def _plain(side: int, rng: np.random.Generator) -> Floats:
    """Nothing: [1, 1, 1]."""
    return np.zeros((1, 1, 1), np.float32)


def _gradient(side: int, rng: np.random.Generator) -> Floats:
    """Light that falls off in one direction: [S, S, 3]."""
    angle = rng.uniform(0, 2 * np.pi)
    line = np.linspace(-1, 1, side, dtype=np.float32)
    ramp = np.cos(angle) * line[None] + np.sin(angle) * line[:, None]  # [S, S]
    page: Floats = ramp[..., None] * rng.uniform(0.02, 0.14, 3).astype(np.float32)
    return page


def _fibres(side: int, rng: np.random.Generator) -> Floats:
    """Rough paper: fine grain, a little longer in one direction: [S, S, 1]."""
    short, long = int(rng.integers(1, 3)), int(rng.integers(3, 9))
    shape = (side // short, side // long) if rng.random() < 0.5 else (side // long, side // short)
    return _enlarged(rng.normal(0, rng.uniform(0.02, 0.06), shape), side)[..., None]


def _ruled(side: int, rng: np.random.Generator) -> Floats:
    """Writing paper: level lines: [S, 1, 3]."""
    return _lines(side, side * rng.uniform(0.06, 0.15), rng)[:, None]


def _grid(side: int, rng: np.random.Generator) -> Floats:
    """Squared paper: [S, S, 3]."""
    gap = side * rng.uniform(0.05, 0.12)
    lines = _lines(side, gap, rng)  # [S, 3]
    return np.where(np.abs(lines[None]) > np.abs(lines[:, None]), lines[None], lines[:, None])


def _blotches(side: int, rng: np.random.Generator) -> Floats:
    """Stains of colour: [S, S, 3]."""
    cells = int(rng.integers(3, 8))
    amount = rng.uniform(0.03, 0.1)
    return np.stack([_enlarged(rng.normal(0, amount, (cells, cells)), side) for _ in range(3)], -1)


def _lines(side: int, gap: float, rng: np.random.Generator) -> Floats:
    """Coloured lines, a pixel or two thick, gap px apart, along one axis: [S, 3]."""
    at = (np.arange(side) + rng.uniform(0, gap)) % gap  # [S]
    colour = rng.uniform(-0.28, -0.06, 3) * rng.choice((1, -1))
    lines: Floats = ((at < rng.uniform(1, 2.2))[:, None] * colour).astype(np.float32)
    return lines


def _enlarged(small: NDArray[np.float64], side: int) -> Floats:
    """A coarse field [h, w] as a smooth one [S, S]."""
    field = Image.fromarray(small.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(field, np.float32)
