"""benchmark: how fast models are on this machine, in each backend and beside other programs."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from lookonce.console import is_shown
from lookonce.data.images import usable_cores
from lookonce.data.lookup import find_images
from lookonce.deploy import benchmark as from_files
from lookonce.deploy.benchmark import (
    Speed,
    interleave,
    line_up,
    names,
    networks_speed,
    process_threads,
    short,
    tables,
    this_machine,
    timed,
)
from lookonce.errors import ConfigError, Interrupted, UserError, printable
from lookonce.files import check_output, write_text
from lookonce.inference.backends.open import EXPORTED
from lookonce.inference.backends.settings import Settings
from lookonce.model.model_file import load_model

OUTPUT = ("speed.txt", "speed.json", "speed.png")


WARM_UP = 2
"""Rounds before those that count."""


def benchmark(
    models: list[Path],
    *,
    rounds: int = 15,
    batch: int = 8,
    threads: int | None = None,
    images: Path | None = None,
    train: bool = False,
    out: Path | None = None,
    overwrite: bool = False,
) -> Speed:
    """Measure how fast models are here: their network alone, and on request all around it.

    The network alone runs in each backend and precision that this machine has, in OpenCV's dnn and in plain PyTorch.
    In every round each row runs once, in turn, so that ratios hold on a busy machine: a ratio is the median over rounds
    of that within a round, against OpenCV, or against plain PyTorch where OpenCV is not installed.

    Args:
        models: model files, folders of runs, Darknet .cfg files beside their .weights, or exported .onnx and .xml
            files: an int8 export given behind its model stands in one table with it.
        rounds: how often each row is measured; of training steps 3 times at most.
        batch: images at once where throughput is measured, and of a training step; one alone gives the latency.
        threads: of the CPU, for every row alike; none: the cores that this process may use.
        images: also measure from the image files of this folder to detections as JSON.
        train: also measure training steps of the network: the step alone, through train, and in a plain loop.
        out: also write speed.txt, speed.json and the plot speed.png into this folder.
        overwrite: replace these three files if they exist.
    Returns:
        Speed: the machine, a table for each network and batch, and what is absent and why. Ctrl-C gives the rounds so
        far.
    Raises:
        UserError: a model that cannot be read, a number outside its law, a folder without images.
        Interrupted: Ctrl-C before the first round was done.
    """
    if rounds < 1:
        raise ConfigError(f"rounds: {rounds}; expected at least 1")
    if batch < 2:
        raise ConfigError(f"batch: {batch}; expected at least 2, since one image alone is measured anyway")
    for name in OUTPUT if out is not None else ():
        check_output(Path(out or "").expanduser() / name, overwrite)
    threads = Settings(threads=threads).threads or usable_cores()
    models = [_whole(Path(model).expanduser()) for model in models]
    files = None if images is None else from_files.readable(find_images(images))
    further = [partial(_with_files, model=model, files=files) for model in models if files]
    further += [partial(_with_steps, model=model, batch=batch) for model in models if train]
    with process_threads(threads):
        speed = _onwards(_networks(models, batch, rounds, threads), further)
    if files is None:
        speed = _noted(speed, "from image files to detections: not measured; give --images FOLDER")
    if out is not None:
        _write(speed, Path(out).expanduser())
    return speed


def _whole(path: Path) -> Path:
    """The file that a path means."""
    return path / "model.safetensors" if path.is_dir() else path  # a run folder


def _networks(models: Sequence[Path], batch: int, rounds: int, threads: int) -> Speed:
    """The networks alone. Raises Interrupted where not one round was done."""
    found = line_up(models, batch, threads)
    labels = [f"{row.network}, batch {row.batch}: {row.backend} {row.precision}" for row in found.rows]
    with _progress(labels, rounds + WARM_UP) as each:
        took = interleave([timed(run) for run in found.runs], rounds, WARM_UP, each)
    if not took.found:
        raise Interrupted("stopped before the first round was done; nothing was measured", signal.SIGINT)
    seconds = [[spent.seconds for spent in took.of(place)] for place in range(len(found.rows))]
    rows = networks_speed(found.rows, seconds)
    return Speed(this_machine(), threads, len(took.found), rows, tuple(found.absent), stopped=took.stopped)


def _onwards(speed: Speed, further: Sequence[Callable[[Speed], Speed]]) -> Speed:
    """The same with what each of these adds; Ctrl-C ends them and keeps what there is."""
    for measure in further:
        try:
            speed = speed if speed.stopped else measure(speed)
        except KeyboardInterrupt:
            speed = replace(speed, stopped=True)
    return speed


def _with_files(speed: Speed, model: Path, files: Sequence[str]) -> Speed:
    """The same with a model's way from files to detections."""
    labels = [f"{len(files)} files: {what}" for what in ("decoding alone", "to detections", "network alone")]
    with _progress(labels, speed.rounds + from_files.WARM_UP) as each:
        found, stopped = from_files.measure_files(model, files, speed.rounds, speed.threads, each)
    return replace(speed, files=(*speed.files, *([found] if found else [])), stopped=stopped)


