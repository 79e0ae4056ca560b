"""train: a data set becomes a run folder with a model, its checkpoints and its curves."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from lookonce.choices import choose, key
from lookonce.commands.arguments import AnyPath, expanded, several
from lookonce.data.dataset import DataPolicy
from lookonce.data.tiles import in_tiles
from lookonce.errors import ConfigError, plural
from lookonce.files import held, write_text
from lookonce.inference.pretrained_models import DEFAULT, model_path
from lookonce.training.config import (
    Precision,
    RunConfig,
    SyncBatchNorm,
    absolute_path,
    class_tree,
    fitted,
    header,
    read_both,
    run_folder,
    with_loss_of_heads,
    with_tile,
)
from lookonce.training.ranks import planned, surrounding
from lookonce.training.recipes import RECIPES, RecipeName, Settings, TrainOptions, for_gpu, for_minutes, settings
from lookonce.training.signals import listening
from lookonce.training.start import AUTO, HINT, NONE, Start, choose_start

log = logging.getLogger("lookonce")
PLACED = ("devices", "nodes")
"""Options that may differ when a run is resumed."""


def train(
    data: AnyPath | None = None,
    *,
    recipe: RecipeName | None = None,
    labels: Sequence[str] | None = None,
    train_split: str = "train",
    val_split: str = "val",
    policy: DataPolicy = "drop",
    keep_empty: bool = False,
    out: AnyPath = Path("runs"),
    name: str | None = None,
    resume: AnyPath | None = None,
    seed: int = 0,
    workers: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    deterministic: bool = False,
    checkpoint_minutes: float | None = None,
    weights: AnyPath = "auto",
    keep_last: bool = False,
    keep_checkpoints: bool = False,
    tree: AnyPath | None = None,
    image_labels: AnyPath | None = None,
    devices: int | None = None,
    nodes: int | None = None,
    sync_batch_norm: SyncBatchNorm = "auto",
    teacher: AnyPath | None = None,
    **options: Unpack[TrainOptions],
) -> Path:
    """Train a detector on labelled images.

    Args:
        data: Labelled images: a Pascal VOC, COCO or YOLO data set, or shards, also by address. With --resume: where
            that run's data is now.
        recipe: Named set of defaults for the settings below: quick (from random numbers), finetune (from pretrained
            weights), paper, or blog (train the last layer of a pretrained YOLOv2: give --weights yolov2.weights); none:
            finetune if training starts from pretrained weights, otherwise quick.
        labels: Train on these classes only, by name, in this order.
        train_split: Split to train on.
        val_split: Split that selects the best model; none: keep the last model.
        policy: Boxes less than half inside their image: drop or clip them, or stop with an error, which refuses any
            other problem as well. A box at least half inside is always clipped.
        keep_empty: With --labels, keep images that show none of these classes.
        out: Folder for run folders.
        name: Name of the run folder; none: the data set's name and a number.
        resume: Continue the run in this folder; all other settings come from its config.yaml.
        seed: Seed of all random numbers.
        workers: Processes that load images in parallel with training; none: one for each other core if a GPU trains,
            otherwise 0.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1, or mps on a Mac.
        precision: auto: bf16 where the hardware computes it faster than fp32.
        deterministic: Use deterministic algorithms only: a seed then gives the same weights on a GPU too, more slowly.
        checkpoint_minutes: Longest time between two checkpoints, which is what a kill can lose; none: by their size, so
            that they write 1 GB an hour, but 1 to 30 minutes.
        weights: Start from these weights: the name of a published model, such as coco (see lookonce models; downloaded
            once), a model file, a run, or Darknet weights, complete or partial (such as darknet19_448.conv.23). Every
            layer that fits is loaded. auto: published weights of the network that were downloaded before, without
            --network those of coco; none: random numbers. With another recipe than finetune, auto means none.
        keep_last: With --weights, load the last layer as well. Classes and anchors must be the same: give its .cfg as
            --network, and --anchors 0.
        keep_checkpoints: Keep the checkpoints when the run is complete. They are four times as large as the model; with
            them, --resume continues the run after a change of epochs in its config.yaml.
        tree: Tree of the classes: an outline, YAML, or Darknet's .tree. Each class of the data is a class of the tree;
            the network learns all of them. none: the one that a .cfg given as --network names, if it does.
        image_labels: With --tree, images without boxes to train on as well: a folder with one sub-folder of images for
            each class.
        devices: Processes on this machine that train together, each with a GPU of its own if there are GPUs. Together
            they compute what one would: the batch is divided among them. none: one, or those of torchrun or SLURM.
        nodes: Machines that train together, each with so many devices; torchrun or SLURM starts them (docs/scale.md).
        sync_batch_norm: Of several devices, normalise by the images of all: always, never, or auto: if each has fewer
            than 16.
        options: See `lookonce.training.recipes.TrainOptions`.
    Returns:
        The run folder: model.safetensors (from the first validation on), results.csv (a row an epoch), metrics.csv
            (every number), train_batch.jpg (the first batch), training.gif (an image through the epochs), checkpoints/
            until the run is complete, config.yaml, data.json, network.cfg, report.html and tensorboard/.
    Raises:
        UserError: invalid data or settings; a loss that is not finite; a full disk; with resume, data whose classes,
            splits or labels differ from the run's. A run without a checkpoint leaves no folder behind.
        Interrupted: Ctrl-C or SIGTERM, after a checkpoint was written: resume continues from it.
    """
    arguments, began = {**locals(), **options}, time.monotonic()
    if surrounding().rank:
        return _followed()
    if resume is not None:
        return _resume(expanded(resume), None if data is None else expanded(data), arguments)
    if data is None:
        raise ConfigError("data: missing; expected a folder of labelled images: lookonce train FOLDER")
    network = options.get("network")
    if tree is not None and network is None and recipe in (None, "quick"):
        recipe = "quick"  # a tree needs a region layer, which the network of published weights does not have
    start, recipe = _start(weights, recipe, network)
    given = {**_of_start(start), **{name: value for name, value in options.items() if value is not None}}
    how = settings(recipe, **(given if recipe == "finetune" else options))
    if how.network.endswith((".cfg", ".safetensors")):
        how = replace(how, network=absolute_path(how.network))
    if options.get("loss") is None:
        how = with_loss_of_heads(how)
    if recipe == "blog" and start is None and how.freeze != "none":
        raise ConfigError("weights: missing; recipe blog trains the last layer of a pretrained network: give --weights "
                          "yolov2.weights (lookonce download yolov2 gets it), or --freeze none")  # fmt: skip
    if how.monitor == "loss" and val_split == "none":
        raise ConfigError("monitor: loss of the validation, but --val-split is none; name a split, or leave --monitor "
                          "out")  # fmt: skip
    names = None if labels is None else several(labels)
    config = RunConfig(
        absolute_path(data), names, train_split, val_split, policy, keep_empty, seed, workers, device, precision,
        deterministic, checkpoint_minutes, NONE if start is None else start.name, how, keep_last, keep_checkpoints,
        None if tree is None else absolute_path(tree), None if image_labels is None else absolute_path(image_labels),
        devices, sync_batch_norm, None if teacher is None else absolute_path(model_path(teacher)),
    )  # fmt: skip
    ranks = planned(devices, nodes, config.device)
    classes = class_tree(config)
    if config.device not in ("auto", "cpu"):
        from lookonce.training.step import choose_device  # torch takes seconds, and knows what this machine has

        choose_device(config.device)
    with listening(), run_folder(expanded(out), name, Path(config.data).resolve().name) as folder:
        write_text(folder / "config.yaml", config.to_yaml())  # before the data is read, which may take long
        sets = read_both(config, classes)
        how.weights_of(sets[0].labels)  # a class that is not there
        for line in header(config, *sets, start):
            log.info("%s", line)
        if start is None and key(str(weights)) == AUTO and recipe == "quick":
            log.info("%s", HINT)
        from lookonce.deploy.int8_of_run import add_int8
        from lookonce.report.run_page import write_run_page
        from lookonce.training.run import Run

        config = with_tile(config, sets[0])
        seen = in_tiles(sets[0], config.settings.tiling)
        if config.settings.tiling is not None:
            log.info("%s: an epoch has %s and their %s", config.settings.tiling, plural(len(sets[0]), "whole image"),
                     plural(len(seen) - len(sets[0]), "tile"))  # fmt: skip
        config = replace(config, settings=_adapted(config, recipe, given.keys(), len(seen)))
        config = fitted(config, sets[0], "batch_size" in given or recipe == "blog")
        run = Run(config, folder, sets, write_page=write_run_page, tree=classes, began=began)
        run.go(ranks)
        add_int8(run)
        return folder


def _adapted(config: RunConfig, recipe: RecipeName, given: Collection[str], images: int) -> Settings:
    """Return the recipe's settings for the device and the number of images, where the user left them open (given)."""
    from lookonce.training.step import choose_device

    how = config.settings
    if recipe == "finetune" and not {"freeze", "features", "variants", "augment"} & {*given}:
        how = for_minutes(how, images)
    is_open = recipe in ("quick", "finetune") and not {"batch_size", "learning_rate"} & {*given}
    return for_gpu(how, images) if is_open and choose_device(config.device) != "cpu" else how


