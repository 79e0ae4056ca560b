"""One Detector called from several threads: wrong answers, errors and images/s beside one thread, on each backend.

    python benchmarks/threads.py [--model runs/cells-1] [--images photos/] [--calls 600] [--threads 2 8]

Without a model yolov2_tiny at 416 px with numbers drawn at random; without images 20 drawn ones. Ends with 1 where an
answer was not that of one thread (a box further than 1 px away, or another class), or a call failed.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lookonce import Detections, Detector, Network
from lookonce.data.images import load_rgb
from lookonce.data.lookup import find_images
from lookonce.inference.backends.settings import BackendName
from lookonce.model import zoo
from lookonce.model.model_file import Model, save_model

BACKENDS: tuple[BackendName, ...] = ("torch", "openvino", "onnxruntime")
Image = NDArray[np.uint8]


def same(found: Detections, expected: Detections) -> bool:
    """Whether two answers are to one question."""
    return len(found) == len(expected) and bool(
        np.array_equal(found.labels, expected.labels) and np.allclose(found.boxes, expected.boxes, atol=1)
    )


def ask(detector: Detector, images: Sequence[Image], calls: int, threads: int) -> tuple[list[Detections | str], float]:
    """Each call's answer or error, and calls/s."""

    def call(number: int) -> Detections | str:
        try:
            return detector(images[number % len(images)])
        except Exception as error:
            return str(error)

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        answers = list(pool.map(call, range(calls)))
    return answers, calls / (time.perf_counter() - start)


def drawn(folder: Path) -> Path:
    """A model whose numbers mean nothing but give each image its own boxes."""
    layers = zoo.DETECTORS["yolov2_tiny"](20, zoo.VOC_ANCHORS)
    path = folder / "yolov2_tiny.safetensors"
    save_model(Model(Network(layers).eval(), tuple(f"class {n}" for n in range(20))), path)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--calls", type=int, default=600)
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 8])
    given = parser.parse_args()
    draw = np.random.default_rng(0)
    images = [load_rgb(file) for file in find_images(given.images)[:20]] if given.images else [
        draw.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(20)]  # fmt: skip
    failed = False
    with tempfile.TemporaryDirectory() as name:
        model = given.model or drawn(Path(name))
        for backend in BACKENDS:
            if importlib.util.find_spec(backend) is None:
                print(f"{backend}: not installed")
                continue
            for throughput in (False, True) if backend == "openvino" else (False,):
                detector = Detector(model, backend, device="cpu", throughput=throughput, threshold=1e-3)
                expected = [detector(image) for image in images]
                _, alone = ask(detector, images, given.calls, 1)
                for threads in given.threads:
                    answers, rate = ask(detector, images, given.calls, threads)
                    errors = [one for one in answers if isinstance(one, str)]
                    wrong = sum(not isinstance(one, str) and not same(one, expected[n % len(images)])
                                for n, one in enumerate(answers))  # fmt: skip
                    failed |= bool(errors or wrong)
                    print(
                        f"{detector.backend.info}{', throughput' if throughput else ''}: {threads} threads, "
                        f"{given.calls} calls, {wrong} wrong, {len(errors)} errors {errors[:1]}; {rate:.1f} images/s, "
                        f"{rate / alone:.2f} x of one thread ({alone:.1f})", flush=True,
                    )  # fmt: skip
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
