"""diagnose: explain why a run finds nothing.

The usual case: the loss falls and mAP stays at zero. Each check reports what it found and what to change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from lookonce.commands.arguments import AnyPath, check_order, expanded
from lookonce.console import cell, cells, rendered
from lookonce.data.anchors import collisions, coverage
from lookonce.data.check import a_letter_apart, alike, collision_findings
from lookonce.data.class_tree import nodes_of
from lookonce.data.dataset import Dataset
from lookonce.data.read import Whole, check_images, read_whole
from lookonce.data.remote import as_address
from lookonce.errors import ConfigError, UserError
from lookonce.evaluation.evaluate import detect_all
from lookonce.evaluation.localization import ENOUGH, ON_OBJECT, Histogram, explain, localize
from lookonce.inference.detector import Detector
from lookonce.model.layers import Detection, PlacedHead, Region, Yolo
from lookonce.model.model_file import Model, load_model
from lookonce.model.postprocess import Selection
from lookonce.model.resize import ResizeMode, antialiases
from lookonce.training.history import read_curves
from lookonce.training.overfit import LEARNT, overfit

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

SAMPLE = 50
"""Validation images whose detections are analysed, spread evenly over those that contain objects."""
OVERFIT_IMAGES = 5
"""Training images of the overfit check."""
LOW_SCORES = Selection(1e-6, max_candidates=500, max_detections=300, clip=False)
"""Keeps nearly all detections, so that the analysis does not depend on the scores."""
UNITS = ("cells", "pixels", "ratios of the input")
"""Units in which anchors may be given; those of a region layer are cells, those of a yolo layer pixels."""
MIN_FIT = 0.75
"""Ratio of the objects that an anchor must fit."""
MAX_LOST = 0.1
"""Ratio of the objects that may lose their cell and anchor to others; training warns from 0.02."""
MAX_VARIANCE = 1e8
"""A batch norm's variances are between 0 and this."""
LOSS_FELL = 0.5
"""The loss has fallen if it ends below this ratio of its start."""
ZERO_MAP = 0.01
"""mAP below which detection shows nothing of what a run has learnt."""
BAR = 24
"""Characters of the longest bar of a histogram."""


@dataclass(frozen=True)
class Check:
    """One check and its result."""

    name: str
    state: Literal["pass", "FAIL", "skipped"]
    message: str
    """One line: what was found and, if the check failed, what to change."""
    locations: tuple[str, ...] = ()
    """The first objects concerned: file:line and what was found there."""


