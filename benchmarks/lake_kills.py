"""Kill workers and drivers of a lake at random moments; each image must be in the output once, as without any kill.

    python benchmarks/lake_kills.py [--kills 20] [--seed 0] [--images 600] [--ray HOST:PORT]

Half of the kills hit a worker, half the driver, which is started again; all are SIGKILL. Prints what was done again,
and compares the rows, sorted, and the files with those of an uninterrupted run. Ends with 1 where anything differs, or
where a kill made more than one shard a worker be done again. Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from lookonce import Network
from lookonce.model import zoo
from lookonce.model.model_file import Model, save_model

COMMAND = (sys.executable, "-m", "lookonce", "detect")
SHARDS, WORKERS = 60, 2


def write_inputs(folder: Path, images: int) -> tuple[Path, Path]:
    """A network with numbers drawn at random, and images under many names, one of them damaged."""
    draw = np.random.default_rng(0)
    photos = folder / "photos"
    photos.mkdir()
    for n in range(images):
        file = photos / f"{n:05}.jpg"
        if n < 40:
            small = Image.fromarray(draw.integers(0, 255, (30, 40, 3), np.uint8))
            small.resize((640, 480), Image.Resampling.BICUBIC).save(file, quality=90)
        else:
            os.link(photos / f"{n % 40:05}.jpg", file)
    (photos / "damaged.jpg").write_bytes(b"\xff\xd8\xff not much of a JPEG")
    model = folder / "m.safetensors"
    save_model(Model(Network(zoo.yolov2_tiny(2, zoo.VOC_ANCHORS)), ("a", "b"), (96, 96)), model)
    return model, photos


def children(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    found = []
    for file in Path("/proc").glob(f"{pid}/task/*/children"):
        for child in map(int, file.read_text().split()):
            found += [child, *children(child)]
    return found


def workers_of(pid: int, ray: bool) -> list[int]:
    """The workers of a driver. Those of Ray are children of the cluster, and name themselves so."""
    word = b"ray::_Actor" if ray else b"lake.worker"
    found = []
    for child in [int(path.name) for path in Path("/proc").glob("[0-9]*")] if ray else children(pid):
        try:
            if word in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
        except OSError:
            pass
    return found


def events(out: Path, kind: str) -> list[dict[str, object]]:
    """The events of the ledger of one kind."""
    lines = (out / "ledger.jsonl").read_text().splitlines() if (out / "ledger.jsonl").exists() else []
    return [event for line in lines if line.startswith("{") and line.endswith("}")
            for event in [json.loads(line)] if event["event"] == kind]  # fmt: skip


def main() -> int:
    """Kill, go on, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--ray")
    given = parser.parse_args()
    draw = random.Random(given.seed)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        model, photos = write_inputs(Path(name), given.images)
        killed, whole = Path(name) / "killed", Path(name) / "whole"

        def start(out: Path) -> subprocess.Popen[bytes]:
            words = [str(model), str(photos), "--out", str(out), "--format", "jsonl", "--shards", str(SHARDS)]
            words += ["--workers", str(WORKERS), "--threshold", "0.01", *(["--ray", given.ray] if given.ray else [])]
            return subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        process, hit = start(killed), Counter[str]()
        for number in range(given.kills):
            before, began = len(events(killed, "begun")), time.monotonic()
            while process.poll() is None and len(events(killed, "begun")) < before + 1 + (number % 2):
                time.sleep(0.05)
                if time.monotonic() - began > 120:
                    break
            time.sleep(draw.uniform(0.0, 0.3))
            if process.poll() is not None:
                print(f"all done before kill {number + 1}")
                break
            target = "driver" if number % 2 else "worker"
            while not (pids := [process.pid] if target == "driver" else workers_of(process.pid, bool(given.ray))):
                time.sleep(0.05)
            os.kill(draw.choice(pids), signal.SIGKILL)
            hit[target] += 1
            done = len(list(killed.glob("part-*")))
            print(f"{number + 1:2} killed a {target}: {done} of {SHARDS} parts", flush=True)
            if target == "driver":
                process.wait()
                process = start(killed)
        codes = [process.wait(), start(whole).wait()]
        again = sum(count - 1 for count in Counter(event["shard"] for event in events(killed, "begun")).values())
        rows = [sorted(line for part in out.glob("part-*") for line in part.read_text().splitlines())
                for out in (killed, whole)]  # fmt: skip
        paths = Counter(path for line in rows[0] for path in {json.loads(line)["path"]})
        same = [(killed / part.name).read_bytes() == part.read_bytes() for part in sorted(whole.glob("part-*"))]
        left = [path.name for path in killed.rglob(".writing-*")]
        most = hit["worker"] + WORKERS * hit["driver"]
        print(f"codes {codes}; {dict(hit)} killed; {again} shards begun again, at most {most} allowed; "
              f"{len(paths)} of {given.images + 1} images; rows {'equal' if rows[0] == rows[1] else 'DIFFER'}; "
              f"{sum(same)} of {len(same)} parts equal byte for byte; left over {left}")  # fmt: skip
        good = codes == [0, 0] and again <= most and len(paths) == given.images + 1 and rows[0] == rows[1] and all(same)
        return int(not good or bool(left))


if __name__ == "__main__":
    sys.exit(main())