def _start(weights: AnyPath, recipe: RecipeName | None, network: str | Path | None) -> tuple[Start | None, RecipeName]:
    """Return what training starts from, None for random numbers, and the recipe. Raises UserError."""
    named = None if recipe is None else choose(recipe, RECIPES, "recipe")
    automatic = key(str(weights)) == AUTO
    start = None if automatic and named not in (None, "finetune") else choose_start(weights, network)
    if named == "finetune" and start is None:
        raise ConfigError(f"recipe: finetune needs pretrained weights; give --weights {DEFAULT}, or those of your "
                          "network (lookonce models lists published ones)")  # fmt: skip
    return start, named or ("quick" if start is None else "finetune")


def _of_start(start: Start | None) -> TrainOptions:
    """Return the settings that follow from the weights."""
    found: TrainOptions = {}
    if start is not None and start.network:
        found["network"] = start.network
    if start is not None and start.size is not None:
        found["size"] = start.size
    return found


def _resume(folder: Path, data: Path | None, arguments: dict[str, Any]) -> Path:
    """Continue a run. arguments: of `train`, by name; all but data and resume are refused."""
    defaults = {name: entry.default for name, entry in inspect.signature(train).parameters.items()}
    own = {name: value for name, value in arguments.items() if name not in ("resume", "data", "options", *PLACED)}
    if other := [name for name, value in own.items() if value != defaults.get(name)]:
        raise ConfigError(
            f"--resume: the settings come from {folder / 'config.yaml'}, so --{other[0].replace('_', '-')} cannot "
            "be given; leave it out, or start a new run"
        )
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; expected the folder of a run, or start one: lookonce train DATA")
    from lookonce.deploy.int8_of_run import add_int8
    from lookonce.report.run_page import write_run_page
    from lookonce.training.run import Run, is_complete

    with listening(), held(folder):
        if is_complete(folder):
            return folder
        run = Run.resumed(folder, data, write_run_page)
        if not run.finished():
            devices = arguments["devices"]
            if devices is None and not surrounding().started:
                devices = run.config.devices
            run.go(planned(devices, arguments["nodes"], run.config.device))
            add_int8(run)
        return run.folder


def _followed() -> Path:
    """Train as one of the processes of torchrun or SLURM, all but the first. Return the run folder."""
    log.setLevel(logging.ERROR)
    from lookonce.training.run import follow

    with listening():
        return follow(surrounding())
