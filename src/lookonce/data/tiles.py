"""Large images in tiles: the size of a tile, the parts of an image, and a data set whose images are these parts.

Tiles have one size, lie evenly and cover the image; neighbours overlap. The whole image is a part as well, for objects
larger than a tile. All numbers are image pixels.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lookonce.data.dataset import Dataset
from lookonce.data.images import PixelRange, load_rgb
from lookonce.errors import ConfigError, ImageError
from lookonce.model.boxes import area
from lookonce.model.resize import ResizeMode

TileSize: TypeAlias = tuple[int, int]
"""(width, height)."""
AUTO: Literal["auto"] = "auto"
OVERLAP = 0.2
"""Part of a tile that its neighbour shows too, unless --overlap says otherwise."""
SMALLEST, LARGEST = 32, 100_000
"""Shortest and longest side of a tile."""
SMALL_OBJECTS = 5
"""Percentile of the sides of the training objects that auto is made for: all but 5 % of them are larger."""
ENOUGH = 32.0
"""Side that these objects get at the network's input: below it an object is small, as COCO has it."""
MOST_ENLARGED = 2.0
"""Largest factor by which auto enlarges a tile: more shows no more detail."""
MOST_TILES = 10_000
"""Most tiles of an image."""
MIN_PART = 0.25
"""Of an object's box, a tile of the training shows more than this part, or the box is dropped. As augment.keep."""
MOST_KEPT = 1 << 28
"""Bytes of decoded images that a reader of tiles keeps."""
EXPECTED = f"auto, or WIDTHxHEIGHT in pixels such as 640x480, sides of {SMALLEST} or more"


