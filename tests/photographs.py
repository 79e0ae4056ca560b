"""Images as different from each other as photographs are, and small Pascal VOC sets made of them."""

import numpy as np
from PIL import Image

from lookonce.data.formats import voc

CAT, DOG = ("cat", [10, 10, 60, 60]), ("dog", [30, 30, 90, 80])


def photograph(seed, size=(120, 90)):
    """An image with soft blotches."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def add(root, stem, objects, size=(120, 90), seed=0):
    """Add an image with objects (name, box) to a Pascal VOC set."""
    (root / "JPEGImages").mkdir(parents=True, exist_ok=True)
    photograph(seed, size).save(root / "JPEGImages" / f"{stem}.png")
    boxes = np.array([box for _, box in objects], np.float32).reshape(-1, 4)
    names = [name for name, _ in objects]
    voc.write_annotation(root / "Annotations" / f"{stem}.xml", f"{stem}.png", size, boxes, names)
