"""Small data sets that tests train and score on: coloured squares on grey, as genuine Pascal VOC."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from lookonce.data.dataset import Dataset
from lookonce.data.formats.voc import write_annotation, write_split
from lookonce.model.detections import Detections
from lookonce.model.layers import Conv, MaxPool, Route
from lookonce.model.zoo import head

COLOURS = {"red": (220, 40, 40), "blue": (40, 60, 220)}


def write_squares(root, counts, side=96, seed=0, size=(28, 60)):
    """Write images with one or two squares each. counts: {split: images}."""
    draw = np.random.default_rng(seed)
    (root / "JPEGImages").mkdir(parents=True)
    for split, count in counts.items():
        stems = [f"{split}{i:03}" for i in range(count)]
        for stem in stems:
            image = Image.new("RGB", (side, side), (128, 128, 128))
            boxes, names = [], []
            for half in range(draw.integers(1, 3)):
                w = int(draw.integers(*size))
                x, y = int(draw.integers(0, side - w)), int(draw.integers(0, side - w))
                if half and abs(x - boxes[0][0]) < 40 and abs(y - boxes[0][1]) < 40:
                    continue
                name = str(draw.choice(list(COLOURS)))
                ImageDraw.Draw(image).rectangle((x, y, x + w - 1, y + w - 1), fill=COLOURS[name])
                boxes.append([x, y, x + w, y + w])
                names.append(name)
            image.save(root / "JPEGImages" / f"{stem}.png")
            write_annotation(root / "Annotations" / f"{stem}.xml", f"{stem}.png", (side, side), np.array(boxes), names)
        write_split(root / "ImageSets" / "Main" / f"{split}.txt", stems)
    return root


def nano(classes, anchors):
    """A detector small enough to train inside a test: stride 32, some 30,000 weights."""
    grow = [layer for filters in (8, 16, 16, 32, 32) for layer in (Conv(filters), MaxPool())]
    return (*grow, Conv(48), *head(classes, anchors))


def two_heads(classes, coarse, fine):
    """nano with a second region layer of stride 16; the anchors of each head."""
    grow = [layer for filters in (8, 16, 16, 32) for layer in (Conv(filters), MaxPool())]
    at_16 = len(grow) - 1
    return (*grow, Conv(32), MaxPool(), Conv(48), *head(classes, coarse),
            Route((at_16,)), Conv(32), *head(classes, fine))  # fmt: skip


def crowded(seed, images=25, classes=3):
    """Objects of all sizes, some crowds, areas smaller than boxes, and many detections: (data set, detections)."""
    draw = np.random.default_rng(seed)
    names = tuple(f"class{n}" for n in range(classes))
    truth, detections, first = [], [], [0]
    for _ in range(images):
        many = int(draw.integers(1, 12))
        wh = np.exp(draw.uniform(np.log(8), np.log(250), (many, 2)))
        xy = draw.uniform(0, 1, (many, 2)) * (400 - wh)
        boxes, labels = np.hstack((xy, xy + wh)).astype(np.float32), draw.integers(0, classes, many)
        again = draw.integers(0, many, int(draw.integers(0, 60)))
        moved = boxes[again] + draw.normal(0, 0.12, (len(again), 4)) * np.tile(wh[again], 2)
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        given = np.where(draw.random(len(again)) < 0.8, labels[again], draw.integers(0, classes, len(again)))
        scores = draw.integers(1, 40, len(again)) / 40  # equal ones come up
        detections.append(Detections(moved, scores, given, names))
        truth.append((boxes, labels))
        first.append(first[-1] + many)
    boxes, labels = (np.concatenate(parts) for parts in zip(*truth, strict=True))
    crowd = draw.random(len(boxes)) < 0.1
    area = (boxes[:, 2:] - boxes[:, :2]).astype(float).prod(1) * draw.uniform(0.3, 1, len(boxes))
    area[::7] = 0  # not told
    paths = np.array([f"{n}.jpg" for n in range(images)])
    dataset = Dataset("crowded", Path("root"), names, paths, np.full((images, 2), 400, np.int32),
                      np.array(first), boxes, labels, crowd.copy(), crowd=crowd, area=area)  # fmt: skip
    return dataset, detections


SQUARE_TREE = "square:\n  - red\n  - blue\n  - green\nround:\n  - ball\n"


def write_labelled(root, counts, side=96, seed=1):
    """Write images of one square each, labelled as a whole: a folder for each colour. counts: {class: images}."""
    draw = np.random.default_rng(seed)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for n in range(count):
            image = Image.new("RGB", (side, side), (128, 128, 128))
            w = int(draw.integers(28, 60))
            x, y = int(draw.integers(0, side - w)), int(draw.integers(0, side - w))
            fill = {**COLOURS, "green": (40, 170, 60)}[name]
            ImageDraw.Draw(image).rectangle((x, y, x + w - 1, y + w - 1), fill=fill)
            image.save(root / name / f"{n:03}.png")
    return root
