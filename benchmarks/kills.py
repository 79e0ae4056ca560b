"""Kill a run at 20 random moments with random signals and resume it each time; it must end as one that was not killed.

    python benchmarks/kills.py [--kills 20] [--seed 0]

Moments count from the end of the set-up. After each kill every
checkpoint under its final name must load. Ends with 1 where anything was lost.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from lookonce.data.digits import write_digits

COMMAND = (sys.executable, "-m", "lookonce", "train")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
SETTINGS = ("--size", "64", "--epochs", "40", "--batch-size", "4", "--anchors", "2", "--checkpoint-minutes", "0.02")


def start(run: Path, data: Path) -> subprocess.Popen[bytes]:
    """A new run, or the one that is there resumed."""
    anew = [str(data), "--out", str(run.parent), "--name", run.name, *SETTINGS]
    words = ["--resume", str(run)] if (run / "checkpoints" / "last.ckpt").exists() else anew
    return subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Those that the last checkpoint trains on with. Every checkpoint there must load."""
    found = {p.name: torch.load(p, weights_only=True) for p in (run / "checkpoints").glob("[!.]*.ckpt")}
    return found["last.ckpt"]["current_model_state"] if "last.ckpt" in found else {}


def main() -> int:
    """Kill, check, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        data = write_digits(Path(folder) / "digits", pages=(40, 4, 4), seed=0)
        killed, whole = Path(folder) / "runs" / "killed", Path(folder) / "runs" / "whole"
        for number in range(given.kills):
            chosen, moment = draw.choice(SIGNALS), draw.uniform(0.0, 6.0)
            process = start(killed, data)
            while process.poll() is None and not (killed / "images.state").exists():
                time.sleep(0.05)  # the set-up: nothing to lose yet
            time.sleep(moment)
            early = process.poll()
            process.send_signal(chosen)
            code = process.wait()
            (killed / "images.state").unlink(missing_ok=True)
            kept = weights(killed)
            left = sum(1 for _ in killed.rglob(".writing-*"))
            state = "over before" if early is not None else f"code {code}"
            print(f"{number + 1:2} {chosen.name:8} after {moment:4.1f} s: {state}; checkpoint "
                  f"{'whole' if kept else 'none yet'}, {left} unfinished files beside it", flush=True)  # fmt: skip
        codes = [start(killed, data).wait(), start(whole, data).wait()]
        same = all(torch.equal(value, weights(whole)[key]) for key, value in weights(killed).items())
        left = [p.name for p in killed.rglob(".writing-*")]
        print(f"then to the end: codes {codes}; weights {'equal' if same else 'DIFFER'}; left over {left}")
        return int(codes != [0, 0] or not same or bool(left))


if __name__ == "__main__":
    sys.exit(main())
