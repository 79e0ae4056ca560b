"""Every figure of a GPU in one run of about five minutes: training, forward, detection, and whether it equals the CPU.

    python benchmarks/gpu.py [--images 1280] [--files 2904] [--skip train compile ...]

Networks have numbers drawn at random, images are drawn JPEG files of 640 x 480 px. Each part prints its lines as soon
as it has them, and a part that fails prints why. Goals: bare step at 85 % of the network alone, train at 90 % of the
bare step, yolov2 at 416 px, batch 32, at 9,500 images/s, batch 1 in 0.6 ms, detect at 1,500 images/s from files.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from detection_path import SIDE, drawn_model
from torch import Tensor

from lookonce import Detections, Detector
from lookonce.data.images import usable_cores
from lookonce.data.lookup import find_images
from lookonce.deploy import step_speed
from lookonce.deploy.step_speed import Task, bare, fixed, in_process, write_set
from lookonce.files import write_text
from lookonce.inference.backends.settings import Precision, Settings
from lookonce.inference.backends.torch import Captured, TorchBackend
from lookonce.model import zoo
from lookonce.model.boxes import iou
from lookonce.model.darknet.cfg import Cfg, write_cfg
from lookonce.model.model_file import Model, load_model
from lookonce.model.resize import ResizeMode, to_bytes

TRAINED = (("yolov2_tiny", 64), ("yolov2", 32))
"""Networks and batches of the training figures."""
COMPARED = 64
"""Images on which CPU and GPU are compared."""


def seconds(run: Callable[[], object], repeats: int = 30) -> float:
    """Return the median time of a run on the GPU, after some that do not count, in seconds."""
    for _ in range(5):
        run()
    torch.cuda.synchronize()
    took = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(repeats):
            run()
        torch.cuda.synchronize()
        took.append((time.perf_counter() - began) / repeats)
    return median(took)


def card() -> None:
    """Print what this runs on, and the rate of a large matrix product."""
    free, total = torch.cuda.mem_get_info()
    print(f"{torch.cuda.get_device_name()}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free; {usable_cores()} cores; "
          f"torch {torch.__version__}, Python {platform.python_version()}")  # fmt: skip
    x = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    print(f"matrix product of 8192 in bf16: {2 * 8192**3 / seconds(lambda: x @ x, 10) / 1e12:.0f} TFLOP/s")


def training(folder: Path, images: int) -> None:
    """Print images/s of the network alone, of the bare step with its loss, and of `train`."""
    for name, batch in TRAINED:
        task = Task(str(folder / name), SIDE, batch, usable_cores())
        (folder / name).mkdir()
        (folder / name / "set").symlink_to(folder / "set")
        layers = zoo.DETECTORS[name](len(step_speed.LABELS), zoo.VOC_ANCHORS)
        write_text(folder / name / "network.cfg", write_cfg(Cfg(layers, SIDE, SIDE)))
        alone = batch / without_loss(task)
        stepped = batch / bare(task).seconds
        print(f"{name}, batch {batch}: network alone {alone:,.0f} images/s, bare step {stepped:,.0f} "
              f"({stepped / alone:.0%} of it)", flush=True)  # fmt: skip
        took = in_process("train", task)
        trained = batch / took.seconds
        print(f"{name}, batch {batch}: train {trained:,.0f} images/s ({trained / stepped:.0%} of the bare step), "
              f"waiting {took.waiting or 0:.0%}, {images // batch} steps an epoch", flush=True)  # fmt: skip


def without_loss(task: Task) -> float:
    """Return the seconds of a step of forward, backward and optimizer whose loss is a mean of the raw maps."""
    module = step_speed._module(task)
    module.to(device="cuda", memory_format=torch.channels_last).train()
    optimizer = step_speed.make_optimizer(module.network, module.settings)
    images = torch.rand(task.batch, 3, task.size, task.size).to(memory_format=torch.channels_last)
    batch = fixed(task, images, "cuda")

    def step() -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            raws = module.raws(batch)
        return step_speed._update(torch.stack([raw.float().mean() for raw in raws]).sum(), optimizer)

    return step_speed.seconds_a_step(step, 30)


def forward(model: Model, with_compile: bool) -> None:
    """Print the forward pass of yolov2: eager, replayed as detect runs it, and compiled, which detect does not use."""
    precisions: tuple[Precision, ...] = ("bf16", "fp32")
    for precision in precisions:
        backend = TorchBackend(model, Settings("torch", "cuda", precision))
        for batch in (32, 1):
            for name, took in passes(backend, batch, with_compile and precision == "bf16").items():
                print(f"yolov2 {SIDE}, batch {batch}, {precision}, {name}: {1e3 * took:.2f} ms, "
                      f"{batch / took:,.0f} images/s", flush=True)  # fmt: skip


def passes(backend: TorchBackend, batch: int, with_compile: bool) -> dict[str, float]:
    """Return the seconds of a pass of the network in each way."""
    given = torch.rand(batch, 3, SIDE, SIDE, device="cuda").to(backend.kind, memory_format=torch.channels_last)
    framed = [to_bytes(np.zeros((480, 640, 3), np.uint8), (SIDE, SIDE), "letterbox_antialias")] * batch
    with torch.inference_mode():
        graph = Captured(backend.network, (given,)).graph
        rows = {"eager": seconds(lambda: backend.network(given)), "replayed": seconds(graph.replay),
                "replayed, with bytes from the host": seconds(lambda: backend.maps(framed))}  # fmt: skip
        if with_compile:
            made = torch.compile(backend.network, dynamic=False)
            rows["compiled, which detect does not use"] = seconds(lambda: made(given))
    return rows


def from_files(model: Path, files: Sequence[str], folder: Path) -> None:
    """Print images/s of `detect`, start included, without and with drawn images, and of a Detector that is open."""
    for words in (["--no-save-images"], []):
        out = folder / f"out{len(words)}"
        began = time.perf_counter()
        command = [sys.executable, "-P", "-m", "lookonce", "detect", str(model), str(Path(files[0]).parent),
                   "--device", "cuda", "--out", str(out), *words]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        took = time.perf_counter() - began
        kind = "to JSON" if words else "with drawn images"
        print(f"detect from {len(files):,} files {kind}: {len(files) / took:,.0f} images/s, {took:.1f} s from start",
              flush=True)  # fmt: skip
    detector = Detector(model, device="cuda", throughput=True)
    list(detector.detect_files(files[:64]))
    began, cpu = time.perf_counter(), time.process_time()
    found = sum(len(detections) for *_, detections in detector.detect_files(files))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(f"an open Detector: {len(files) / took:,.0f} images/s, batch {detector.batch}, {cpu / took:.1f} cores busy, "
          f"{found:,} detections, {torch.cuda.max_memory_allocated() / 1e9:.1f} GB at most", flush=True)  # fmt: skip


def equality(folder: Path, files: Sequence[str]) -> None:
    """Print the largest difference of CPU and GPU, by resize mode and precision."""
    modes: tuple[ResizeMode, ...] = ("letterbox_antialias", "letterbox")
    for mode in modes:
        path = folder / f"{mode}.safetensors"
        drawn_model(path, mode)
        expected = [found for *_, found in Detector(path, "torch", device="cpu", precision="fp32").detect_files(files)]
        precisions: tuple[Precision, ...] = ("fp32", "bf16")
        for precision in precisions:
            detector = Detector(path, "torch", device="cuda", precision=precision)
            found = [detections for *_, detections in detector.detect_files(files)]
            print(f"{mode}, {precision} on the GPU beside fp32 on the CPU: {difference(found, expected)}", flush=True)


def difference(found: Sequence[Detections], expected: Sequence[Detections]) -> str:
    """Return the largest difference of boxes and scores of the same objects, and how many only one side has."""
    boxes, scores, alone, count = [0.0], [0.0], 0, 0
    for one, other in zip(found, expected, strict=True):
        pairs = iou(one.boxes[:, None], other.boxes) * (one.labels[:, None] == other.labels)  # [N, M]
        best = pairs.argmax(1) if pairs.size else np.zeros(len(one), np.int64)
        near = pairs.max(1, initial=0) > 0.9
        boxes += np.abs(one.boxes[near] - other.boxes[best[near]]).max(1, initial=0).tolist()
        scores += np.abs(one.scores[near] - other.scores[best[near]]).tolist()
        alone, count = alone + len(one) + len(other) - 2 * int(near.sum()), count + len(other)
    return (
        f"{count} detections, boxes within {max(boxes):.4f} px (95 %: {np.quantile(boxes, 0.95):.4f}), "
        f"scores within {max(scores):.5f} (95 %: {np.quantile(scores, 0.95):.5f}), {alone} without a partner"
    )


def main() -> None:
    """Run every part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1280, help="drawn images, of which one training epoch consists")
    parser.add_argument("--files", type=int, default=2904, help="files of detect: links to these images")
    parser.add_argument("--skip", nargs="*", default=[], choices=["train", "forward", "compile", "files", "equality"])
    given = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit(f"PyTorch {torch.__version__} finds no CUDA GPU on this machine; nothing to measure")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        card()
        write_set(folder / "set", given.images, (640, 480), step_speed.LABELS, (8, 9))
        images = find_images(folder / "set" / "JPEGImages")
        (folder / "files").mkdir()
        for number in range(given.files):
            os.link(images[number % len(images)], folder / "files" / f"{number:05}.jpg")
        files = find_images(folder / "files")
        model = folder / "yolov2.safetensors"
        drawn_model(model, "letterbox_antialias", "yolov2")
        print(f"ready after {time.perf_counter() - began:.0f} s", flush=True)
        parts: dict[str, Callable[[], object]] = {
            "equality": lambda: equality(folder, files[:COMPARED]),
            "files": lambda: from_files(model, files, folder),
            "train": lambda: training(folder, given.images),
            "forward": lambda: forward(load_model(model), "compile" not in given.skip),
        }
        for part, run in parts.items():
            if part in given.skip:
                continue
            try:
                run()
            except Exception as error:
                print(f"{part} failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}", flush=True)
            print(f"{part}: done after {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
