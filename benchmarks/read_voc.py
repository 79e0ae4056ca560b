"""Seconds to read 17,125 Pascal VOC annotations (the size of VOC 2012), synthetic, without opening an image.

Usage: python benchmarks/read_voc.py
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from lookonce.data.read import read_dataset

IMAGES = 17_125
OBJECT = """\t<object>
\t\t<name>{name}</name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>0</truncated>
\t\t<difficult>{difficult}</difficult>
\t\t<bndbox>
\t\t\t<xmin>{box[0]}</xmin>
\t\t\t<ymin>{box[1]}</ymin>
\t\t\t<xmax>{box[2]}</xmax>
\t\t\t<ymax>{box[3]}</ymax>
\t\t</bndbox>
\t</object>
"""
PAGE = """<annotation>
\t<folder>VOC2012</folder>
\t<filename>{stem}.jpg</filename>
\t<source>
\t\t<database>The VOC2007 Database</database>
\t\t<annotation>PASCAL VOC2007</annotation>
\t\t<image>flickr</image>
\t</source>
\t<size>
\t\t<width>500</width>
\t\t<height>375</height>
\t\t<depth>3</depth>
\t</size>
\t<segmented>0</segmented>
{objects}</annotation>
"""


def write(root: Path) -> None:
    draw = np.random.default_rng(0)
    (root / "Annotations").mkdir()
    (root / "JPEGImages").mkdir()
    for i in range(IMAGES):
        objects = []
        for _ in range(draw.geometric(1 / 2.4)):
            x, y = draw.integers(1, 300), draw.integers(1, 200)
            box = (x, y, x + draw.integers(20, 190), y + draw.integers(20, 170))
            objects.append(OBJECT.format(name="person", difficult=int(draw.random() < 0.1), box=box))
        stem = f"2007_{i:06}"
        (root / "Annotations" / f"{stem}.xml").write_text(PAGE.format(stem=stem, objects="".join(objects)))
        (root / "JPEGImages" / f"{stem}.jpg").touch()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        began = time.perf_counter()
        dataset = read_dataset(folder)
        seconds = time.perf_counter() - began
        bytes_kept = sum(value.nbytes for value in vars(dataset).values() if isinstance(value, np.ndarray))
        print(
            f"{len(dataset)} annotations, {len(dataset.boxes)} boxes: {seconds:.1f} s, index {bytes_kept / 1e6:.1f} MB"
        )


if __name__ == "__main__":
    main()
