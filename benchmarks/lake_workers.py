"""Speed of a lake with one worker and with two, each of one thread on one core. Linux, two free cores.

    python benchmarks/lake_workers.py [--images 1200] [--rounds 3]

Rounds alternate. Images a second count from the first shard begun to the last done. Seconds of the processor for each
image, without the start of the workers, show the same where other programs disturb the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from lake_kills import COMMAND, write_inputs


def run(model: Path, photos: Path, out: Path, workers: int) -> tuple[int, float, float]:
    """(images, images a second, seconds of the processor in all) of a run on as many cores."""
    cores = set(sorted(os.sched_getaffinity(0))[:workers])
    words = [str(model), str(photos), "--out", str(out), "--format", "jsonl", "--shards", "40", "--precision", "fp32",
             "--workers", str(workers)]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*COMMAND, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   preexec_fn=lambda: os.sched_setaffinity(0, cores))  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    events = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    done = [event for event in events if event["event"] == "done"]
    images = sum(event["images"] for event in done)
    seconds = done[-1]["time"] - next(event["time"] for event in events if event["event"] == "begun")
    return images, images / seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    speeds: dict[int, list[float]] = {1: [], 2: []}
    costs: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as name:
        model, photos = write_inputs(Path(name), given.images)
        few = Path(name) / "few"
        few.mkdir()
        for n in range(80):  # so that each worker has some
            os.link(photos / f"{n:05}.jpg", few / f"{n}.jpg")
        for number in range(given.rounds):
            for workers in (1, 2):
                some, _, start = run(model, few, Path(name) / f"few-{number}-{workers}", workers)
                images, speed, whole = run(model, photos, Path(name) / f"out-{number}-{workers}", workers)
                processor = (whole - start) / (images - some)
                speeds[workers].append(speed)
                costs[workers].append(processor)
                print(f"round {number + 1}, workers {workers}: {speed:.1f} images/s, {1000 * processor:.1f} ms of the "
                      f"processor an image; load of the machine {os.getloadavg()[0]:.1f}", flush=True)  # fmt: skip
    for word, pairs in (("clock", [two / (2 * one) for one, two in zip(*speeds.values(), strict=True)]),
                        ("processor", [one / two for one, two in zip(*costs.values(), strict=True)])):  # fmt: skip
        print(f"efficiency from 1 to 2 by the {word}: {statistics.median(pairs):.2f} "
              f"(rounds: {', '.join(f'{pair:.2f}' for pair in pairs)})")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
