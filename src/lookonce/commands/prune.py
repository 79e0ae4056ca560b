"""prune: a detector becomes one with fewer channels, retrained, and measured against what it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lookonce.choices import key
from lookonce.commands.arguments import AnyPath, expanded
from lookonce.deploy.prune import Limits, Pruned, check_trainable, choose, prune_rounds, retraining_config
from lookonce.errors import ConfigError
from lookonce.inference.pretrained_models import model_path
from lookonce.model.model_file import load_model
from lookonce.model.network import Network
from lookonce.report.figures import channels_figure, save_figure
from lookonce.report.run_page import write_run_page
from lookonce.training.config import absolute_path
from lookonce.training.distillation import load_teacher
from lookonce.training.start import AUTO, NONE


def prune(
    model: AnyPath,
    data: AnyPath,
    *,
    ratio: float = 0.3,
    rounds: int = 1,
    steps: int | None = None,
    sparsity: float = 0.0,
    teacher: AnyPath = AUTO,
    max_drop: float = 0.01,
    out: AnyPath = Path("runs"),
    name: str | None = None,
    seed: int = 0,
) -> Pruned:
    """Remove the least important channels of a detector, retrain it, and measure what that cost.

    A channel's importance is |gamma| of its batch norm, compared across the whole network. Each layer keeps a multiple
    of 8 channels, and at least a quarter of the share that the network keeps. The smaller network learns from the
    labels and from what the model predicts, as an ordinary run. mAP is measured on the validation images before and
    after; the test images are never read.

    Args:
        model: Model file with batch norm, run folder, or Darknet .cfg with its .weights beside it.
        data: Data set to retrain on; its split val is used to measure.
        ratio: Fraction of the removable channels to remove, above 0 and below 1.
        rounds: Number of equal steps to that ratio, each followed by training and a run of its own.
        steps: Optimizer steps of the training with the penalty, and of that after each round; none: as long as the
            model's own training. The learning rate is the model's own.
        sparsity: Above 0: first train the model on with a penalty of this weight on gamma, in a run of its own, unless
            it was trained with one; as in lookonce train.
        teacher: Whose predictions the pruned network learns beside the labels: auto (the model's own), none, or another
            detector with the same heads.
        max_drop: Largest mAP@0.5 loss, 0 to 1. The last round within it is kept; a round beyond it ends the pruning.
        out: Folder for run folders.
        name: Name of the run folder, followed by a number if there are several rounds; none: the model's name and a
            number.
        seed: Seed of all random numbers.
    Returns:
        Pruned: channels, parameters and GFLOP before and after, and mAP with its interval. The exit code is 1 if even
        the first round lost more than max_drop. The run folder also holds channels.png, and pruned.cfg with
        pruned.safetensors: the network before it was retrained.
    Raises:
        UserError: a model that cannot be pruned or trained, data without its classes or without validation images, a
            number that is not allowed, a run folder that exists.
        Interrupted: Ctrl-C during training, after a checkpoint; continue with lookonce train --resume. If that was the
            training with the penalty, prune its run then.
    """
    for option, value in (("rounds", rounds), ("steps", steps)):
        if value is not None and value < 1:
            raise ConfigError(f"{option}: {value}; expected at least 1")
    if not 0 <= max_drop < 1:
        raise ConfigError(f"max-drop: {max_drop}; expected at least 0 and below 1, as 0.01")
    source, folder = model_path(model), expanded(out)
    loaded = load_model(source)
    check_trainable(loaded, source)
    choose(loaded.network, ratio)  # refuses what cannot be pruned before anything takes time
    is_sparse = loaded.training.get("recipe", {}).get("sparsity", 0) > 0
    config = retraining_config(loaded, source, absolute_path(data), seed)
    names = _names(folder, name, rounds, sparsity > 0 and not is_sparse)
    how = replace(config.settings, sparsity=0.0 if is_sparse else sparsity)
    how = how if steps is None else replace(how, steps=steps, epochs=None, minutes=None)
    file = absolute_path(source)
    config = replace(config, settings=how, weights=file, teacher=_teacher(teacher, file, loaded.network))
    own = (source.parent if source.name == "model.safetensors" else source.with_suffix("")).resolve().name  # of a run
    kinds = ["sparse", *["pruned"] * rounds]
    folders = [(folder, each, f"{own}-{kind}") for each, kind in zip(names, kinds, strict=True)]
    done = []
    for pruned in prune_rounds(loaded, config, folders, Limits(ratio, max_drop), write_run_page):
        save_figure(channels_figure(pruned.channels, str(pruned.comparison)), pruned.run / "channels.png")
        done.append(pruned)
    return Pruned(tuple(done), max_drop)


def _teacher(given: AnyPath, own: str, network: Network) -> str | None:
    """Return the file of the teacher; None: there is none. own: the file of the model. Raises UserError."""
    if key(str(given)) in (AUTO, NONE):
        return own if key(str(given)) == AUTO else None
    file = absolute_path(model_path(given))
    load_teacher(file, network)  # refuses other heads before anything takes time
    return file


def _names(out: Path, name: str | None, rounds: int, with_penalty: bool) -> list[str | None]:
    """Return the name of the run with the penalty, then of each round's run; None: the next free number.

    with_penalty: there is a run with the penalty. Raises ConfigError for a name in use.
    """
    if name is None:
        return [None] * (rounds + 1)
    found = [f"{name}-sparse", *([name] if rounds == 1 else [f"{name}-{number + 1}" for number in range(rounds)])]
    for one in found[0 if with_penalty else 1 :]:
        if (out / one / "checkpoints").exists() or (out / one / "model.safetensors").exists():
            raise ConfigError(f"{out / one}: holds a run already; give another --name")
    return [*found]
