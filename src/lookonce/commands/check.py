"""check: what is wrong with a data set, counted, with places and remedies."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, get_args

import numpy as np
from cyclopts import Parameter

from lookonce.choices import choose
from lookonce.commands.arguments import AnyPath, expanded, several
from lookonce.data.anchors import cluster_anchors, collisions, shapes_in_cells
from lookonce.data.check import CheckReport, Counted, Finding, all_findings, collision_finding, training_splits
from lookonce.data.duplicates import Looks, look
from lookonce.data.images import measure_range, usable_cores
from lookonce.data.read import Format, Whole, read_whole
from lookonce.errors import ConfigError
from lookonce.files import check_output
from lookonce.model import zoo
from lookonce.model.anchors import Anchors, measure
from lookonce.model.layers import PlacedHead, Region
from lookonce.model.resize import ResizeMode
from lookonce.model.zoo import STRIDE

log = logging.getLogger("lookonce")
MANY = 2000
"""Opening so many images takes long enough for a log line."""


def check(
    data: AnyPath,
    *,
    labels: Sequence[str] | None = None,
    format: Format = "auto",
    size: int = 416,
    resize: ResizeMode = "letterbox_antialias",
    anchors: int = 5,
    images: Annotated[bool, Parameter(negative="--no-images")] = True,
    report: AnyPath | None = None,
    overwrite: bool = False,
    workers: int | None = None,
) -> CheckReport:
    """Check a data set for problems: every image, every box, all splits. Nothing is changed.

    The exit code is 1 if something harms training or makes its score untrue.

    Args:
        data: Data set: its folder, or its COCO .json, data.yaml or obj.data.
        labels: Check these classes only.
        format: Format of the data set: voc, coco or yolo; auto detects it.
        size: Side of the network's square input in pixels, a multiple of 32; decides which boxes are too small.
        resize: How images are resized to the input, as in training.
        anchors: Number of anchors, clustered on the training boxes as in training; 0: the five of yolov2-voc.cfg.
        images: Open the images, too: find unreadable ones, wrong sizes, and duplicates within and across splits.
        report: Write an .html page with counts, shapes, anchors, labelled images and the training targets.
        overwrite: Replace the page if it exists, or write it into the data set's folder.
        workers: Threads that decode images; none: one for each core.
    Returns:
        CheckReport: counts and findings, each with its first places and what to do.
    Raises:
        UserError: the data set cannot be read or has no objects; a size that is not a multiple of 32.
    """
    data, report = expanded(data), None if report is None else expanded(report)
    labels = None if labels is None else several(labels)
    if report is not None and report.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"report: {report}; expected a name that ends in .html")
    resize = choose(resize, get_args(ResizeMode), "resize")
    if report is not None:
        check_output(report, overwrite, data)
    whole = read_whole(data, labels, format)
    fit = fitted_anchors(whole, anchors, size, resize)
    paths = [record.path for record in whole.dataset.records]
    looks = pixel_range = None
    if images:
        if len(paths) >= MANY:
            log.info("opening %d images", len(paths))
        pixel_range = measure_range(paths)
        if pixel_range is not None:
            log.info("images of more than 8 bits: %g becomes black, %g white", *pixel_range)
        looks = look(paths, workers or usable_cores(), pixel_range)
    findings, lost = find(whole, looks, fit, size, resize)
    counted = count(whole, size, resize)
    result = CheckReport(str(data), whole.found.format, size, counted, fit, lost, findings, images, report)
    if report is not None:
        from lookonce.report.data_page import write_data_report

        write_data_report(report, result, replace(whole.dataset, pixel_range=pixel_range), resize)
    return result


def find(whole: Whole, looks: Looks | None, anchors: Anchors, size: int,
         resize: ResizeMode) -> tuple[tuple[Finding, ...], tuple[int, ...]]:  # fmt: skip
    """Return (every finding, harmful ones first; the number of collisions of each anchor)."""
    head = PlacedHead(Region(anchors.wh, len(whole.dataset.labels)), STRIDE)
    found = collisions(whole.dataset, [head], (size, size), resize)
    findings = all_findings(whole, looks, (size, size), resize)
    findings += collision_finding(whole, found, head)
    findings.sort(key=lambda one: not one.harms)
    return tuple(findings), tuple(np.bincount(found.anchors, minlength=len(anchors.wh)).tolist())


def fitted_anchors(whole: Whole, k: int, size: int, resize: ResizeMode) -> Anchors:
    """Return the anchors that training would cluster (k = 0: Darknet's for VOC), fitted to the training boxes."""
    if k < 0:
        raise ConfigError(f"anchors: {k}; expected at least 0")
    train = whole.dataset.select(training_splits(whole).get("train", np.arange(len(whole.dataset))))
    part = train if len(train.boxes) else whole.dataset
    if k == 0:
        return measure(shapes_in_cells(part, size, resize), np.array(zoo.VOC_ANCHORS))
    return cluster_anchors(part, k, size=size, resize=resize)


def count(whole: Whole, size: int, resize: ResizeMode) -> Counted:
    """Count everything in a data set."""
    dataset = whole.dataset
    each = np.diff(dataset.first)
    pairs = np.unique(np.column_stack((dataset.image_of_box, dataset.classes)), axis=0)  # [images with a class, 2]
    objects = np.bincount(dataset.classes, minlength=len(dataset.labels)).tolist()
    images = np.bincount(pairs[:, 1], minlength=len(dataset.labels)).tolist()
    splits = training_splits(whole)
    splits |= {name: whole.members(name) for name in whole.splits if name not in splits}
    sides = np.sqrt(shapes_in_cells(dataset, size, resize).prod(1)) * STRIDE
    low, middle, high = np.quantile(sides, (0.1, 0.5, 0.9)).tolist()
    return Counted(
        images=len(dataset),
        objects=len(dataset.boxes),
        empty=int((each == 0).sum()),
        difficult=int(dataset.difficult.sum()),
        crowd=0 if dataset.crowd is None else int(dataset.crowd.sum()),
        classes={name: (objects[n], images[n]) for n, name in enumerate(dataset.labels)},
        splits={name: (len(members), int(each[members].sum())) for name, members in splits.items()},
        split_source=whole.source,
        objects_an_image=(float(each.mean()), int(each.max())),
        box_side=(low, middle, high),
    )
