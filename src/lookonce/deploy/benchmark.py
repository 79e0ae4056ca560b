"""Measure the speed of models: the network alone, other programs with the same weights, and image files to JSON.

Every candidate of a series runs once a round, in turn, so that whatever else the machine does slows all of them alike.
A ratio of two candidates is the median over rounds of their ratio within a round.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lookonce import __version__
from lookonce.console import cell, cells, rendered
from lookonce.data.images import BATCH, image_size, load_for, usable_cores
from lookonce.deploy.export import Options, write_darknet
from lookonce.deploy.matrix_rate import Product, products
from lookonce.errors import ConfigError, ImageError, UserError
from lookonce.inference.backends.onnxruntime import import_onnxruntime
from lookonce.inference.backends.open import EXPORTED, Backend, open_backend
from lookonce.inference.backends.processor import features, processor
from lookonce.inference.backends.settings import Precision, Settings
from lookonce.inference.backends.torch import computes_bf16, gains_from_bf16
from lookonce.inference.detector import Detector
from lookonce.inference.outputs import write_entry
from lookonce.model.model_file import Model, load_model
from lookonce.model.sizes import num_operations

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table as RichTable

    from lookonce.deploy.peer import PeerComparison

REST = 0.05  # seconds before each run: idle threads of the backend before it spin for some 20 ms
OPENCV, PLAIN = "OpenCV dnn", "plain PyTorch"
PACKAGES = {"openvino": "openvino", "onnxruntime": "lookonce[onnx]", "cv2": "opencv-python-headless"}
log = logging.getLogger("lookonce")
Run = Callable[[NDArray[np.float32]], object]
"""Runs a batch of inputs [B, 3, H, W], floats 0..1."""


class Took(NamedTuple):
    """What one run took."""

    seconds: float
    cpu: float | None = None
    """Seconds of CPU time, over all threads."""
    waiting: float | None = None
    """Share of the time in which training steps waited for images."""


@dataclass(frozen=True)
class Candidate:
    """One thing to measure."""

    table: str
    """Heading of the table in which it is compared with others."""
    name: str
    model: str
    """As it was given."""
    precision: str
    device: str
    images: int
    """Images of one run."""
    run: Callable[[], Took]
    is_peer: bool = False
    """Whether it is there for comparison. Ratios of a table are against its first peer."""
    operations: int = 0
    """Multiplications and additions of one run; 0: not known."""


@dataclass(frozen=True)
class MatrixRate:
    """The fastest matrix product of a precision."""

    precision: str
    name: str
    gflops: float
    """1e9 operations a second, at the median."""

    def __str__(self) -> str:
        return f"{self.precision} {self.gflops:.0f} GFLOP/s ({self.name})"


@dataclass(frozen=True)
class Series:
    """Candidates that are measured in the same rounds."""

    candidates: Sequence[Candidate]
    rounds: int
    warm_up: int = 0
    """Rounds before those that count."""
    notes: Sequence[str] = ()
    """What could not be measured, and why."""
    failed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Table -> name of a peer that cannot run this network -> what it says."""
    products: Sequence[Product] = ()
    """Matrix products that run in the same rounds, after the candidates."""
    shares: Callable[[Sequence[Sequence[Took]]], dict[str, float]] = lambda _: {}
    """Compute further shares from the measurements [rounds][candidates]."""


@dataclass(frozen=True)
class Row:
    """How fast one candidate is."""

    name: str
    model: str
    precision: str
    device: str
    images: int
    """Images of one run."""
    is_peer: bool
    median_ms: float
    """Of one run, as the 95th percentile."""
    p95_ms: float
    images_per_s: float
    """At the median."""
    cpu_ms: float | None
    """CPU time of one image, over all threads; None: not measured."""
    ratio: float | None
    """How many times as fast as the table's first peer; None: no peer runs it."""
    of_matrix_rate: float | None = None
    """Its operations a second as a share of those of the fastest matrix product; None: not measured."""