@dataclass(frozen=True)
class Diagnosis:
    """The results of all checks on a run."""

    run: str
    data: str
    checks: tuple[Check, ...]
    histograms: tuple[Histogram, ...] = ()

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed."""
        return tuple(check.name for check in self.checks if check.state == "FAIL")

    @property
    def exit_code(self) -> int:
        """1 if a check failed, else 0."""
        return int(bool(self.failed))

    def to_json(self) -> dict[str, Any]:
        """Return the fields and `failed` as plain values."""
        return asdict(self) | {"failed": self.failed}

    def __rich__(self) -> Group:
        from rich import box
        from rich.console import Group
        from rich.table import Table

        table = Table(box=box.SIMPLE)
        for heading in ("check", "", "result"):
            table.add_column(heading, no_wrap=heading != "result")
        for check in self.checks:
            lines = cells((check.message, *(f"  {location}" for location in check.locations)))
            table.add_row(check.name, check.state, lines, style="bold" if check.state == "FAIL" else "")
        last = f"Fix in this order: {', '.join(self.failed)}" if self.failed else "All checks passed."
        return Group(cell(f"{self.run} on {self.data}"), table, *map(_histogram_table, self.histograms), last)

    def __str__(self) -> str:
        return rendered(self)


def _histogram_table(histogram: Histogram) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for number, heading in enumerate((histogram.heading, *histogram.columns)):
        table.add_column(heading, justify="left" if number else "right", no_wrap=True)
    most = max((count for _, counts in histogram.rows for count in counts), default=0) or 1
    for edge, counts in histogram.rows:
        table.add_row(cell(edge), *(f"{count:>6,} {'#' * round(BAR * count / most)}" for count in counts))
    return table


def diagnose(
    run: AnyPath,
    data: AnyPath,
    *,
    steps: int = 300,
    train_split: str = "train",
    val_split: str = "val",
) -> Diagnosis:
    """Explain why a run finds nothing: check its weights, classes, anchors and detections, and whether it can learn.

    The exit code is 1 if a check fails. No file is changed or written.

    Args:
        run: Folder of a run, a model file, or a Darknet .cfg with its .weights beside it.
        data: Data set that the run was trained on.
        steps: Most training steps in which a new network must overfit five training images. 0 skips this check.
        train_split: Split that the run was trained on.
        val_split: Split whose detections are analysed.
    Returns:
        Diagnosis: the result of each check, and histograms of scores and IoU.
    Raises:
        UserError: The run or the data is missing, a split has no objects, or the model knows none of the classes.
    """
    run, data = expanded(run), expanded(data)
    check_order(run, data, "lookonce diagnose RUN DATA")
    if steps < 0:
        raise ConfigError(f"steps: {steps}; expected at least 0 (0 skips the overfit check)")
    model = load_model(run)
    everything, whole, pairs = _read_known(data, model)
    train_set, val_set = (_with_objects(whole, split, model, pairs) for split in (train_split, val_split))
    weights, (anchors, wrong_unit) = check_weights(model), check_anchors(model, whole.dataset)
    fix_first = [weights.name] * (weights.state == "FAIL") + [anchors.name] * wrong_unit
    histograms: tuple[Histogram, ...] = ()
    if fix_first:
        detections = Check("detections", "skipped", f"fix first: {', '.join(fix_first)}")
    else:
        detections, histograms = check_detections(model, val_set)
    names = check_class_names(model, everything, pairs, wrong_detections=detections.state == "FAIL")
    before = (weights, check_input_size(model), check_resize(model), names, anchors, check_shared_cells(model, whole),
              detections, check_curves(Path(run)))  # fmt: skip
    last = check_overfit(model, train_set, steps, wrong_unit)
    return Diagnosis(str(run), as_address(data), (*before, last), histograms)


def _read_known(data: Path, model: Model) -> tuple[Dataset, Whole, dict[str, str]]:
    """Return the whole data set, its objects of classes that the model knows, and their names from pair_names()."""
    whole = read_whole(data)
    everything = whole.dataset
    if model.tree is not None:
        nodes = nodes_of(everything, model.tree, model.labels)
        return everything, whole, {model.labels[n]: name for n, name in zip(nodes, everything.labels, strict=True)}
    pairs = pair_names(model.labels, everything.labels)
    if not pairs:
        raise UserError(f"{data}: found the classes {listed(everything.labels)}; expected the model's "
                        f"({listed(model.labels)}). Name the data that the run was trained on.")  # fmt: skip
    known = tuple(pairs.values())
    return everything, whole if known == everything.labels else read_whole(data, known), pairs


def pair_names(labels: Sequence[str], data_labels: Sequence[str]) -> dict[str, str]:
    """Return the data's name of each class of the model: the same name, else one alike, else one a letter apart."""
    there = set(data_labels)
    pairs = {name: name for name in labels if name in there}
    for is_similar in (alike, a_letter_apart):
        paired = set(pairs.values())
        left = [other for other in data_labels if other not in paired]
        for name in (name for name in labels if name not in pairs):
            found = next((other for other in left if is_similar(name, other)), None)
            if found is not None:
                pairs[name] = found
                left.remove(found)
    return {name: pairs[name] for name in labels if name in pairs}


