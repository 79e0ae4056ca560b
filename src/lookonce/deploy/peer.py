"""A run beside Ultralytics' trainer: the same images, the same minutes, the same scoring code.

Ultralytics is no part of lookonce and no dependency (its licence is AGPL-3.0). If the user has installed it, its public
Python API runs in a process of its own, offline: train for a time, then predict to text files, which are read as
`lookonce evaluate` reads those of any program.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lookonce.console import cell, rendered
from lookonce.data.dataset import Dataset
from lookonce.data.formats.yolo import write_yolo
from lookonce.data.read import Whole, read_whole
from lookonce.errors import ConfigError, UserError
from lookonce.evaluation.average_precision import Metrics, score
from lookonce.evaluation.coco import score_coco
from lookonce.evaluation.compare import Comparison, compare_detections
from lookonce.evaluation.evaluate import RULES, SCORE_THRESHOLD, detect_all
from lookonce.evaluation.result_files import read_detections
from lookonce.inference.detector import Detector
from lookonce.model.detections import Detections
from lookonce.training.config import RunConfig

if TYPE_CHECKING:
    from rich.console import Group

log = logging.getLogger("lookonce")
PEER = "ultralytics"
SMALLEST = "yolov8n.yaml"
"""The network that is trained where none is named: its smallest, from random weights."""
SCRIPT = """
import json, sys
from ultralytics import YOLO
given = json.loads(sys.argv[1])
YOLO(given["network"]).train(**given["train"])
for _ in YOLO(given["best"]).predict(**given["predict"]):
    pass
"""
"""What runs in the other process. Source of the names: Ultralytics' documentation, modes train and predict."""
ALONE = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
"""Its environment: it neither reports nor downloads nor installs anything."""


@dataclass(frozen=True)
class Scored:
    """One trainer's detector."""

    name: str
    minutes: float | None
    """Of training; None: not known."""
    mean_ap: float | None
    """mAP@0.5, 0..1."""
    interval: tuple[float, float] | None
    coco_ap: float | None
    """Mean over IoU .5 to .95, 0..1."""


@dataclass(frozen=True)
class PeerComparison:
    """A run and a peer that was trained on the same images for the same time."""

    data: str
    split: str
    ours: Scored
    theirs: Scored
    comparison: Comparison
    """From the peer to the run."""

    def __rich__(self) -> Group:
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE, title=cell(f"{self.data}, {self.split}: the same images, minutes and scoring"),
                      title_justify="left")  # fmt: skip
        for number, heading in enumerate(("", "minutes", "mAP@0.5", "95 % interval", "COCO AP")):
            table.add_column(heading, justify="right" if number else "left", overflow="fold")
        for row in (self.ours, self.theirs):
            low_high = "" if row.interval is None else "{:.3f} to {:.3f}".format(*row.interval)
            figures = ["" if value is None else f"{value:.3f}" for value in (row.mean_ap, row.coco_ap)]
            minutes = "" if row.minutes is None else f"{row.minutes:.1f}"
            table.add_row(cell(row.name), minutes, figures[0], low_high, figures[1])
        low, high = self.comparison.interval
        gain = self.comparison.after - self.comparison.before
        line = f"the run's mAP less the peer's: {gain:+.3f} [{-high:+.3f}, {-low:+.3f}]"
        return Group(table, Text(line))

    def __str__(self) -> str:
        return rendered(self)


@dataclass(frozen=True)
class Peer:
    """How a peer is trained."""

    network: str
    """As Ultralytics names it: a .yaml starts from random weights, a .pt from those in it."""
    minutes: float
    side: int
    """Of its input, pixels."""
    threads: int


def read_peer(text: str) -> str:
    """Return the network of "ultralytics" or "ultralytics:NETWORK". Raises ConfigError if it is not installed."""
    name, _, network = text.partition(":")
    if name != PEER:
        raise ConfigError(f"compare: {text!r}; expected {PEER}, or {PEER}:NETWORK as in {PEER}:{SMALLEST}")
    if importlib.util.find_spec(PEER) is None:
        raise ConfigError(f"compare: {PEER} is not installed; it is no part of lookonce and has a licence of its own "
                          f"(AGPL-3.0): pip install {PEER}")  # fmt: skip
    return network or SMALLEST


