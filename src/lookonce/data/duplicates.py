"""Duplicate images: every image is opened once; which are unreadable, how large are they, and which look the same?"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookonce.data.images import PixelRange, is_flat, load_for
from lookonce.data.tars import read_bytes
from lookonce.errors import ImageError

SIDE = 32
"""Side of the small grey images that are compared, px."""
HASH_SIDE = 8
"""Rows of the perceptual hash, and bits of each row."""
NEAR_BITS = 8
"""Perceptual hashes that differ in at most so many of their 64 bits may belong to one image."""
ALIKE = 0.96
"""Least correlation of two small grey images that are nearly identical: compressed again, cropped a little, the next of
a video. Of the 364 images of BCCD two (of one field) have .976 and all others less than .66."""
FLAT = 2.0
"""A grey image whose brightness has a smaller standard deviation (of 255) has nothing to compare."""
CHUNK = 64


@dataclass(frozen=True)
class Looks:
    """What M images look like."""

    sizes: NDArray[np.int32]  # [M, 2] (width, height) as seen; 0: cannot be decoded
    content: NDArray[np.void]  # [M] hash of the file's bytes
    hashes: NDArray[np.uint64]  # [M] perceptual hash
    small: NDArray[np.uint8]  # [M, SIDE * SIDE] grey
    flat: NDArray[np.bool_]  # [M] whether nothing can be seen on it
    errors: dict[int, str] = field(default_factory=dict)
    """Image -> why it cannot be decoded."""


def look(paths: Sequence[Path], workers: int = 4, pixel_range: PixelRange | None = None) -> Looks:
    """Decode every image once, at the least resolution that shows damage and duplicates, in threads.

    Args:
        paths: images.
        workers: threads.
        pixel_range: for images of more than 8 bits, as in images.load_rgb.
    """
    count = len(paths)
    found = Looks(np.zeros((count, 2), np.int32), np.zeros(count, "V16"), np.zeros(count, np.uint64),
                  np.zeros((count, SIDE * SIDE), np.uint8), np.zeros(count, bool))  # fmt: skip
    with ThreadPoolExecutor(workers) as pool:
        for index, one in enumerate(pool.map(partial(_look, pixel_range=pixel_range), paths)):
            if isinstance(one, str):
                found.errors[index] = one
            else:
                found.sizes[index], found.content[index], small = one[0], np.void(one[1]), one[2]
                found.small[index] = small.ravel()
                found.hashes[index] = difference_hash(small)
                found.flat[index] = one[3]
    return found


def _look(path: Path, pixel_range: PixelRange | None) -> tuple[tuple[int, int], bytes, NDArray[np.uint8], bool] | str:
    """Return (size, hash of the content, small grey image, whether it is flat), or what is wrong."""
    try:
        image = load_for(path, (SIDE, SIDE), pixel_range)
        digest = hashlib.blake2b(read_bytes(path), digest_size=16).digest()
    except ImageError as error:
        return error.found
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    grey = Image.fromarray(image.pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return image.size, digest, np.asarray(grey), is_flat(image.pixels)


def difference_hash(small: NDArray[np.uint8]) -> np.uint64:
    """Return 64 bits of a grey image [SIDE, SIDE]: whether it becomes brighter to the right, in 8 rows of 8 places.

    Source: N. Krawetz, "Kind of Like That" (2013), dHash.
    """
    rows = small.reshape(HASH_SIDE, SIDE // HASH_SIDE, SIDE).mean(1)  # [8, SIDE]
    edges = np.linspace(0, SIDE, HASH_SIDE + 2).astype(int)
    places = np.add.reduceat(rows, edges[:-1], 1) / np.diff(edges)  # [8, 9]
    bits = (places[:, 1:] > places[:, :-1]).ravel()  # [64]
    return np.uint64(int.from_bytes(np.packbits(bits).tobytes(), "big"))


def same_content(looks: Looks) -> NDArray[np.int64]:
    """Return for each image [M] the first one with the same bytes; -1: there is no earlier one."""
    first: dict[bytes, int] = {}
    twin = np.full(len(looks.sizes), -1, np.int64)
    for n in range(len(twin)):
        if n not in looks.errors:
            earlier = first.setdefault(looks.content[n].tobytes(), n)
            twin[n] = earlier if earlier != n else -1
    return twin


def nearly_same(looks: Looks) -> NDArray[np.int64]:
    """Return for each image [M] an earlier one, of other bytes, that looks nearly the same; -1: there is none.

    An image that has one is not compared again, so that a video gives one group and not all pairs.
    """
    mean, spread = looks.small.mean(1, dtype=np.float32), looks.small.std(1, dtype=np.float32)  # [M]
    content = same_content(looks)
    free = (content < 0) & (spread > FLAT)
    free[list(looks.errors)] = False
    twin = np.full(len(mean), -1, np.int64)
    for start in range(0, len(mean), CHUNK):
        rows = start + np.flatnonzero(free[start : start + CHUNK] & (twin[start : start + CHUNK] < 0))
        near = np.bitwise_count(looks.hashes[rows, None] ^ looks.hashes[None, start:]) <= NEAR_BITS  # [rows, rest]
        for row, others in zip(rows.tolist(), near & (free & (twin < 0))[None, start:], strict=True):
            if twin[row] < 0:
                later = start + np.flatnonzero(others)
                later = later[(later > row) & (twin[later] < 0)]
                both = (looks.small[later].astype(np.float32) * looks.small[row]).mean(1)
                alike = both - mean[later] * mean[row] >= ALIKE * spread[later] * spread[row]
                twin[later[alike]] = row
    return twin
