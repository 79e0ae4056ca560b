"""The blog's job at its size: yolov2 416, 22 convolutions frozen, the last one trained for 20 classes, batch 32, Adam.

    python benchmarks/frozen_trunk.py [--images 96] [--slice 2]

Seconds for the feature pass and for each later epoch, beside a plain fp32 loop and a bf16 PyTorch loop over the same
network on a slice of the images, in one run; extrapolated to the blog's 17,125 images and 40 epochs. TrainingImages:
synthetic JPEGs of 500 x 375. Weights are random: they cost what trained ones cost.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lookonce import train
from lookonce.deploy.step_speed import write_set
from lookonce.model import zoo
from lookonce.model.heads.region import encode, region_loss
from lookonce.model.layers import Region
from lookonce.model.network import Network

BLOG = 17_125
CLASSES = [f"c{i:02}" for i in range(20)]


def loop(files: list[Path], batch: int, half: bool) -> float:
    """Seconds an image of a PyTorch loop that runs the frozen network in every step."""
    network = Network(zoo.yolov2(20, zoo.VOC_ANCHORS))
    if half:
        network = network.to(memory_format=torch.channels_last)
    network.freeze(22)
    network.train()
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 5e-5)
    anchors = torch.tensor(zoo.VOC_ANCHORS)
    [region] = [layer for layer in network.layers if isinstance(layer, Region)]
    boxes = torch.tensor([[50.0, 50, 150, 200]]).repeat(batch, 1)
    targets = encode(boxes, torch.zeros(batch).long(), torch.arange(batch), anchors, (13, 13), 32)
    began = time.perf_counter()
    for start in range(0, len(files), batch):
        arrays = [np.asarray(Image.open(f).resize((416, 416)), np.float32) / 255 for f in files[start : start + batch]]
        images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
        if half:
            images = images.contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            (raw,) = network(images)
        region_loss(raw.float(), targets, region)["total"].backward()
        optimizer.step()
    return (time.perf_counter() - began) / len(files)


def main() -> None:
    """Loops on a slice, then two runs on features: the first with the pass, the second without."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--slice", type=int, default=2, help="batches of 8 that the loops take")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, runs = Path(folder) / "set", Path(folder) / "runs"
        write_set(root, given.images, (500, 375), CLASSES, (2, 4))
        # many epochs of few images read the same from memory: each epoch of features is timed by its own clock
        job = {"network": "yolov2", "freeze": "all_but_last", "features": "bf16", "optimizer": "adam", "epochs": 6,
               "learning_rate": 5e-5, "batch_size": 32, "anchors": 0, "ema": 0.0, "val_split": "none"}  # fmt: skip
        began = time.perf_counter()
        run = train(root, out=runs, **job)
        whole = time.perf_counter() - began
        with (run / "metrics.csv").open(newline="", encoding="utf-8") as text:
            rates = [float(row["images_per_s"]) for row in csv.DictReader(text) if row["images_per_s"]]
        epoch = 1 / float(np.median(rates[1:]))
        passed = (whole - sum(given.images / r for r in rates)) / given.images
        files = sorted((root / "JPEGImages").iterdir())[: given.slice * 8]
        plain, half = loop(files, 8, False), loop(files, 8, True)
    print(f"{torch.get_num_threads()} threads; an image: pass {passed * 1e3:.0f} ms (set-up and checkpoints of the "
          f"run counted in), later epochs {epoch * 1e3:.2f} ms, plain loop {plain * 1e3:.0f} ms, "
          f"bf16 loop {half * 1e3:.0f} ms")  # fmt: skip
    print(f"an epoch on features is {plain / epoch:.0f}x as fast as the plain loop, {half / epoch:.0f}x the bf16 loop")
    fifty = (passed + 50 * epoch) * BLOG
    print(f"at {BLOG} images: pass {passed * BLOG / 60:.0f} min, later epochs {epoch * BLOG:.0f} s, 50 epochs in "
          f"{fifty / 60:.0f} min; the plain loop {plain * BLOG * 50 / 3600:.0f} h")  # fmt: skip


if __name__ == "__main__":
    main()
