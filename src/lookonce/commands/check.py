"""check: what is wrong with a data set, counted, with places and remedies."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, NamedTuple, get_args

import numpy as np
from cyclopts import Parameter

from lookonce.choices import choose
from lookonce.commands.arguments import AnyPath, expanded, several
from lookonce.data.anchors import cluster_anchors, collisions, every_anchor, shapes_in_cells
from lookonce.data.check import CheckReport, Counted, Finding, all_findings, collision_findings, training_splits
from lookonce.data.duplicates import Looks, look
from lookonce.data.images import measure_range, usable_cores
from lookonce.data.read import Format, Whole, read_whole
from lookonce.data.remote import as_address
from lookonce.errors import ConfigError
from lookonce.files import check_output
from lookonce.model.anchors import Anchors, measure
from lookonce.model.layers import Detection, PlacedHead
from lookonce.model.named_network import named_network
from lookonce.model.resize import ResizeMode
from lookonce.model.sizes import check_input_size, heads_of
from lookonce.model.zoo import STRIDE
from lookonce.training.recipes import RECIPES

log = logging.getLogger("lookonce")
MANY = 2000
"""Opening so many images takes long enough for a log line."""


def check(
    data: AnyPath,
    *,
    labels: Sequence[str] | None = None,
    format: Format = "auto",
    network: str | None = None,
    size: int | None = None,
    resize: ResizeMode = "letterbox_antialias",
    anchors: int | None = None,
    images: Annotated[bool, Parameter(negative="--no-images")] = True,
    report: AnyPath | None = None,
    overwrite: bool = False,
    workers: int | None = None,
) -> CheckReport:
    """Check a data set for problems: every image, every box, all splits. Nothing is changed.

    The exit code is 1 if something harms training or makes its score untrue.

    Args:
        data: Data set: its folder, or its COCO .json, data.yaml or obj.data; or the address of its shards.
        labels: Check these classes only.
        format: Format of the data set: voc, coco, yolo or shards; auto detects it.
        network: Network to train: the name of a known one, or a Darknet .cfg. Its heads, all together, decide which
            objects cannot be learnt. none: the default network of train.
        size: Side of the network's square input in pixels, a multiple of 32; decides which boxes are too small. none:
            416, or the only size of the network.
        resize: How images are resized to the input, as in training.
        anchors: Number of anchors, clustered on the training boxes as in training and divided among the heads; 0:
            those of the network, or the five of yolov2-voc.cfg; none: as many as the network has, or 5.
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
    if anchors is not None and anchors < 0:
        raise ConfigError(f"anchors: {anchors}; expected at least 0")
    own = () if network is None else heads_of(named_network(network, 1).layers)
    side = only_size(own) or 416 if size is None else size
    whole = read_whole(data, labels, format)
    heads, fit = fitted_heads(whole, Wanted(network, own, anchors), side, resize)
    paths = [record.path for record in whole.dataset.records]
    looks = pixel_range = None
    if images:
        if len(paths) >= MANY:
            log.info("opening %d images", len(paths))
        pixel_range = measure_range(paths)
        if pixel_range is not None:
            log.info("images of more than 8 bits: %g becomes black, %g white", *pixel_range)
        looks = look(paths, workers or usable_cores(), pixel_range)
    findings, lost = find(whole, looks, heads, side, resize)
    counted = count(whole, side, resize)
    result = CheckReport(as_address(data), whole.found.format, side, counted, network or "", fit, strides_of(heads),
                         lost, findings, images, report)  # fmt: skip
    if report is not None:
        from lookonce.report.data_page import write_data_report

        write_data_report(report, result, replace(whole.dataset, pixel_range=pixel_range), heads, resize)
    return result


def find(whole: Whole, looks: Looks | None, heads: Sequence[PlacedHead], size: int,
         resize: ResizeMode) -> tuple[tuple[Finding, ...], tuple[int, ...]]:  # fmt: skip
    """Return (every finding, harmful ones first; the number of collisions of each anchor)."""
    found = collisions(whole.dataset, heads, (size, size), resize)
    findings = all_findings(whole, looks, (size, size), resize)
    findings += collision_findings(whole, found, heads)
    findings.sort(key=lambda one: not one.harms)
    number = len(every_anchor(heads)[0])
    return tuple(findings), tuple(np.bincount(found.anchors, minlength=number).tolist())[:number]


def strides_of(heads: Sequence[PlacedHead]) -> tuple[str, ...]:
    """Return the strides of the heads that have each anchor, as text."""
    shapes, own = every_anchor(heads)
    having = (sorted(head.stride for head, indices in zip(heads, own, strict=True) if n in indices)
              for n in range(len(shapes)))  # fmt: skip
    return tuple(", ".join(map(str, strides)) or "none" for strides in having)


class Wanted(NamedTuple):
    """The network for which a data set is checked."""

    network: str | None
    """A known network or a .cfg; None: that of the quick recipe."""
    heads: Sequence[PlacedHead]
    """Its heads."""
    anchors: int | None
    """How many to cluster; 0: none; None: as many as it has."""


def only_size(heads: Sequence[PlacedHead]) -> int | None:
    """Return the side of the only input of a network with a detection layer; None: it has no such layer."""
    return next((head.layer.input_size[0] for head in heads if isinstance(head.layer, Detection)), None)


def fitted_heads(
    whole: Whole, wanted: Wanted, size: int, resize: ResizeMode
) -> tuple[tuple[PlacedHead, ...], Anchors | None]:
    """Return the heads with the anchors that training would cluster, and how these fit the training boxes."""
    train = whole.dataset.select(training_splits(whole).get("train", np.arange(len(whole.dataset))))
    part, classes = train if len(train.boxes) else whole.dataset, len(whole.dataset.labels)
    has = len(every_anchor(wanted.heads)[0]) if wanted.network else 5
    number = has if wanted.anchors is None or not has else wanted.anchors
    fit = cluster_anchors(part, number, size=size, resize=resize).wh if number else ()
    cfg = named_network(wanted.network or RECIPES["quick"].network, classes, fit)
    check_input_size(cfg.layers, (size, size), cfg.channels)
    heads = heads_of(cfg.layers)
    anchors = np.array(every_anchor(heads)[0]) / STRIDE
    return heads, measure(shapes_in_cells(part, size, resize), anchors) if has else None


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
