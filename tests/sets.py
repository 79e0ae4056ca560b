"""Small data sets that tests train and score on: coloured squares on grey, as genuine Pascal VOC."""

import numpy as np
from PIL import Image, ImageDraw

from lookonce.data.voc import write_annotation, write_split
from lookonce.layers import Conv, MaxPool
from lookonce.zoo import head

COLOURS = {"red": (220, 40, 40), "blue": (40, 60, 220)}


def write_squares(root, counts, side=96, seed=0, size=(28, 60)):
    """Write pictures with one or two squares each. counts: {split: pictures}."""
    draw = np.random.default_rng(seed)
    (root / "JPEGImages").mkdir(parents=True)
    for split, count in counts.items():
        stems = [f"{split}{i:03}" for i in range(count)]
        for stem in stems:
            picture = Image.new("RGB", (side, side), (128, 128, 128))
            boxes, names = [], []
            for half in range(draw.integers(1, 3)):
                w = int(draw.integers(*size))
                x, y = int(draw.integers(0, side - w)), int(draw.integers(0, side - w))
                if half and abs(x - boxes[0][0]) < 40 and abs(y - boxes[0][1]) < 40:
                    continue
                name = str(draw.choice(list(COLOURS)))
                ImageDraw.Draw(picture).rectangle((x, y, x + w - 1, y + w - 1), fill=COLOURS[name])
                boxes.append([x, y, x + w, y + w])
                names.append(name)
            picture.save(root / "JPEGImages" / f"{stem}.png")
            write_annotation(root / "Annotations" / f"{stem}.xml", f"{stem}.png", (side, side), np.array(boxes), names)
        write_split(root / "ImageSets" / "Main" / f"{split}.txt", stems)
    return root


def nano(classes, anchors):
    """A detector small enough to train inside a test: stride 32, some 30,000 weights."""
    grow = [layer for filters in (8, 16, 16, 32, 32) for layer in (Conv(filters), MaxPool())]
    return (*grow, Conv(48), *head(classes, anchors))