def _with_steps(speed: Speed, model: Path, batch: int) -> Speed:
    """The same with a model's training steps."""
    if model.suffix in EXPORTED:
        return _noted(speed, f"{model}: no training steps of an exported file; give the model file too")
    from lookonce.deploy import step_speed as steps  # lightning takes seconds

    labels = [f"training steps: {kind}" for kind in steps.KINDS]
    with tempfile.TemporaryDirectory() as folder, _progress(labels, min(speed.rounds, steps.ROUNDS)) as each:
        try:
            found, stopped = steps.measure_steps(
                str(model), load_model(model), batch, speed.rounds, speed.threads, Path(folder), each
            )
        except UserError as error:  # what was measured before stays
            return _noted(speed, f"{model}: no training steps: {error}")
    return replace(speed, training=(*speed.training, *([found] if found else [])), stopped=stopped)


def _noted(speed: Speed, note: str) -> Speed:
    return replace(speed, notes=(*speed.notes, note))


@contextmanager
def _progress(labels: Sequence[str], rounds: int) -> Iterator[Callable[[int], None]]:
    """A bar over so many rounds of the labelled runs. It moves between the runs alone, to take nothing from them."""
    with Progress(console=Console(stderr=True), transient=True, auto_refresh=False, disable=not is_shown()) as bar:
        task, done = bar.add_task("", total=rounds * len(labels)), count()

        def each(place: int) -> None:
            bar.update(task, description=escape(printable(labels[place])), completed=next(done), refresh=True)

        yield each


def _write(speed: Speed, folder: Path) -> None:
    """The tables, the JSON and the plot."""
    from lookonce.report.figures import Bar, rates_figure, save_figure

    write_text(folder / "speed.txt", speed.table() + "\n")
    write_text(folder / "speed.json", json.dumps(speed.to_json(), indent=2, ensure_ascii=False) + "\n")
    panels: dict[str, list[Bar]] = {}
    for heading, rows in tables(speed.networks).items():
        for name, row in zip(names(rows), rows, strict=True):
            times = "" if row.ratio is None or row.backend == row.against else f"  {row.ratio:.2f} x"
            bar = Bar(f"{name}, {row.precision}", row.images_per_s, times, not row.is_peer)
            panels.setdefault(heading, []).append(bar)
    for files in speed.files:
        panels[f"{short(files.model)}: from files to JSON"] = [
            Bar("network alone", files.bare_images_per_s, "", False),
            Bar("from files", files.images_per_s, f"  {files.share_of_bare:.0%}", True),
        ]
    for steps in speed.training:
        panels[f"{short(steps.model)}: training steps of {steps.batch}"] = [
            Bar("the step alone", steps.bare, "", False),
            Bar("through train", steps.train, f"  {steps.train_of_bare:.0%}", True),
            Bar("a plain loop", steps.plain, "", False),
        ]
    machine, threads = speed.machine, speed.threads
    save_figure(rates_figure(panels, f"{machine.cpu}, threads: {threads}"), folder / "speed.png")
