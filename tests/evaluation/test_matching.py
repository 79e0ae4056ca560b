"""Mirrors src/lookonce/matching.py: against a loop written from the devkit's text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lookonce.data.dataset import Dataset
from lookonce.errors import UserError
from lookonce.evaluation import matching
from lookonce.evaluation.matching import image_f1, match
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


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("least", [0.3, 0.5])
def test_every_detection_is_judged_as_the_devkit_loop_judges_it(
    seed: int, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "PAIRS", 7)  # many blocks
    dataset, detections = random_case(seed)
    for skip in (dataset.difficult, np.zeros_like(dataset.difficult)):
        matched = match(dataset, detections, skip, least)
        verdicts = np.where(matched.right, "tp", np.where(matched.ignored, "ignored", "fp")).tolist()
        assert verdicts == loop_match(dataset, detections, skip, least)


def test_a_second_detection_of_one_object_is_wrong() -> None:
    dataset = dataset_of([[([0, 0, 10, 10], 0, False)]])
    matched = match(dataset, [found([[0, 0, 10, 10]] * 2, [0.5, 0.9])], dataset.difficult, 0.5)
    assert matched.right.tolist() == [True, False]
    assert matched.score.tolist() == pytest.approx([0.9, 0.5])


def test_an_iou_of_just_the_threshold_is_enough() -> None:
    dataset = dataset_of([[([0, 0, 10, 10], 0, False)]])
    assert match(dataset, [found([[0, 0, 10, 5]], [0.9])], dataset.difficult, 0.5).right.tolist() == [True]


def test_of_two_objects_overlapped_alike_the_first_is_taken() -> None:
    dataset = dataset_of([[([0, 0, 10, 10], 0, True), ([0, 0, 10, 10], 0, False)]])
    matched = match(dataset, [found([[0, 0, 10, 10]], [0.9])], dataset.difficult, 0.5)
    assert matched.ignored.tolist() == [True]


def test_class_names_in_another_order_are_matched_by_name() -> None:
    dataset = dataset_of([[([0, 0, 10, 10], 1, False)]])
    one = Detections(np.array([[0, 0, 10, 10]]), np.array([0.9]), np.array([0]), ("dog", "cat"))
    matched = match(dataset, [one], dataset.difficult, 0.5)
    assert (matched.label.tolist(), matched.right.tolist()) == ([1], [True])


def test_a_misspelt_class_is_an_error_and_never_a_zero() -> None:
    one = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0), ("cat", "doog"))
    dataset = dataset_of([[]])
    with pytest.raises(UserError, match=r"only in the data \['dog'\], only in the detections \['doog'\]"):
        match(dataset, [one], dataset.difficult, 0.5)


def test_another_number_of_images_is_an_error() -> None:
    dataset = dataset_of([[], []])
    with pytest.raises(UserError, match="detections of 1 images; expected 2"):
        match(dataset, [found([], [])], dataset.difficult, 0.5)


def test_nothing_at_all_is_matched_to_nothing() -> None:
    dataset = dataset_of([])
    assert len(match(dataset, [], dataset.difficult, 0.5).right) == 0
    dataset = dataset_of([[], []])
    assert len(match(dataset, [found([], [])] * 2, dataset.difficult, 0.5).right) == 0


def test_images_are_judged_by_f1_of_what_was_found_on_them():
    box, other = [0.0, 0, 10, 10], [50.0, 50, 90, 90]
    dataset = dataset_of([[(box, 0, False), (other, 0, False)], [(box, 0, True)], [], [(box, 0, False)]])
    detections = [found([box, [20, 20, 30, 30]], [0.9, 0.8]), found([box], [0.9]), found([], []), found([], [])]
    judged = image_f1(dataset, match(dataset, detections, dataset.difficult, 0.5), dataset.difficult)
    np.testing.assert_allclose(judged, [2 * 1 / (2 + 2), 1, 1, 0], atol=1e-6)
