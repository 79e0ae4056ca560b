"""explain: what happens to one of your images, from anchors to boxes, as one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from lookonce.choices import choose, closest
from lookonce.commands.arguments import AnyPath, expanded, is_model, several
from lookonce.commands.diagnose import listed, pair_names
from lookonce.data.anchors import cluster_anchors, shapes_in_cells
from lookonce.data.dataset import Dataset
from lookonce.data.read import read_dataset
from lookonce.errors import ConfigError, UserError, plural, printable
from lookonce.files import check_output, free_name
from lookonce.inference.detector import Detector
from lookonce.inference.pretrained_models import model_path
from lookonce.model import zoo
from lookonce.model.anchors import cluster, distinct_shapes, measure
from lookonce.model.heads.region import LOSSES
from lookonce.model.layers import Layer, PlacedHead
from lookonce.model.resize import ResizeMode
from lookonce.model.sizes import heads_of
from lookonce.report.explain_encoding import Example, example, first_example
from lookonce.report.explain_network import layer_table
from lookonce.report.explain_page import Story, write_explain_page

PAGE = Path("explain.html")
MAX_K = 10
"""The page shows the fit of every number of anchors up to this one."""


@dataclass(frozen=True)
class Explanation:
    """What the page explains, and where it is."""

    page: Path
    image: str
    """The image that is followed."""
    boxes: int
    """Labelled boxes of the split."""
    mean_iou: float
    """Mean best IoU of the anchors with these boxes."""
    weights: int
    """Numbers in the network's .weights file."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self) | {"page": str(self.page)}

    def __str__(self) -> str:
        return (f"{plural(self.boxes, 'box')}, mean best IoU with the anchors {self.mean_iou:.3f}; {self.weights:,} "
                f"weights; follows {printable(self.image)}\n{printable(str(self.page))}")  # fmt: skip


def explain(
    data: AnyPath,
    run: AnyPath | None = None,
    *,
    split: str = "train",
    labels: Sequence[str] | None = None,
    image: str | None = None,
    network: str | None = None,
    anchors: int | None = None,
    size: int | None = None,
    resize: ResizeMode | None = None,
    out: AnyPath = PAGE,
    overwrite: bool = False,
) -> Explanation:
    """Write a page that follows one of your images through the method: anchors, targets, network, loss, boxes.

    Args:
        data: Data set: its folder, or its COCO .json, data.yaml or obj.data.
        run: Folder of a run, a model file, or a Darknet .cfg with its .weights beside it: adds its loss, term by term,
            and its boxes with sliders for threshold and suppression; none: the network without weights.
        split: Split whose boxes and image are shown.
        labels: Without a run: use these classes only. A run decides them itself.
        image: File name of the image to follow; none: one with several classes and shapes.
        network: Without a run: network of the table, by name; none: yolov2.
        anchors: Without a run: number of anchors to cluster; none: 5.
        size: Without a run: side of the square input in pixels, a multiple of 32; none: 416.
        resize: Without a run: how images are resized to the input; none: letterbox_antialias.
        out: File of the page.
        overwrite: Replace the page if it exists, or write it into the data set's folder.
    Returns:
        Explanation: the page, and its main numbers.
    Raises:
        UserError: the data set cannot be read or has no boxes; an image that is not in it; options that a run decides.
    """
    data, out, run = expanded(data), expanded(out), None if run is None else model_path(run)
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"out: {out}; expected a name that ends in .html")
    if is_model(data):
        raise ConfigError(f"{data}: a model; the data set comes first: lookonce explain DATA RUN")
    if out == PAGE and not overwrite:
        out = free_name(PAGE)
    check_output(out, overwrite, data)
    part = None if split == "all" else split
    if run is None:
        names = None if labels is None else several(labels)
        given = Given(network or "yolov2", 5 if anchors is None else anchors, 416 if size is None else size,
                      choose(resize or "letterbox_antialias", get_args(ResizeMode), "resize"))  # fmt: skip
        used = _clustered(read_dataset(data, part, names), given)
    else:
        options = {"network": network, "anchors": anchors, "size": size, "resize": resize, "labels": labels}
        if decided := [name for name, value in options.items() if value is not None]:
            raise ConfigError(f"--{decided[0]}: the model decides it; leave it out, or leave out {run}")
        used = _of_model(data, run, part)
    example = _example(used, image)
    stride, head = used.head.stride, used.head
    wh = shapes_in_cells(used.dataset, used.input_size, used.resize, stride)
    curve = [cluster(wh, k) for k in range(1, min(MAX_K, distinct_shapes(wh)) + 1)]
    table = layer_table(used.layers, used.input_size, used.channels)
    anchors_used = measure(wh, np.array(head.anchors_px) / stride)
    story = Story(used.dataset.name, split, used.resize, wh, curve, anchors_used, example, head,
                  table, used.name, used.detector, used.loss)  # fmt: skip
    write_explain_page(out, story)
    return Explanation(out, example.name, len(wh), story.anchors.mean_iou, table.weights)


