"""prune: a detector becomes one with fewer channels, trained on, and measured against what it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from lookonce.data.dataset import Dataset
from lookonce.deploy.prune import choose, cut
from lookonce.errors import ConfigError, UserError
from lookonce.evaluation.average_precision import Rules
from lookonce.evaluation.compare import Comparison, compare_detections
from lookonce.evaluation.evaluate import RULES, detect_all
from lookonce.files import write_text
from lookonce.inference.detector import Detector
from lookonce.model.darknet.cfg import Cfg, write_cfg
from lookonce.model.detections import Detections
from lookonce.model.layers import Conv, Layer, num_floats, num_operations
from lookonce.model.model_file import Model, load_model, save_model
from lookonce.report.figures import channels_figure, save_figure
from lookonce.report.run_page import write_run_page
from lookonce.training.checkpoints import listening
from lookonce.training.config import RunConfig
from lookonce.training.recipes import RECIPES, Settings
from lookonce.training.run import Run, read_both, run_folder

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table


log = logging.getLogger("lookonce")


@dataclass(frozen=True)
class Round:
    """One cut and what became of it."""

    run: Path
    before: tuple[Layer, ...]
    """The network that was given, uncut."""
    after: tuple[Layer, ...]
    input_size: tuple[int, int]
    comparison: Comparison
    """On the validation images, against the model that was given."""
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
        for heading in ("layer", "before", "after", "of it"):
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
    """What pruning came to."""

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

        said = [f"{one.run}: {one.comparison}" for one in self.rounds]
        if self.kept is None:
            said.append(f"lost more than {self.max_drop:g}: not to be used; give a smaller --ratio, or more --steps")
        else:
            said.append(f"kept: {self.kept.run} (within {self.max_drop:g})")
        return Group((self.kept or self.rounds[-1]).__rich__(), Text("\n".join(said)))

    def __str__(self) -> str:
        from rich.console import Console

        text = StringIO()
        Console(file=text, width=200, color_system=None).print(self)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def prune(
    model: Path,
    data: Path,
    *,
    ratio: float = 0.3,
    rounds: int = 1,
    steps: int = 1200,
    max_drop: float = 0.01,
    out: Path = Path("runs"),
    name: str | None = None,
    seed: int = 0,
) -> Pruned:
    """Remove the least important channels of a detector, retrain it, and measure what that cost.

    A channel's importance is |gamma| of its batch norm, compared across the whole network; each layer keeps a multiple
    of 8 channels. The result is an ordinary run with a smaller network. mAP is measured on the validation images before
    and after; the test images are never read.

    Args:
        model: Model file with batch norm, run folder, or Darknet .cfg with its .weights beside it.
        data: Data set to retrain on; its split val is used to measure.
        ratio: Fraction of the removable channels to remove, above 0 and below 1.
        rounds: Number of equal steps to that ratio, each followed by training and a run of its own.
        steps: Optimizer steps after each round. The learning rate is the model's own.
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
        Interrupted: Ctrl-C during training, after a checkpoint; continue with lookonce train --resume.
    """
    _check(rounds, steps, max_drop)
    source = Path(model).expanduser()
    given = load_model(source)
    _check_model(given, source)
    choose(given.network, ratio)  # which says what cannot be pruned before anything takes time
    names = _names(Path(out).expanduser(), name, rounds)
    config = _run_config(given, source, Path(data).expanduser().absolute(), seed)
    config = replace(config, settings=replace(config.settings, steps=steps, epochs=None))
    own = source.parent if source.name == "model.safetensors" else source.with_suffix("")  # a run, by its folder
    folders = [(Path(out).expanduser(), one, f"{own.resolve().name}-pruned") for one in names]
    return Pruned(tuple(_rounds(given, config, folders, ratio, max_drop)), max_drop)


def _check(rounds: int, steps: int, max_drop: float) -> None:
    for name, value in (("rounds", rounds), ("steps", steps)):
        if value < 1:
            raise ConfigError(f"{name}: {value}; expected at least 1")
    if not 0 <= max_drop < 1:
        raise ConfigError(f"max-drop: {max_drop}; expected at least 0 and below 1, as 0.01")


def _check_model(model: Model, place: Path) -> None:
    """Raises ConfigError for a model that training cannot go on with."""
    width, height = model.input_size
    if model.tree is not None:
        raise ConfigError(f"{place}: its classes are a tree, which is not trained here; give a model of plain classes")
    if width != height or width % model.network.stride:
        raise ConfigError(f"{place}: input {width} x {height}; training takes a square input whose side divides by "
                          f"{model.network.stride}")  # fmt: skip


def _names(out: Path, name: str | None, rounds: int) -> list[str | None]:
    """A name for the run of each round; None: the next free number. Raises ConfigError where one exists."""
    if name is None:
        return [None] * rounds
    found = [name] if rounds == 1 else [f"{name}-{number + 1}" for number in range(rounds)]
    for one in found:
        if (out / one / "checkpoints").exists():
            raise ConfigError(f"{out / one}: holds a run already; give another --name")
    return [*found]


def _run_config(model: Model, place: Path, data: Path, seed: int) -> RunConfig:
    """How the cut network is trained: as the model was, without what belongs to a start.

    Raises ConfigError for a model file whose recipe is none of this version's.
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
        schedule="one_cycle", prior_loss_images=0, freeze="none", features="none", variants=0, patience=0,
    )  # fmt: skip
    return RunConfig(str(data), model.labels, keep_empty=True, seed=seed, settings=how, keep_last=True)


