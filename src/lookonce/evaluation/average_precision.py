"""Average precision by PASCAL VOC's rules, precision-recall curves, and the threshold of best F1.

voc2007: precision averaged over the 11 recalls 0, .1 ... 1.   voc2010: the area under the curve.
Letters: M images, N objects, K detections of one class by descending score, C classes, R bootstrap resamples. Recall,
precision and AP are fractions, 0..1.
Source: the VOC devkits of 2007 and 2010, VOCevaldet.m and VOCap.m.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from lookonce.console import cell, rendered
from lookonce.data.dataset import Dataset
from lookonce.errors import ConfigError, printable
from lookonce.evaluation.matching import Matched, match
from lookonce.model.detections import Detections
from lookonce.model.postprocess import LOWEST_THRESHOLD

if TYPE_CHECKING:
    from rich.console import Group


ApProtocol = Literal["voc2007", "voc2010"]
"""How precision becomes AP: the mean over 11 recalls, or the area under the curve."""


@dataclass(frozen=True)
class OperatingPoint:
    """The threshold of best F1 on the scored images, with its precision and recall."""

    threshold: float  # detections above it count; midway between two scores
    f1: float
    precision: float
    recall: float


def pr_points(score: NDArray[np.float64], true_positive: NDArray[np.bool_], objects: int) -> NDArray[np.float64]:
    """Return score, recall and precision [K, 3] after each detection. Recall is 0 without objects."""
    tp = np.cumsum(true_positive)
    return np.stack((score, tp / max(objects, 1), tp / np.arange(1, len(true_positive) + 1)), 1)


def average_precision(
    recall: NDArray[np.float64], precision: NDArray[np.float64], protocol: ApProtocol
) -> NDArray[np.float64]:
    """Return the AP [...] of curves: rising recall [..., K], precision [..., K]. 0 without points.

    The recalls of voc2007 are the floats k * .1, as in the Python ports of the devkit. The floats .3, .6 and .7 are
    slightly too large, so that a recall of exactly 3 of 10 does not reach the fourth point.
    Source: VOCap.m of 2007 (best precision at recall >= t) and of 2010 (area under that envelope);
    voc_eval.py (np.arange(0., 1.1, 0.1)).
    """
    envelope = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]  # best precision at this recall or above
    if protocol == "voc2010":
        return np.asarray((np.diff(recall, axis=-1, prepend=0) * envelope).sum(-1))
    padded = np.concatenate(
        (envelope, np.zeros((*recall.shape[:-1], 1))), -1
    )  # precision 0 at recalls that are not reached
    total = np.zeros(recall.shape[:-1])
    for tenth in range(11):
        first = (recall < tenth * 0.1).sum(-1)  # [...] index of the first point at that recall
        total += np.take_along_axis(padded, first[..., None], -1)[..., 0]
    return total / 11


def mean_average_precision(label: NDArray[np.int64], true_positive: NDArray[np.bool_], objects: NDArray[np.int64],
                           protocol: ApProtocol) -> float | None:  # fmt: skip
    """Return the mean AP of the classes that have objects; None if no class has any.

    label, true_positive: of all detections by descending score; objects: [C] of each class.
    """
    order = np.argsort(label, kind="stable")
    parts = np.split(true_positive[order], np.cumsum(np.bincount(label, minlength=len(objects)))[:-1])
    aps = []
    for part, many in zip(parts, objects.tolist(), strict=True):
        if many:
            tp = np.cumsum(part)
            aps.append(float(average_precision(tp / many, tp / np.arange(1, len(tp) + 1), protocol)))
    return sum(aps) / len(aps) if aps else None


def best_point(score: NDArray[np.float64], tp: NDArray[np.floating], objects: int, least: float) -> OperatingPoint:
    """Return the threshold of best F1 (the highest of equals) of at least one detection.

    tp: [K] true positives up to each detection; least: lowest score that detection kept.
    """
    many = np.arange(1, len(score) + 1)
    f1 = 2 * tp / (objects + many)
    f1[:-1][score[:-1] == score[1:]] = -1  # no threshold separates equal scores
    at = int(f1.argmax())
    lower = score[at + 1] if at + 1 < len(score) else min(least, score[-1])
    recall = float(tp[at]) / max(objects, 1)
    return OperatingPoint(float((score[at] + lower) / 2), float(f1[at]), float(tp[at] / many[at]), recall)


FULL_NAME = {"voc2007": "VOC 2007 (11-point)", "voc2010": "VOC 2010 (area under the curve)"}
TREATED = {"ignore": "ignored", "count": "counted"}
DEFAULT_THRESHOLD = 0.3
"""Threshold of a class for which validation found no true positive. Source: the blog's obj_threshold."""
BLOCK = 4_000_000
"""Most numbers in memory at once while resampling."""


