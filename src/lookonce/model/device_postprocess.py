"""From predictions to detections on the device that made them: postprocess.py for the tensors of a whole batch.

Threshold, undoing the resize and suppression run on the device in shapes that few numbers decide: the host reads the
largest number of candidates of an image, whether suppression has settled, and the result. Letters: B images,
N predictions, C classes, K candidates of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lookonce.model.boxes import iou, relative_distance
from lookonce.model.detections import Predictions
from lookonce.model.device import to_device
from lookonce.model.resize import ResizeMode, geometry

if TYPE_CHECKING:
    from lookonce.model.postprocess import Selection

PAIRS = 1 << 24
"""Pairs of candidates that are compared at once: some 600 MB for one image's 3,000, and many images with few."""


class Candidates(NamedTuple):
    """The (box, class) pairs of each image that enter suppression, best first; the rest of a row has the score 0."""

    boxes: Tensor  # [B, K, 4] xyxy, image pixels
    scores: Tensor  # [B, K]
    labels: Tensor  # [B, K]


def survivors_of(predictions: Predictions[Tensor], sizes: Sequence[tuple[int, int]], input_size: tuple[int, int],
                 mode: ResizeMode, selection: Selection) -> list[NDArray[np.float32]]:  # fmt: skip
    """Return what suppression keeps of each image: [M, 6] x1, y1, x2, y2 in image pixels, score, class; best first.

    Boxes are not clipped. Arguments as of postprocess; the selection has no tree.
    """
    with torch.inference_mode():
        found = candidates(predictions, sizes, input_size, mode, selection)
        at_once = max(1, PAIRS // max(found.scores.shape[1], 1) ** 2)
        parts = (slice(start, start + at_once) for start in range(0, max(len(sizes), 1), at_once))
        keep = torch.cat([suppressed(Candidates(*(each[part] for each in found)), selection) for part in parts])
        columns = (found.boxes, found.scores[..., None], found.labels[..., None].to(found.scores.dtype),
                   keep[..., None].to(found.scores.dtype))  # fmt: skip
        read = torch.cat(columns, -1).cpu().numpy()  # [B, K, 7]
    return [rows[rows[:, 6] > 0, :6] for rows in read]


def candidates(predictions: Predictions[Tensor], sizes: Sequence[tuple[int, int]], input_size: tuple[int, int],
               mode: ResizeMode, selection: Selection) -> Candidates:  # fmt: skip
    """Return the pairs above the threshold, at most max_candidates of an image; of equal scores the lower index first.

    Predictions that are not finite are none.
    """
    boxes, objectness = predictions.boxes.float(), predictions.objectness.float()  # [B, N, 4], [B, N]
    class_prob = predictions.class_prob.float()  # [B, N, C]
    likely = (objectness > selection.score_threshold) & boxes.isfinite().all(-1)
    scores = (objectness[..., None] * class_prob).nan_to_num(0, 0, 0)
    scores = torch.where(likely[..., None] & (scores > selection.score_threshold), scores, 0).flatten(1)  # [B, N * C]
    most = int((scores > 0).sum(1).max()) if scores.numel() else 0
    if most > selection.max_candidates:  # of equal scores at the limit the lower index enters
        best = scores.sort(descending=True, stable=True).indices[:, : selection.max_candidates].sort().values
    else:
        best = scores.topk(most).indices.sort().values  # [B, K] in order of their index
    value, order = scores.gather(1, best).sort(descending=True, stable=True)
    best = best.gather(1, order)
    corners = boxes.gather(1, (best // class_prob.shape[-1])[..., None].expand(-1, -1, 4))  # [B, K, 4] input px
    places = torch.from_numpy(geometry(np.array(sizes).reshape(-1, 2), input_size, mode)).float()
    placed = to_device(places, boxes.device)[:, None]  # [B, 1, 4]
    scale, offset = placed[..., :2], placed[..., 2:]
    return Candidates((corners - offset.repeat(1, 1, 2)) / scale.repeat(1, 1, 2), value, best % class_prob.shape[-1])


def suppressed(found: Candidates, selection: Selection) -> Tensor:
    """Return which candidates greedy suppression within each class keeps: [B, K] bool.

    As survivors of postprocess.py, for a batch: the rule is applied to all at once until nothing changes.
    """
    boxes, real = found.boxes, found.scores > 0
    overlap = iou(boxes[:, :, None], boxes[:, None])  # [B, K, K]: the better one, the worse one
    if selection.distance_exponent is not None:
        overlap = overlap - relative_distance(boxes[:, :, None], boxes[:, None]) ** selection.distance_exponent
    clash = (overlap > selection.iou_threshold) & (found.labels[:, :, None] == found.labels[:, None])
    clash = clash.triu(1) & real[:, None]
    keep = real
    while True:
        settled = real & ~(clash & keep[:, :, None]).any(1)
        if torch.equal(settled, keep):
            return keep
        keep = settled