@dataclass(frozen=True)
class Table:
    """Rows that are compared with each other."""

    heading: str
    rounds: int
    against: str | None
    """Name of the row that ratios refer to; None: there is no peer."""
    rows: tuple[Row, ...]
    shares: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    """Name of a peer that cannot run this network -> what it says."""

    def __rich__(self) -> RichTable:
        from rich import box
        from rich.table import Table

        headings: tuple[str, ...] = ("precision", "ms", "p95 ms", "images/s", "CPU ms/image")
        headings += (f"x {self.against}" if self.against else "no peer",)
        headings += ("of the machine's matrix rate",) * any(row.of_matrix_rate for row in self.rows)
        shown = Table(
            box=box.SIMPLE,
            title=cell(f"{self.heading}, {self.rounds} round{'s' * (self.rounds != 1)}"),
            title_justify="left",
            caption=", ".join(f"{name}: {share:.1%}" for name, share in self.shares.items()) or None,
            caption_justify="left",
        )
        for number, heading in enumerate(("", *headings)):
            shown.add_column(heading, justify="right" if number else "left", overflow="fold")
        for row in self.rows:
            figures = [f"{value:.1f}" for value in (row.median_ms, row.p95_ms, row.images_per_s)]
            figures.append("" if row.cpu_ms is None else f"{row.cpu_ms:.1f}")
            figures.append("" if row.ratio is None else f"{row.ratio:.2f}")
            figures.append("" if row.of_matrix_rate is None else f"{row.of_matrix_rate:.2f}")
            shown.add_row(cell(row.name), row.precision, *figures[: len(headings) - 1])
        for name in self.failed:
            shown.add_row(cell(name), "failed")
        return shown


@dataclass(frozen=True)
class Speed:
    """How fast models are on this machine."""

    machine: Machine
    threads: int
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()
    """What was not measured, and why."""
    stopped: bool = False
    """Whether Ctrl-C ended the measurement early."""
    matrix_rates: tuple[MatrixRate, ...] = ()
    """Of the CPU with so many threads, measured in the rounds of the networks."""
    peers: tuple[PeerComparison, ...] = ()
    """Runs beside those of another trainer."""

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, as in a shell, else 0."""
        return 130 if self.stopped else 0

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain values."""
        return asdict(self)

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        head = f"{self.machine}\nthreads: {self.threads}; each row runs once a round, in turn; ms: median of one run\n"
        if self.matrix_rates:
            head += f"large matrix products: {', '.join(map(str, self.matrix_rates))}\n"
        failed = {f"{name} failed: {why}": None for table in self.tables for name, why in table.failed.items()}
        notes = [
            *failed,
            *self.notes,
            *(["stopped before the last round; the complete rounds are shown"] * self.stopped),
        ]
        return Group(Text(head), *self.tables, *self.peers, cells(notes))

    def __str__(self) -> str:
        return rendered(self)


def interleave(
    runs: Sequence[Callable[[], Took]], rounds: int, warm_up: int, before: Callable[[int], None] = lambda _: None
) -> tuple[list[list[Took]], bool]:
    """Run everything once a round, in turn.

    Args:
        runs: what is measured.
        rounds: rounds that count.
        warm_up: rounds before them that do not.
        before: called with the index of each run before it starts.
    Returns:
        (what the complete rounds took, [rounds][runs]; whether Ctrl-C ended them early).
    """
    kept: list[list[Took]] = []
    try:
        for number in range(warm_up + rounds):
            found = []
            for index, run in enumerate(runs):
                before(index)
                found.append(run())
            if number >= warm_up:
                kept.append(found)
    except KeyboardInterrupt:
        return kept, True
    return kept, False


def timed(run: Callable[[], object]) -> Callable[[], Took]:
    """Return a function that rests, runs `run` and returns the time that it took."""

    def measured() -> Took:
        time.sleep(REST)
        cpu, began = time.process_time(), time.perf_counter()
        run()
        return Took(time.perf_counter() - began, time.process_time() - cpu)

    return measured


def tabulate(series: Series, rounds: Sequence[Sequence[Took]]) -> list[Table]:
    """Return one table for each heading of a series. rounds: [rounds][candidates, products], at least one round."""
    tables = []
    measured = list(zip(series.candidates, zip(*rounds, strict=True), strict=False))
    matrix = {product.precision: (product, took) for product, took in _fastest(series, rounds)}
    for heading in dict.fromkeys(candidate.table for candidate in series.candidates):
        chosen = [(candidate, took) for candidate, took in measured if candidate.table == heading]
        peer, peer_took = next((each for each in chosen if each[0].is_peer), (None, None))
        several = len({candidate.model for candidate, _ in chosen}) > 1
        rows = []
        for candidate, took in chosen:
            row = _row(candidate, took, peer_took, several)
            if candidate.operations and candidate.device == "cpu" and candidate.precision in matrix:
                product, best = matrix[candidate.precision]
                pairs = zip(took, best, strict=True)
                share = median((b.seconds / product.operations) / (a.seconds / candidate.operations) for a, b in pairs)
                row = replace(row, of_matrix_rate=share)
            rows.append(row)
        against, failed = peer.name if peer else None, dict(series.failed.get(heading, {}))
        tables.append(Table(heading, len(rounds), against, tuple(rows), series.shares(rounds), failed))
    return tables


