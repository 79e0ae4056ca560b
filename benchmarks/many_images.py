"""Memory of `lookonce detect` over many images: prints the process's MB at every tenth of them. Linux.

    python benchmarks/many_images.py [--images 10000]

yolov2_tiny at 96 px with numbers drawn at random, 40 JPEGs of 640 x 480 under many names; all are drawn again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from lookonce import Network
from lookonce.model import zoo
from lookonce.model.model_file import Model, save_model

DIFFERENT = 40


def resident(pid: int) -> float:
    """MB of memory that a process holds."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    count = parser.parse_args().images
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder, model = Path(name) / "images", Path(name) / "m.safetensors"
        folder.mkdir()
        labels = tuple(f"class {n}" for n in range(20))
        save_model(Model(Network(zoo.yolov2_tiny(20, zoo.VOC_ANCHORS)), labels, (96, 96)), model)
        for n in range(count):
            if n < DIFFERENT:
                small = Image.fromarray(draw.integers(0, 255, (30, 40, 3), np.uint8))
                small.resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{n:06}.jpg", quality=90)
            else:
                os.link(folder / f"{n % DIFFERENT:06}.jpg", folder / f"{n:06}.jpg")
        out, began = Path(name) / "out", time.perf_counter()
        words = [sys.executable, "-m", "lookonce", "detect", str(model), str(folder), "--out", str(out)]
        with subprocess.Popen(words, stderr=subprocess.DEVNULL) as child:
            tenth = 1
            while child.poll() is None:
                done = len(os.listdir(out)) if out.is_dir() else 0
                if done >= tenth * count / 10:
                    print(f"{done:>7,} images: {resident(child.pid):.0f} MB", flush=True)
                    tenth = done * 10 // count + 1
                time.sleep(0.2)
        print(f"{count:,} images in {time.perf_counter() - began:.0f} s, exit {child.returncode}")


if __name__ == "__main__":
    main()
