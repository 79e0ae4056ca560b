"""Verify an exported file: run it on images and compare its numbers with those of the model in PyTorch.

Letters: B images, N predictors, C classes, M rows.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from PIL import Image

from lookonce.data.images import load_rgb
from lookonce.data.lookup import find_images
from lookonce.errors import UserError
from lookonce.model.boxes import clip
from lookonce.model.heads import decode
from lookonce.model.model_file import Model
from lookonce.model.network import folded
from lookonce.model.onnx_graph import BOXES, DETECTIONS, SCORES, predictions_info
from lookonce.model.onnx_layers import raws
from lookonce.model.postprocess import PLAIN_THRESHOLD, Selection, nms_per_class
from lookonce.model.resize import to_input

MOST_IMAGES = 16
BATCH = 4
BEST = 100
"""Predictors of an image whose boxes are compared: those of highest score."""
Run = Callable[[NDArray[Any]], dict[str, NDArray[np.float32]]]
"""The file's input, uint8 images [B, 3, H, W] or floats of a raw one, to its tensors by name."""


class VerificationError(UserError):
    """An exported file whose output differs from its model's."""


@dataclass(frozen=True)
class Tolerance:
    """Largest differences that are allowed."""

    boxes: float
    """Input pixels."""
    scores: float


EXACT = Tolerance(0.05, 1e-4)
HALF = Tolerance(1.0, 0.01)
"""Weights of 16-bit floats: 11 bits of precision where bfloat16 has 8."""
BY_ACCURACY = Tolerance(math.inf, math.inf)
"""int8: judged by mAP, see int8.py. Only non-maximum suppression must be exact."""


@dataclass
class Verification:
    """The largest differences between a file and its model."""

    backend: str
    images: str
    tolerance: Tolerance
    boxes: float = 0.0
    """Input pixels, of boxes clipped to the input."""
    scores: float = 0.0
    rows: int = 0
    same_rows: int = 0
    """Rows that equal those of our own suppression on the file's predictions."""

    @property
    def holds(self) -> bool:
        """Whether all differences are within tolerance; NaN is not."""
        close = self.boxes <= self.tolerance.boxes and self.scores <= self.tolerance.scores
        return close and self.rows == self.same_rows

    def __str__(self) -> str:
        lines = [("", "largest difference", "allowed"),
                 ("boxes, px", f"{self.boxes:.2g}", _allowed(self.tolerance.boxes)),
                 ("scores", f"{self.scores:.2g}", _allowed(self.tolerance.scores))]  # fmt: skip
        if self.rows:
            lines.append(("rows", str(self.rows - self.same_rows), f"0 of {self.rows}"))
        table = "\n".join(f"{name:<10} {found:>20} {allowed:>10}" for name, found, allowed in lines)
        return f"verified: {self.backend} against PyTorch on {self.images}\n{table}"


def verify(model: Model, run: Run, backend: str, data: Path | None, tolerance: Tolerance = EXACT) -> Verification:
    """Compare a file with the model that it was made from.

    Args:
        model: what was exported.
        run: runs the file.
        backend: name and version of what runs it.
        data: an image or a folder of images; None: synthetic ones.
        tolerance: largest allowed differences.
    Raises:
        VerificationError: larger differences than that.
        UserError: no images at `data`.
    """
    found = Verification(backend, "", tolerance)
    network, count = folded(model.network), 0
    for images in _batches(_images(data), model):
        count += len(images)
        with torch.inference_mode():
            boxes, scores = _decoded(model, network(torch.from_numpy(images).float() / 255))
        theirs = run(images)
        _measure(found, boxes, scores, theirs, model.input_size)
        if DETECTIONS in theirs:
            _count_rows(found, theirs, min(model.thresholds, default=PLAIN_THRESHOLD))
    found.images = f"{count} images of {data}" if data else f"{count} synthetic images"
    if not found.holds:
        raise VerificationError(f"the exported file does not compute what the model does, so it was not kept: {found}")
    return found


