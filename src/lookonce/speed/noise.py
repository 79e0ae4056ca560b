"""Pascal VOC sets to measure on: pictures of smooth noise, a few boxes each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lookonce.data.voc import write_annotation, write_split


def write_set(root: Path, count: int, size: tuple[int, int], labels: Sequence[str], boxes: tuple[int, int],
              picture: Callable[[Path, int], None] | None = None) -> None:  # fmt: skip
    """Write JPEGs, their annotations and the list "train".

    Args:
        root: the set's folder.
        count: pictures.
        size: (width, height), 300 px at least.
        labels: the classes, drawn evenly.
        boxes: fewest objects of a picture, and one more than the most.
        picture: writes the picture of a number to a path; None: noise.
    """
    draw = np.random.default_rng(0)
    (root / "JPEGImages").mkdir(parents=True)
    stems = [f"p{number:06}" for number in range(count)]
    for number, stem in enumerate(stems):
        path = root / "JPEGImages" / f"{stem}.jpg"
        if picture is not None:
            picture(path, number)
        else:
            small = Image.fromarray(draw.integers(0, 255, (size[1] // 16, size[0] // 16, 3), np.uint8))
            small.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
        corner = draw.integers(1, min(size) - 160, (draw.integers(*boxes), 2))
        found = np.concatenate((corner, corner + draw.integers(30, 150, corner.shape)), 1)
        names = draw.choice(labels, len(found)).tolist()
        write_annotation(root / "Annotations" / f"{stem}.xml", path.name, size, found, names)
    write_split(root / "ImageSets" / "Main" / "train.txt", stems)
