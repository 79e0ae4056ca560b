"""How long yolov2's 203 MB of weights take to load and to save, and the memory that it takes: prints both.

The file is in the page cache: the time is that of the program, not of the disk. Loads in a process of its own,
so that the memory of making the file does not count.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lookonce import Network, load_darknet, save_darknet
from lookonce.model import zoo
from lookonce.model.network import empty


def peak() -> float:
    """The most memory that this process has had, MB. Linux only (getrusage would count the parent's peak too)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def load(cfg: Path, weights: Path) -> None:
    empty(zoo.yolov2_tiny(80, zoo.COCO_ANCHORS))  # first calls do not count
    size, before, began = weights.stat().st_size / 1e6, peak(), time.perf_counter()
    network = load_darknet(cfg, weights)
    seconds, more = time.perf_counter() - began, peak() - before
    own = sum(value.numel() for value in network.state_dict().values()) * 4 / 1e6
    print(f"load {size:.1f} MB: {seconds:.2f} s; memory rose by {more:.1f} MB, {own:.1f} of it the network itself")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        cfg, weights = Path(folder) / "yolov2.cfg", Path(folder) / "yolov2.weights"
        network = Network(zoo.yolov2(80, zoo.COCO_ANCHORS))
        began = time.perf_counter()
        save_darknet(network, cfg, weights)
        print(f"save: {time.perf_counter() - began:.2f} s, the disk's part in it")
        for _ in range(3):
            subprocess.run([sys.executable, __file__, str(cfg), str(weights)], check=True)


if __name__ == "__main__":
    load(*map(Path, sys.argv[1:])) if len(sys.argv) > 1 else main()
