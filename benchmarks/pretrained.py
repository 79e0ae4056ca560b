"""mAP on the test images after minutes of training, from COCO's weights and from random numbers: a table and a plot.

    python benchmarks/pretrained.py bccd --minutes 1 3 10 --seeds 1 2 3 --threads 1

Trains on the split trainval without validation, and scores the last model on test, once for each run. Each training is
a process of its own, so its time includes the start. Nothing else should run on the machine: times are wall-clock.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

RUN = """
import sys
from lookonce import evaluate, train
data, out, minutes, seed, weights, split, *labels = sys.argv[1:]
given = {"labels": labels} if labels else {}
run = train(data, out=out, minutes=float(minutes), seed=int(seed), weights=weights, train_split=split,
            val_split="none", **given)
report = evaluate(run, data, split="test", protocol="coco", bootstrap=0)
print(report.mean_ap, report.coco.numbers["AP"])
"""


def measure(given: argparse.Namespace, minutes: float, seed: int, weights: str) -> tuple[float, float]:
    """Return mAP@0.5 and COCO AP of one training on the test images."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads)}
    with tempfile.TemporaryDirectory() as out:
        words = [str(given.data), out, str(minutes), str(seed), weights, given.split, *given.labels]
        done = subprocess.run([sys.executable, "-c", RUN, *words], env=environment, check=True, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
    map50, ap = map(float, done.stdout.split()[-2:])
    return map50, ap


def plot(rows: list[dict[str, object]], path: Path) -> None:
    """Write mAP over minutes, a line for each start; a point is the mean over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), dpi=150)
    for weights, colour, name in (("coco", "#0b6e4f", "from COCO"), ("none", "#b5651d", "from random numbers")):
        minutes = sorted({row["minutes"] for row in rows if row["weights"] == weights})
        means = [
            sum(values) / len(values)
            for m in minutes
            if (values := [row["map50"] for row in rows if (row["weights"], row["minutes"]) == (weights, m)])
        ]
        axes.plot(minutes, means, "o-", color=colour, label=name)
    axes.set(xlabel="minutes of training", ylabel="mAP@0.5, test images", ylim=(0, 1), xscale="log")
    ticks = sorted({row["minutes"] for row in rows})
    axes.set_xticks(ticks, [f"{m:g}" for m in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 3, 10])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--weights", nargs="+", default=["coco", "none"])
    parser.add_argument("--labels", nargs="*", default=[])
    parser.add_argument("--split", default="trainval")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--rows", type=Path, help="JSON of the rows so far, to which those of this run are added")
    given = parser.parse_args()
    rows = json.loads(given.rows.read_text()) if given.rows and given.rows.exists() else []
    print("| from | minutes | seed | mAP@0.5 | COCO AP |\n|---|---|---|---|---|")
    for minutes in given.minutes:
        for weights in given.weights:
            for seed in given.seeds:
                map50, ap = measure(given, minutes, seed, weights)
                print(f"| {weights} | {minutes:g} | {seed} | {map50:.3f} | {ap:.3f} |", flush=True)
                rows.append({"weights": weights, "minutes": minutes, "seed": seed, "map50": map50, "ap": ap})
                if given.rows:
                    given.rows.write_text(json.dumps(rows))
    if given.plot:
        plot(rows, given.plot)


if __name__ == "__main__":
    main()
