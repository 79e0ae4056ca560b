"""What `diagnose` found: checks and bars of numbers, as a table for a terminal and as JSON.

Can a network learn a handful of images by heart? One that cannot will not learn more of them.

diagnose: the loss falls and mAP is zero; one check after the other says what is wrong and what to change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from lookonce.console import cell, cells, rendered, track
from lookonce.data.anchors import coverage, encoded, is_lost
from lookonce.data.augment import InputBatch
from lookonce.data.check import a_letter_apart, alike, collision_finding
from lookonce.data.dataset import Dataset
from lookonce.data.read import Whole, check_images, read_whole
from lookonce.errors import ConfigError, UserError
from lookonce.evaluation.average_precision import score
from lookonce.evaluation.evaluate import RULES, detect_all
from lookonce.evaluation.localization import ENOUGH, HIT, Bars, Sightings, sight, verdict
from lookonce.inference.detector import Detector
from lookonce.model.model_file import Model, load_model
from lookonce.model.network import Network
from lookonce.model.postprocess import Selection
from lookonce.model.resize import ResizeMode, antialiases
from lookonce.training.history import read_curves
from lookonce.training.loop import keep_freed_memory
from lookonce.training.recipes import Settings, learning_rate_factor
from lookonce.training.step import Training, choose_precision, expect_little, make_optimizer
from lookonce.training.validation import Inputs, together

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text


LONGEST = 24
"""Characters of the longest bar."""


@dataclass(frozen=True)
class Check:
    """One question, and its answer in one line."""

    name: str
    state: Literal["pass", "FAIL", "skipped"]
    said: str
    """What was found; where it failed, also what to change."""
    places: tuple[str, ...] = ()
    """The first places concerned: file:line and what is there."""


def passed(name: str, said: str, places: tuple[str, ...] = ()) -> Check:
    """A check with nothing to change."""
    return Check(name, "pass", said, places)


def failed(name: str, said: str, places: tuple[str, ...] = ()) -> Check:
    """A check that says what to change."""
    return Check(name, "FAIL", said, places)


def skipped(name: str, said: str) -> Check:
    """A check that was not made, and why."""
    return Check(name, "skipped", said)


@dataclass(frozen=True)
class Diagnosis:
    """Why a run may find nothing."""

    run: str
    data: str
    checks: tuple[Check, ...]
    bars: tuple[Bars, ...] = ()

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed."""
        return tuple(check.name for check in self.checks if check.state == "FAIL")

    @property
    def exit_code(self) -> int:
        """1 where a check failed, else 0."""
        return int(bool(self.failed))

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self) | {"failed": self.failed}

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        lines = [f"Fix in this order: {', '.join(self.failed)}" if self.failed else "every check passes"]
        bars = [_bars(entry) for entry in self.bars]
        return Group(cell(f"{self.run} on {self.data}"), _checks(self.checks), *bars, Text("\n".join(lines)))

    def __str__(self) -> str:
        return rendered(self)


