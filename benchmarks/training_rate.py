"""Training's images/s beside the bare step and a plain fp32 loop, interleaved in one run on one machine.

    python benchmarks/training_rate.py [--network yolov2_tiny] [--batch-size 8] [--steps 12] [--rounds 3]

bare:  network under autocast, loss, backward, optimiser; fixed batch in memory; channels_last; freed memory kept.
train: the same steps through `lookonce train`: pictures, warp, average of weights, logs; without validation and
       checkpoints.
plain: fp32, NCHW, eager PyTorch, pictures decoded, resized and stacked one by one with Pillow; Adam.
Pictures: 640 x 480 JPEGs of noise and boxes, written for the run.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from lookonce import zoo
from lookonce.data.voc import write_annotation, write_split
from lookonce.layers import region_of
from lookonce.loss import region_loss
from lookonce.network import Network
from lookonce.region import encode
from lookonce.training.engine import keep_freed_memory
from lookonce.training.module import choose_precision, make_optimizer
from lookonce.training.recipes import Settings

SIZE = 416


def write_pictures(root: Path, count: int) -> None:
    """A Pascal VOC set of smooth noise with a few rectangles, 640 x 480."""
    draw = np.random.default_rng(0)
    (root / "JPEGImages").mkdir(parents=True)
    stems = [f"p{i:04}" for i in range(count)]
    for stem in stems:
        small = Image.fromarray(draw.integers(0, 255, (30, 40, 3), np.uint8))
        picture = small.resize((640, 480), Image.Resampling.BICUBIC)
        corners = draw.integers(0, 300, (8, 2))
        boxes = np.concatenate((corners, corners + draw.integers(30, 150, (8, 2))), 1)
        for box in boxes:
            ImageDraw.Draw(picture).rectangle(tuple(int(v) for v in box), fill=tuple(draw.integers(0, 255, 3).tolist()))
        picture.save(root / "JPEGImages" / f"{stem}.jpg", quality=90)
        names = draw.choice(["a", "b", "c"], 8).tolist()
        write_annotation(root / "Annotations" / f"{stem}.xml", f"{stem}.jpg", (640, 480), boxes, names)
    write_split(root / "ImageSets" / "Main" / "train.txt", stems)


def fixed_targets(network: Network, batch: int) -> object:
    """Eight objects a picture."""
    draw = torch.Generator().manual_seed(0)
    corner = torch.rand(batch * 8, 2, generator=draw) * 300
    boxes = torch.cat((corner, corner + 20 + torch.rand(batch * 8, 2, generator=draw) * 90), 1)
    anchors = torch.tensor(region_of(network.layers).anchors)
    image = torch.arange(batch).repeat_interleave(8)
    return encode(boxes, torch.arange(batch * 8) % 3, image, anchors, (13, 13), 32)


def bare(name: str, batch: int, steps: int) -> float:
    """Images/s of the bare step."""
    keep_freed_memory()
    network = Network(zoo.detector(name, 3, zoo.VOC_ANCHORS)).to(memory_format=torch.channels_last).train()
    images = torch.rand(batch, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    optimizer, targets = make_optimizer(network, Settings()), fixed_targets(network, batch)
    half = choose_precision("cpu")[0] == "bf16-mixed"

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            raw = network(images)
        region_loss(raw, targets, region_of(network.layers))["total"].backward()
        optimizer.step()

    return timed(step, steps) * batch


def plain(name: str, batch: int, steps: int, root: Path) -> float:
    """Images/s of the loop that one writes first."""
    network = Network(zoo.detector(name, 3, zoo.VOC_ANCHORS)).train()
    optimizer, targets = torch.optim.Adam(network.parameters(), 1e-4), fixed_targets(network, batch)
    files, place = sorted((root / "JPEGImages").iterdir()), 0

    def step() -> None:
        nonlocal place
        chosen = [files[(place + i) % len(files)] for i in range(batch)]
        place += batch
        pictures = [np.asarray(Image.open(f).convert("RGB").resize((SIZE, SIZE)), np.float32) / 255 for f in chosen]
        images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
        optimizer.zero_grad()
        region_loss(network(images), targets, region_of(network.layers))["total"].backward()
        optimizer.step()

    return timed(step, steps) * batch


def trained(name: str, batch: int, steps: int, root: Path, out: Path) -> tuple[float, float]:
    """Images/s of train, without its first epoch (which decodes), and its share of waiting for pictures."""
    import csv

    from lookonce import train

    run = train(root, network=name, size=SIZE, batch_size=batch, epochs=3, val_split="none", out=out)
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as text:
        rows = [row for row in csv.DictReader(text) if row["images_per_s"]]
    return float(np.mean([float(row["images_per_s"]) for row in rows[1:]])), float(rows[-1]["waiting"])


def timed(step, steps: int) -> float:  # type: ignore[no-untyped-def]
    """Steps a second, the first one left out."""
    step()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    return steps / (time.perf_counter() - began)


def main() -> None:
    """Each kind in a process of its own, round by round, so that none inherits another's memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="yolov2_tiny")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.kind:
        work = given.network, given.batch_size, given.steps
        found = {"bare": lambda: bare(*work), "plain": lambda: plain(*work, given.root / "set"),
                 "train": lambda: trained(*work, given.root / "set", given.root / "runs")}[given.kind]()  # fmt: skip
        print("RESULT " + json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder) / "set", given.steps * given.batch_size)
        rates: dict[str, list[float]] = {"bare": [], "train": [], "plain": []}
        waiting = []
        for _ in range(given.rounds):
            for kind, list_of in rates.items():
                words = [sys.executable, __file__, "--kind", kind, "--root", folder, "--network", given.network]
                words += ["--steps", str(given.steps), "--batch-size", str(given.batch_size)]
                said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
                found = json.loads(said.rsplit("RESULT ", 1)[1])
                if kind == "train":
                    found, share = found
                    waiting.append(share)
                list_of.append(found)
                print(f"{kind:6} {found:6.2f} images/s", flush=True)
    middle = {kind: float(np.median(values)) for kind, values in rates.items()}
    print(f"{given.network} {SIZE}, batch {given.batch_size}, {torch.get_num_threads()} threads, "
          f"{choose_precision('cpu')[1]}; {platform.processor() or platform.machine()}")  # fmt: skip
    print(f"median: bare {middle['bare']:.2f}, train {middle['train']:.2f}, plain {middle['plain']:.2f} images/s; "
          f"train is {middle['train'] / middle['bare']:.1%} of bare, {middle['train'] / middle['plain']:.2f} x plain; "
          f"waiting for pictures {np.median(waiting):.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
