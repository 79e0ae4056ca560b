"""The network alone, one picture at a time: OpenVINO, PyTorch and ONNX Runtime against OpenCV's dnn, in one run.

    python benchmarks/network_speed.py [--rounds 15] [--threads 1] [--networks yolov2 yolov2_tiny]

All read the same weights: OpenCV the exported .cfg and .weights, the others the model. Each round runs every one once,
in turn, so that what else the machine does meets all alike; the ratio of two is the median over rounds of their ratio
within a round. Weights are random: times do not depend on them. Prints milliseconds, and how many times faster than
OpenCV each one is.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--rounds", type=int, default=15)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--networks", nargs="+", default=["yolov2", "yolov2_tiny"])
given = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(given.threads)  # before what reads it is imported

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from lookonce import Network, zoo  # noqa: E402
from lookonce.exporting.command import export  # noqa: E402
from lookonce.model_file import Model, save_model  # noqa: E402
from lookonce.runtimes.opening import open_runtime  # noqa: E402
from lookonce.runtimes.settings import Settings  # noqa: E402

SIDE = 416


def cpu_name() -> str:
    """The processor's model, and whether it has instructions for bfloat16."""
    try:
        told = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    name = next((line.split(":")[1].strip() for line in told if line.startswith("model name")), "unknown")
    flags = next((line for line in told if line.startswith("flags")), "")
    return f"{name}, AVX-512 {'avx512f' in flags}, bf16 {'avx512_bf16' in flags or 'amx_bf16' in flags}"


def runners(name: str, folder: Path) -> dict[str, Callable[[], object]]:
    """What runs one input through a network, by name; the first is OpenCV."""
    file = folder / f"{name}.safetensors"
    model = Model(Network(zoo.DETECTORS[name](20, zoo.VOC_ANCHORS)), tuple(f"c{i}" for i in range(20)), (SIDE, SIDE))
    save_model(model, file)
    cfg, weights, _ = export(file, "darknet", out=folder / name).files
    opencv = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    image = np.random.default_rng(0).random((1, 3, SIDE, SIDE), np.float32)

    def through_opencv() -> object:
        opencv.setInput(image)
        return opencv.forward()

    found: dict[str, Callable[[], object]] = {f"OpenCV {cv2.__version__} dnn": through_opencv}
    kinds: list[tuple[str, str]] = [("openvino", "fp32"), ("torch", "fp32")]
    if "bf16 True" in cpu_name():
        kinds += [("openvino", "bf16"), ("torch", "bf16")]
    if importlib.util.find_spec("onnxruntime"):
        kinds.append(("onnxruntime", "fp32"))
    for kind, precision in kinds:
        runtime = open_runtime(file, Settings(kind, "cpu", precision))  # type: ignore[arg-type]
        found[runtime.name] = lambda runtime=runtime: runtime(image)
    plain = Network(model.network.layers).eval()

    def eager() -> object:
        with torch.inference_mode():
            return plain(torch.from_numpy(image))

    return {**found, f"plain PyTorch {torch.__version__}, eager": eager}


def main() -> None:
    """Measure each network."""
    cv2.setNumThreads(given.threads)
    torch.set_num_threads(given.threads)
    print(f"{cpu_name()}; {len(os.sched_getaffinity(0))} cores free to it, {given.threads} threads")
    with tempfile.TemporaryDirectory() as folder:
        for name in given.networks:
            each = runners(name, Path(folder))
            times: dict[str, list[float]] = {key: [] for key in each}
            for number in range(given.rounds + 2):  # two rounds to warm up
                for key, run in each.items():
                    began = time.perf_counter()
                    run()
                    if number >= 2:
                        times[key].append(time.perf_counter() - began)
            judge = next(iter(times.values()))
            print(f"{name} {SIDE}, batch 1, {given.rounds} rounds")
            for key, took in times.items():
                ratio = statistics.median(a / b for a, b in zip(judge, took, strict=True))
                print(f"  {key:<42} median {statistics.median(took) * 1e3:7.1f} ms   {ratio:5.2f} x")


if __name__ == "__main__":
    main()
