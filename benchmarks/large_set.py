"""Seconds until a run on 100,000 images takes its first step, its memory, and memory over 20 epochs of a small one.

    python benchmarks/large_set.py [--images 100000]

The images are one JPEG under many names (hard links); their annotations are real files.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import lightning
import numpy as np
from PIL import Image

from lookonce import train
from lookonce.data.digits import write_digits
from lookonce.deploy.step_speed import write_set
from lookonce.training.checkpoints import LastCheckpoint


def resident() -> float:
    """GB that this process holds now."""
    with Path("/proc/self/statm").open(encoding="ascii") as text:
        return int(text.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9


def linked(path: Path, number: int) -> None:
    """One image under many names: a file has 50,000 of them at most."""
    source = path.with_name(f"p{number - number % 50_000:06}.jpg")
    if path != source:
        os.link(source, path)
        return
    noise = np.random.default_rng(0).integers(0, 255, (375, 500, 3), np.uint8)
    Image.fromarray(noise).save(path, quality=50)


def main() -> None:
    """Both measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    given = parser.parse_args()
    began = [0.0]
    epochs: list[float] = []

    def first_step(self: LastCheckpoint, trainer: lightning.Trainer, *rest: object) -> None:
        if trainer.global_step == 3:
            took, peak = time.perf_counter() - began[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            print(
                f"{given.images} images: {took:.1f} s to the third step, {resident():.2f} GB held, "
                f"{peak:.2f} GB at most"
            )
            raise SystemExit(0)

    def epoch_end(self: LastCheckpoint, trainer: lightning.Trainer, module: object) -> None:
        epochs.append(resident())

    with tempfile.TemporaryDirectory() as folder:
        small = write_digits(Path(folder) / "digits", pages=(80, 8, 4), seed=0)
        LastCheckpoint.on_train_epoch_end = epoch_end  # type: ignore[method-assign]
        train(small, weights="none", size=128, epochs=20, out=Path(folder) / "runs")
        print("GB held after each epoch: " + " ".join(f"{value:.3f}" for value in epochs))
        write_set(Path(folder) / "large", given.images, (500, 375), ["cat", "dog"], (2, 4), linked)
        LastCheckpoint.on_train_batch_end = first_step  # type: ignore[method-assign,assignment]
        began[0] = time.perf_counter()
        train(
            Path(folder) / "large", weights="none", size=128, batch_size=8, val_split="none", out=Path(folder) / "runs"
        )


if __name__ == "__main__":
    sys.exit(main())
