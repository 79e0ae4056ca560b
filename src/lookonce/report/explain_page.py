"""The page of `explain`: a data set and a model step by step, from anchors to boxes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookonce.inference.detector import Detector
from lookonce.model.anchors import Anchors
from lookonce.model.layers import PlacedHead, Region
from lookonce.model.losses import LossOptions
from lookonce.report.explain_boxes import LOWEST, Candidates, candidates, objectness_map, predictions_of
from lookonce.report.explain_drawings import (
    Subject,
    boxes_drawing,
    encoding_section,
    heat_maps,
    layers_drawing,
    loss_drawing,
    mask_drawing,
    terms_drawing,
)
from lookonce.report.explain_encoding import Example
from lookonce.report.explain_loss import loss_maps
from lookonce.report.explain_network import LayerTable
from lookonce.report.figures import cluster_cloud, fit_curve
from lookonce.report.page import write_page

FORMULAS = {
    "xy": "½ Σ s ((σ(tx) - x)² + (σ(ty) - y)²) over objects; x, y: position in the cell; s = coord_scale (2 - area)",
    "wh": "½ Σ s ((tw - ln w/pw)² + (th - ln h/ph)²) over objects; pw, ph: the anchor",
    "objectness": "½ object_scale Σ (σ(to) - IoU)² over objects; IoU of the predicted with the labelled box",
    "background": "½ noobject_scale Σ σ(to)² over all other predictors whose box overlaps no object too much",
    "class": "class_scale Σ -ln softmax(classes) of the right class, over objects",
    "ciou": "Σ (1 - CIoU) of the predicted and the labelled box, over objects",
}
"""Terms of the region loss, of one image."""
KERAS_FORMULAS = {
    "xy": "½ coord_scale mean((bx - x)² + (by - y)²) over objects, in cells",
    "wh": "½ coord_scale mean((bw - w)² + (bh - h)²) over objects, in cells",
    "objectness": "½ mean over objects and background: object_scale (σ(to) - IoU)², no_object_scale σ(to)²",
    "class": "class_scale mean of -ln softmax(classes) of the right class, over objects",
}
"""Terms of the loss keras_yolo2, of one image."""


@dataclass(frozen=True, eq=False)
class Story:
    """What the page explains."""

    name: str
    """Of the data set."""
    split: str
    resize: str
    wh: NDArray[np.floating]
    """[N, 2] shapes of the boxes of the split, cells."""
    curve: Sequence[Anchors]
    """Clusters of 1, 2, 3, ... anchors."""
    anchors: Anchors
    """The anchors that are used: of the model, or the clusters."""
    example: Example
    head: PlacedHead
    """The head that is drawn: the first one."""
    table: LayerTable
    network: str
    """What the network is."""
    detector: Detector | None = None
    loss: str = "region"

    @property
    def heads(self) -> int:
        """Number of heads of the model."""
        return 1 if self.detector is None else len(self.detector.about.heads)


def write_explain_page(path: Path, story: Story) -> Path:
    """Write the page."""
    subject = Subject(story.example, story.head)
    values: dict[str, Any] = {"loss": None, "found": None}
    if story.detector is not None:
        raws, predictions = predictions_of(story.detector, story.example)
        values["found"] = boxes_section(subject, candidates(predictions), story.detector)
        if isinstance(story.head.layer, Region):
            values["objectness"] = heat_maps(subject, {"objectness, best anchor":
                                                       objectness_map(raws[0], story.head).amax(0)})  # fmt: skip
            if story.detector.about.tree is None:
                found = loss_maps(raws[0], story.head, story.example.objects, LossOptions(story.loss))
                formulas = KERAS_FORMULAS if found.name == "keras_yolo2" else FORMULAS
                values["loss"] = {
                    "name": found.name, "terms": terms_drawing(found.terms), "maps": loss_drawing(subject, found),
                    "masks": mask_drawing(subject, found.roles),
                    "formulas": {term: formulas[term] for term in found.maps},
                }  # fmt: skip
    best = story.curve[len(story.anchors.wh) - 1] if len(story.anchors.wh) <= len(story.curve) else None
    return write_page(
        path, "explain_page.html", story=story, subject=subject, encoding=encoding_section(subject),
        cloud=cluster_cloud(story.wh, story.anchors),
        fit=fit_curve(story.curve, min(len(story.anchors.wh), len(story.curve))), best=best,
        layers=layers_drawing(story.table), **values,
    )  # fmt: skip


def boxes_section(subject: Subject, found: Candidates, detector: Detector) -> dict[str, Any]:
    """Return what the part of the page with the sliders needs; the script recomputes what is kept."""
    threshold = round(max(detector.selection.score_threshold, LOWEST), 2)
    iou_threshold = round(detector.selection.iou_threshold, 2)
    kept = found.kept(threshold, iou_threshold)
    above = int((found.scores > threshold).sum())
    listed = [[*np.round(box, 2).tolist(), round(score, 5), int(label)] for box, score, label in
              zip(found.boxes, found.scores.tolist(), found.labels, strict=True)]  # fmt: skip
    return {
        "candidates": json.dumps(listed), "threshold": threshold, "iou_threshold": iou_threshold, "above": above,
        "kept": len(kept), "predictors": found.predictors, "left_out": found.left_out, "lowest": LOWEST,
        "before": boxes_drawing(subject, found, range(above), "above the threshold, before suppression"),
        "after": boxes_drawing(subject, found, kept, "after suppression: what detection returns", tags=True),
    }  # fmt: skip