def _checks(checks: tuple[Check, ...]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for heading in ("check", "", "what was found"):
        table.add_column(heading, no_wrap=heading != "what was found")
    for check in checks:
        table.add_row(check.name, check.state, _told(check), style="bold" if check.state == "FAIL" else "")
    return table


def _told(check: Check) -> Text:
    return cells((check.said, *(f"  {place}" for place in check.places)))


def _bars(bars: Bars) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for number, heading in enumerate((bars.heading, *bars.columns)):
        table.add_column(heading, justify="left" if number else "right", no_wrap=True)
    most = max((count for _, counts in bars.rows for count in counts), default=0) or 1
    for step, counts in bars.rows:
        table.add_row(cell(step), *(f"{count:>6,} {'#' * round(LONGEST * count / most)}" for count in counts))
    return table


BY_HEART = 0.8
"""mAP@.5 on the images themselves from which on they count as learnt."""


LOOK = 20
"""Steps between two looks at it."""


TAKEN = ("loss", "match_iou", "objectness_prior", "difficult")
"""Settings of the model's own training that are taken; how fast it moves is the quick recipe's."""


def memorise(model: Model, images: Dataset, steps: int) -> tuple[float, int]:
    """Train the model's layers anew on a few images, as detection sees them, until they are known by heart.

    Args:
        model: its layers, anchors, input, resize and loss are taken, not its weights. Nothing is written.
        images: one batch; classes as the model's labels.
        steps: at most.
    Returns:
        (mAP@.5 on these images through the whole path of detection, steps taken).
    Raises:
        UserError: a loss that is not finite.
    """
    how = replace(Settings(), **{k: v for k, v in model.training.get("recipe", {}).items() if k in TAKEN})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(model.network.layers, model.network.channels)
    expect_little(network, how.objectness_prior)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = Training(network, how, 0).to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(network, how)
    precision, _ = choose_precision(device)
    batch = _batch(replace(images, pixel_range=model.pixel_range), model, device)
    keep_freed_memory()
    value, taken = 0.0, 0
    for step in track(range(steps), f"overfitting {len(images)} images"):
        for group in optimizer.param_groups:
            group["lr"] = how.learning_rate * learning_rate_factor(step, steps, how)
        network.train()
        with torch.autocast(device, torch.bfloat16, enabled=precision != "32-true"):
            raws = module.raws(batch)
        loss = module.loss_terms(raws, batch)["total"]
        if not loss.isfinite():
            raise UserError(f"the loss on {len(images)} images is {loss.item()} in step {step + 1}")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), how.gradient_clip)
        optimizer.step()
        taken = step + 1
        if taken % LOOK == 0 or taken == steps:
            network.eval()
            fresh = Detector(replace(model, loaded=network, thresholds=()), precision="fp32")
            value = score(images, detect_all(fresh, images)[0], RULES, bootstrap=0).mean_ap or 0.0
            if value >= BY_HEART:
                break
    return value, taken


def _batch(images: Dataset, model: Model, device: str) -> InputBatch:
    inputs = Inputs(images, model.input_size, model.resize)
    batch = together([inputs[n] for n in range(len(inputs))])
    return batch._replace(**{name: getattr(batch, name).to(device) for name in batch._fields if name != "outputs"})


SAMPLE = 50
"""Validation images that are looked at, spread evenly over those that hold objects."""


FIVE = 5
"""Training images to be learnt by heart."""


FAINTEST = Selection(1e-6, max_candidates=500, max_detections=300, clip=False)
"""Nearly everything that a network says of an image."""


FIT = 0.75
"""Share of the objects that some anchor must fit."""


LOST = 0.1
"""Share of the objects that may be lost to others; training warns from a fiftieth on."""


VARIANCES = (0.0, 1e8)
"""A batch norm's variances lie between."""


FALLEN = 0.5
"""A loss has fallen if it ends below this share of its start."""


ZERO = 0.01
"""mAP below which a run has learnt nothing that detection can show."""


def diagnose(
    run: Path,
    data: Path,
    *,
    steps: int = 300,
    train_split: str = "train",
    val_split: str = "val",
) -> Diagnosis:
    """Say why a run finds nothing: its weights, classes, anchors and detections, and whether it can learn at all.

    Ends with code 1 where a check fails. Nothing is changed or written.

    Args:
        run: the folder of a run, a model file, or a Darknet .cfg beside its .weights.
        data: the data set that it was trained on.
        steps: steps at most in which its network, begun anew, must learn five training images by heart; 0: skip it.
        train_split: which images it learnt from.
        val_split: images on which its detections are looked at.
    Returns:
        Diagnosis: each check with what was found and what to change; histograms of scores and of IoU.
    Raises:
        UserError: no such run or data; no objects; not one class that the model knows.
    """
    if steps < 0:
        raise ConfigError(f"steps: {steps}; expected at least 0 (0: do not overfit five images)")
    model = load_model(run)
    theirs, whole, twins = known_classes(data, model)
    train_set, val_set = (_with_objects(whole, split, model, twins) for split in (train_split, val_split))
    weights, size = check_weights(model), check_size(model)
    anchors, units = check_anchors(model, whole.dataset)
    checks = [weights, size, check_resize(model), anchors, check_lost(model, whole)]
    blocked = [check.name for check, blocks in ((weights, True), (size, True), (anchors, units))
               if blocks and check.state == "FAIL"]  # fmt: skip
    bars: tuple[Bars, ...] = ()
    if blocked:
        checks.append(skipped("detections", f"fix first: {', '.join(blocked)}"))
    else:
        seen, detections = check_detections(model, val_set)
        bars = seen.bars()
        checks.append(detections)
    checks.insert(3, check_names(model, theirs, twins, checks[-1].state != "FAIL"))
    checks.append(check_curves(Path(run)))
    checks.append(check_memory(model, train_set, steps, [name for name in blocked if name != weights.name]))
    return Diagnosis(str(run), str(data), tuple(checks), bars)


