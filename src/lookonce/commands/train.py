"""train: a data set becomes a run folder with a model, its checkpoints and its curves."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

from lookonce.data.dataset import DataPolicy
from lookonce.errors import ConfigError
from lookonce.files import held
from lookonce.report.run_page import write_run_page
from lookonce.training.checkpoints import listening
from lookonce.training.recipes import Device, Plan, Precision, RecipeName, settings, takes_settings
from lookonce.training.run import Run, _absolute, run_folder
from lookonce.training.step import choose_device


@takes_settings
def train(
    data: Path | None = None,
    *,
    recipe: RecipeName = "quick",
    labels: tuple[str, ...] | None = None,
    train_split: str = "train",
    val_split: str = "val",
    policy: DataPolicy = "drop",
    keep_empty: bool = False,
    out: Path = Path("runs"),
    name: str | None = None,
    resume: Path | None = None,
    seed: int = 0,
    workers: int = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    deterministic: bool = False,
    checkpoint_minutes: float = 5.0,
    weights: Path | None = None,
    keep_last: bool = False,
    **changes: Any,
) -> Path:
    """Train a detector on labelled images.

    Args:
        data: a data set; its format is found, not asked. With resume: where the data of that run lies now.
        recipe: where every setting that is not given comes from.
        labels: learn these classes only, by name, in this order.
        train_split: which images to learn from.
        val_split: which images choose the best model; none: the last model is kept.
        policy: how to handle a box less than half inside its image: drop it, clip it to the image, or error, which
            refuses any other problem, too. A box at least half inside is clipped.
        keep_empty: with labels, also learn from images that show none of them.
        out: where run folders are made.
        name: the run's folder; none: the data's name and a number.
        resume: the folder of a run to continue; everything else comes from its config.yaml.
        seed: every random draw derives from it.
        workers: processes that decode images beside the training; 0: none.
        device: auto takes a GPU where there is one.
        precision: auto takes bf16 where the machine computes in it.
        deterministic: only computations that give one seed the same weights, also on a GPU; slower there.
        checkpoint_minutes: longest time between two checkpoints; each epoch ends with one as well.
        weights: start from a model file, a run, or Darknet's weights (whole, or a start such as
            darknet19_448.conv.23): every layer that fits is taken, the last one starts anew.
        keep_last: with weights, take the last layer too: they are of a detector of these same classes and anchors,
            so --network is its cfg and --anchors 0.
    Returns:
        The run folder: model.safetensors (there from the first validation on), checkpoints/, metrics.csv, config.yaml,
        data.json, network.cfg, report.html and tensorboard/.
    Raises:
        UserError: data or a setting that is not valid; a loss that is not finite; a full disk; with resume, data
            whose classes, splits or labels are no longer those of the run. A run without a checkpoint leaves no folder.
        Interrupted: Ctrl-C or SIGTERM, after a checkpoint: resume continues from there.
    """
    given = {**locals(), **changes}
    if resume is not None:
        return _resume(Path(resume).expanduser(), data, given)
    if data is None:
        raise ConfigError("data: none given; expected a folder of labelled images: lookonce train FOLDER")
    how = settings(recipe, **changes)
    if how.network.endswith(".cfg"):
        how = replace(how, network=_absolute(how.network))
    start = None if weights is None else _absolute(weights)
    labels = labels if labels is None or isinstance(labels, str) else tuple(labels)
    plan = Plan(_absolute(data), labels, train_split, val_split, policy, keep_empty, seed, workers, device, precision,
                deterministic, checkpoint_minutes, start, how, keep_last)  # fmt: skip
    choose_device(plan.device)
    with listening(), run_folder(Path(out).expanduser(), name, Path(plan.data).resolve().name) as folder:
        return Run.new(plan, folder, exact_batch=changes.get("batch_size") is not None,
                       write_page=write_run_page).go()  # fmt: skip


def _resume(folder: Path, data: Path | None, given: dict[str, Any]) -> Path:
    """Continue a run. given: every argument of train by name, to refuse those that it would not follow."""
    defaults = {name: entry.default for name, entry in inspect.signature(train).parameters.items()}
    own = {name: value for name, value in given.items() if name not in ("resume", "data", "changes")}
    if other := [name for name, value in own.items() if value != defaults.get(name)]:
        raise ConfigError(
            f"--resume: continues as {folder / 'config.yaml'} says, so --{other[0].replace('_', '-')} cannot change: "
            "give no other setting, or start a new run"
        )
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder, so there is nothing to resume; start with lookonce train DATA")
    with listening(), held(folder):
        run = Run.resumed(folder, data, write_run_page)
        return run.folder if run.finished() else run.go()
