"""The path around the network: files to JSON beside the network alone, and two cores beside one. Linux.

    python benchmarks/detection_path.py [--model runs/cells-1] [--images photos/] [--resize letterbox] [--rounds 5]

Without a model a yolov2_tiny at 416 px with numbers drawn at random, thinned to what the full one takes in bf16 or int8
on a processor that has them; without images 24 drawn JPEG files of 640 x 480 px. Each figure is the median over rounds
of the ratio within a round, so that other programs slow both sides alike. Processor time counts all threads.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import NamedTuple, get_args

import numpy as np
import torch

from lookonce import Detector, Network
from lookonce.data.images import BATCH, image_size, load_for
from lookonce.data.lookup import find_images
from lookonce.deploy.step_speed import write_set
from lookonce.errors import ImageError
from lookonce.inference.outputs import write_entry
from lookonce.model import zoo
from lookonce.model.heads import decode
from lookonce.model.layers import Conv
from lookonce.model.model_file import Model, save_model
from lookonce.model.postprocess import postprocess
from lookonce.model.resize import ResizeMode, to_input

IMAGES = 24
"""Of a run: three batches."""
LABELS = tuple(f"class {number}" for number in range(20))
SIDE = 416
THINNED = 2
"""Filters of each layer are divided by this: 1.9 GFLOP in place of 7."""


class Took(NamedTuple):
    """What a run took for each image."""

    wall: float  # ms
    cpu: float  # ms
    faults: float
    """Pages of memory that the system had to provide."""


def drawn_model(path: Path, mode: ResizeMode, name: str = "") -> None:
    """Write a model that is sure of some boxes on each image, as a trained one is. name: of the zoo; else thinned."""
    torch.manual_seed(0)
    layers = zoo.DETECTORS[name or "yolov2_tiny"](len(LABELS), zoo.VOC_ANCHORS)
    if not name:
        layers = tuple(replace(layer, filters=layer.filters // THINNED)
                       if isinstance(layer, Conv) and layer.batch_normalize else layer for layer in layers)  # fmt: skip
    network = Network(layers).eval()
    (last,) = network.head_convolutions()
    with torch.no_grad():
        last.weight *= 2 / network(torch.rand(1, 3, SIDE, SIDE))[0].std()
        assert last.bias is not None
        last.bias.view(len(zoo.VOC_ANCHORS), -1)[:, 4] -= 4
    save_model(Model(network, LABELS, (SIDE, SIDE), resize=mode), path)


def measured(run: Callable[[], object], images: int) -> Took:
    """Run once and return what it took for each of so many images."""
    faults, cpu, began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.process_time(), time.perf_counter()
    run()
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return Took(1e3 * wall / images, 1e3 * cpu / images, faults / images)


def runs_of(model: str, files: list[str]) -> dict[str, Callable[[], object]]:
    """Return the runs of a round: the network alone, every stage alone in one thread, and files to JSON."""
    detector = Detector(model, throughput=True)
    about, size = detector.about, detector.about.input_size
    decoded = [load_for(file, size, about.pixel_range) for file in files]
    inputs = np.stack([to_input(image.image, size, about.resize) for image in decoded[:BATCH]])
    raws = detector.backend(inputs)
    found = decode(raws, about.heads, about.tree)
    sizes = [image.size for image in decoded[:BATCH]]
    parts = range(0, len(files), BATCH)

    def to_json() -> None:
        with tempfile.TemporaryFile("w", encoding="utf-8") as text:
            for number, (file, image, detections) in enumerate(detector.detect_files(files)):
                if not isinstance(image, ImageError):
                    write_entry(text, file, detections, first=not number)

    return {
        "network alone": lambda: [detector.backend(inputs) for _ in parts],
        "header": lambda: [image_size(file) for file in files],
        "JPEG": lambda: [load_for(file, size, about.pixel_range) for file in files],
        "resize": lambda: [to_input(image.image, size, about.resize) for image in decoded],
        "decode": lambda: [decode(raws, about.heads, about.tree) for _ in parts],
        "suppression": lambda: [postprocess(found, sizes, size, about.resize, about.labels, detector.selection)
                                for _ in parts],
        "files to JSON": to_json,
    }  # fmt: skip


def child(model: str, files: list[str]) -> None:
    """Print what each run took, as JSON, for each line of standard input."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    runs = runs_of(model, files)
    for run in runs.values():
        run()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps({name: measured(run, len(files)) for name, run in runs.items()}), flush=True)


def started(cores: set[int], model: str, files: list[str]) -> subprocess.Popen[str]:
    """Start a process on these cores with a thread for each, and wait until it is ready."""
    words = [sys.executable, __file__, "--child", model, *files]
    environment = {**os.environ, "OMP_NUM_THREADS": str(len(cores))}
    process = subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               preexec_fn=lambda: os.sched_setaffinity(0, cores))  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    return process


def one_round(process: subprocess.Popen[str]) -> dict[str, Took]:
    """Return what each run of a process took."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return {name: Took(*took) for name, took in json.loads(process.stdout.readline()).items()}


def main() -> None:
    """Measure in turn on one core and on two."""
    if sys.argv[1:2] == ["--child"]:
        return child(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--resize", default="letterbox_antialias", choices=get_args(ResizeMode))
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LOOKONCE_CACHE"] = folder
        model, files = given.model, find_images(given.images)[:IMAGES] if given.images else []
        if model is None:
            model = str(Path(folder) / "model.safetensors")
            drawn_model(Path(model), given.resize)
        if not files:
            write_set(Path(folder) / "set", IMAGES, (640, 480), LABELS, (8, 9))
            files = find_images(Path(folder) / "set" / "JPEGImages")
        cores = sorted(os.sched_getaffinity(0))[:2]
        one, two = started({cores[0]}, model, files), started(set(cores), model, files)
        both = [(one_round(one), one_round(two)) for _ in range(given.rounds)]
        for process in (one, two):
            process.communicate()
    report(both)


def report(both: list[tuple[dict[str, Took], dict[str, Took]]]) -> None:
    """Print the figures. both: of each round, the runs on one core and on two."""
    network, whole = "network alone", "files to JSON"
    print(
        f"{'ms for each image':<20}{'1 core':>10}{'2 cores':>10}{'CPU, 1 core':>14}{'CPU, 2 cores':>14}{'faults':>10}"
    )
    for name in both[0][0]:
        ones, twos = [one[name] for one, _ in both], [two[name] for _, two in both]
        columns = [median(each.wall for each in ones), median(each.wall for each in twos),
                   median(each.cpu for each in ones), median(each.cpu for each in twos)]  # fmt: skip
        print(f"{name:<20}" + "".join(f"{value:>14.2f}" for value in columns)
              + f"{median(each.faults for each in twos):>10.0f}")  # fmt: skip
    for name in (network, whole):
        print(f"{name}: 1 -> 2 cores {median(one[name].wall / two[name].wall for one, two in both):.2f} times")
    for number, cores in enumerate(("1 core", "2 cores")):
        wall = median(each[number][network].wall / each[number][whole].wall for each in both)
        cpu = median(each[number][network].cpu / each[number][whole].cpu for each in both)
        busy = median(each[number][whole].cpu / each[number][whole].wall for each in both)
        print(f"{cores}: files to JSON at {wall:.0%} of the network alone; of processor time {cpu:.0%}; "
              f"{busy:.2f} cores busy")  # fmt: skip


if __name__ == "__main__":
    main()