@dataclass(frozen=True)
class Rules:
    """How detections are scored. Raises ConfigError for invalid values."""

    protocol: ApProtocol = "voc2010"
    """How precision becomes AP."""
    iou_threshold: float = 0.5
    """Lowest IoU of a true positive; above 0, at most 1."""
    difficult: Literal["ignore", "count"] = "ignore"
    """ignore: difficult objects need not be found, and their detections are neither true nor false positives."""
    score_threshold: float | None = None
    """Lowest score that detection kept; None: unknown."""

    def __post_init__(self) -> None:
        if self.protocol not in FULL_NAME:
            raise ConfigError(f"protocol: {self.protocol!r}; expected {' or '.join(FULL_NAME)}")
        if self.difficult not in TREATED:
            raise ConfigError(f"difficult: {self.difficult!r}; expected {' or '.join(TREATED)}")
        if not 0 < self.iou_threshold <= 1:
            raise ConfigError(f"iou_threshold: {self.iou_threshold}; expected above 0, at most 1")

    def __str__(self) -> str:
        least = "unknown" if self.score_threshold is None else f"> {self.score_threshold:g}"
        return (
            f"{FULL_NAME[self.protocol]}, IoU >= {self.iou_threshold:g}, "
            f"difficult objects {TREATED[self.difficult]}, scores {least}"
        )


@dataclass(frozen=True, eq=False)
class ClassScore:
    """Scores of one class, 0..1."""

    name: str
    objects: int  # that count: without difficult ones if they are ignored
    detections: int  # all, including those of ignored objects
    ap: float | None  # None: no objects
    recall: float | None  # of all detections; None: no objects
    best: OperatingPoint | None  # None: no objects, or no true positives
    curve: NDArray[np.float64] = field(repr=False)  # [K, 3] score, recall, precision, down the scores


@dataclass(frozen=True, eq=False)
class Metrics:
    """Scores of a detector on a data set, and the rules that they follow."""

    rules: Rules
    images: int
    classes: tuple[ClassScore, ...]  # in the order of the data set's labels
    mean_ap: float | None  # over the classes that have objects; None: no objects
    interval: tuple[float, float] | None  # 95 % interval of mean_ap; None: no objects, or not asked for
    resampled: NDArray[np.float64] = field(repr=False)  # [R] mean_ap of each resample, the same images for a seed
    resampled_ap: NDArray[np.float64] = field(repr=False)  # [C, R] AP of each class; nan without objects

    def __rich__(self) -> Group:
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        headings = ("class", "AP", "objects", "precision", "recall", "F1", "at score")
        footers = ("mean", self._mean_text(), f"{sum(c.objects for c in self.classes):,}", *[""] * 4)
        title = f"{self.rules}, {self.images:,} image{'s' * (self.images != 1)}"
        table = Table(box=box.SIMPLE, show_footer=True, show_edge=False, pad_edge=False)
        for heading, footer in zip(headings, footers, strict=True):
            table.add_column(heading, footer, justify="left" if heading == "class" else "right", no_wrap=True)
        for c in self.classes:
            ap = "no objects" if c.ap is None else f"{c.ap:.3f}"
            best = (c.best.precision, c.best.recall, c.best.f1, c.best.threshold) if c.best else (None,) * 4
            ratios = ("-" if value is None else f"{value:.3f}" for value in best)
            table.add_row(cell(c.name), ap, f"{c.objects:,}", *ratios)
        return Group(Text(title), table)

    def __str__(self) -> str:
        longest = max((len(printable(c.name)) for c in self.classes), default=0)
        width = 140 + 2 * longest  # some letters are two columns wide
        return rendered(self, width, blank_lines=False)

    def _mean_text(self) -> str:
        if self.mean_ap is None:
            return "no objects"
        return f"{self.mean_ap:.3f}" + (f" [{self.interval[0]:.3f}, {self.interval[1]:.3f}]" if self.interval else "")


