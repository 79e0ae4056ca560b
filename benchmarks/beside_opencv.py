"""lookonce beside OpenCV 4 on the same Darknet files: the same detections, and ms of the network, in one run.

    python benchmarks/beside_opencv.py [MODEL.cfg ...] [--size 416] [--threads 1 2] [--rounds 20]

Without files: yolov3, yolov3_tiny, yolov4 and yolov4_tiny with random weights. Every network is written with batch norm
folded, since the programs use different constants in it, and read by all. Detections are those of one image of the
input's size: per class, IoU 0.45, a threshold that at most some fifty boxes pass. Programs run in turn, one image at a
time. Beside the time that passes stands the processor's own, over all threads: it counts where the machine does other
work as well.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import cv2
import numpy as np
from darknet_cfgs import randomised
from numpy.typing import NDArray

from lookonce import Detector
from lookonce.data.images import load_rgb
from lookonce.deploy.benchmark import interleave, process_threads, this_machine, timed
from lookonce.deploy.export import Options, write_darknet
from lookonce.inference.backends.open import open_backend
from lookonce.inference.backends.settings import Settings
from lookonce.inference.backends.torch import computes_bf16
from lookonce.model import zoo
from lookonce.model.boxes import iou
from lookonce.model.detections import Detections
from lookonce.model.model_file import Model, load_model

IOU = 0.45
LOWEST = 0.2
"""OpenCV gives no scores of boxes whose objectness is below this."""
BOXES = 50
"""Pairs of box and class above the threshold before suppression, about."""
WAYS = [Settings("openvino", "cpu", "fp32"), Settings("openvino", "cpu", "bf16"),
        Settings("onnxruntime", "cpu", "fp32"), Settings("torch", "cpu", "fp32")]  # fmt: skip


def models(files: list[Path], size: int) -> Iterator[tuple[str, Model]]:
    """Yield the name of each network and the network, on a square input."""
    for file in files:
        model = load_model(file)
        yield file.stem, replace(model, input_size=(size, size), loaded=model.network)
    for name in () if files else ("yolov3_tiny", "yolov4_tiny", "yolov3", "yolov4"):
        layers = zoo.detector(name, 80, zoo.own_anchors(name))
        labels = tuple(f"class {n}" for n in range(80))
        yield name, Model(randomised(layers, (96, 96)), labels, (size, size))


def pairs(net: cv2.dnn.Net, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return OpenCV's boxes [N, 4], x y w h in pixels, and scores [N, C], without those below its own threshold."""
    height, width = image.shape[:2]
    net.setInput(cv2.dnn.blobFromImage(image, 1 / 255, (width, height)))
    rows = np.concatenate([out.reshape(-1, out.shape[-1]) for out in net.forward(net.getUnconnectedOutLayersNames())])
    centre, side = rows[:, :2] * (width, height), rows[:, 2:4] * (width, height)
    return np.concatenate((centre - side / 2, side), 1), rows[:, 5:]


def suppressed(boxes: NDArray[np.float32], scores: NDArray[np.float32], threshold: float, size: int) -> Detections:
    """Return what OpenCV's suppression leaves, each class alone, clipped to the image."""
    box, label = (scores > threshold).nonzero()
    kept = cv2.dnn.NMSBoxesBatched(boxes[box].tolist(), scores[box, label].tolist(), label.tolist(), threshold, IOU)
    box, label = box[kept], label[kept]
    corners = np.concatenate((boxes[box, :2], boxes[box, :2] + boxes[box, 2:]), 1).clip(0, size)
    return Detections(corners, scores[box, label], label, tuple(f"class {n}" for n in range(scores.shape[1])))


def compared(found: Detections, expected: Detections) -> str:
    """Return how many detections of OpenCV were found (class, IoU above .9), and the largest differences of those."""
    box_error = score_error = 0.0
    matched = 0
    for box, score, label in zip(expected.boxes, expected.scores, expected.labels, strict=True):
        near = np.flatnonzero((found.labels == label) & (iou(found.boxes, box[None]) > 0.9)) if len(found) else ()
        if len(near):  # clipping makes boxes equal that were not, so the nearest score counts
            at = near[np.abs(found.scores[near] - score).argmin()]
            matched += 1
            box_error = max(box_error, np.abs(found.boxes[at] - box).max())
            score_error = max(score_error, abs(found.scores[at] - score))
    return f"{matched} of {len(expected)} ({len(found)} found), boxes {box_error:.3f} px, scores {score_error:.0e}"


def measured(model: Model, picture: NDArray[np.uint8], threads: int, rounds: int, folder: Path) -> Iterator[str]:
    """Yield a row of the table for each program."""
    cfg, weights, *_ = write_darknet(model, folder / "model", Options(folded=True)).files
    size = model.input_size[0]
    net = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    raw = [f"conv_{head.index - 1}" for head in model.heads]
    rng = np.random.default_rng(0)
    image = np.ascontiguousarray(cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC))
    boxes, scores = pairs(net, image)
    best = np.sort(scores[scores > LOWEST])[::-1]
    best = best[max(0, min(BOXES, len(best)) - 10) :][:20]
    at = int(np.diff(best).argmin())  # the widest gap
    threshold = float(best[at] + best[at + 1]) / 2
    expected = suppressed(boxes, scores, threshold, size)
    given = rng.random((1, 3, size, size), np.float32)

    def opencv_network() -> object:
        net.setInput(given)
        return net.forward(raw)

    def opencv_call() -> Detections:
        return suppressed(*pairs(net, image), threshold, size)

    names, networks, calls, answers = ["OpenCV"], [opencv_network], [opencv_call], [expected]
    for way in WAYS:
        if way.precision == "bf16" and not computes_bf16():
            continue
        backend = open_backend(cfg, replace(way, threads=threads))
        detector = Detector(backend, threshold=threshold, iou_threshold=IOU)
        names.append(f"{backend.info.name} {backend.info.precision}")
        networks.append(lambda backend=backend: backend(given))
        calls.append(lambda detector=detector: detector(image))
        answers.append(detector(image))
    took, _ = interleave([timed(run) for run in (*networks, *calls)], rounds, 3)
    columns = list(zip(*took, strict=True))
    wall = [1e3 * min(each.seconds for each in one) for one in columns]
    work = [1e3 * median(each.cpu or 0.0 for each in one) for one in columns]
    count = len(names)
    for n, (name, answer) in enumerate(zip(names, answers, strict=True)):
        same = compared(answer, expected) if n else f"{len(expected)} above {threshold:.3f}"
        cells = [name, f"{wall[n]:.1f}", f"{work[n]:.1f}", f"{work[0] / work[n]:.1f}", f"{work[count + n]:.1f}",
                 f"{work[count] / work[count + n]:.1f}", same]  # fmt: skip
        yield " | ".join(cells)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="*", metavar="MODEL.cfg")
    parser.add_argument("--image", type=Path, help="detect on this image; none: one of random colours")
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    print(f"{this_machine()}\n{given.rounds} rounds: their fastest, and the median of the processor's time\n")
    print("| network | threads | program | network, ms | processor, ms | times OpenCV | image to boxes, processor ms "
          "| times OpenCV | boxes |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    random = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    picture = load_rgb(given.image) if given.image else random
    for name, model in models(given.files, given.size):
        for threads in given.threads:
            with process_threads(threads), tempfile.TemporaryDirectory() as folder:
                for row in measured(model, picture, threads, given.rounds, Path(folder)):
                    print(f"| {name} {given.size} | {threads} | {row} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
