"""COCO's twelve numbers, computed by faster-coco-eval.

AP is the mean over IoU thresholds .5, .55 ... .95, 101 recalls and the classes; at most 100 detections of a class on a
image. An object's area is that of its COCO file (the area of its mask), else that of its box. Crowds are ignored, and
so are detections mostly inside one. COCO has no difficult objects: they count like others.
Source: the COCO API, cocoeval.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lookonce.console import rendered
from lookonce.data.dataset import Dataset
from lookonce.evaluation.matching import gather
from lookonce.model.detections import Detections

if TYPE_CHECKING:
    from rich.table import Table


NAMES = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large",
         "AR1", "AR10", "AR100", "AR small", "AR medium", "AR large")  # fmt: skip
"""In COCO's order. AR1: recall with one detection of each class on an image, averaged over the IoU thresholds."""
TITLE = "COCO (101 recalls, IoU .5:.95, 100 detections a class and image, difficult objects counted, crowds ignored)"


@dataclass(frozen=True)
class CocoMetrics:
    """Scores of a detector by COCO's rules, 0..1."""

    numbers: dict[str, float | None]  # in the order of NAMES; None: no such objects
    classes: tuple[tuple[str, float | None, float | None], ...]  # (name, AP, AP50); None: no objects

    def __rich__(self) -> Table:
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE, show_header=False)
        for low, high in zip(NAMES[:6], NAMES[6:], strict=True):
            table.add_row(low, _share(self.numbers[low]), "  ", high, _share(self.numbers[high]))
        return table

    def __str__(self) -> str:
        return f"{TITLE}\n{rendered(self, blank_lines=False)}"


def _share(value: float | None) -> str:
    return "no objects" if value is None else f"{value:.4f}"


def score_coco(dataset: Dataset, detections: Sequence[Detections]) -> CocoMetrics:
    """Score detections against ground truth by COCO's rules.

    Args:
        dataset:    M images and their objects.
        detections: M, in the same order; class names the same as dataset.labels, in any order.
    Raises:
        UserError: a number of images or class names that differ from the data set's.
    """
    truth, predicted = index_boxes(dataset, detections)
    if not len(dataset.labels) or not len(dataset):
        return CocoMetrics(dict.fromkeys(NAMES), tuple((name, None, None) for name in dataset.labels))
    result = judge(truth, predicted)
    precision = result.eval["precision"][:, :, :, 0, -1]  # [T, R, C]
    classes = tuple(
        (name, _mean(precision[:, :, number]), _mean(precision[0, :, number]))
        for number, name in enumerate(dataset.labels)
    )
    numbers = zip(NAMES, result.stats[:12].tolist(), strict=True)
    return CocoMetrics({name: _mean(np.array([value])) for name, value in numbers}, classes)


def judge(truth: Any, predicted: Any) -> Any:
    """Evaluate one index against another with the API."""
    from faster_coco_eval import COCOeval_faster

    result = COCOeval_faster(truth, predicted, "bbox", print_function=lambda *_: None)
    result.run()
    return result


def index_boxes(dataset: Dataset, detections: Sequence[Detections]) -> tuple[Any, Any]:
    """Return ground truth and detections as two indices of the API. Arguments and errors as score_coco."""
    image, label, score, boxes = gather(dataset, detections)
    area = _area(dataset.boxes)
    if dataset.area is not None:
        area = np.where(dataset.area > 0, dataset.area, area)
    crowd = np.zeros(len(area), int) if dataset.crowd is None else dataset.crowd.astype(int)
    truth = _index(dataset, dataset.image_of_box, dataset.classes, dataset.boxes, area=area, iscrowd=crowd)
    return truth, _index(dataset, image, label, boxes, area=_area(boxes), score=score)


def _area(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(np.prod(boxes[:, 2:].astype(np.float64) - boxes[:, :2], axis=1))


def _mean(values: NDArray[np.float64]) -> float | None:
    """Return the mean of the API's numbers without -1, which means no objects."""
    known = values[values > -1]
    return float(known.mean()) if len(known) else None


def _index(dataset: Dataset, image: NDArray[np.int64], label: NDArray[np.int64], boxes: NDArray[np.floating],
           **more: NDArray[np.generic]) -> Any:  # fmt: skip
    """Return boxes (xyxy) as an index of the API. more: further fields of each box."""
    from faster_coco_eval import COCO

    xywh = np.hstack((boxes[:, :2], boxes[:, 2:].astype(np.float64) - boxes[:, :2])).tolist()
    keys = ("id", "image_id", "category_id", "bbox", *more)
    columns = (range(1, len(xywh) + 1), image.tolist(), label.tolist(), xywh, *(v.tolist() for v in more.values()))
    found = COCO()
    found.dataset = {
        "images": [{"id": number} for number in range(len(dataset))],
        "categories": [{"id": number} for number in range(len(dataset.labels))],
        "annotations": [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)],
    }
    found.createIndex()
    return found
