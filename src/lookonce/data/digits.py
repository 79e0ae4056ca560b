"""The demo's data set: pages of real handwritten digits with boxes, made offline.

The scans are scikit-learn's bundled copy of the UCI set "Optical Recognition of Handwritten Digits"
(Alpaydin & Kaynak, CC BY 4.0): 1,797 digits of 43 writers, 8x8 cells, each 0..16 = ink in a 4x4 block.
Pages of train, val and test share no scan. Boxes are xyxy image pixels, tight around the ink; colours are RGB 0..1.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookonce.data.formats.voc import write_annotation, write_split
from lookonce.errors import UserError
from lookonce.files import rename, temporary, write_text

Floats = NDArray[np.float32]
SPLITS = ("train", "val", "test")
RATIOS = (0.7, 0.1, 0.2)
"""Parts of the scans of each class for train, val and test."""
COUNTS = (3, 7)
"""Least and most digits of a page; those without room are dropped."""
SMALLEST, LARGEST = 3 / 8, 3 / 4
"""Longer side of a digit relative to the page's side, before rotation and shear."""
OVERLAP = 0.04
"""A digit's box may overlap others with at most this part of its own area."""
THRESHOLD, STEEPEST = 0.5, 4.0
"""Amount of ink in a cell that counts as the edge of a stroke; steepest rise of ink there."""
INK = 0.25
"""A pixel with at least this amount of ink belongs to the digit's box."""
CONTRAST = 0.4
"""Least difference of brightness between ink and the mean of the background below it, of 0..1."""
BRIGHTNESS = np.array((0.299, 0.587, 0.114), np.float32)
"""Weights of R, G, B. Source: ITU-R BT.601."""
README = """Pages of handwritten digits, made by lookonce (lookonce.data.digits).
pages {pages[0]} train, {pages[1]} val, {pages[2]} test; side {side} px; seed {seed}
Scans: "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, UCI Machine Learning Repository,
CC BY 4.0, as bundled with scikit-learn. No scan is on pages of two splits.
"""


@dataclass(frozen=True)
class Page:
    """One page and its digits."""

    pixels: NDArray[np.uint8]  # [S, S, 3]
    ink: Floats  # [S, S] amount of ink, 0..1
    boxes: NDArray[np.float32]  # [N, 4] xyxy px
    scans: NDArray[np.int64]  # [N] which scan each digit is


def write_digits(
    folder: Path,
    *,
    pages: tuple[int, int, int] = (1000, 100, 200),
    side: int = 128,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the pages as a Pascal VOC data set; the same arguments give the same bytes.

    Args:
        folder: written whole or not at all. If it already holds this very set, nothing is done.
        pages: number of pages for train, val and test.
        side: side of the square pages, px; digits are about 1/8 to 1/2 of it.
        seed: seed of the split of the scans and of every page.
        progress: called after each page with (pages done, pages in all).
    Returns:
        folder, with Annotations, JPEGImages, ImageSets/Main and a README.txt that names the source of the scans.
    Raises:
        UserError: scikit-learn is missing, the folder holds something else, or a number is out of range.
    """
    folder = Path(folder).expanduser()
    if len(pages) != len(SPLITS) or min(pages) < 1 or side < 64:
        raise UserError(
            f"digits: pages {pages}, side {side}; expected three counts of at least 1 and a side of at least 64 px"
        )
    readme = README.format(pages=pages, side=side, seed=seed)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if (folder / "README.txt").is_file() and (folder / "README.txt").read_text(encoding="utf-8") == readme:
            return folder
        raise UserError(
            f"{folder}: holds other files than these digits; expected an empty or a new folder: "
            "name another one, or remove it first"
        )
    beside = temporary(folder)
    try:
        made = beside / folder.name  # annotations name the folder that they are in
        _write(made, pages, side, seed, progress)
        write_text(made / "README.txt", readme)
        if folder.exists():
            folder.rmdir()
        rename(made, folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror or error}; nothing was changed") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _write(
    folder: Path, pages: tuple[int, int, int], side: int, seed: int, progress: Callable[[int, int], None] | None
) -> None:
    """Write every page of every split, and the lists."""
    scans, labels = load_scans()
    (folder / "JPEGImages").mkdir(parents=True)
    stems: dict[str, list[str]] = {}
    for number, (split, pool) in enumerate(zip(SPLITS, divide(labels, seed), strict=True)):
        stems[split] = [f"{split}_{i:05d}" for i in range(pages[number])]
        for i, stem in enumerate(stems[split]):
            page = draw_page(scans, pool, side, np.random.default_rng((seed, number, i)))
            image = f"{stem}.jpg"
            Image.fromarray(page.pixels).save(folder / "JPEGImages" / image, quality=92, subsampling=0)
            names = [str(label) for label in labels[page.scans]]
            write_annotation(folder / "Annotations" / f"{stem}.xml", image, (side, side), page.boxes, names)
            if progress is not None:
                progress(sum(pages[:number]) + i + 1, sum(pages))
    for name, of in (*stems.items(), ("trainval", stems["train"] + stems["val"])):
        write_split(folder / "ImageSets" / "Main" / f"{name}.txt", of)


def load_scans() -> tuple[Floats, NDArray[np.int64]]:
    """Return (scans [1797, 8, 8] amount of ink 0..1, labels [1797] 0..9). Raises UserError without scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError(
            'digits: the scans come with scikit-learn, which is not installed; do: pip install "lookonce[demo]"'
        ) from None
    bundle = load_digits()
    return (bundle.images / 16).astype(np.float32), bundle.target.astype(np.int64)


def divide(labels: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], ...]:
    """Split the scans with these classes [N]: indices for train, val and test, with the same parts of every class."""
    rng = np.random.default_rng(seed)
    parts: tuple[list[NDArray[np.int64]], ...] = ([], [], [])
    for label in np.unique(labels):
        mixed = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.round(np.cumsum(RATIOS)[:-1] * len(mixed)).astype(int)
        for part, piece in zip(parts, np.split(mixed, cuts), strict=True):
            part.append(piece)
    return tuple(np.concatenate(part) for part in parts)


