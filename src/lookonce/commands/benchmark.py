"""benchmark: how fast models are on this machine, in each backend and beside other programs."""

from __future__ import annotations

import json
import math
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from lookonce.commands.arguments import AnyPath, expanded, several
from lookonce.console import is_shown
from lookonce.data.images import usable_cores
from lookonce.data.lookup import find_images
from lookonce.deploy.benchmark import (
    MatrixRate,
    Series,
    Speed,
    Table,
    files_series,
    interleave,
    matrix_rates,
    network_series,
    process_threads,
    readable,
    tabulate,
    this_machine,
)
from lookonce.deploy.peer import Peer, compare_with_peer, config_of, read_peer
from lookonce.errors import ConfigError, Interrupted, UserError, printable
from lookonce.files import check_output, write_text
from lookonce.inference.backends.int8_form import int8_form
from lookonce.inference.backends.open import EXPORTED
from lookonce.inference.backends.settings import Settings
from lookonce.inference.pretrained_models import model_path
from lookonce.model.model_file import load_model

OUTPUT = ("speed.txt", "speed.json", "speed.png")


def benchmark(
    models: Sequence[Path | str],
    *,
    rounds: int = 15,
    batch: int = 8,
    threads: int | None = None,
    images: AnyPath | None = None,
    train: bool = False,
    compare: str | None = None,
    minutes: float | None = None,
    out: AnyPath | None = None,
    overwrite: bool = False,
) -> Speed:
    """Measure how fast models are on this machine.

    The network alone runs in each backend and precision that this machine has, in OpenCV's dnn and in plain PyTorch.
    Each row runs once a round, in turn, so that ratios hold on a busy machine: a ratio is the median over rounds of the
    ratio within a round, against OpenCV, or against plain PyTorch if OpenCV is not installed. Large matrix products run
    in the same rounds; a network's share of their rate says how much faster it could be on this machine.

    Args:
        models: Names of published models (see lookonce models), model files, run folders, Darknet .cfg files beside
            their .weights, or exported .onnx and .xml files.
            The int8 form of a run stands in the same table, as does an int8 export given after its model.
        rounds: Number of measurements of each row; training steps are measured 3 times at most.
        batch: Images per run for throughput, and per training step. Latency is measured with one image.
        threads: CPU threads of every row; none: the cores that this process may use.
        images: Also measure from the image files of this folder to detections as JSON.
        train: Also measure training steps: the step alone, through train, and in a plain loop.
        compare: Also train Ultralytics' YOLOv8n on the images of the run, for as many minutes, and score both on its
            test images with the same code: ultralytics, or ultralytics:NETWORK for another of its networks (a .yaml
            starts from random weights, a .pt from those in it). Only if you have installed it; it runs offline, in a
            process of its own.
        minutes: Minutes of --compare; none: those that the run took.
        out: Also write speed.txt, speed.json and the plot speed.png into this folder.
        overwrite: Replace these three files if they exist.
    Returns:
        Speed: the machine, a table for each network and batch, and what was not measured and why. Ctrl-C returns the
        complete rounds so far.
    Raises:
        UserError: a model that cannot be read, a number out of range, a folder without images, a peer that is not
            installed.
        Interrupted: Ctrl-C before the first round was complete.
    """
    if rounds < 1:
        raise ConfigError(f"rounds: {rounds}; expected at least 1")
    if batch < 2:
        raise ConfigError(f"batch: {batch}; expected at least 2, since one image is measured anyway")
    if minutes is not None and compare is None:
        raise ConfigError("minutes: without --compare nothing is trained for a time; leave it out")
    network = None if compare is None else read_peer(compare)
    out = None if out is None else expanded(out)
    if out is not None:
        for name in OUTPUT:
            check_output(out / name, overwrite)
    threads = Settings(threads=threads).threads or usable_cores()
    given = [path / "model.safetensors" if path.is_dir() else path for path in map(model_path, several(models))]
    paths = _with_int8(given)
    times = [(path, _minutes(path, minutes)) for path in given] if network else []
    files = [] if images is None else readable(find_images(images))
    with process_threads(threads), tempfile.TemporaryDirectory() as folder:
        work: list[tuple[str, Callable[[], Series]]] = [
            ("networks", lambda: network_series(paths, batch, rounds, threads))
        ]
        if files:
            work += [
                (f"{path}: not measured from files", partial(files_series, path, files, rounds, threads))
                for path in paths
            ]
        if train:
            work += [
                (f"{path}: no training steps", partial(_steps, path, batch, rounds, threads, Path(folder, str(number))))
                for number, path in enumerate(given)
            ]
        speed = _measure(work, threads)
        for number, (path, time) in enumerate(times if network and not speed.stopped else ()):
            peer = Peer(cast(str, network), time, load_model(path).input_size[0], threads)
            own = Path(folder, f"peer-{number}")
            own.mkdir()
            speed = replace(speed, peers=(*speed.peers, compare_with_peer(path, peer, _took(path), own)))
    if not files:
        note = "from image files to detections: not measured; give --images FOLDER"
        speed = replace(speed, notes=(*speed.notes, note))
    if out is not None:
        _write(speed, out)
    return speed


