"""demo: train a detector on embedded data, from labelled images to a report of its detections."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lookonce.commands.arguments import AnyPath, expanded
from lookonce.commands.detect import detect
from lookonce.commands.evaluate import evaluate
from lookonce.commands.train import train
from lookonce.data.augmentation import Augmentation
from lookonce.data.digits import write_digits
from lookonce.data.read import read_dataset
from lookonce.inference.detector import Detector
from lookonce.report.evaluation_page import first_threshold, sections, whole_images
from lookonce.report.run_page import Page, facts, write_report

log = logging.getLogger("lookonce")
SHOWN = 24
"""Number of test pages in the report."""


@dataclass(frozen=True)
class DemoResult:
    """Score and report of the demo."""

    mean_ap: float
    page: Path

    def __str__(self) -> str:
        return f"mAP@0.5 {self.mean_ap:.4f}\n{self.page}"


def demo(folder: AnyPath = Path("lookonce-demo"), *, seed: int = 0) -> DemoResult:
    """Train a detector of handwritten digits from scratch and show its detections.

    Args:
        folder: Folder for the data set, the run and the report.
        seed: Seed of the data set and of the training.
    Returns:
        mAP@0.5 on test pages with digits that training never saw, and the report.
    Raises:
        UserError: scikit-learn, which contains the digits, is not installed; a folder that cannot be written.
    """
    began = time.perf_counter()
    folder = expanded(folder)
    data = write_digits(folder / "digits", seed=seed)
    log.info("1/4 wrote pages of digits, a Pascal VOC data set: %s", data)
    log.info("2/4 training: lookonce train %s --size %d --epochs %d ...", data, DIGITS["size"], DIGITS["epochs"])
    started = time.perf_counter()
    run = train(data, out=folder / "runs", seed=seed, **DIGITS)
    log.info("    trained in %.0f s", time.perf_counter() - started)
    log.info("3/4 scoring: lookonce evaluate %s %s", run, data)
    report = evaluate(run, data, split="test")
    for line in str(report).splitlines():
        log.info("%s", line)
    test = read_dataset(data, "test")
    shown = [test.records[i] for i in range(min(SHOWN, len(test)))]
    log.info("4/4 detecting: lookonce detect %s ...", run)
    detect(run, [str(record.path) for record in shown], out=folder / "detections", overwrite=True)
    model = Detector(run).about
    details = facts(model.training["recipe"], model.training["data"], model.training["images"], model.heads)
    images = whole_images(test, report.analysis, first_threshold(report.analysis), range(len(test)), SHOWN)
    about = Page(run, "test", details, found=sections(test, report.analysis, model.input_size), images=images,
                 images_note="Pages that training never saw.")  # fmt: skip
    page = write_report(run / "demo.html", about)
    log.info("the demo took %.0f s", time.perf_counter() - began)
    return DemoResult(report.mean_ap or 0.0, page.resolve())


DIGITS: dict[str, Any] = {
    "weights": "none",
    "recipe": "quick",
    "size": 128,
    "epochs": 5,
    "batch_size": 8,
    "anchors": 3,
    "learning_rate": 1.5e-3,
    "augment": Augmentation(aspect=0.1, zoom=(0.85, 1.15), flip=0.0, hue=0.02, saturation=1.2, exposure=1.2),
}
"""Settings of the demo beyond the quick recipe: small pages, few shapes; digits are never mirrored."""