def _with_objects(whole: Whole, split: str, model: Model, pairs: dict[str, str]) -> Dataset:
    """Return the images of a split that contain objects which are not difficult, with the model's classes."""
    part = whole.dataset.select(whole.members(split))
    images = np.unique(part.image_of_box[~part.difficult])
    if not len(images):
        raise UserError(f"{whole.found.root}: split {split!r} has no objects of {listed(tuple(pairs.values()))}. Name "
                        "the run's splits with --train-split and --val-split.")  # fmt: skip
    part = part.select(images)
    place = {name: n for n, name in enumerate(model.labels)}
    index = np.array([place[name] for name in pairs])
    return replace(part, labels=model.labels, classes=index[part.classes])


def check_weights(model: Model) -> Check:
    """Check that all numbers are finite, no layer is all zeros, and the variances are those of images."""
    name = "weights"
    for key, value in model.network.state_dict().items():
        _, layer, part = key.split(".", 2)  # (local_)convolutions, index, name
        place = f"layer {layer}, {part}"
        infinite = int((~value.isfinite()).sum())
        if infinite:
            return Check(name, "FAIL", f"{place}: {infinite:,} of {value.numel():,} numbers are not finite. Use an "
                         "earlier checkpoint, or train with a lower --learning-rate.")  # fmt: skip
        if part in ("conv.weight", "weight") and not value.any():
            return Check(name, "FAIL", f"{place}: all numbers are 0, so the output ignores the image. Train again.")
        if part == "norm.running_var" and not bool(((value >= 0) & (value <= MAX_VARIANCE)).all()):
            return Check(name, "FAIL", f"{place}: found {value.min():.2g} to {value.max():.2g}, expected 0 to "
                         f"{MAX_VARIANCE:.0g}. The file does not fit its network, or training diverged.")  # fmt: skip
    return Check(name, "pass", f"all numbers are finite and all variances plausible; trained on {model.seen:,} images")


def check_input_size(model: Model) -> Check:
    """Report the cells of the heads. load_model refuses a size that is no multiple of the stride."""
    width, height = model.input_size
    found = []
    for head in model.heads:
        columns, rows = width // head.stride, height // head.stride
        if isinstance(head.layer, Detection):
            columns = rows = head.layer.side
        found.append(f"{columns} x {rows}")
    return Check("input size", "pass", f"{width} x {height} px are {' and '.join(found)} cells")


def check_resize(model: Model) -> Check:
    """Check that detection resizes images as training did."""
    recipe = model.training.get("recipe", {})
    if "resize" not in recipe or "size" not in recipe:
        return Check("resize", "skipped", f"{model.resize}; the model file has no record of its training")
    trained, stored = (recipe["resize"], [recipe["size"]] * 2), (model.resize, list(model.input_size))
    if trained == stored:
        return Check("resize", "pass", f"{model.resize}, as in training")
    found, expected = (f"{mode} to {w} x {h} px" for mode, (w, h) in (stored, trained))
    return Check("resize", "FAIL", f"the model file says {found}, but the run was trained with {expected}. Use the "
                 "run's own model file.")  # fmt: skip


def check_class_names(model: Model, everything: Dataset, pairs: dict[str, str], wrong_detections: bool) -> Check:
    """Check that the names of the classes agree, and their order too if the detections are wrong."""
    name = "class names"
    differ = [f"{ours!r} is {theirs!r} in the data" for ours, theirs in pairs.items() if ours != theirs]
    if differ and model.tree is None:  # a tree's map pairs different names
        return Check(name, "FAIL", f"{listed(differ)}. Use one spelling: rename it in the data, or train again.")
    missing = [repr(label) for label in model.labels if label not in pairs and model.tree is None]
    if missing:
        return Check(name, "FAIL", f"the data has no class or object of {listed(missing)}. Use the run's own data, or "
                     "train again with the classes that exist (--labels).")  # fmt: skip
    order = [label for label in everything.labels if label in pairs]
    if order != list(model.labels) and wrong_detections and model.tree is None:
        return Check(name, "FAIL", f"the order is {listed(order)} in the data and {listed(model.labels)} in the "
                     "model. Restore the order of training, unless --labels asked for this one.")  # fmt: skip
    counts = np.bincount(everything.classes, minlength=len(everything.labels))
    extra = [f"{label!r} ({n} objects)" for label, n in zip(everything.labels, counts, strict=True)
             if label not in pairs]  # fmt: skip
    return Check(name, "pass", listed(model.labels) + (f"; only in the data: {listed(extra)}" if extra else ""))


