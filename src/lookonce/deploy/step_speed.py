"""Measure training steps in images/s: the step alone, the same through `train`, and the loop that one writes first.

The images are noise with a few boxes each. Each kind runs in a process of its own, round by round, so that none
inherits another's memory.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lookonce.data.augment import InputBatch
from lookonce.data.formats.voc import write_annotation, write_split
from lookonce.deploy.benchmark import Candidate, Series, Took, devices, short
from lookonce.errors import ConfigError, UserError
from lookonce.files import write_text
from lookonce.model.darknet.cfg import Cfg, write_cfg
from lookonce.model.darknet.files import detector_of
from lookonce.model.model_file import Model
from lookonce.model.network import Network
from lookonce.training.loop import keep_freed_memory
from lookonce.training.recipes import settings
from lookonce.training.step import Training, choose_precision, make_optimizer

ROUNDS = 3  # at most: one takes minutes
STEPS = 10  # timed, after one that is not
LABELS = ("a", "b", "c")
OBJECTS = 8  # on each image
PYTHON = (sys.executable, "-P", "-m")
"""Start of a command that runs a module, but none from the current folder: a csv.py there would run in its place."""


@dataclass(frozen=True)
class Task:
    """What is trained."""

    folder: str
    """Holds network.cfg, the data set "set" (STEPS batches of 640 x 480 px images) and the runs."""
    size: int
    batch: int
    threads: int
    steps: int = STEPS


def step_series(name: str, model: Model, batch: int, rounds: int, threads: int, folder: Path) -> Series:
    """Train a network with a model's layers, for three classes and from random weights, on images of noise.

    Args:
        name: the model as it was given.
        model: whose layers and input size are taken.
        batch: images of a step.
        rounds: rounds that count, ROUNDS at most.
        threads: of the CPU.
        folder: for images and runs; the caller removes it.
    Raises:
        ConfigError: an input size that training does not take.
    """
    task = prepare(model, batch, threads, folder)
    device = devices()[-1]
    precision = "bf16" if choose_precision(device)[0] == "bf16-mixed" else "fp32"
    heading = f"{short(name)}: training steps, {task.size} x {task.size}, batch {batch}, {device}"
    made = [
        Candidate(heading, label, name, "fp32" if kind == "plain" else precision, device, batch,
                  partial(in_process, kind, task), kind != "train")
        for kind, (label, _) in KINDS.items()
    ]  # fmt: skip
    return Series(made, min(rounds, ROUNDS), shares=shares)


def shares(rounds: Sequence[Sequence[Took]]) -> dict[str, float]:
    """Return how close `train` comes to the step alone, and how long it waits. rounds: [rounds][KINDS]."""
    return {
        "train, share of the step alone": median(bare.seconds / train.seconds for _, bare, train in rounds),
        "waiting for images": median(train.waiting or 0.0 for _, _, train in rounds),
    }


def prepare(model: Model, batch: int, threads: int, folder: Path) -> Task:
    """Write the network as .cfg, and the images."""
    width, height = model.input_size
    stride = model.network.stride
    if width != height or width % stride:
        raise ConfigError(f"training takes square inputs that divide by {stride}, and this one is {width} x {height}")
    write_text(folder / "network.cfg", write_cfg(Cfg(model.network.layers, width, height, model.network.channels)))
    write_set(folder / "set", STEPS * batch, (640, 480), LABELS, (OBJECTS, OBJECTS + 1))
    return Task(str(folder), width, batch, threads)


def write_set(root: Path, count: int, size: tuple[int, int], labels: Sequence[str], boxes: tuple[int, int],
              image: Callable[[Path, int], None] | None = None) -> None:  # fmt: skip
    """Write a Pascal VOC set of JPEGs with the one list "train".

    Args:
        root: the set's folder.
        count: images.
        size: (width, height), 300 px at least.
        labels: the classes, equally frequent.
        boxes: fewest objects of an image, and one more than the most.
        image: writes the image of a number to a path; None: smooth noise.
    """
    draw = np.random.default_rng(0)
    (root / "JPEGImages").mkdir(parents=True)
    stems = [f"p{number:06}" for number in range(count)]
    for number, stem in enumerate(stems):
        path = root / "JPEGImages" / f"{stem}.jpg"
        if image is not None:
            image(path, number)
        else:
            small = Image.fromarray(draw.integers(0, 255, (size[1] // 16, size[0] // 16, 3), np.uint8))
            small.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
        corner = draw.integers(1, min(size) - 160, (draw.integers(*boxes), 2))
        found = np.concatenate((corner, corner + draw.integers(30, 150, corner.shape)), 1)
        names = draw.choice(labels, len(found)).tolist()
        write_annotation(root / "Annotations" / f"{stem}.xml", path.name, size, found, names)
    write_split(root / "ImageSets" / "Main" / "train.txt", stems)


def in_process(kind: str, task: Task) -> Took:
    """Time one step of a kind in a process of its own. Raises UserError with the process's last line if it fails."""
    result = Path(task.folder, "result.json")
    result.unlink(missing_ok=True)
    command = [*PYTHON, "lookonce.deploy.step_speed", kind, json.dumps(asdict(task)), str(result)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(task.threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode in (-2, 130):  # SIGINT, which a shell sends to both processes
        raise KeyboardInterrupt
    if done.returncode or not result.is_file():
        message = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise UserError(f"training steps ({kind}): the process failed: {message[:200]}")
    return Took(*json.loads(result.read_text(encoding="utf-8")))


def bare(task: Task) -> Took:
    """Time the step alone, as fast as `train` makes it: its precision, channels_last, freed memory kept."""
    keep_freed_memory()
    device, module = devices()[-1], _module(task)
    module.to(device=device, memory_format=torch.channels_last).train()
    optimizer = make_optimizer(module.network, module.settings)
    batch = fixed(task, torch.rand(task.batch, 3, task.size, task.size).to(memory_format=torch.channels_last), device)
    half = choose_precision(device)[0] == "bf16-mixed"

    def step() -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=half):
            raws = module.raws(batch)
        return _update(module.loss_terms(raws, batch)["total"], optimizer)

    return Took(seconds_a_step(step, task.steps))


def through_train(task: Task) -> Took:
    """Time the same steps through `train`, without its first epoch (which decodes), validation and checkpoints."""
    folder = Path(task.folder)
    runs = folder / "runs"
    run = runs / f"run-{len(list(runs.glob('*')))}"
    words = ["train", folder / "set", "--network", folder / "network.cfg", "--size", task.size, "--anchors", 0,
             "--batch-size", task.batch, "--epochs", 3, "--val-split", "none", "--out", runs,
             "--name", run.name]  # fmt: skip
    subprocess.run([*PYTHON, "lookonce", *map(str, words)], check=True)
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as text:
        rows = [row for row in csv.DictReader(text) if row["images_per_s"]]
    rate = mean(float(row["images_per_s"]) for row in rows[1:])
    return Took(task.batch / rate, waiting=float(rows[-1]["waiting"]))


def plain(task: Task) -> Took:
    """Time the loop that one writes first: fp32, NCHW, eager, Adam; images decoded, resized and stacked one by one."""
    device, module = devices()[-1], _module(task).train()
    module.to(device)
    optimizer = torch.optim.Adam(module.network.parameters(), 1e-4)
    files = cycle(sorted(Path(task.folder, "set", "JPEGImages").iterdir()))

    def step() -> Tensor:
        side = (task.size, task.size)
        arrays = [np.asarray(Image.open(file).convert("RGB").resize(side), np.float32) / 255
                  for file in islice(files, task.batch)]  # fmt: skip
        images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()  # [B, 3, H, W]
        batch = fixed(task, images, device)
        return _update(module.loss_terms(module.raws(batch), batch)["total"], optimizer)

    return Took(seconds_a_step(step, task.steps))


KINDS = {"plain": ("plain loop", plain), "bare": ("step alone", bare), "train": ("through train", through_train)}
"""By kind, in the order of a round: name of the row, and what runs in a process."""


def _update(loss: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad()
    return loss


def seconds_a_step(step: Callable[[], Tensor], steps: int) -> float:
    """Return the mean time of a step after a first one. The last loss is waited for, which a GPU needs."""
    step().item()
    began = time.perf_counter()
    for _ in range(steps):
        last = step()
    last.item()
    return (time.perf_counter() - began) / steps


def fixed(task: Task, images: Tensor, device: str) -> InputBatch:
    """Return a batch with OBJECTS objects on each image, the same in every call. images: [B, 3, H, W]."""
    draw = torch.Generator().manual_seed(0)
    count = task.batch * OBJECTS
    corner = torch.rand(count, 2, generator=draw) * task.size * 0.7
    boxes = torch.cat((corner, corner + task.size * (0.05 + 0.2 * torch.rand(count, 2, generator=draw))), 1)
    labels = torch.arange(count) % len(LABELS)
    image = torch.arange(task.batch).repeat_interleave(OBJECTS)
    ignore = torch.zeros(count, dtype=torch.bool)
    return InputBatch(images, boxes, labels, image, ignore).to(device)


def _module(task: Task) -> Training:
    """Return the network as `train` makes it with the quick recipe."""
    file = Path(task.folder, "network.cfg")
    how = settings("quick", network=str(file), size=task.size, batch_size=task.batch, anchors=0)
    cfg = detector_of(file, len(LABELS))
    return Training(Network(cfg.layers, cfg.channels), how, seed=0)


def main(kind: str, text: str, result: Path) -> None:
    """Run one kind in this process. text: the task as JSON; result: the file for what it took."""
    task = Task(**json.loads(text))
    torch.set_num_threads(task.threads)
    write_text(result, json.dumps(KINDS[kind][1](task)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