def matrix_rates(series: Series, rounds: Sequence[Sequence[Took]]) -> tuple[MatrixRate, ...]:
    """Return the rate of the fastest matrix product of each precision. rounds: as for tabulate."""
    return tuple(
        MatrixRate(product.precision, product.name, product.operations / median(one.seconds for one in took) / 1e9)
        for product, took in _fastest(series, rounds)
    )


def _fastest(series: Series, rounds: Sequence[Sequence[Took]]) -> list[tuple[Product, tuple[Took, ...]]]:
    """Return the fastest matrix product of each precision, with what it took in each round."""
    columns = list(zip(*rounds, strict=True))[len(series.candidates) :]
    found: dict[str, tuple[float, Product, tuple[Took, ...]]] = {}
    for product, took in zip(series.products, columns, strict=True):
        rate = product.operations / median(one.seconds for one in took)
        if product.precision not in found or rate > found[product.precision][0]:
            found[product.precision] = (rate, product, took)
    return [(product, took) for _, product, took in found.values()]


def _row(candidate: Candidate, took: Sequence[Took], peer: Sequence[Took] | None, several: bool) -> Row:
    """Return a candidate's figures. several: whether the table compares several models."""
    seconds = [one.seconds for one in took]
    cpu = [one.cpu for one in took if one.cpu is not None]
    return Row(
        f"{candidate.name}: {short(candidate.model)}" if several and not candidate.is_peer else candidate.name,
        candidate.model, candidate.precision, candidate.device, candidate.images, candidate.is_peer,
        median_ms=median(seconds) * 1e3,
        p95_ms=float(np.quantile(seconds, 0.95)) * 1e3,
        images_per_s=candidate.images / median(seconds),
        cpu_ms=median(cpu) / candidate.images * 1e3 if cpu else None,
        ratio=None if peer is None else median(b.seconds / a.seconds for a, b in zip(took, peer, strict=True)),
    )  # fmt: skip


def short(model: str) -> str:
    """Return the name of a model in a table: that of its file, or of its run folder."""
    path = Path(model)
    return path.parent.name if path.name == "model.safetensors" and path.parent.name else path.name


@dataclass(frozen=True)
class Machine:
    """What a speed was measured on."""

    cpu: str
    features: dict[str, bool] | None
    """Which of FEATURES the CPU has; None: this system does not say."""
    cores: int
    """That this process may use."""
    all_cores: int
    gpu: str | None
    system: str
    versions: dict[str, str]

    def __str__(self) -> str:
        known = [f"{name} {'yes' if has else 'no'}" for name, has in (self.features or {}).items()]
        features = ", ".join(known) or "instructions unknown"
        lines = [f"{self.cpu}; {features}; {self.cores} of {self.all_cores} cores; {self.system}"]
        lines += [self.gpu] if self.gpu else []
        return "\n".join([*lines, ", ".join(f"{name} {version}" for name, version in self.versions.items())])


def this_machine() -> Machine:
    """Return the machine that this runs on, with the versions of what is installed."""
    versions = {"lookonce": __version__, "Python": platform.python_version()}
    for module in ("numpy", "torch", *PACKAGES):
        if importlib.util.find_spec(module) is not None:
            found = import_onnxruntime() if module == "onnxruntime" else importlib.import_module(module)
            versions[module] = str(found.__version__).split("-")[0]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    system = f"{platform.system()} {platform.machine()}"
    return Machine(processor()[0], features(), usable_cores(), os.cpu_count() or 1, gpu, system, versions)