def pair_names(labels: Sequence[str], theirs: Sequence[str]) -> dict[str, str]:
    """Each class of the model -> the data's: the same name, else one alike, else one a letter apart."""
    pairs = {name: name for name in labels if name in theirs}
    for near in (alike, a_letter_apart):
        for name in labels:
            found = [other for other in theirs if other not in pairs.values() and near(name, other)]
            if name not in pairs and found:
                pairs[name] = found[0]
    return {name: pairs[name] for name in labels if name in pairs}


def known_classes(data: Path, model: Model) -> tuple[Dataset, Whole, dict[str, str]]:
    """(all that there is, what is of classes that the model knows, those by the model's names).

    Raises UserError where the model knows none.
    """
    whole = read_whole(data)
    theirs = whole.dataset
    twins = pair_names(model.labels, theirs.labels)
    if not twins:
        raise UserError(f"{data}: classes ({_some(theirs.labels)}) are none of the model's ({_some(model.labels)}); "
                        "expected the data that the run was trained on")  # fmt: skip
    known = tuple(twins.values())
    return theirs, whole if known == theirs.labels else read_whole(data, known), twins


def _with_objects(whole: Whole, split: str, model: Model, twins: dict[str, str]) -> Dataset:
    """A split's images with objects to be found, labelled by the model's classes."""
    part = whole.dataset.select(whole.members(split))
    sought = np.unique(part.image_of_box[~part.difficult])
    if not len(sought):
        raise UserError(f"{whole.found.root}: split {split!r} has no objects of {_some(tuple(twins.values()))}; name "
                        "the run's own with --train-split and --val-split")  # fmt: skip
    part = part.select(sought)
    place = np.array([model.labels.index(name) for name in twins])
    return replace(part, labels=model.labels, classes=place[part.classes])


def check_weights(model: Model) -> Check:
    """Numbers that are not finite, layers without weights, statistics that no image gives."""
    for name, value in model.network.state_dict().items():
        layer, _, part = name.removeprefix("convolutions.").partition(".")
        place = f"layer {layer}, {part}"
        if not value.isfinite().all():
            bad = int((~value.isfinite()).sum())
            return failed("weights", f"{place}: {bad:,} of {value.numel():,} numbers are not finite: go back to a "
                         "checkpoint from before, or train with a lower --learning-rate")  # fmt: skip
        if part == "conv.weight" and not value.any():
            return failed("weights", f"{place}: every number is 0: nothing of an image passes; train anew")
        if part == "norm.running_var" and not bool(((value >= VARIANCES[0]) & (value <= VARIANCES[1])).all()):
            return failed("weights", f"{place}: {float(value.min()):.2g} to {float(value.max()):.2g}; expected 0 to "
                          f"{VARIANCES[1]:.0g}: the file does not fit its network, or training ran away")  # fmt: skip
    return passed("weights", f"all finite, variances sane; {model.seen:,} images seen in training")


