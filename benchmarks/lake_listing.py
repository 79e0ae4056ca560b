"""Memory and time of listing a lake: the process's peak while N paths are cut into shards. Linux.

    python benchmarks/lake_listing.py [--paths 1000000] [--shards 1000]

The paths come from a .txt list of 70 letters a path.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from lookonce.inference.lake.listing import find_names, write_lists


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--paths", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        listed = Path(name) / "list.txt"
        with listed.open("w") as lines:
            for n in range(given.paths):
                lines.write(f"/mnt/lake/{n % 997:03}/camera-{n % 31:02}/2026-11-{1 + n % 28:02}/image-{n:012}.jpg\n")
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.perf_counter()
        lists = write_lists(find_names([str(listed)]), Path(name) / "lists", given.shards)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sizes = [len(lists.read(shard)) for shard in range(0, given.shards, max(1, given.shards // 50))]
        print(f"{lists.names:,} paths in {lists.shards:,} shards of {min(sizes)} to {max(sizes)}: "
              f"{time.perf_counter() - began:.1f} s, peak {peak:.0f} MB (before: {before:.0f} MB)")  # fmt: skip


if __name__ == "__main__":
    main()