def network_series(models: Sequence[Path], batch: int, rounds: int, threads: int) -> Series:
    """Open each model in every backend that can run it here, and in OpenCV's dnn and in plain PyTorch.

    Networks with the same layers and input share a table, so an int8 export is compared with its model.

    Args:
        models: model files and exported ones; exported ones have no peers of their own.
        batch: images per run where throughput is measured; latency is measured with one.
        rounds: rounds that count.
        threads: of the CPU, for each candidate.
    Raises:
        UserError: a model that cannot be read, or that nothing here can run.
    """
    found: list[tuple[int, Candidate]] = []  # with the index of its network
    notes: list[str] = []
    names: dict[tuple[object, ...], str] = {}
    failed: dict[str, dict[str, str]] = {}
    with_peers: set[str] = set()
    for path in models:
        source = path if path.suffix in EXPORTED else load_model(path)
        opened = [(way, sizes, backend) for way, sizes in ways(path, batch, threads)
                  if (backend := _opened(way, source, notes))]  # fmt: skip
        if not opened:
            raise UserError(f"{path}: nothing here can run it: " + "; ".join(notes))
        about = opened[0][2].about
        key = (about.layers, about.channels, about.input_size)
        network = names.setdefault(key, _network_name(path, about.input_size, set(names.values())))
        runs: list[tuple[str, Run, str, str, Sequence[int], bool]] = [
            (_name(way), backend, backend.info.precision, way.device or "cpu", sizes, False)
            for way, sizes, backend in opened
        ]
        if isinstance(source, Model) and network not in with_peers:
            with_peers.add(network)
            peers = _peers(path, source, notes)
            runs += [(name, run, "fp32", device, (1, batch), True) for name, device, run in peers]
        for name, run, precision, device, sizes, is_peer in runs:
            for size in sizes:
                heading, once = f"{network}, batch {size}, {device}", _on_noise(run, size, about.input_size)
                if is_peer and (why := _failure(once)):
                    failed.setdefault(heading, {})[name] = why
                    continue
                each = timed(once)
                made = Candidate(heading, name, str(path), precision, device, size, each, is_peer,
                                 size * num_operations(about.layers, about.input_size, about.channels))  # fmt: skip
                found.append((list(names).index(key), made))
    found.sort(key=lambda each: (each[0], each[1].images, each[1].device, each[1].is_peer))
    kinds = {candidate.precision for _, candidate in found}
    chosen = [each._replace(run=timed(each.run)) for each in products(threads) if each.precision in kinds]
    return Series([candidate for _, candidate in found], rounds, 2, tuple(dict.fromkeys(notes)), failed, chosen)


def ways(path: Path, batch: int, threads: int) -> Iterator[tuple[Settings, Sequence[int]]]:
    """Yield the settings in which a model may run here, with the images per run of each."""
    exported, both = path.suffix in EXPORTED, (1, batch)
    precisions: tuple[Precision, ...] = ("auto",) if is_int8(path) else ("fp32", "bf16")
    for precision in precisions:
        yield Settings("openvino", "cpu", precision, False, threads), (1,)
        yield Settings("openvino", "cpu", precision, True, threads), (batch,)
    for device in devices():
        if path.suffix != ".xml":
            yield Settings("onnxruntime", device, "fp32", False, threads), both
        if not exported:
            yield Settings("torch", device, "fp32", False, threads), both
            yield Settings("torch", device, "bf16", False, threads), both


def devices() -> list[str]:
    """Return the devices that PyTorch has here."""
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def is_int8(path: Path) -> bool:
    """Return whether an exported .xml rounds values to 8 bits."""
    return path.suffix == ".xml" and path.is_file() and b'type="FakeQuantize"' in path.read_bytes()


def missing(module: str) -> str | None:
    """Return how to install a module; None if it is installed."""
    return None if importlib.util.find_spec(module) else f"not installed; pip install {PACKAGES[module]}"


@contextmanager
def process_threads(threads: int) -> Iterator[None]:
    """Set the threads of PyTorch and OpenCV, which have one number for the process, until the block ends."""
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(threads)
    cv2: Any = None if missing("cv2") else importlib.import_module("cv2")
    cv2_threads = cv2.getNumThreads() if cv2 else 0
    try:
        if cv2:
            cv2.setNumThreads(threads)
        yield
    finally:
        torch.set_num_threads(torch_threads)
        if cv2:
            cv2.setNumThreads(cv2_threads)


def _opened(way: Settings, source: Model | Path, notes: list[str]) -> Backend | None:
    """Return the open backend, or None with a note that says why it cannot run."""
    if way.backend != "torch" and (why := missing(way.backend)):
        notes.append(f"{way.backend}: {why}")
    elif way.precision == "bf16" and way.device == "cpu" and not computes_bf16():
        notes.append("bf16: this CPU has no instructions for it (AVX512-BF16 or AMX)")
    else:
        try:
            return open_backend(source, way)
        except ConfigError as error:
            notes.append(f"{_name(way)}, {way.device}, {way.precision}: {error}")
    return None


def _name(way: Settings) -> str:
    """Return what a table calls a backend."""
    mode = (", throughput" if way.throughput else ", latency") if way.backend == "openvino" else ""
    return way.backend + mode


def _network_name(path: Path, input_size: tuple[int, int], taken: set[str]) -> str:
    """Return a heading for the models with the same layers and input size (W, H)."""
    stem = short(str(path)).removesuffix(path.suffix)
    size = "{} x {}".format(*input_size)
    name, number = f"{stem} {size}", 2
    while name in taken:
        name, number = f"{stem} ({number}) {size}", number + 1
    return name