@dataclass(frozen=True)
class Tile:
    """A part of an image, or the whole of it."""

    x: int
    y: int
    width: int
    height: int

    def crop(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return this part of an image [h, w, ...], as a view."""
        return image[self.y : self.y + self.height, self.x : self.x + self.width]


@dataclass(frozen=True)
class Tiling:
    """How images are cut into tiles.

    Raises ConfigError: a tile below 32 pixels, or an overlap outside its range.
    """

    size: TileSize
    """(width, height) of a tile; an image that is not larger is one tile, the whole."""
    overlap: float = OVERLAP
    """Smallest part of a tile that its neighbour shows too, 0 to below 1."""

    def __post_init__(self) -> None:
        if not SMALLEST <= min(self.size) <= max(self.size) <= LARGEST:
            raise ConfigError(f"tile: {self.size[0]}x{self.size[1]}; expected {EXPECTED}")
        check_overlap(self.overlap)

    def __str__(self) -> str:
        return f"tiles of {self.size[0]} x {self.size[1]} px, overlap {self.overlap:g}"

    def to_json(self) -> dict[str, Any]:
        """Return what files say about it."""
        return {"tile": self.size, "overlap": self.overlap}

    def of(self, size: tuple[int, int]) -> list[Tile]:
        """Return the tiles of an image of (width, height) row by row, and after them the whole image.

        Raises ConfigError for more than MOST_TILES.
        """
        wide, high = min(self.size[0], size[0]), min(self.size[1], size[1])
        whole = Tile(0, 0, *size)
        if (wide, high) == size:
            return [whole]
        columns, rows = _starts(size[0], wide, self.overlap), _starts(size[1], high, self.overlap)
        count = len(columns) * len(rows)
        if count > MOST_TILES:
            raise ConfigError(f"{self}: {count:,} tiles for an image of {size[0]} x {size[1]} px; expected at most "
                              f"{MOST_TILES:,}; use a larger --tile or a smaller --overlap")  # fmt: skip
        return [*(Tile(x, y, wide, high) for y in rows for x in columns), whole]


def _starts(side: int, tile: int, overlap: float) -> list[int]:
    """Return where tiles begin on one axis: as few as cover it with the overlap, at even distances."""
    shared = math.ceil(overlap * tile - 1e-9)
    count = 1 + math.ceil((side - tile) / max(1, tile - shared))
    return [round(n * (side - tile) / max(1, count - 1)) for n in range(count)]


def check_overlap(overlap: object) -> None:
    """Raise ConfigError for anything but a number from 0 to below 1."""
    if not isinstance(overlap, Real) or isinstance(overlap, bool) or not 0 <= float(overlap) < 1:
        raise ConfigError(f"overlap: {overlap!r}; expected a part of a tile, 0 to below 1")


def read_tile(given: object) -> TileSize | Literal["auto"]:
    """Return a size given as "auto", "640x480" or (640, 480). Raises ConfigError for anything else."""
    if isinstance(given, str):
        if given.strip().lower() == AUTO:
            return AUTO
        found = re.fullmatch(r"\s*(\d{1,6})\s*[xX×]\s*(\d{1,6})\s*", given)
        sides = found.groups() if found else ()
    else:
        sides = tuple(given) if isinstance(given, tuple | list) else ()
    if len(sides) != 2 or not all(isinstance(side, str | int) and not isinstance(side, bool) for side in sides):
        raise ConfigError(f"tile: {given!r:.60}; expected {EXPECTED}")
    return Tiling((int(sides[0]), int(sides[1]))).size


def size_text(size: TileSize) -> str:
    """Return a size as read_tile reads it."""
    return f"{size[0]}x{size[1]}"


def box_sizes(dataset: Dataset) -> dict[str, Any]:
    """Return what auto needs to know of a training set, as plain values for the model file."""
    sides = np.sqrt(np.clip(area(dataset.boxes.astype(np.float64)), 0, None))
    return {"small_side": round(float(np.percentile(sides, SMALL_OBJECTS)), 2),
            "image_size": np.median(dataset.sizes, axis=0).astype(int).tolist()}  # fmt: skip


def auto_tile(training: Mapping[str, Any], input_size: tuple[int, int], resize: ResizeMode) -> TileSize:
    """Return the size of tiles for a model: that of its training, else one in which small objects are large enough.

    All but SMALL_OBJECTS percent of the training objects have ENOUGH pixels at the input then. The shape of a tile is
    that of the input; for a network that sees images stretched, that of the training images, so that it sees objects
    stretched alike.

    Args:
        training: what the model file says about its training.
        input_size: (width, height) of the network's input.
        resize: how an image becomes the input.
    Raises:
        ConfigError: the model does not know the sizes of its training boxes.
    """
    recipe, boxes = training.get("recipe"), training.get("boxes")
    if isinstance(recipe, Mapping) and recipe.get("tile") not in (None, AUTO):
        return read_tile(recipe["tile"])  # type: ignore[return-value]
    side, image = (boxes.get("small_side"), boxes.get("image_size")) if isinstance(boxes, Mapping) else (None, None)
    image = image if isinstance(image, list) else []
    numbers = [side, *image]
    if len(numbers) != 3 or not all(isinstance(n, int | float) and 0 < n < math.inf for n in numbers):
        raise ConfigError("tile: auto goes by the sizes of the training boxes, which this model does not know; give "
                          "the size of a tile, such as --tile 640x640")  # fmt: skip
    width, height = image if resize.startswith("stretch") else input_size
    enlarged = min(ENOUGH / float(numbers[0]), MOST_ENLARGED)
    scale = math.sqrt(math.prod(input_size) / (width * height)) / enlarged
    sides = (min(max(round(v * scale), SMALLEST), LARGEST) for v in (width, height))
    return (next(sides), next(sides))


def in_tiles(dataset: Dataset, tiling: Tiling | None) -> Dataset:
    """Return a data set whose images are the tiles of each image, and after them the whole image.

    Boxes are cut to the tile. One of which MIN_PART or less is inside, or less than a pixel, is dropped. Images that
    are labelled as a whole are not cut.
    """
    if tiling is None:
        return dataset
    image, tiles, objects, boxes, counts = [], [], [], [], []
    for index, size in enumerate(dataset.sizes.tolist()):
        labelled = dataset.image_labels is not None and dataset.image_labels[index] >= 0
        of_image = [Tile(0, 0, *size)] if labelled else tiling.of((size[0], size[1]))
        own = np.arange(dataset.first[index], dataset.first[index + 1])
        for tile in of_image[:-1]:
            kept, cut = _inside(dataset.boxes[own], tile)
            objects.append(own[kept])
            boxes.append(cut)
            counts.append(len(cut))
        objects.append(own)
        boxes.append(dataset.boxes[own])
        counts.append(len(own))
        image += [index] * len(of_image)
        tiles += [(tile.x, tile.y, tile.width, tile.height) for tile in of_image[:-1]] + [(-1, -1, *size)]
    chosen = np.concatenate([np.zeros(0, np.int64), *objects])
    of, places = np.array(image, np.int64), np.array(tiles, np.int32).reshape(-1, 4)
    return replace(
        dataset, paths=dataset.paths[of], sizes=places[:, 2:], corners=places[:, :2],
        first=np.concatenate(([0], np.cumsum(counts, dtype=np.int64))).astype(np.int64),
        boxes=np.concatenate([np.zeros((0, 4), np.float32), *boxes]), classes=dataset.classes[chosen],
        difficult=dataset.difficult[chosen], crowd=None if dataset.crowd is None else dataset.crowd[chosen], area=None,
        image_labels=None if dataset.image_labels is None else dataset.image_labels[of],
    )  # fmt: skip


def _inside(boxes: NDArray[np.float32], tile: Tile) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Return which boxes [N, 4] a tile shows enough of, [N], and these cut to it, in pixels of the tile [K, 4]."""
    low = np.array((tile.x, tile.y), np.float32)
    moved = boxes - np.tile(low, 2)
    cut = np.clip(moved, 0, np.array((tile.width, tile.height) * 2, np.float32))
    sides = cut[:, 2:] - cut[:, :2]
    kept = (sides >= 1).all(1) & (sides.prod(1) > MIN_PART * area(boxes))
    return kept, cut[kept]


class TileReader:
    """Reads tiles of image files. Images that were decoded last stay in memory: MOST_KEPT bytes of them, at least two.

    pixel_range: as in images.load_rgb.
    """

    def __init__(self, pixel_range: PixelRange | None) -> None:
        self.pixel_range = pixel_range
        self.kept: OrderedDict[Path, NDArray[np.uint8]] = OrderedDict()

    def read(self, path: Path, tile: Tile) -> NDArray[np.uint8]:
        """Return a tile [h, w, 3], as a view. Raises ImageError for an image that cannot be decoded or has changed."""
        image = self.kept.pop(path, None)
        if image is None:
            image = load_rgb(path, None, self.pixel_range)
        self.kept[path] = image
        while len(self.kept) > 2 and sum(each.nbytes for each in self.kept.values()) > MOST_KEPT:
            self.kept.popitem(last=False)
        pixels = tile.crop(image)
        if pixels.shape[:2] != (tile.height, tile.width):
            height, width = image.shape[:2]
            raise ImageError(path, f"{width} x {height} pixels, fewer than when the labels were read")
        return pixels