def compare_with_peer(run: Path, peer: Peer, minutes: float | None, folder: Path) -> PeerComparison:
    """Train a peer on the data of a run, and score both on its test images.

    Args:
        run: the run folder, or its model file.
        peer: how the peer is trained.
        minutes: that the run took; None: not known.
        folder: for the data and the results of the peer; the caller removes it.
    Raises:
        UserError: not a run, data that is gone, splits that are missing, a peer that fails.
    """
    home = run if run.is_dir() else run.parent
    config = config_of(home)
    whole = read_whole(config.data, Detector(run).labels, policy=config.policy)
    test = whole.dataset.select(whole.members("test"))
    stems = Counter(Path(path).stem for path in test.paths)
    if twice := [stem for stem, count in stems.items() if count > 1]:
        raise UserError(f"{config.data}: several test images are called {twice[0]!r}, and the peer's results are files "
                        "of their names; rename them")  # fmt: skip
    took = train_peer(peer, _written(whole, config, folder / "data"), [str(record.path) for record in test.records],
                      folder)  # fmt: skip
    labels = folder / "test" / "labels"
    labels.mkdir(parents=True, exist_ok=True)  # it writes none where it finds nothing
    found = [each.of_classes(test.labels) for each in read_detections(labels, whole, "test")]
    detector = Detector(run, precision="fp32", throughput=True)
    own, _ = detect_all(detector, test)
    own = [each.of_classes(test.labels) for each in own]
    return PeerComparison(
        config.data, "test", _scored(f"lookonce: {home.name}", minutes, test, own),
        _scored(f"{PEER}: {peer.network}", took, test, found),
        compare_detections(test, found, own, RULES, str(detector.backend.info)),
    )  # fmt: skip


def config_of(home: Path) -> RunConfig:
    """Return the settings of a run. Raises ConfigError for another folder, or if its data is gone."""
    file = home / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"compare: {home}: not a run that knows its data; give the folder of a run")
    config = RunConfig.from_yaml(file.read_bytes(), file)
    if config.val_split == "none":
        raise ConfigError(f"compare: {home}: has no validation images, by which the peer chooses its best model")
    if not Path(config.data).exists():
        raise ConfigError(f"{config.data}: the data of {home} is not there; restore it")
    return config


def train_peer(peer: Peer, data: Path, images: list[str], folder: Path) -> float:
    """Train a peer and let it write what it finds on images to folder/test/labels. Return the minutes of its training.

    Raises UserError with the last line of its output if it fails.
    """
    own = {"project": str(folder.absolute()), "exist_ok": True, "verbose": False, "imgsz": peer.side}
    given: dict[str, Any] = {
        "network": peer.network,
        "train": {**own, "data": str(data), "time": peer.minutes / 60, "name": "train", "seed": 0, "plots": False},
        "best": str(folder.absolute() / "train" / "weights" / "best.pt"),
        "predict": {**own, "source": images, "conf": SCORE_THRESHOLD, "save_txt": True, "save_conf": True,
                    "name": "test", "stream": True},
    }  # fmt: skip
    threads = str(peer.threads)
    settings = {"YOLO_CONFIG_DIR": str(folder.absolute()), "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    log.info("training %s for %g minutes", peer.network, peer.minutes)
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-P", "-c", SCRIPT, json.dumps(given)], capture_output=True, text=True,
                          env={**os.environ, **ALONE, **settings}, cwd=folder, check=False)  # fmt: skip
    if done.returncode in (-2, 130):  # SIGINT, which a shell sends to both processes
        raise KeyboardInterrupt
    if done.returncode:
        message = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise UserError(f"compare: {PEER} failed: {message[:200]}")
    return min(peer.minutes, (time.monotonic() - began) / 60)


def _written(whole: Whole, config: RunConfig, root: Path) -> Path:
    """Write the training and validation images as a YOLO data set under numbers. Return its data.yaml."""
    members = {"train": whole.members(config.train_split), "val": whole.members(config.val_split)}
    used = np.unique(np.concatenate(list(members.values())))
    dataset = whole.dataset.select(used)
    names = [f"{number:07}{record.path.suffix}" for number, record in enumerate(dataset.records)]
    (root / "images").mkdir(parents=True)
    for record, name in zip(dataset.records, names, strict=True):
        shutil.copyfile(record.path, root / "images" / name)
    return write_yolo(root, dataset, names, {split: np.searchsorted(used, rows) for split, rows in members.items()})


def _scored(name: str, minutes: float | None, test: Dataset, found: list[Detections]) -> Scored:
    metrics: Metrics = score(test, found, RULES)
    return Scored(name, minutes, metrics.mean_ap, metrics.interval, score_coco(test, found).numbers["AP"])