def _on_noise(run: Run, batch: int, input_size: tuple[int, int]) -> Callable[[], object]:
    """Return a function that runs one batch of noise. input_size: (W, H)."""
    images = np.random.default_rng(0).random((batch, 3, input_size[1], input_size[0]), np.float32)
    return lambda: run(images)


def _failure(once: Callable[[], object]) -> str:
    """Run another program once and return why it fails; empty: it does not."""
    try:
        once()
    except Exception as error:
        return " ".join(str(error).split())[:200] or type(error).__name__
    return ""


def _peers(path: Path, model: Model, notes: list[str]) -> Iterator[tuple[str, str, Run]]:
    """Yield (name, device, run) of other programs with the same weights."""
    if why := missing("cv2"):
        notes.append(f"{OPENCV}: {why}")
    else:
        try:
            yield OPENCV, "cpu", opencv(model)
        except importlib.import_module("cv2").error as error:
            notes.append(f"{OPENCV}: cannot read {path} as Darknet files ({' '.join(str(error).split())[:120]})")
    for device in devices():
        yield PLAIN, device, plain(model, device)


def opencv(model: Model) -> Run:
    """Return the network in OpenCV's dnn, up to the raw maps, like the backends here."""
    cv2: Any = importlib.import_module("cv2")
    with tempfile.TemporaryDirectory() as folder:
        cfg, weights, *_ = write_darknet(model, Path(folder) / "model", Options(folded=True)).files
        network = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    outputs = [f"conv_{head.index - 1}" for head in model.network.heads]

    def run(images: NDArray[np.float32]) -> object:
        network.setInput(images[:, : model.network.channels])
        return network.forward(outputs)

    return run


def plain(model: Model, device: str) -> Run:
    """Return the network as PyTorch runs it without any tuning: fp32, NCHW, eager, batch norm not folded."""
    network = deepcopy(model.network).to(device).eval()

    def run(images: NDArray[np.float32]) -> object:
        with torch.inference_mode():
            return [raw.cpu() for raw in network(torch.from_numpy(images).to(device))]

    return run


def readable(files: Sequence[str]) -> list[str]:
    """Return the files that begin like an image; log the others. Raises UserError if none does."""
    found = []
    for file in files:
        try:
            image_size(file)
            found.append(file)
        except ImageError as error:
            log.warning("skipped %s", error)
    if not found:
        raise UserError(f"none of the {len(files)} images could be read; the first: {files[0]}")
    return found


def files_series(model: Path, files: Sequence[str], rounds: int, threads: int) -> Series:
    """Detect a slice of the images in each round, as `lookonce detect` does but without drawing.

    Args:
        model: runs in the backend and precision that a Detector chooses.
        files: images; all rounds together go through them once, or again from the start if there are few.
        rounds: slices that count.
        threads: of the network; further threads decode images ahead.
    """
    precision: Precision = "auto" if model.suffix in EXPORTED else "bf16" if gains_from_bf16() else "fp32"
    detector = Detector(open_backend(model, Settings(precision=precision, throughput=True, threads=threads)))
    about, info = detector.about, detector.backend.info
    size = BATCH * math.ceil(len(files) / rounds / BATCH)
    run_batch = _on_noise(detector.backend, BATCH, about.input_size)
    ahead, part = cycle(files), list[str]()

    def network() -> None:
        for _ in range(size // BATCH):
            run_batch()

    def decode() -> None:
        """Decode the next slice; its files are then in memory for `detect`."""
        part[:] = islice(ahead, size)
        for file in part:
            with suppress(ImageError):  # a truncated image
                load_for(file, about.input_size, about.pixel_range)

    def detect() -> None:
        with tempfile.TemporaryFile("w", encoding="utf-8", errors="backslashreplace") as text:
            for file, image, found in detector.detect_files(part):
                if not isinstance(image, ImageError):
                    write_entry(text, file, found, first=file == part[0])

    def shares(rounds: Sequence[Sequence[Took]]) -> dict[str, float]:
        cpu = [[took.cpu or 0.0 for took in each] for each in rounds]
        return {"network and decoding alone, share of the CPU time": median((a + b) / c for a, b, c in cpu)}

    runs = {"network alone": network, "decoding alone": decode, "files to JSON": detect}
    heading = f"{short(str(model))}: from {len(files)} files to JSON, {size} a round, {info}"
    made = [Candidate(heading, name, str(model), "" if run is decode else info.precision, info.device, size, timed(run),
                      run is not detect) for name, run in runs.items()]  # fmt: skip
    return Series(made, rounds, warm_up=1, shares=shares)