def check_anchors(model: Model, dataset: Dataset) -> tuple[Check, bool]:
    """Check that the anchors fit the objects; also return whether they are in another unit than the heads read."""
    if not any(head.layer.anchors for head in model.heads):
        return Check("anchors", "pass", "its detection layer has none"), False
    own = "cells" if any(isinstance(head.layer, Region) for head in model.heads) else "pixels"
    heads = {unit: [_converted(head, unit, model.input_size) for head in model.heads] for unit in UNITS}
    covered = {unit: coverage(dataset, found, model.input_size, model.resize)[0] for unit, found in heads.items()}
    fits = {unit: found.recall or 0.0 for unit, found in covered.items()}
    found = f"an anchor fits {fits[own]:.0%} of {len(dataset.boxes):,} objects (shape IoU above 0.5)"
    if fits[own] >= MIN_FIT:
        return Check("anchors", "pass", found), False
    unit = max(fits, key=fits.__getitem__)
    if fits[unit] > fits[own] + ENOUGH:
        shapes = "; ".join(" ".join(f"{w:.2f},{h:.2f}" for w, h in head.layer.anchors) for head in heads[unit])
        return Check("anchors", "FAIL", f"{found}. They are in {unit}, not in {own}: converted, they fit "
                     f"{fits[unit]:.0%}. Use {shapes}"), True  # fmt: skip
    return Check("anchors", "FAIL", f"{found}, expected {MIN_FIT:.0%}. Cluster anchors on this data at the run's size "
                 "and resize mode (lookonce anchors; train does it by default)."), False  # fmt: skip


def _converted(head: PlacedHead, unit: str, input_size: tuple[int, int]) -> PlacedHead:
    """Return a head with its anchors in the unit that it reads, if they were in this one."""
    pixels = {"cells": (head.stride,) * 2, "pixels": (1, 1), "ratios of the input": input_size}[unit]
    match head.layer:
        case Region(anchors):
            to_cells = tuple((w * pixels[0] / head.stride, h * pixels[1] / head.stride) for w, h in anchors)
            return replace(head, layer=replace(head.layer, anchors=to_cells))
        case Yolo(anchors):
            to_pixels = tuple((w * pixels[0], h * pixels[1]) for w, h in anchors)
            return replace(head, layer=replace(head.layer, all_anchors=to_pixels))
        case _:
            return head


def check_shared_cells(model: Model, whole: Whole) -> Check:
    """Check that few objects are targets of no head: another object of their image has their cell and anchor."""
    collided = collisions(whole.dataset, model.heads, model.input_size, model.resize)
    count, lost, unassigned = len(whole.dataset.boxes), len(collided.objects), len(collided.unassigned)
    locations = tuple(place for each in collision_findings(whole, collided, model.heads) for place in each.places)
    message = f"{lost:,} of {count:,} objects ({lost / count:.1%}) share cell and anchor with another one"
    if unassigned:
        message += f", and the best anchor of {unassigned:,} is in the mask of no head"
    if lost + unassigned <= MAX_LOST * count:
        return Check("shared cells", "pass", message, locations[:3])
    return Check("shared cells", "FAIL", f"{message} and are not learnt; expected at most {MAX_LOST:.0%}. Train at a "
                 "larger --size, or with more --anchors.", locations)  # fmt: skip