def from_raw(model: Model, run: Run) -> Run:
    """Return what runs a file that ends in raw maps: one image at a time, then decode. run: runs the file alone."""
    names = raws(model.network.layers)

    def decoded(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        given = images.astype(np.float32) / 255
        found = [run(image[None]) for image in given]
        maps = tuple(torch.from_numpy(np.concatenate([one[name] for one in found])) for name in names)
        boxes, scores = _decoded(model, maps)
        return {BOXES: boxes.numpy(), SCORES: scores.numpy()}

    return decoded


def _decoded(model: Model, maps: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return boxes [B, N, 4] and scores [B, N, C] of raw maps."""
    found = decode(maps, model.network.heads, model.tree)
    share = found.class_prob if model.tree is None else model.tree.top_only(found.class_prob)
    return found.boxes, found.objectness[..., None] * share


def _measure(found: Verification, boxes: torch.Tensor, scores: torch.Tensor, theirs: dict[str, NDArray[np.float32]],
             input_size: tuple[int, int]) -> None:  # fmt: skip
    """Keep the largest differences of a batch: boxes [B, N, 4], scores [B, N, C]."""
    best = scores.amax(-1).topk(min(BEST, scores.shape[1])).indices[..., None].expand(-1, -1, 4)  # [B, K, 4]
    mine, other = (clip(each, *input_size).gather(1, best) for each in (boxes, torch.from_numpy(theirs[BOXES])))
    found.boxes = _worst(found.boxes, (mine - other).abs().numpy())
    found.scores = _worst(found.scores, np.abs(scores.numpy() - theirs[SCORES]))


def _allowed(most: float) -> str:
    return f"{most:g}" if math.isfinite(most) else "by mAP"


def _worst(before: float, differences: NDArray[np.float32]) -> float:
    return float(np.max([before, differences.max(initial=0)]))  # np.max keeps nan


def _count_rows(found: Verification, theirs: dict[str, NDArray[np.float32]], threshold: float) -> None:
    """Count the rows of a batch, and those that suppression here gives from the same predictions."""
    selection = Selection(threshold, max_candidates=20_000)
    expected = []
    for image, (boxes, scores) in enumerate(zip(theirs[BOXES], theirs[SCORES], strict=True)):
        box, label = nms_per_class(boxes, scores, selection)
        order = np.lexsort((box, -scores[box, label], label))
        box, label = box[order], label[order]
        lead = np.stack((np.full(len(box), image), label), -1)  # [M, 2]
        expected.append(np.concatenate((lead, boxes[box], scores[box, label, None]), -1))  # [M, 7]
    mine, rows = np.concatenate(expected), theirs[DETECTIONS]
    found.rows += max(len(mine), len(rows))
    if len(mine) == len(rows):
        found.same_rows += int((mine.astype(np.float32) == rows).all(-1).sum())


def _images(data: Path | None) -> Iterator[NDArray[np.uint8]]:
    """Yield a few images [h, w, 3] from all over a folder, or synthetic ones of smooth noise."""
    if data is not None:
        files = find_images(data)
        for file in files[:: -(-len(files) // MOST_IMAGES)]:
            yield load_rgb(file)
        return
    draw = np.random.default_rng(0)
    for side in (8, 12, 16, 24) * 2:
        small = Image.fromarray(draw.integers(0, 256, (side, side, 3), np.uint8))
        yield np.array(small.resize((320, 240), Image.Resampling.BICUBIC))


def _batches(images: Iterator[NDArray[np.uint8]], model: Model) -> Iterator[NDArray[np.uint8]]:
    """Yield batches [B, 3, H, W] as the file takes them: resized and rounded."""
    waiting: list[NDArray[np.uint8]] = []
    for image in images:
        waiting.append(np.rint(to_input(image, model.input_size, model.resize) * 255).astype(np.uint8))
        if len(waiting) == BATCH:
            yield np.stack(waiting)
            waiting = []
    if waiting:
        yield np.stack(waiting)


def onnx_runner(path: Path) -> tuple[Run, str]:
    """Return what runs an .onnx file, and its name: ONNX Runtime, or OpenVINO if that is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return openvino_runner(path)
    from lookonce.inference.backends.onnxruntime import import_onnxruntime

    onnxruntime = import_onnxruntime()
    made = onnx.load_model(path)
    inside = {name for node in made.graph.node for name in node.output}
    made.graph.output.extend(info for info in predictions_info() if info.name in inside)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # it warns of inputs that have defaults
    session: Any = onnxruntime.InferenceSession(made.SerializeToString(), settings, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    name = session.get_inputs()[0].name

    def run(images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        return dict(zip(names, session.run(None, {name: images}), strict=True))

    return run, f"ONNX Runtime {onnxruntime.__version__}"


def openvino_runner(path: Path) -> tuple[Run, str]:
    """Return what runs an .onnx or .xml file in float32, and its name."""
    import openvino

    from lookonce.inference.backends.openvino import the_core

    core = the_core()
    read = core.read_model(path)
    inside = {name for op in read.get_ops() for output in op.outputs() for name in output.get_names()}
    read.add_outputs([name for name in (BOXES, SCORES) if name in inside])
    compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        found = compiled(images)
        return {name: found[output] for output in compiled.outputs for name in output.get_names()}

    return run, f"OpenVINO {openvino.__version__.split('-')[0]}"
