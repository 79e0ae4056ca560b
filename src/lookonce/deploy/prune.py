"""Pruning: remove the channels of a network that matter least, train the rest, and measure what that costs.

A channel's importance is |gamma| of its batch norm; channels below one threshold for the whole network are removed, but
no layer loses nearly all of its own.
Without a penalty on gamma in the training before, gammas lie close together and their order says little; a longer
training after gains more (docs/experiments.md).
Source: Liu et al., Learning Efficient Convolutional Networks through Network Slimming (2017), section 3.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lookonce.console import rendered
from lookonce.data.dataset import Dataset
from lookonce.deploy.int8_of_run import add_int8
from lookonce.errors import ConfigError, UserError
from lookonce.evaluation.average_precision import Rules
from lookonce.evaluation.compare import Comparison, compare_detections
from lookonce.evaluation.evaluate import RULES, detect_all
from lookonce.files import write_text
from lookonce.inference.detector import Detector
from lookonce.model.channels import Channels, follow
from lookonce.model.darknet.cfg import Cfg, write_cfg
from lookonce.model.detections import Detections
from lookonce.model.layers import Connected, Conv, Layer
from lookonce.model.model_file import Model, load_model, save_model
from lookonce.model.network import Network, empty
from lookonce.model.sizes import num_floats, num_operations
from lookonce.training.config import RunConfig, fitted, read_both, refuse_binary_weights, run_folder
from lookonce.training.history import WritePage
from lookonce.training.recipes import RECIPES, Settings
from lookonce.training.run import Run
from lookonce.training.signals import listening
from lookonce.training.start import choose_start

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

log = logging.getLogger("lookonce")
MULTIPLE = 8
"""A pruned layer keeps a multiple of this many channels, which processors compute at once."""
LEAST_SHARE = 0.25
"""Each layer keeps at least this fraction of the share of channels that the network keeps. Our choice, measured in
docs/experiments.md: one threshold alone leaves some layers too few channels for what passes through them."""
Keep = Mapping[int, NDArray[np.bool_]]
"""[filters] of each layer that can lose channels, by its index: which of them stay."""


def choose(network: Network, ratio: float) -> Keep:
    """Which channels stay when this ratio of all that can be lost goes, the smallest |gamma| first.

    Channels that go together (see channels.py) count by their mean. One threshold holds for the whole network, but
    each layer keeps its best LEAST_SHARE * (1 - ratio) whatever they are worth. Of the groups with channels of the same
    layers, the number stays that is nearest to what this leaves and gives each layer a multiple of MULTIPLE: one at
    least, and all where nothing goes. Of equals the last go.

    Returns:
        One entry for each layer that can lose channels.
    Raises:
        ConfigError: a ratio outside 0..1, a network that has nothing to lose.
    """
    if not 0 < ratio < 1:
        raise ConfigError(f"ratio: {ratio}; expected above 0 and below 1, the fraction of channels to remove")
    channels = follow(network.layers, network.channels, 2 * MULTIPLE)
    groups = channels.free_groups()
    if not groups:
        raise ConfigError(
            f"nothing to prune: no convolution with batch norm and at least {2 * MULTIPLE} channels before the last; "
            "take the model that was trained, not a folded one"
        )
    gamma = _gammas(network, channels)
    worth = {made_by: np.array([np.nanmean(gamma[group]) for group in each]) for made_by, each in groups.items()}
    guarded = {made_by: np.sort(value) for made_by, value in worth.items()}
    for value in guarded.values():
        value[-math.ceil(LEAST_SHARE * (1 - ratio) * len(value)) :] = np.inf
    everywhere = np.sort(np.concatenate([value.repeat(len(made_by)) for made_by, value in guarded.items()]))
    threshold = everywhere[int(ratio * len(everywhere))]
    stays = np.ones(len(gamma), bool)
    for made_by, value in worth.items():
        for group in np.flatnonzero(~_best(value, int((guarded[made_by] >= threshold).sum()), made_by)):
            stays[groups[made_by][group]] = False
    return {index: stays[channels.layer == index] for index in sorted({i for made_by in groups for i in made_by})}


def cut(network: Network, keep: Keep) -> Network:
    """The same network without the channels that do not stay; other layers keep all of theirs.

    Every layer loses what it no longer reads as well. Where the lost channels were 0 everywhere, the function is the
    same.
    """
    channels = follow(network.layers, network.channels)
    stays = np.ones(len(channels.layer), bool)
    for index, kept in keep.items():
        stays[channels.layer == index] = kept
    made, read = ([torch.from_numpy(stays[each]) for each in maps] for maps in (channels.makes, channels.reads))
    result = empty(tuple(map(_less, network.layers, read, made)), network.channels)
    for index, new, old in zip(
        map(int, network.convolutions), result.convolution_list(), network.convolution_list(), strict=True
    ):
        state = {name: value[made[index]] for name, value in old.state_dict().items()}
        if old.conv.groups == 1:  # groups go whole, and the others read what they read
            state["conv.weight"] = _inputs(state["conv.weight"], 1, read[index])
        new.load_state_dict(state)
    for at, local in network.local_convolutions.items():
        state = local.state_dict()
        state["weight"] = _inputs(state["weight"], 2, read[int(at)])
        result.local_convolutions[at].load_state_dict(state)
    result.batch_norms.load_state_dict(network.batch_norms.state_dict())  # what they read stays
    result.sigmas = network.sigmas
    return result.train(network.training)


def _inputs(weight: Tensor, dim: int, stays: Tensor) -> Tensor:
    """Return the weights of the channels that stay. dim: that of the inputs, one or more for each channel."""
    return weight.index_select(dim, stays.repeat_interleave(weight.shape[dim] // len(stays)).nonzero()[:, 0])


def _less(layer: Layer, read: Tensor, made: Tensor) -> Layer:
    """Return a layer without the channels that do not stay. read, made: which of its input and its output do."""
    match layer:
        case Conv(groups=groups):
            return replace(layer, filters=int(made.sum()), groups=max(1, groups * int(read.sum()) // len(read)))
        case Connected():
            return replace(layer, output=int(made.sum()), inputs=layer.inputs * int(read.sum()) // len(read))
        case _:
            return layer


def _gammas(network: Network, channels: Channels) -> NDArray[np.float64]:
    """Return |gamma| [all channels]; nan for channels without one of their own."""
    gamma = np.full(len(channels.layer), np.nan)
    for index, convolution in zip(network.convolutions, network.convolution_list(), strict=True):
        if convolution.norm is not None:
            gamma[channels.layer == int(index)] = convolution.norm.weight.detach().abs().double().cpu().numpy()
    return gamma


def _best(worth: NDArray[np.float64], wanted: int, made_by: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which groups stay [groups]: those of greatest worth.

    Their number is the one wanted, rounded so that each layer keeps a multiple of MULTIPLE. made_by: the layer of each
    channel of a group.
    """
    step = math.lcm(*(MULTIPLE // math.gcd(MULTIPLE, count) for count in Counter(made_by).values()))
    number = len(worth) if wanted == len(worth) else min(max(step, step * math.floor(wanted / step + 0.5)), len(worth))
    keep = np.zeros(len(worth), bool)
    keep[np.argsort(-worth, kind="stable")[:number]] = True
    return keep


@dataclass(frozen=True)
class Round:
    """One cut network, trained, beside the network that was given."""

    run: Path
    before: tuple[Layer, ...]
    """Layers of the model that was given."""
    after: tuple[Layer, ...]
    input_size: tuple[int, int]
    comparison: Comparison
    """mAP on the validation images, against the model that was given."""
    input_channels: int = 3
    """Of the network: 3, or 1 where it reads grey images."""

    @property
    def channels(self) -> list[tuple[int, int, int]]:
        """(layer, its channels before, after) of each convolution."""
        pairs = enumerate(zip(self.before, self.after, strict=True))
        return [(i, b.filters, a.filters) for i, (b, a) in pairs if isinstance(b, Conv) and isinstance(a, Conv)]

    def __rich__(self) -> Table:
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
        for heading in ("layer", "before", "after", "kept"):
            table.add_column(heading, justify="left" if heading == "layer" else "right")
        for index, b, a in self.channels:
            table.add_row(f"{index}: channels", f"{b}", f"{a}", f"{a / b:.0%}")
        numbers = [num_floats(layers, self.input_channels) / 1e6 for layers in (self.before, self.after)]
        work = [
            num_operations(layers, self.input_size, self.input_channels) / 1e9 for layers in (self.before, self.after)
        ]
        for name, (was, now) in {"million parameters": numbers, "GFLOP an image": work}.items():
            table.add_row(name, f"{was:.2f}", f"{now:.2f}", f"{now / was:.0%}")
        return table


@dataclass(frozen=True)
class Pruned:
    """The result of pruning."""

    rounds: tuple[Round, ...]
    max_drop: float

    @property
    def kept(self) -> Round | None:
        """The last round that lost no more than max_drop."""
        return next((one for one in reversed(self.rounds) if one.comparison.drop <= self.max_drop), None)

    @property
    def run(self) -> Path | None:
        """The run folder of the round that is kept."""
        return self.kept.run if self.kept else None

    @property
    def exit_code(self) -> int:
        """1 where every round lost too much."""
        return 0 if self.kept else 1

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        lines = [f"{one.run}: {one.comparison}" for one in self.rounds]
        if self.kept is None:
            lines.append(f"every round lost more than {self.max_drop:g}; give a smaller --ratio, or more --steps")
        else:
            lines.append(f"kept: {self.kept.run} (lost at most {self.max_drop:g})")
        return Group((self.kept or self.rounds[-1]).__rich__(), Text("\n".join(lines)))

    def __str__(self) -> str:
        return rendered(self, width=200)


def check_trainable(model: Model, place: Path) -> None:
    """Raise ConfigError for a model that cannot be trained further. place: its file, for the message."""
    width, height = model.input_size
    refuse_binary_weights(model.network.layers, str(place))
    if model.tree is not None:
        raise ConfigError(f"{place}: its classes are a tree, which is not trained here; give a model of plain classes")
    if width != height or width % model.network.stride:
        raise ConfigError(f"{place}: input {width} x {height}; training takes a square input whose side divides by "
                          f"{model.network.stride}")  # fmt: skip


def retraining_config(model: Model, place: Path, data: Path | str, seed: int) -> RunConfig:
    """Return how pruned networks are trained: as the model was, without what belongs to the start of a training.

    Args:
        model: the model to prune.
        place: its file, for the message.
        data: the data set: an absolute path, or an address.
        seed: of all random numbers.
    Raises:
        ConfigError: a model file with settings that this version does not know.
    """
    try:
        recipe = model.training.get("recipe")
        how = Settings.from_plain(recipe) if recipe else RECIPES["quick"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{place}: settings that this version does not know ({error}); train the model again"
        ) from None
    how = replace(
        how, size=model.input_size[0], resize=model.resize, pixel_range=model.pixel_range, anchors=0,
        schedule="one_cycle", prior_loss_images=0, freeze="none", features="none", variants=0, patience=0, sparsity=0.0,
    )  # fmt: skip
    return RunConfig(str(data), model.labels, keep_empty=True, seed=seed, settings=how, keep_last=True)


@dataclass(frozen=True)
class Limits:
    """How much to prune."""

    ratio: float
    """Fraction of the removable channels to remove in all rounds together."""
    max_drop: float
    """mAP@0.5 that a round may lose; one that loses more is the last."""


def prune_rounds(model: Model, config: RunConfig, folders: Sequence[tuple[Path, str | None, str]], limits: Limits,
                 write_page: WritePage) -> Iterator[Round]:  # fmt: skip
    """Prune, train and measure in equal steps, until too much is lost.

    Args:
        model: the model to prune.
        config: how to train, from `retraining_config`, with the model's file as weights. With a sparsity, there is a
            training with this penalty before channels are removed, and none after.
        folders: where the run of that training goes, then that of each round: the arguments of `run_folder`.
        limits: how much to prune.
        write_page: writes the page of a run.
    Raises:
        UserError: validation images without objects, a network that cannot be pruned.
    """
    _, val_set = read_both(config)
    assert val_set is not None  # the config names its split
    if not len(val_set.boxes):
        raise UserError(f"{config.data}: no objects on the images of its split 'val', so accuracy cannot be guarded; "
                        "label some")  # fmt: skip
    before, *_ = _detected(model, val_set)
    with_penalty, *folders = folders
    current = _train_with_penalty(config, with_penalty, write_page) if config.settings.sparsity else model
    config, each = replace(config, settings=replace(config.settings, sparsity=0.0)), limits.ratio / len(folders)
    for number, place in enumerate(folders):
        less = cut(current.network, choose(current.network, each / (1 - each * number)))  # a ratio of what is left
        with listening(), run_folder(*place) as folder:
            _retrain(replace(current, loaded=less), folder, config, write_page)
        current = load_model(folder)
        comparison = compare_detections(val_set, before, *_detected(current, val_set))
        log.info("round %d of %d: %s", number + 1, len(folders), comparison)
        yield Round(folder, model.network.layers, current.network.layers, model.input_size, comparison,
                    model.network.channels)  # fmt: skip
        if comparison.drop > limits.max_drop:
            return


def _train_with_penalty(config: RunConfig, place: tuple[Path, str | None, str], write_page: WritePage) -> Model:
    """Train the model on with the penalty on gamma, in a run of its own, and return it. place: of the run."""
    start = choose_start(str(config.weights), None)
    assert start is not None  # the config has weights
    config = replace(config, settings=replace(config.settings, network=start.network), teacher=None)
    with listening(), run_folder(*place) as folder:
        log.info("%s: trains with a penalty of %g on batch norm's gammas before channels are removed; after an "
                 "interrupt, resume it, then prune that run", folder, config.settings.sparsity)  # fmt: skip
        _train(folder, config, write_page)
    return load_model(folder)


def _retrain(pruned: Model, folder: Path, config: RunConfig, write_page: WritePage) -> None:
    """Train a pruned network in its run folder, which also keeps the network as it was before."""
    cfg, start = folder / "pruned.cfg", folder / "pruned.safetensors"
    write_text(cfg, write_cfg(Cfg(pruned.network.layers, *pruned.input_size, pruned.network.channels)))
    save_model(pruned, start)
    settings = replace(config.settings, network=str(cfg.absolute()))
    add_int8(_train(folder, replace(config, weights=str(start.absolute()), settings=settings), write_page))


def _train(folder: Path, config: RunConfig, write_page: WritePage) -> Run:
    """Train in a run folder."""
    sets = read_both(config)
    run = Run(fitted(config, sets[0], exact_batch=False), folder, sets, write_page=write_page)
    run.go()
    return run


def _detected(model: Model, dataset: Dataset) -> tuple[list[Detections], Rules, str]:
    """Return what a model finds on a data set, the rules that score it, and what computed it."""
    detector = Detector(model, precision="fp32")
    return detect_all(detector, dataset)[0], RULES, str(detector.backend.info)
