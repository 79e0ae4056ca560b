"""What a lake of a billion images takes: shards, bytes, hours, the cost of a failure, the limit of the driver.

    python benchmarks/lake_scale.py [--images 1000000000] [--rate 50] [--shard 1000]

A simulation, event by event: workers take shards, some die and their shard is done again by another; the driver gives
out one shard after another. Its times for a shard (two lines of the ledger, one message) and for a name in the list are
measured first on this machine, with the code of the driver. Rates, sizes and the time between deaths are given below.
"""

from __future__ import annotations

import argparse
import heapq
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lookonce.inference.lake.ledger import Ledger
from lookonce.inference.lake.listing import write_lists

IMAGE_BYTES, NAME_BYTES, ROW_BYTES, ROWS = 300_000, 70, 24, 3
"""Of an image (a JPEG of 1 megapixel), of a name in a list, of a row in parquet (measured on parts of 1,000 images);
and rows an image."""
HOURS_BETWEEN_DEATHS = 200.0
"""Of one worker: preempted machines and failures."""
START = 20.0
"""Seconds until a new worker is ready."""


@dataclass
class Result:
    """A simulated job."""

    hours: float
    deaths: int
    wasted: float  # hours of workers lost with shards that were done again
    driver: float  # part of the time in which the driver works


def measure() -> tuple[float, float]:
    """Seconds of the driver for a shard, and for a name in the list."""
    with tempfile.TemporaryDirectory() as name:
        ledger, began = Ledger(Path(name)), time.perf_counter()
        for shard in range(2000):
            ledger.write("begun", shard=shard, worker=0)
            ledger.write("done", shard=shard, worker=0, seconds=1.0, images=1000, errors=0, objects=3000)
        a_shard = (time.perf_counter() - began) / 2000
        began = time.perf_counter()
        names = (f"s3://lake/{n % 997:03}/2026-11-27/image-{n:012}.jpg" for n in range(100_000))
        write_lists(names, Path(name) / "lists", 100)
        return a_shard, (time.perf_counter() - began) / 100_000


def simulate(shards: int, workers: int, seconds: float, a_shard: float) -> Result:
    """Simulate a job. seconds: of a worker for a shard; a_shard: of the driver."""
    draw = random.Random(0)
    left = shards
    dies_at = [draw.expovariate(1 / (HOURS_BETWEEN_DEATHS * 3600)) for _ in range(min(workers, shards))]
    queue = [(0.0, worker) for worker in range(len(dies_at))]  # when each worker asks for a shard
    driver = busy = end = wasted = 0.0
    deaths = 0
    while left:
        moment, worker = heapq.heappop(queue)
        driver = max(driver, moment) + a_shard
        busy += a_shard
        done = driver + seconds
        if dies_at[worker] < done:
            deaths += 1
            wasted += min(seconds, max(0.0, dies_at[worker] - driver)) / 3600
            back = max(dies_at[worker], driver) + START
            dies_at[worker] = back + draw.expovariate(1 / (HOURS_BETWEEN_DEATHS * 3600))
            heapq.heappush(queue, (back, worker))
            continue
        left -= 1
        end = max(end, done)
        heapq.heappush(queue, (done, worker))
    return Result(end / 3600, deaths, wasted, busy / end)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000_000)
    parser.add_argument("--rate", type=float, default=50.0, help="images a second of one worker")
    parser.add_argument("--shard", type=int, default=1000, help="images of a shard")
    given = parser.parse_args()
    a_shard, a_name = measure()
    shards = -(-given.images // given.shard)
    seconds = given.shard / given.rate
    print(f"{given.images:,} images, {given.rate:g} images/s a worker, {shards:,} shards of {given.shard:,} "
          f"({seconds:.0f} s each)")  # fmt: skip
    print(f"images {given.images * IMAGE_BYTES / 1e12:,.0f} TB; lists {given.images * NAME_BYTES / 1e9:,.0f} GB; "
          f"tables {given.images * ROWS * ROW_BYTES / 1e9:,.0f} GB")  # fmt: skip
    listing = given.images * a_name
    print(f"listing: {listing / 3600:.1f} h for files, {listing / 1000:.0f} s for tars of 1,000 images")
    print(f"driver: {1e6 * a_shard:.0f} us a shard, so it is the limit from {seconds / a_shard:,.0f} workers on")
    print(f"a death costs {seconds / 2:.0f} s of work on average, at most {seconds:.0f} s, and {START:.0f} s to start")
    print(f"{'workers':>9} {'hours':>9} {'GB/s read':>10} {'deaths':>7} {'worker hours lost':>18} {'driver busy':>12}")
    for workers in (1, 8, 64, 512, 4096, 32768):
        found = simulate(shards, workers, seconds, a_shard)
        speed = given.images * IMAGE_BYTES / 1e9 / (3600 * found.hours)
        print(f"{workers:>9,} {found.hours:>9,.2f} {speed:>10,.2f} {found.deaths:>7,} {found.wasted:>18,.2f} "
              f"{found.driver:>12.1%}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
