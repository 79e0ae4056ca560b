"""From the raw map to boxes: all candidates of one image, and those that a threshold and suppression leave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lookonce.inference.detector import Detector
from lookonce.model.detections import Predictions
from lookonce.model.heads import decode
from lookonce.model.heads.region import split
from lookonce.model.layers import PlacedHead
from lookonce.model.postprocess import Selection, nms_per_class
from lookonce.report.explain_encoding import Example

LOWEST = 0.01
"""Lowest score of a candidate."""
MOST = 500
"""Candidates, at most: the best."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Pairs of box and class with a score above LOWEST, best first; before suppression."""

    boxes: NDArray[np.float64]
    """[M, 4] xyxy, input px."""
    scores: NDArray[np.float64]
    """[M] objectness times class probability."""
    labels: NDArray[np.int64]
    """[M] class."""
    predictors: int
    """Predictors of the network: anchors times cells, of all heads."""
    left_out: int
    """Candidates beyond MOST."""

    def kept(self, threshold: float, iou_threshold: float) -> NDArray[np.int64]:
        """Return the indices of the candidates that stay, best first, as detection would decide."""
        scores = np.zeros((len(self.scores), int(self.labels.max(initial=0)) + 1))
        scores[np.arange(len(scores)), self.labels] = self.scores
        kept, _ = nms_per_class(self.boxes, scores, Selection(threshold, iou_threshold))
        return kept


def candidates(predictions: Predictions[NDArray[Any]]) -> Candidates:
    """Return the candidates of one image. predictions: boxes [1, N, 4] in input px."""
    boxes = predictions.boxes[0].astype(np.float64)  # [N, 4]
    scores = (predictions.objectness[0, :, None] * predictions.class_prob[0]).astype(np.float64)  # [N, C]
    scores[~np.isfinite(boxes).all(-1)] = 0
    box, label = nms_per_class(boxes, scores, Selection(LOWEST, 1.0, max_candidates=MOST))  # suppresses nothing
    pairs = int((scores > LOWEST).sum())
    return Candidates(boxes[box], scores[box, label], label, len(boxes), pairs - len(box))


def predictions_of(detector: Detector, example: Example) -> tuple[list[torch.Tensor], Predictions[NDArray[Any]]]:
    """Return the raw maps of an example, one a head, and the predictions that they mean."""
    raws = detector.backend(example.pixels[None])
    return [torch.as_tensor(raw) for raw in raws], decode(raws, detector.about.heads, detector.about.tree).numpy()


def objectness_map(raw: torch.Tensor, head: PlacedHead) -> torch.Tensor:
    """Return the objectness of each predictor of one image [A, H, W]. raw: [1, A*(5+C), H, W] of a region layer."""
    _, objectness, _ = split(raw, len(head.layer.anchors))
    found: torch.Tensor = objectness.sigmoid()[0]
    return found