def check_size(model: Model) -> Check:
    """How the input divides into cells; a model file of another size cannot be read."""
    stride, (width, height) = model.network.stride, model.input_size
    return passed("input size", f"{width} x {height} px are {width // stride} x {height // stride} cells")


def check_resize(model: Model) -> Check:
    """Whether the model sees images as its training showed them."""
    recipe = model.training.get("recipe", {})
    if "resize" not in recipe or "size" not in recipe:
        return skipped("resize", f"{model.resize}; the file does not say how it was trained")
    then, now = (recipe["resize"], [recipe["size"]] * 2), (model.resize, list(model.input_size))
    if then == now:
        return passed("resize", f"{model.resize}, as in training")
    said = " and ".join(f"{mode} to {w} x {h} px" for mode, (w, h) in (now, then))
    return failed("resize", f"the file says {said} was what it was trained with: write the file as the run did")


def check_names(model: Model, theirs: Dataset, twins: dict[str, str], right: bool) -> Check:
    """Whether names and order of the classes agree. right: detections have not shown that the order does not."""
    other = [f"{ours!r} is {name!r} in the data" for ours, name in twins.items() if ours != name]
    if other:
        return failed("class names", f"{_some(other)}: write it one way, in the data or by training again")
    missing = [repr(name) for name in model.labels if name not in twins]
    if missing:
        return failed("class names", f"no object or class of the data is {_some(missing)}: is it the run's data? "
                      "else train again with --labels of the classes that there are")  # fmt: skip
    order = [name for name in theirs.labels if name in twins]
    if order != list(model.labels) and not right:
        return failed("class names", f"the data has them in the order {_some(order)}, the model in the order "
                     f"{_some(model.labels)}: unless --labels asked for it, restore the training's order")  # fmt: skip
    counts = np.bincount(theirs.classes, minlength=len(theirs.labels))
    extra = [f"{name!r} ({n} objects)" for name, n in zip(theirs.labels, counts, strict=True) if name not in twins]
    more = f"; not learnt: {_some(extra)}" if extra else ""
    return passed("class names", f"{_some(model.labels)}{more}")


def check_anchors(model: Model, dataset: Dataset) -> tuple[Check, bool]:
    """(whether anchors fit the objects, whether they are in another unit than cells)."""
    stride, anchors = model.network.stride, np.array(model.region.anchors)
    cells = np.array(model.input_size) / stride
    readings = {"cells": anchors, "pixels": anchors / stride, "shares of the input": anchors * cells}
    fits = {unit: _fit(model, dataset, shapes) for unit, shapes in readings.items()}
    said = f"{fits['cells']:.0%} of {len(dataset.boxes):,} objects have an anchor of shape IoU over .5"
    if fits["cells"] >= FIT:
        return passed("anchors", said), False
    unit = max(fits, key=fits.__getitem__)
    if fits[unit] > fits["cells"] + ENOUGH:
        shapes = " ".join(f"{w:.2f},{h:.2f}" for w, h in readings[unit])
        return failed("anchors", f"{said}; they are not in cells but in {unit}, where it would be "
                     f"{fits[unit]:.0%}: write {shapes}"), True  # fmt: skip
    return failed("anchors", f"{said}: cluster them on this data (lookonce anchors; train does it by itself), "
                 "at the size and resize of the run"), False  # fmt: skip


