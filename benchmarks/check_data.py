"""Seconds of `lookonce check` for 17,125 images of 500 x 375 (the size of VOC 2012), with and without opening them.

Synthetic photographs (soft blotches and grain, some 50 kB each as JPEG) with genuine VOC annotations. Measured on a
part of them; the time of the whole is extrapolated: images in proportion, pairs of images by the square.
Usage: python benchmarks/check_data.py [images]
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from lookonce.commands.check import check
from lookonce.data.duplicates import look, nearly_same
from lookonce.data.formats.voc import write_annotation
from lookonce.data.images import usable_cores

WHOLE = 17_125


def write(root: Path, images: int) -> None:
    draw = np.random.default_rng(0)
    (root / "JPEGImages").mkdir()
    for i in range(images):
        coarse = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((500, 375), 3)
        grain = draw.normal(0, 9, (375, 500, 1))
        image = Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))
        image.save(root / "JPEGImages" / f"{i:06}.jpg", quality=85)
        count = draw.geometric(1 / 2.4)
        corner = draw.integers(0, (300, 200), (count, 2))
        boxes = np.hstack((corner, corner + draw.integers(20, (190, 170), (count, 2)))).astype(np.float32)
        names = [f"class{n}" for n in draw.integers(0, 20, count)]
        write_annotation(root / "Annotations" / f"{i:06}.xml", f"{i:06}.jpg", (500, 375), boxes, names)


def seconds(call, *arguments, **options) -> float:
    began = time.perf_counter()
    call(*arguments, **options)
    return time.perf_counter() - began


def main() -> None:
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), images)
        files = sorted((Path(folder) / "JPEGImages").iterdir())
        size = sum(file.stat().st_size for file in files) / len(files)
        part = Path(folder)
        check(part, images=False)
        without = seconds(check, part, images=False)
        whole = seconds(check, part)
        looks = look(files, usable_cores())
        pairs = seconds(nearly_same, looks)
        scale = WHOLE / images
        print(f"{images} images of {size / 1000:.0f} kB, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        print(f"--no-images: {without:.2f} s; extrapolated to {WHOLE}: {without * scale:.1f} s")
        more = (whole - pairs) * scale + pairs * scale**2
        print(f"with images: {whole:.2f} s (pairs {pairs:.3f} s); extrapolated to {WHOLE}: {more:.1f} s")


if __name__ == "__main__":
    main()