def score(
    dataset: Dataset,
    detections: Sequence[Detections],
    rules: Rules = Rules(),
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Metrics:
    """Score detections against ground truth.

    Args:
        dataset:    M images and their objects.
        detections: M, in the same order; class names the same as dataset.labels, in any order.
        bootstrap:  resamples of the images for the 95 % interval of mAP; 0: no interval.
        seed:       of the resampling; the same seed takes the same images for every detector.
    Raises:
        UserError: a number of images or class names that differ from the data set's.
    Detections of equal score keep the order of their images.
    """
    ignore = ignored_objects(dataset, rules)
    found = match(dataset, detections, ignore, rules.iou_threshold)
    return score_matched(dataset, found, rules, bootstrap=bootstrap, seed=seed)


def score_matched(dataset: Dataset, found: Matched, rules: Rules, *, bootstrap: int = 0, seed: int = 0) -> Metrics:
    """Score detections that are matched by the same rules. Arguments as `score`."""
    return _scored(dataset, found, ignored_objects(dataset, rules), rules, _draws(len(dataset), bootstrap, seed))


def score_sizes(dataset: Dataset, found: Matched, low: float, high: float,
                scale: NDArray[np.float64], rules: Rules = Rules()) -> Metrics:  # fmt: skip
    """Score the objects of one size: those whose side (root of the area, times scale) is in [low, high).

    found: detections matched by the same rules. Objects of other sizes are ignored, and so are false positives of
    other sizes. scale: [M] of each image, to measure sides in input pixels; 1: image pixels.
    Source: the COCO API, cocoeval.py, evaluateImg (areaRng).
    """
    width, height = np.maximum(dataset.boxes[:, 2:] - dataset.boxes[:, :2], 0).astype(np.float64).T
    side = np.sqrt(width * height) * scale[dataset.image_of_box]  # [N]
    ignore = ignored_objects(dataset, rules) | (side < low) | (side >= high)
    found = found.ignoring(ignore)
    seen = found.side * scale[found.image]
    other = ~found.true_positive & ((seen < low) | (seen >= high))
    return _scored(dataset, replace(found, ignored=found.ignored | other), ignore, rules, _draws(len(dataset), 0, 0))


def ignored_objects(dataset: Dataset, rules: Rules) -> NDArray[np.bool_]:
    """Return which objects [N] are ignored: crowds always, difficult ones if the rules say so."""
    if rules.difficult == "ignore":
        return dataset.difficult
    return np.zeros_like(dataset.difficult) if dataset.crowd is None else dataset.crowd


def _scored(dataset: Dataset, found: Matched, ignore: NDArray[np.bool_], rules: Rules,
            draws: NDArray[np.integer]) -> Metrics:  # fmt: skip
    scores, resampled = [], np.full((len(dataset.labels), draws.shape[1]), np.nan)  # [C, R]
    found_of, objects_of = (_by_class(values, len(dataset.labels)) for values in (found.label, dataset.classes))
    for label, name in enumerate(dataset.labels):
        mine, own = found_of[label], objects_of[label]
        rows = mine[~found.ignored[mine]]
        image, true_positive = found.image[rows], found.true_positive[rows]
        objects = dataset.image_of_box[own[~ignore[own]]]
        curve = pr_points(found.score[rows], true_positive, len(objects))
        scores.append(_class_score(name, len(objects), len(mine), curve, rules))
        resampled[label] = _resampled_ap(image, true_positive, objects, draws, rules.protocol)
    aps = [c.ap for c in scores if c.ap is not None]
    means = _mean(resampled)
    mean_ap = sum(aps) / len(aps) if aps else None
    return Metrics(rules, len(dataset), tuple(scores), mean_ap, _interval(means, mean_ap), means, resampled)


def _by_class(values: NDArray[np.int64], classes: int) -> list[NDArray[np.int64]]:
    """Return the indices of each class in ascending order: one pass, whatever the number of classes."""
    order = np.argsort(values, kind="stable")
    return np.split(order, np.searchsorted(values[order], np.arange(1, classes)))


def best_thresholds(metrics: Metrics, default: float = DEFAULT_THRESHOLD) -> NDArray[np.float64]:
    """Return the threshold [C] of best F1 of each class (the highest of equals), LOWEST_THRESHOLD at least.

    Classes without objects or true positives get the default.
    """
    best = np.array([c.best.threshold if c.best else default for c in metrics.classes], np.float64)
    return np.maximum(best, LOWEST_THRESHOLD)


def _class_score(name: str, objects: int, detections: int, curve: NDArray[np.float64], rules: Rules) -> ClassScore:
    if not objects:
        return ClassScore(name, 0, detections, None, None, None, curve)
    value, recall, precision = curve.T
    ap = float(average_precision(recall, precision, rules.protocol))
    if not precision.any():
        return ClassScore(name, objects, detections, ap, 0.0, None, curve)
    best = best_point(value, np.rint(recall * objects), objects, rules.score_threshold or 0.0)
    return ClassScore(name, objects, detections, ap, float(recall[-1]), best, curve)


def _draws(images: int, resamples: int, seed: int) -> NDArray[np.integer]:
    """Return how often [M, R] each image is in each resample of M images with replacement."""
    generator = np.random.default_rng(seed)
    counts = np.zeros((images, resamples), np.int32)
    for column in range(resamples if images else 0):
        counts[:, column] = np.bincount(generator.integers(0, images, images), minlength=images)
    return counts.astype(np.min_scalar_type(counts.max(initial=0)))  # sums of bytes are four times as fast


def _resampled_ap(
    image: NDArray[np.int64],
    true_positive: NDArray[np.bool_],
    objects: NDArray[np.int64],
    draws: NDArray[np.integer],
    protocol: ApProtocol,
) -> NDArray[np.float64]:
    """Return the AP [R] of one class in each resample; nan without objects.

    image, true_positive: [K], by descending score; objects: the image of each object; draws: [M, R].
    Matching concerns one image at a time, so a resample only changes how often each detection counts. Only true
    positives shape the curve, so only they are kept.
    """
    total = draws[objects].sum(0, dtype=np.int32)  # [R] objects in each resample
    hits = np.flatnonzero(true_positive)
    image = image[: hits[-1] + 1] if len(hits) else image[:0]
    starts = np.concatenate(([0], hits[:-1] + 1))[: len(hits)].astype(np.int64)
    ap = np.full(draws.shape[1], np.nan)
    step = max(1, BLOCK // max(len(image), 1))
    for start in range(0, draws.shape[1], step):
        part = np.ascontiguousarray(draws[:, start : start + step])  # [M, r]
        between = np.add.reduceat(part[image], starts, axis=0, dtype=np.int32)  # [hits, r] detections up to each
        seen = np.cumsum(between, axis=0).T  # [r, hits]
        tp = np.cumsum(part[image[hits]], axis=0, dtype=np.int32).T  # [r, hits]
        many = total[start : start + step]
        recall = tp / np.maximum(many, 1)[:, None]
        part_ap = average_precision(recall, tp / np.maximum(seen, 1), protocol)
        ap[start : start + step] = np.where(many > 0, part_ap, np.nan)
    return ap


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean [R] of the numbers [C, R] that are not nan; nan if all are."""
    there = np.isfinite(values)
    total = np.where(there, values, 0).sum(0)
    return np.where(there.any(0), total / np.maximum(there.sum(0), 1), np.nan)


def _interval(means: NDArray[np.float64], mean_ap: float | None) -> tuple[float, float] | None:
    """Return the middle 95 % of the resampled means [R], shifted to have mean_ap as their mean, within 0..1.

    They are shifted because images that are taken twice raise AP a little: with many classes even the lower percentile
    may exceed the measured value.
    """
    known = means[np.isfinite(means)]
    if mean_ap is None or not len(known):
        return None
    low, high = np.clip(np.quantile(known, (0.025, 0.975)) - known.mean() + mean_ap, 0, 1)
    return float(low), float(high)