def _fit(model: Model, dataset: Dataset, anchors: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    shapes = tuple((float(w), float(h)) for w, h in anchors)
    return coverage(dataset, shapes, model.input_size, model.resize, model.network.stride)[0].fit or 0.0


def check_lost(model: Model, whole: Whole) -> Check:
    """Objects whose cell and anchor a later one of their image takes."""
    targets = encoded(whole.dataset, model.region.anchors, model.input_size, model.resize, model.network.stride)
    lost = np.flatnonzero(is_lost(targets))
    share = len(lost) / len(whole.dataset.boxes)
    said = f"{len(lost):,} of {len(whole.dataset.boxes):,} objects ({share:.1%}) share cell and anchor with a later one"
    shapes = [f"{w:.2f} x {h:.2f}" for w, h in model.region.anchors]
    anchor = [shapes[a] for a in targets.anchor.numpy()[lost]]
    found = collision_finding(whole, lost, targets.winner.numpy()[lost], anchor)
    places = found[0].places if found else ()
    if share <= LOST:
        return passed("shared cells", said, places[:3])
    return failed(
        "shared cells", f"{said}, and are not learnt: train at a larger --size, or with more --anchors", places
    )


def check_detections(model: Model, dataset: Dataset) -> tuple[Sightings, Check]:
    """What the strongest detections on a sample of images lie on."""
    some = dataset.select(_spread(len(dataset), SAMPLE))
    detector = Detector(model, precision="fp32")
    seen = sight(some, detect_all(detector, some, FAINTEST)[0])
    good, said = verdict(seen, model.labels, detector.thresholds)
    if not good and (seen.best >= HIT).mean() < 0.5:  # boxes elsewhere: would the other resize put them right?
        modes: tuple[ResizeMode, ...] = get_args(ResizeMode)
        alike = (mode for mode in modes if antialiases(mode) == antialiases(model.resize))
        other = replace(model, resize=next(mode for mode in alike if mode != model.resize))
        then = sight(some, detect_all(Detector(other, precision="fp32"), some, FAINTEST)[0])
        if then.right.mean() > seen.right.mean() + ENOUGH:
            said = (f"the resize differs from training's: {then.right.mean():.0%} of the objects are found with "
                    f"{other.resize}, {seen.right.mean():.0%} with {model.resize}: write {other.resize}")  # fmt: skip
    return seen, (passed if good else failed)("detections", f"{said} ({detector.backend.info})")


def check_curves(run: Path) -> Check:
    """Whether the loss fell, and mAP stayed at zero all the same."""
    file = run / "metrics.csv"
    if not file.is_file():
        return skipped("curves", "no metrics.csv: not the folder of a run")
    try:
        curves = read_curves(file)
    except UserError as error:
        return skipped("curves", str(error))
    loss = [value for _, value in curves.get("loss_epoch", ())]
    scores = [value for _, value in curves.get("val/mAP", ())]
    if not loss or not scores:
        return skipped("curves", f"{file}: no epoch with its validation yet")
    said = f"loss from {loss[0]:.3g} to {loss[-1]:.3g}, best val/mAP {max(scores):.3f}"
    if max(scores) >= ZERO:
        return passed("curves", said)
    if loss[-1] < FALLEN * loss[0]:
        return failed("curves", f"{said}: what is learnt is not what is scored; change what the other checks say")
    return failed("curves", f"{said}: the loss did not fall; change --learning-rate, or train longer")


def check_memory(model: Model, dataset: Dataset, steps: int, blocked: Sequence[str]) -> Check:
    """Whether the network, begun anew, learns five images by heart."""
    name = "five images"
    if blocked:
        return skipped(name, f"fix first: {', '.join(blocked)}")
    if not steps:
        return skipped(name, "as asked (--steps 0)")
    if model.tree is not None:
        return skipped(name, "a tree of classes is not trained here")
    five = check_images(dataset.select(_spread(len(dataset), FIVE)))
    names = ", ".join(record.path.name for record in five.records)
    try:
        value, taken = memorise(model, five, steps)
    except UserError as error:
        return failed(name, f"{error}: look at their boxes ({names})")
    except KeyboardInterrupt:  # what the checks before found is still told
        return skipped(name, "stopped")
    said = f"mAP@.5 {value:.2f} on {names} after {taken} of {steps} steps from scratch"
    if value >= BY_HEART:
        return passed(name, f"{said} (asked: {BY_HEART})")
    return failed(name, f"{said}, expected {BY_HEART}: give more --steps; if that does not help, look at the boxes "
                 "of these images, take a larger --size, or other --anchors")  # fmt: skip


def _spread(count: int, most: int) -> list[int]:
    """At most so many places of `count`, evenly."""
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