class Given(NamedTuple):
    """Options without a model."""

    network: str
    k: int
    size: int
    resize: ResizeMode


@dataclass(frozen=True, eq=False)
class Used:
    """The data set and the network that the page shows."""

    dataset: Dataset
    name: str
    """What the network is."""
    layers: tuple[Layer, ...]
    head: PlacedHead
    input_size: tuple[int, int]
    resize: ResizeMode
    channels: int = 3
    detector: Detector | None = None
    loss: str = "region"


def _clustered(dataset: Dataset, given: Given) -> Used:
    """Return a network of the zoo with anchors clustered on the data set, without weights."""
    found = cluster_anchors(dataset, given.k, size=given.size, resize=given.resize)
    layers = zoo.detector(given.network, len(dataset.labels), found.wh)
    name = f"network {given.network} without weights"
    head, input_size = _with_anchors(heads_of(layers), name), (given.size, given.size)
    return Used(dataset, name, layers, head, input_size, given.resize)


def _of_model(data: Path, run: Path, split: str | None) -> Used:
    """Return a model with the data set's objects of the classes that it knows."""
    detector = Detector(run, "torch", precision="fp32")
    about = detector.about
    known = read_dataset(data, split)
    pairs = pair_names(about.labels, known.labels)
    if not pairs:
        raise UserError(f"{data}: found the classes {listed(known.labels)}; expected the model's "
                        f"({listed(about.labels)}). Name the data that the run was trained on.")  # fmt: skip
    part = read_dataset(data, split, tuple(pairs.values()))
    index = np.array([about.labels.index(name) for name in pairs])
    dataset = replace(part, labels=about.labels, classes=index[part.classes], pixel_range=about.pixel_range)
    loss = str(about.training.get("recipe", {}).get("loss", "region"))
    head = _with_anchors(about.heads, str(run))
    return Used(dataset, f"model {run.name}", about.layers, head, about.input_size, about.resize, about.channels,
                detector, loss if loss in LOSSES else "region")  # fmt: skip


def _with_anchors(heads: Sequence[PlacedHead], place: str) -> PlacedHead:
    """Return the first head that has anchors: the one that is drawn."""
    found = [head for head in heads if head.layer.anchors]
    if not found:
        raise UserError(f"{place}: its heads have no anchors; explain shows networks whose heads have them")
    return found[0]


def _example(used: Used, image: str | None) -> Example:
    """Return the image with this file name, or the most instructive one."""
    if image is None:
        found = first_example(used.dataset, used.input_size, used.resize)
        if found is None:
            raise UserError(f"{used.dataset.root}: none of its images with objects can be opened; see lookonce check")
        return found
    names = [Path(str(path)).name for path in used.dataset.paths]
    if image not in names:
        near = closest(image, names)
        hint = f"; did you mean {printable(near)}?" if near else ""
        raise UserError(f"image: {printable(image)} is not among the {len(names)} images of this split{hint}")
    return example(used.dataset, names.index(image), used.input_size, used.resize)