def check_detections(model: Model, dataset: Dataset) -> tuple[Check, tuple[Histogram, ...]]:
    """Check what the strongest detections on a sample of the images lie on."""
    sample = dataset.select(_spread(len(dataset), SAMPLE))
    detector = Detector(model, precision="fp32")
    scored = LOW_SCORES
    if model.tree is not None:  # the likeliest class without children, however unlikely
        scored = replace(LOW_SCORES, tree=replace(model.tree, threshold=0.0))
    found = localize(sample, detect_all(detector, sample, scored)[0])
    sound, message = explain(found, model.labels, detector.thresholds)
    if not sound and (found.best_iou >= ON_OBJECT).mean() < 0.5:  # does the other resize mode find the objects?
        modes: tuple[ResizeMode, ...] = get_args(ResizeMode)
        same_filter = (mode for mode in modes if antialiases(mode) == antialiases(model.resize))
        other = replace(model, resize=next(mode for mode in same_filter if mode != model.resize))
        found_other = localize(sample, detect_all(Detector(other, precision="fp32"), sample, scored)[0])
        recall, recall_other = found.true_positive.mean(), found_other.true_positive.mean()
        if recall_other > recall + ENOUGH:
            message = (f"the resize mode differs from training: {recall_other:.0%} of the objects are found with "
                       f"{other.resize}, {recall:.0%} with {model.resize}. Use {other.resize}.")  # fmt: skip
    state: Literal["pass", "FAIL"] = "pass" if sound else "FAIL"
    return Check("detections", state, f"{message} ({detector.backend.info})"), found.histograms()


def check_curves(run: Path) -> Check:
    """Check that the loss fell and mAP did not stay at zero."""
    file = run / "metrics.csv"
    if not file.is_file():
        return Check("curves", "skipped", "no metrics.csv: this is not the folder of a run")
    try:
        curves = read_curves(file)
    except UserError as error:
        return Check("curves", "skipped", str(error))
    loss = [value for _, value in curves.get("loss_epoch", ())]
    mean_ap = [value for _, value in curves.get("val/mAP", ())]
    if not loss or not mean_ap:
        return Check("curves", "skipped", f"{file}: no epoch has been validated yet")
    message = f"loss from {loss[0]:.3g} to {loss[-1]:.3g}, best val/mAP {max(mean_ap):.3f}"
    if max(mean_ap) >= ZERO_MAP:
        return Check("curves", "pass", message)
    if loss[-1] < LOSS_FELL * loss[0]:
        return Check("curves", "FAIL", f"{message}: the network learns something other than what is evaluated. Fix "
                     "what the other checks report.")  # fmt: skip
    return Check("curves", "FAIL", f"{message}: the loss did not fall. Change --learning-rate, or train longer.")


def check_overfit(model: Model, dataset: Dataset, steps: int, wrong_unit: bool) -> Check:
    """Check that a new network of the same layers can overfit five images."""
    name = "overfit"
    if wrong_unit:
        return Check(name, "skipped", "fix first: anchors")
    if not steps:
        return Check(name, "skipped", "not requested (--steps 0)")
    images = check_images(dataset.select(_spread(len(dataset), OVERFIT_IMAGES)))
    files = ", ".join(record.path.name for record in images.records)
    try:
        mean_ap, taken = overfit(model, images, steps)
    except UserError as error:
        return Check(name, "FAIL", f"{error}. Check the boxes of {files}.")
    except KeyboardInterrupt:  # the results of the other checks are still printed
        return Check(name, "skipped", "stopped")
    message = f"mAP@.5 {mean_ap:.2f} on {files} after {taken} of {steps} steps, expected {LEARNT}"
    if mean_ap >= LEARNT:
        return Check(name, "pass", message)
    return Check(name, "FAIL", f"{message}. Try more --steps. If that does not help, check the boxes of these images, "
                 "or use a larger --size or other --anchors.")  # fmt: skip


def _spread(count: int, most: int) -> list[int]:
    """Return at most `most` indices below `count`, spread evenly."""
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()))


def listed(names: Sequence[str]) -> str:
    """Return the first five names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