def _with_int8(paths: Sequence[Path]) -> list[Path]:
    """Return the models with the int8 form of each, if it has one, behind it."""
    found: list[Path] = []
    for path in paths:
        found.append(path)
        with suppress(UserError):
            form = None if path.suffix in EXPORTED else int8_form(path, Settings(precision="int8"))
            found += [form] if form is not None and form not in paths else []
    return found


def _took(run: Path) -> float | None:
    """Return the minutes that the training of a model took; None: its file does not say."""
    found = load_model(run).training.get("minutes")
    return float(found) if isinstance(found, int | float) else None


def _minutes(run: Path, given: float | None) -> float:
    """Return the minutes of a peer of a run. Raises ConfigError before anything is measured."""
    config_of(run.parent)
    minutes = given or _took(run)
    if minutes is None or not 0 < minutes < math.inf:
        raise ConfigError(f"minutes: {minutes}; {run} does not say how long its training took; give --minutes above 0")
    return minutes


def _steps(path: Path, batch: int, rounds: int, threads: int, folder: Path) -> Series:
    """Return the training steps of a model."""
    if path.suffix in EXPORTED:
        raise ConfigError("this file is exported; give the model file too")
    from lookonce.deploy.step_speed import step_series  # lightning takes seconds

    return step_series(str(path), load_model(path), batch, rounds, threads, folder)


def _measure(work: Sequence[tuple[str, Callable[[], Series]]], threads: int) -> Speed:
    """Measure each series in turn. Ctrl-C, or an error after the first series, keeps what was measured before it."""
    tables: list[Table] = []
    notes: list[str] = []
    rates: list[MatrixRate] = []
    stopped = False
    for what, prepare in work:
        try:
            series = prepare()
            notes += series.notes
            with _progress(series) as before:
                runs = [each.run for each in series.candidates] + [each.run for each in series.products]
                found, stopped = interleave(runs, series.rounds, series.warm_up, before)
            if found:
                tables += tabulate(series, found)
                rates += matrix_rates(series, found)
        except UserError as error:
            if not tables:
                raise
            notes.append(f"{what}: {error}")
        except KeyboardInterrupt:
            stopped = True
        if stopped:
            break
    if not tables:
        raise Interrupted("stopped before the first round was complete; nothing was measured", signal.SIGINT)
    return Speed(this_machine(), threads, tuple(tables), tuple(notes), stopped, tuple(rates))


@contextmanager
def _progress(series: Series) -> Iterator[Callable[[int], None]]:
    """Show a bar over the runs of a series. It is drawn only between runs, to take no time from them."""
    runs = [f"{each.table}: {each.name} {each.precision}" for each in series.candidates]
    runs += [f"matrix product: {each.name} {each.precision}" for each in series.products]
    total = len(runs) * (series.warm_up + series.rounds)
    with Progress(console=Console(stderr=True), transient=True, auto_refresh=False, disable=not is_shown()) as bar:
        task, done = bar.add_task("", total=total), count()

        def before(index: int) -> None:
            bar.update(task, description=escape(printable(runs[index])), completed=next(done), refresh=True)

        yield before


def _write(speed: Speed, folder: Path) -> None:
    """Write the tables, the JSON and the plot."""
    from lookonce.report.figures import Bar, rates_figure, save_figure

    write_text(folder / "speed.txt", f"{speed}\n")
    write_text(folder / "speed.json", json.dumps(speed.to_json(), indent=2, ensure_ascii=False) + "\n")
    panels = {}
    for table in speed.tables:
        panels[table.heading] = [
            Bar(", ".join(filter(None, (row.name, row.precision))), row.images_per_s,
                "" if row.ratio is None or row.name == table.against else f"  {row.ratio:.2f} x", not row.is_peer)
            for row in table.rows
        ]  # fmt: skip
    save_figure(rates_figure(panels, f"{speed.machine.cpu}, threads: {speed.threads}"), folder / "speed.png")
