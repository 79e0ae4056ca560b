"""How long from the start of a process to its first detection, with the converted form kept from before.

    python benchmarks/first_detection.py [--runs 7] [--network yolov2]

Each run is a process of its own; prints the median and the longest, and the processor time of the median. Files are in
the page cache.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHILD = """
import logging, sys
logging.basicConfig(level=logging.INFO)
from lookonce import Detector
found = Detector(sys.argv[1])(sys.argv[2])
print(len(found), "torch" in sys.modules, flush=True)
"""


def first(model: Path, image: Path) -> tuple[float, float, str]:
    """Seconds until the first detection, of the clock and of the processor, and what the process said."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(model), str(image)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        said = child.stdout.readline()
        took = time.perf_counter() - began
        errors = child.communicate()[1]
    if child.returncode:
        raise SystemExit(errors)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return took, used, said.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--network", default="yolov2")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, image = Path(folder) / "m.safetensors", Path(folder) / "p.jpg"
        make = (
            "import sys; from pathlib import Path; from PIL import Image; from lookonce import Network;"
            "from lookonce.model import zoo;"
            "from lookonce.model.model_file import Model, save_model;"
            "layers = zoo.DETECTORS[sys.argv[3]](20, zoo.VOC_ANCHORS);"
            "save_model(Model(Network(layers), tuple(f'c{i}' for i in range(20))), Path(sys.argv[1]));"
            "Image.effect_noise((640, 480), 80).convert('RGB').save(sys.argv[2])"
        )
        subprocess.run([sys.executable, "-c", make, str(model), str(image), given.network], check=True)
        took, used, _ = first(model, image)
        print(f"{given.network}: converting and first detection {took:.2f} s ({used:.2f} s of processor)")
        found = [first(model, image) for _ in range(given.runs)]
        times = [took for took, _, _ in found]
        used = statistics.median(used for _, used, _ in found)
        print(
            f"{given.network}: from process start to first detection: median {statistics.median(times):.2f} s, "
            f"longest {max(times):.2f} s; processor {used:.2f} s; torch imported: {found[0][2].split()[1]}"
        )


if __name__ == "__main__":
    main()