Place = tuple[Path, str | None, str]
"""Where the run of a round goes: what run_folder takes."""


def _rounds(given: Model, config: RunConfig, places: list[Place], ratio: float, max_drop: float) -> Iterator[Round]:
    """Cut, train and measure, once for each place, until too much is lost."""
    _, val_set = read_both(config)
    assert val_set is not None  # the config names its split
    if not len(val_set.boxes):
        raise UserError(f"{config.data}: no objects on the images of its split 'val', so accuracy cannot be guarded; "
                        "label some")  # fmt: skip
    before, *_ = _detected(given, val_set)
    current = given
    for number, place in enumerate(places):
        each = ratio / len(places)
        current, folder = _round(current, place, each / (1 - each * number), config)  # of what is left so far
        comparison = compare_detections(val_set, before, *_detected(current, val_set))
        log.info("round %d of %d: %s", number + 1, len(places), comparison)
        done = Round(folder, given.network.layers, current.network.layers, given.input_size, comparison,
                     given.network.channels)  # fmt: skip
        save_figure(channels_figure(done.channels, str(comparison)), folder / "channels.png")
        yield done
        if comparison.drop > max_drop:
            return


def _round(model: Model, place: Place, ratio: float, config: RunConfig) -> tuple[Model, Path]:
    """Cut a ratio of a model's channels and train what is left: (the model, its run folder)."""
    less = cut(model.network, choose(model.network, ratio))
    with listening(), run_folder(*place) as folder:
        cfg, start = folder / "pruned.cfg", folder / "pruned.safetensors"
        write_text(cfg, write_cfg(Cfg(less.layers, *model.input_size, less.channels)))
        save_model(replace(model, loaded=less), start)
        settings = replace(config.settings, network=str(cfg.absolute()))
        Run.new(replace(config, weights=str(start.absolute()), settings=settings), folder, exact_batch=False,
                write_page=write_run_page).go()  # fmt: skip
    return load_model(folder), folder


def _detected(model: Model, dataset: Dataset) -> tuple[list[Detections], Rules, str]:
    """What a model finds, by which rules that is scored, and what computed it."""
    detector = Detector(model, precision="fp32")
    return detect_all(detector, dataset)[0], RULES, str(detector.backend.info)
