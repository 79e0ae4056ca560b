"""The page of a data set: counts, problems, box shapes, labelled images, and the training targets of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lookonce.data.anchors import shapes_in_cells
from lookonce.data.check import CheckReport, Finding, summary
from lookonce.data.dataset import Dataset
from lookonce.data.images import load_rgb
from lookonce.errors import ImageError
from lookonce.inference.draw import draw_labels
from lookonce.model.layers import PlacedHead
from lookonce.model.resize import ResizeMode
from lookonce.report.explain_drawings import Subject, encoding_section
from lookonce.report.explain_encoding import first_example
from lookonce.report.figures import (
    aspect_histogram,
    centre_map,
    class_bars,
    objects_histogram,
    shape_cloud,
    size_histogram,
)
from lookonce.report.overlay import SIDE, View, hex_colour, placed, window
from lookonce.report.page import data_uri, write_page

EVIDENCE = 4  # places of a problem that are shown as images
PAIR_WIDTH = 360  # longest side of such an image, px
MOST_COLOURS = 60  # classes in the legend of colours
IMAGES = 12  # labelled images on the page
WIDTH = 640  # longest side of such an image, px


def write_data_report(
    path: Path, report: CheckReport, dataset: Dataset, heads: Sequence[PlacedHead], mode: ResizeMode
) -> Path:
    """Write the page of a checked data set. heads: those that the report is about."""
    wh = shapes_in_cells(dataset, report.size, mode)
    example = first_example(dataset, (report.size, report.size), mode)
    drawn = [] if example is None else [Subject(example, head) for head in heads if head.layer.anchors]
    boxes = dataset.boxes
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / dataset.sizes[dataset.image_of_box]
    return write_page(
        path,
        "data_page.html",
        report=report,
        name=dataset.name,
        facts=summary(report).splitlines()[2:],
        evidence=[evidence(finding, dataset) for finding in report.findings],
        colours={name: hex_colour(name, dataset.labels) for name in dataset.labels[:MOST_COLOURS]},
        class_bars=class_bars(report.counted.classes),
        objects=objects_histogram(np.diff(dataset.first)),
        shapes=shape_cloud(wh, report.anchors),
        centres=centre_map(centres, float(np.median(dataset.sizes[:, 1] / dataset.sizes[:, 0]))),
        aspects=aspect_histogram(wh),
        sizes=size_histogram(wh, report.size),
        images=contact(dataset),
        explained={subject.head.stride: encoding_section(subject) for subject in drawn},
    )


def evidence(finding: Finding, dataset: Dataset) -> list[list[View]]:
    """Return the images of a finding's first places: each one view of a box, or two images side by side."""
    shown: list[list[View]] = []
    for one in finding.evidence:
        try:
            views = [_seen(dataset, path, one.box) for path in one.images]
        except ImageError:
            continue  # it is among the problems
        shown.append(views)
        if len(shown) == EVIDENCE:
            break
    return shown


def _seen(dataset: Dataset, path: str, box: tuple[float, float, float, float] | None) -> View:
    """Return an image, or the part around a box of it, with a frame that marks the box."""
    pixels = load_rgb(dataset.root / path, None if box else PAIR_WIDTH, dataset.pixel_range)
    if box is None:
        image, frame, focus = Image.fromarray(pixels), (0, 0, pixels.shape[1], pixels.shape[0]), None
    else:
        about = np.clip(np.nan_to_num(np.array(box, np.float64)), 0, np.tile(pixels.shape[1::-1], 2))
        frame = window(about, pixels.shape[1::-1])
        image = Image.fromarray(pixels).crop(frame)
        image.thumbnail((PAIR_WIDTH, PAIR_WIDTH))
        focus = placed(about, frame, SIDE / max(frame[2] - frame[0], frame[3] - frame[1]))
    scale = SIDE / max(frame[2] - frame[0], frame[3] - frame[1])
    size = (frame[2] - frame[0]) * scale, (frame[3] - frame[1]) * scale
    return View(path, data_uri(image), size, (), focus=focus)


def contact(dataset: Dataset) -> list[tuple[str, str]]:
    """Return (caption, data: address) of labelled images: one of each class first, then a seeded sample."""
    rng = np.random.default_rng(0)
    image, order = dataset.image_of_box, rng.permutation(len(dataset))
    rank = np.empty(len(dataset), np.int64)
    rank[order] = np.arange(len(dataset))
    first: dict[int, int] = {}  # image -> the class it was chosen for
    shown: set[int] = set()  # classes on the images chosen so far
    by_class = np.lexsort((rank[image], dataset.classes))  # [N] objects
    places = np.searchsorted(dataset.classes[by_class], np.arange(len(dataset.labels)))
    for label in np.unique(dataset.classes).tolist():
        if label not in shown:
            n = int(image[by_class[places[label]]])
            first[n] = label
            shown |= set(dataset.classes[dataset.first[n] : dataset.first[n + 1]].tolist())
    chosen = [*first, *(n for n in order.tolist() if n not in first)]
    found: list[tuple[str, str]] = []
    for n in chosen:
        record = dataset.records[n]
        try:
            pixels = load_rgb(record.path, WIDTH, dataset.pixel_range)
        except ImageError:
            continue  # it is among the problems
        scale = pixels.shape[1] / record.size[0]
        names = [dataset.labels[label] for label in record.labels]
        drawn = draw_labels(pixels, record.boxes * scale, names, dataset.labels)
        found.append((f"{record.path.name}: {len(names)} object{'s' * (len(names) != 1)}", data_uri(drawn)))
        if len(found) == IMAGES:
            break
    return found
