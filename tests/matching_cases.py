"""Small detection problems with known answers, and slow loops written from the text of the VOC devkit."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from conftest import SHARED
from lookonce.data.dataset import Dataset
from lookonce.evaluation.average_precision import ApProtocol
from lookonce.model.detections import Detections

Objects = list[tuple[list[float], int, bool]]  # one image: (box, label, difficult)


def dataset_of(images: list[Objects], labels: tuple[str, ...] = ("cat", "dog")) -> Dataset:
    flat = [one for image in images for one in image]
    return Dataset(
        name="images",
        root=Path("root"),
        labels=labels,
        paths=np.array([f"{i}.jpg" for i in range(len(images))], np.str_),
        sizes=np.full((len(images), 2), 500, np.int32),
        first=np.cumsum([0, *map(len, images)]).astype(np.int64),
        boxes=np.array([box for box, _, _ in flat], np.float32).reshape(-1, 4),
        classes=np.array([label for _, label, _ in flat], np.int64),
        difficult=np.array([hard for _, _, hard in flat], np.bool_),
        problems=(),
    )


def found(boxes: list[list[float]], scores: list[float], labels: list[int] | None = None) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(labels or [0] * len(scores), np.int64),
        ("cat", "dog"),
    )


def loop_iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    width = max(0.0, min(float(a[2]), float(b[2])) - max(float(a[0]), float(b[0])))
    height = max(0.0, min(float(a[3]), float(b[3])) - max(float(a[1]), float(b[1])))
    areas = sum((float(x[2]) - float(x[0])) * (float(x[3]) - float(x[1])) for x in (a, b))
    return width * height / (areas - width * height)


def loop_match(dataset: Dataset, detections: list[Detections], skip: NDArray[np.bool_], least: float) -> list[str]:
    """VOCevaldet.m, one detection at a time: "tp", "fp" or "ignored", by descending score."""
    rows = [(-float(d.scores[k]), i, k) for i, d in enumerate(detections) for k in range(len(d))]
    taken: set[int] = set()
    verdicts = []
    for _, i, k in sorted(rows):
        best, overlap = -1, -1.0
        for n in range(int(dataset.first[i]), int(dataset.first[i + 1])):
            if dataset.classes[n] == detections[i].labels[k]:
                now = loop_iou(detections[i].boxes[k], dataset.boxes[n])
                if now > overlap:
                    best, overlap = n, now
        if best < 0 or overlap < least:
            verdicts.append("fp")
        elif skip[best]:
            verdicts.append("ignored")
        else:
            verdicts.append("fp" if best in taken else "tp")
            taken.add(best)
    return verdicts


def random_case(seed: int, images: int = 12) -> tuple[Dataset, list[Detections]]:
    """Small whole-number boxes and few scores, so that equal scores and equal IoU come up often."""
    generator = np.random.default_rng(seed)

    def boxes(count: int) -> NDArray[np.float32]:
        corner = generator.integers(0, 6, (count, 2))
        return np.concatenate((corner, corner + generator.integers(1, 6, (count, 2))), 1).astype(np.float32)

    truth: list[Objects] = []
    detections = []
    for _ in range(images):
        count = int(generator.integers(0, 6))
        hard = generator.random(count) < 0.2
        labels = generator.integers(0, 2, count)
        truth.append([(b.tolist(), int(c), bool(h)) for b, c, h in zip(boxes(count), labels, hard, strict=True)])
        many = int(generator.integers(0, 15))
        scores = generator.integers(1, 9, many).astype(np.float32) / 8
        detections.append(Detections(boxes(many), scores, generator.integers(0, 2, many), ("cat", "dog")))
    return dataset_of(truth), detections


def loop_ap(verdicts: list[bool], objects: int, protocol: ApProtocol) -> float:
    """VOCap.m as its text reads: one point at a time."""
    points = [
        (sum(verdicts[: k + 1]) / objects, sum(verdicts[: k + 1]) / (k + 1)) for k in range(len(verdicts))
    ]  # (recall, precision)
    if protocol == "voc2007":
        best = [max((p for r, p in points if r >= t * 0.1), default=0.0) for t in range(11)]
        return sum(best) / 11
    total, before = 0.0, 0.0
    for k, (recall, _) in enumerate(points):
        total += (recall - before) * max(p for _, p in points[k:])
        before = recall
    return total


def read_voc100() -> tuple[Dataset, list[Detections]]:
    """VOC XML and detection texts, both 1-based and inclusive: xmin - 1, ymin - 1, xmax, ymax.

    The texts number the classes in alphabetical order.
    """
    folder = SHARED / "data" / "voc100"
    names = tuple(sorted((folder / "yolo" / "obj.names").read_text().split()))
    truth: list[Objects] = []
    detections = []
    for path in sorted((folder / "Annotations").glob("*.xml")):
        truth.append([])
        for one in ElementTree.parse(path).getroot().iter("object"):
            x1, y1, x2, y2 = (float(one.findtext(f"bndbox/{key}") or "") for key in ("xmin", "ymin", "xmax", "ymax"))
            label = names.index(one.findtext("name") or "")
            truth[-1].append(([x1 - 1, y1 - 1, x2, y2], label, one.findtext("difficult") == "1"))
        text = folder / "detections" / f"{path.stem}.txt"
        rows = [[float(v) for v in line.split()] for line in text.read_text().splitlines()] if text.exists() else []
        numbers = np.array(rows).reshape(-1, 6)
        detections.append(Detections(numbers[:, 2:] - [1, 1, 0, 0], numbers[:, 1], numbers[:, 0], names))
    return dataset_of(truth, names), detections