def draw_page(scans: Floats, pool: NDArray[np.int64], side: int, rng: np.random.Generator) -> Page:
    """Draw a page with digits of the pool, the largest first, wherever there is room.

    Args:
        scans: [M, 8, 8] amount of ink, 0..1.
        pool: indices of the scans to use, each at most once.
        side: S, px.
    """
    page = draw_background(side, rng)  # [S, S, 3] 0..1
    ink = np.zeros((side, side), np.float32)
    boxes: list[tuple[int, int, int, int]] = []
    used: list[int] = []
    count = int(rng.integers(COUNTS[0], COUNTS[1], endpoint=True))
    lengths = side * np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST), count))
    for scan, length in zip(rng.choice(pool, count, replace=False), np.sort(lengths)[::-1], strict=True):
        shape = shape_digit(scans[scan], float(length), rng)  # [h, w]
        corner = _room(boxes, shape.shape, side, rng)
        while corner is None and length > side * SMALLEST:
            length = max(length * 0.75, side * SMALLEST)
            shape = shape_digit(scans[scan], float(length), rng)
            corner = _room(boxes, shape.shape, side, rng)
        if corner is None:
            continue
        (y, x), (h, w) = corner, shape.shape
        inside = np.s_[y : y + h, x : x + w]
        page[inside] = draw_ink(page[inside], shape, rng)
        ink[inside] = np.maximum(ink[inside], shape)
        boxes.append((x, y, x + w, y + h))
        used.append(int(scan))
    pixels = (page.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    return Page(pixels, ink, np.array(boxes, np.float32), np.array(used, np.int64))


def shape_digit(scan: Floats, length: float, rng: np.random.Generator) -> Floats:
    """Enlarge a scan [8, 8] smoothly, rotate and shear it a little: return its ink [h, w], 0..1, cropped to its box.

    Args:
        length: side that the scan's 8 cells take, px, before turning.
    """
    scale = length / 8
    turn, shear, stretch = rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1), np.exp(rng.uniform(-0.09, 0.09))
    cos, sin = np.cos(turn), np.sin(turn)
    turn_back, shear_back = np.array(((cos, sin), (-sin, cos))), np.array(((1, -shear), (0, 1)))
    back = np.diag((1 / stretch, stretch)) @ shear_back @ turn_back / scale  # output px -> cells of the scan
    side = int(np.ceil(length * 1.5))
    padded = np.zeros((12, 12), np.float32)
    padded[2:10, 2:10] = scan  # the ink must fade out inside
    (a, b), (c, d) = back
    moved = 6 - back.sum(1) * side / 2  # centre to centre
    affine = (a, b, moved[0], c, d, moved[1])
    enlarged = Image.fromarray(padded).transform((side, side), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    # A half-inked cell is the edge of a stroke; the ramp gives the edge back, yet keeps narrow gaps lighter than ink.
    ink: Floats = np.clip((np.asarray(enlarged, np.float32) - THRESHOLD) * min(scale * 1.3, STEEPEST) + 0.5, 0, 1)
    rows, cols = (np.flatnonzero((ink >= INK).any(axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]


def _room(
    boxes: list[tuple[int, int, int, int]], shape: tuple[int, ...], side: int, rng: np.random.Generator
) -> tuple[int, int] | None:
    """Return a random (y, x) where a box of this shape (h, w) hardly overlaps the boxes; None if there is no room."""
    h, w = shape
    if h > side or w > side:
        return None
    x1, y1, x2, y2 = np.array(boxes, np.float32).reshape(-1, 4).T[:, :, None]  # [N, 1] each
    x, y = np.arange(side - w + 1, dtype=np.float32), np.arange(side - h + 1, dtype=np.float32)
    wide = (np.minimum(x2, x + w) - np.maximum(x1, x)).clip(min=0)  # [N, S-w+1]
    high = (np.minimum(y2, y + h) - np.maximum(y1, y)).clip(min=0)  # [N, S-h+1]
    places = np.flatnonzero(high.T @ wide <= OVERLAP * h * w)  # of [S-h+1, S-w+1]
    if not len(places):
        return None
    row, column = divmod(int(places[rng.integers(len(places))]), len(x))
    return row, column


def draw_background(side: int, rng: np.random.Generator) -> Floats:
    """Draw an empty page [S, S, 3]: light, tinted, with one of six patterns and a little noise."""
    tint = rng.uniform(0.72, 0.97) + rng.uniform(-0.08, 0.08, 3)
    pattern = (_plain, _gradient, _fibres, _ruled, _grid, _blotches)[rng.integers(6)]
    page = tint + pattern(side, rng)  # [S, S, 3]
    noise = rng.standard_normal((side, side, 1), np.float32) * rng.uniform(0, 0.035)
    return np.clip(page + noise, 0, 1).astype(np.float32)


def draw_ink(page: Floats, ink: Floats, rng: np.random.Generator) -> Floats:
    """Draw ink [h, w] on a piece of a page [h, w, 3], in a colour that contrasts with it; return the new piece."""
    colour = choose_colour(page, rng)
    return cover(page, ink * np.float32(rng.uniform(0.9, 1)), colour)


def choose_colour(page: Floats, rng: np.random.Generator) -> Floats:
    """Return an ink [3] that contrasts with a piece of a page [h, w, 3]."""
    ground = float(page.mean((0, 1)) @ BRIGHTNESS)
    colours = rng.uniform(0, 1, (24, 3)) * rng.uniform(0, 0.6, (24, 1))  # inks are dark, of any hue
    bright = colours @ BRIGHTNESS
    enough = np.flatnonzero(np.abs(bright - ground) >= CONTRAST)
    colour = colours[enough[0]] if len(enough) else np.full(3, float(ground < 0.5))
    return colour.astype(np.float32)


def cover(page: Floats, ink: Floats, colour: Floats) -> Floats:
    """Return a piece of a page [h, w, 3] with ink [h, w] of a colour [3] on it."""
    return page * (1 - ink[..., None]) + colour * ink[..., None]  # [h, w, 3]


def _plain(side: int, rng: np.random.Generator) -> Floats:
    """No pattern: [1, 1, 1]."""
    return np.zeros((1, 1, 1), np.float32)


def _gradient(side: int, rng: np.random.Generator) -> Floats:
    """A brightness gradient in one direction: [S, S, 3]."""
    angle = rng.uniform(0, 2 * np.pi)
    line = np.linspace(-1, 1, side, dtype=np.float32)
    ramp = np.cos(angle) * line[None] + np.sin(angle) * line[:, None]  # [S, S]
    page: Floats = ramp[..., None] * rng.uniform(0.02, 0.14, 3).astype(np.float32)
    return page


def _fibres(side: int, rng: np.random.Generator) -> Floats:
    """Fine grain, a little longer in one direction: [S, S, 1]."""
    short, long = int(rng.integers(1, 3)), int(rng.integers(3, 9))
    shape = (side // short, side // long) if rng.random() < 0.5 else (side // long, side // short)
    return _enlarged(rng.normal(0, rng.uniform(0.02, 0.06), shape), side)[..., None]


def _ruled(side: int, rng: np.random.Generator) -> Floats:
    """Horizontal lines: [S, 1, 3]."""
    return _lines(side, side * rng.uniform(0.06, 0.15), rng)[:, None]


def _grid(side: int, rng: np.random.Generator) -> Floats:
    """A grid of lines: [S, S, 3]."""
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
    """Enlarge a coarse field [h, w] smoothly to [S, S]."""
    field = Image.fromarray(small.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(field, np.float32)
