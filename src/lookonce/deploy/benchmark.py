"""Rounds: everything is run once a round, in turn, so that what else a machine does meets all alike.

A ratio of two is the median over rounds of their ratio within a round.

What a speed was measured on: the processor and what it can, cores, versions.

What `benchmark` measured: as tables for a terminal and as JSON.

Who runs a network: our backends, and the other programs that are installed; each as a row and a function.

From image files to detections as JSON, beside the network alone and decoding alone, slice by slice.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from lookonce import __version__
from lookonce.console import cell, cells, rendered
from lookonce.data.images import BATCH, image_size, load_for, usable_cores
from lookonce.deploy.export import Options, write_darknet
from lookonce.errors import ConfigError, ImageError, UserError
from lookonce.inference.backends.open import EXPORTED, Backend, open_backend
from lookonce.inference.backends.settings import BackendName, Precision, Settings
from lookonce.inference.backends.torch import computes_bf16
from lookonce.inference.detector import Detector, write_entry
from lookonce.model.model_file import Model, load_model

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table


T = TypeVar("T")


REST = 0.05
"""Seconds of rest before each run: threads of the backend before spin for some 20 ms in wait of more work."""


@dataclass(frozen=True)
class Rounds(Generic[T]):
    """What the whole rounds gave."""

    found: list[list[T]]
    """[rounds][runs]"""
    stopped: bool
    """Whether Ctrl-C came before the last round; the round that it broke is left out."""

    def of(self, place: int) -> list[T]:
        """What one of the runs gave, round by round."""
        return [each[place] for each in self.found]


class Spent(NamedTuple):
    """What a run took."""

    seconds: float
    """Of the clock."""
    processor: float
    """Seconds of the processor, over all threads."""


def interleave(
    runs: Sequence[Callable[[], T]], rounds: int, warm_up: int, each: Callable[[int], None] = lambda _: None
) -> Rounds[T]:
    """Run everything once a round, in turn.

    Args:
        runs: what is run; what it returns is kept.
        rounds: how many count.
        warm_up: rounds before these, which do not.
        each: called with the place of each run before it.
    """
    kept: list[list[T]] = []
    try:
        for number in range(warm_up + rounds):
            found = []
            for place, run in enumerate(runs):
                each(place)
                found.append(run())
            if number >= warm_up:
                kept.append(found)
    except KeyboardInterrupt:
        return Rounds(kept, stopped=True)
    return Rounds(kept, stopped=False)


def timed(
    run: Callable[[], object],
    rest: float = REST,
    clock: Callable[[], float] = time.perf_counter,
    processor: Callable[[], float] = time.process_time,
) -> Callable[[], Spent]:
    """The same run, which returns what it took."""

    def measured() -> Spent:
        time.sleep(rest)
        used, began = processor(), clock()
        run()
        return Spent(clock() - began, processor() - used)

    return measured


def p95(values: Sequence[float]) -> float:
    """The value that nineteen in twenty do not exceed, between two by linear interpolation."""
    return float(np.quantile(values, 0.95))


def ratio(values: Sequence[float], of: Sequence[float]) -> float:
    """The median over rounds of `values` divided by `of` within the round."""
    return median(a / b for a, b in zip(values, of, strict=True))


FEATURES = {
    "AVX-512": {"avx512f"},
    "bf16": {"avx512_bf16", "amx_bf16", "bf16", "feat_bf16"},
    "VNNI": {"avx512_vnni", "avx_vnni", "amx_int8"},
}
"""What decides the speed of fp32, bf16 and int8, by the flags that Linux and macOS have for it."""


MODULES = ("numpy", "torch", "openvino", "onnxruntime", "cv2")
"""Whose versions are told."""


@dataclass(frozen=True)
class Machine:
    """What ran."""

    cpu: str
    features: dict[str, bool] | None
    """Which of FEATURES it has; None: this system does not tell."""
    cores: int
    """That this process may use."""
    all_cores: int
    gpu: str | None
    system: str
    versions: dict[str, str]

    def __str__(self) -> str:
        has = self.features
        can = "its instructions are unknown" if has is None else ", ".join(f"{n} {_yes(has[n])}" for n in FEATURES)
        lines = [f"{self.cpu}; {can}; {self.cores} of {self.all_cores} cores; {self.system}"]
        lines += [self.gpu] if self.gpu else []
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return "\n".join([*lines, versions])


def this_machine() -> Machine:
    """The machine that this runs on."""
    name, flags = _processor()
    features = None if flags is None else {feature: bool(words & flags) for feature, words in FEATURES.items()}
    versions = {"lookonce": __version__, "Python": platform.python_version()}
    for module in MODULES:
        if importlib.util.find_spec(module) is not None:
            versions[module] = str(importlib.import_module(module).__version__).split("-")[0]
    system = f"{platform.system()} {platform.machine()}"
    return Machine(name, features, usable_cores(), os.cpu_count() or 1, _gpu(), system, versions)


def read_cpuinfo(text: str) -> tuple[str, set[str]]:
    """The processor's name and its flags, of Linux's /proc/cpuinfo (x86 and ARM)."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())  # every core says the same
    name = found.get("model name") or found.get("Model") or platform.machine()
    return name, set((found.get("flags") or found.get("Features", "")).split())


def read_sysctl(text: str) -> tuple[str, set[str]]:
    """The processor's name and its flags, of what macOS' `sysctl machdep.cpu hw.optional` prints (Intel and Apple)."""
    name, flags = platform.machine(), set()
    for line in text.splitlines():
        key, _, value = line.partition(": ")
        if key == "machdep.cpu.brand_string":
            name = value.strip()
        elif key in ("machdep.cpu.features", "machdep.cpu.leaf7_features"):
            flags |= set(value.lower().split())
        elif key.startswith("hw.optional.") and value.strip() == "1":
            flags.add(key.rpartition(".")[2].lower())
    return name, flags


def _processor() -> tuple[str, set[str] | None]:
    """Name and flags; None: this system does not tell them."""
    try:
        if sys.platform == "linux":
            return read_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
        if sys.platform == "darwin":
            words = ["sysctl", "machdep.cpu", "hw.optional"]
            return read_sysctl(subprocess.run(words, capture_output=True, text=True, check=False).stdout)
    except OSError:
        pass  # the name that Python knows, then
    return platform.processor() or platform.machine(), None


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _yes(has: bool) -> str:
    return "yes" if has else "no"


OPENCV, PLAIN = "OpenCV dnn", "plain PyTorch"
"""The peers; a ratio is against the first that is there."""


@dataclass(frozen=True)
class Row:
    """What runs a network, and how."""

    model: str
    """As it was given."""
    network: str
    """What it has in common with those that it is compared with: the same layers and the same input."""
    backend: str
    precision: str
    device: str
    batch: int

    @property
    def is_peer(self) -> bool:
        """Whether it is another program."""
        return self.backend in (OPENCV, PLAIN)


@dataclass(frozen=True)
class Absent:
    """A row that could not be had."""

    what: str
    why: str


@dataclass(frozen=True)
class NetworkSpeed(Row):
    """How fast the network alone is, from its input in memory to its raw map in memory."""

    median_ms: float
    p95_ms: float
    images_per_s: float
    """At the median."""
    ratio: float | None
    """How many times as fast as the peer; None: no peer runs it."""
    against: str | None
    """The peer."""


@dataclass(frozen=True)
class FilesSpeed:
    """How fast the way from image files to detections as JSON is; medians over rounds."""

    model: str
    backend: str
    images: int
    """In the folder."""
    images_per_s: float
    bare_images_per_s: float
    """Of the network alone, in the same backend."""
    share_of_bare: float
    network_ms: float
    """Of the processor, an image."""
    decode_ms: float
    """Of the processor, an image: reading the file into pixels alone."""
    share_of_possible: float
    """Processor time of network and decoding, of what the whole way took."""


@dataclass(frozen=True)
class StepSpeed:
    """How fast training steps are, images/s; medians over rounds."""

    model: str
    size: int
    batch: int
    precision: str
    bare: float
    """The step alone: network, loss, backward, optimiser; inputs in memory."""
    train: float
    """The same through `train`: images, warp, average of the weights."""
    plain: float
    """The loop that one writes first: fp32, NCHW, eager, images decoded one by one."""
    train_of_bare: float
    train_of_plain: float
    waiting: float
    """Share of the training time in which steps waited for images."""


@dataclass(frozen=True)
class Speed:
    """How fast models are here."""

    machine: Machine
    threads: int
    rounds: int
    """That count. Where Ctrl-C came later on, what stands below the networks may have fewer."""
    networks: tuple[NetworkSpeed, ...]
    absent: tuple[Absent, ...]
    files: tuple[FilesSpeed, ...] = ()
    training: tuple[StepSpeed, ...] = ()
    notes: tuple[str, ...] = ()
    stopped: bool = False

    @property
    def exit_code(self) -> int:
        """130 where Ctrl-C came, as shells have it, else 0."""
        return 130 if self.stopped else 0

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        head = f"{self.machine}\nthreads: {self.threads}; rounds: {self.rounds}, in each of them every row in turn"
        shown = [_networks(heading, rows) for heading, rows in tables(self.networks).items()]
        shown += [_files(self.files)] if self.files else []
        shown += [_steps(self.training)] if self.training else []
        said = [f"{one.what}: {one.why}" for one in self.absent] + list(self.notes)
        said += ["stopped before the last round; these are the rounds before"] if self.stopped else []
        return Group(Text(head), *shown, cells(said))

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """The tables as text."""
        return rendered(self)


def networks_speed(rows: Sequence[Row], seconds: Sequence[Sequence[float]]) -> tuple[NetworkSpeed, ...]:
    """What was measured of networks. seconds: [rows][rounds], at least one round."""
    found = []
    for row, took in zip(rows, seconds, strict=True):
        peer = _peer(row, rows)
        found.append(NetworkSpeed(
            **asdict(row), median_ms=median(took) * 1e3, p95_ms=p95(took) * 1e3, images_per_s=row.batch / median(took),
            ratio=None if peer is None else ratio(seconds[peer], took),
            against=None if peer is None else rows[peer].backend,
        ))  # fmt: skip
    return tuple(found)


def names(rows: Sequence[Row]) -> list[str]:
    """What rows of one network are called: by their backend, and by their model where there are several."""
    several = len({row.model for row in rows}) > 1
    return [f"{row.backend}: {short(row.model)}" if several and not row.is_peer else row.backend for row in rows]


def tables(rows: Sequence[NetworkSpeed]) -> dict[str, list[NetworkSpeed]]:
    """The rows that are compared with each other, by the heading over them."""
    found: dict[str, list[NetworkSpeed]] = {}
    for row in rows:
        found.setdefault(f"{row.network}, batch {row.batch}, {row.device}", []).append(row)
    return found


def short(model: str) -> str:
    """What a table calls a model: its file's name, or that of its run."""
    path = Path(model)
    return path.parent.name if path.name == "model.safetensors" and path.parent.name else path.name


def _peer(row: Row, rows: Sequence[Row]) -> int | None:
    """Place of the row that it is measured by: the same network and batch on the same device."""
    for name in (OPENCV, PLAIN):
        for place, other in enumerate(rows):
            if other.backend == name and _shared(other) == _shared(row):
                return place
    return None


def _shared(row: Row) -> tuple[str, int, str]:
    return row.network, row.batch, row.device


def _networks(heading: str, rows: Sequence[NetworkSpeed]) -> Table:
    """The rows of one network, batch and device."""
    against = f"x {rows[0].against}" if rows[0].against else "no peer"
    table = _table(heading, "precision", "median ms", "p95 ms", "images/s", against)
    for name, row in zip(names(rows), rows, strict=True):
        times = "" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(
            cell(name), row.precision, f"{row.median_ms:.1f}", f"{row.p95_ms:.1f}", f"{row.images_per_s:.1f}", times
        )
    return table


def _files(found: Sequence[FilesSpeed]) -> Table:
    columns: dict[str, Callable[[FilesSpeed], str]] = {
        "images/s": lambda one: f"{one.images_per_s:.1f}",
        "network alone": lambda one: f"{one.bare_images_per_s:.1f}",
        "share": lambda one: f"{one.share_of_bare:.1%}",
        "network ms*": lambda one: f"{one.network_ms:.1f}",
        "decoding ms*": lambda one: f"{one.decode_ms:.1f}",
        "both of all*": lambda one: f"{one.share_of_possible:.1%}",
    }
    table = _table(f"from {found[0].images} files to JSON", *columns)
    table.caption = "* of the processor, an image"
    for one in found:
        table.add_row(cell(f"{short(one.model)}: {one.backend}"), *(tell(one) for tell in columns.values()))
    return table


def _steps(found: Sequence[StepSpeed]) -> Table:
    table = _table("training steps, images/s", "input", "batch", "precision", "bare", "train", "plain",
                   "train of bare", "x plain", "waiting")  # fmt: skip
    for one in found:
        rates = [f"{rate:.2f}" for rate in (one.bare, one.train, one.plain)]
        shares = [f"{one.train_of_bare:.1%}", f"{one.train_of_plain:.2f}", f"{one.waiting:.1%}"]
        table.add_row(cell(short(one.model)), str(one.size), str(one.batch), one.precision, *rates, *shares)
    return table


def _table(*headings: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, caption_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    return table


PACKAGES = {"openvino": "openvino", "onnxruntime": "lookonce[onnx]", "cv2": "opencv-python-headless"}
"""What to install for a module."""


Run = Callable[[NDArray[np.float32]], object]
"""Runs a batch of inputs [B, 3, H, W], floats 0..1."""


@dataclass
class Lineup:
    """Everything that can be measured here, and what cannot."""

    rows: list[Row] = field(default_factory=list)
    runs: list[Callable[[], object]] = field(default_factory=list)
    absent: list[Absent] = field(default_factory=list)

    def miss(self, what: str, why: str) -> None:
        """Note once that something cannot be had."""
        if (found := Absent(what, why)) not in self.absent:
            self.absent.append(found)


class Kind(NamedTuple):
    """One way to run a model."""

    backend: BackendName
    device: str
    precision: Precision
    batches: tuple[int, ...]
    throughput: bool = False

    @property
    def name(self) -> str:
        """What the table calls it."""
        mode = (", throughput" if self.throughput else ", latency") if self.backend == "openvino" else ""
        return self.backend + mode


def line_up(models: Sequence[Path], batch: int, threads: int) -> Lineup:
    """Open everything that can run these models.

    Args:
        models: model files, and exported ones; of an exported one there are no peers of its own.
        batch: images at once, beside one alone.
        threads: of the CPU, of each row.
    Raises:
        UserError: a model that cannot be read, or that nothing here can run.
    """
    made = Lineup()
    shared: dict[tuple[object, ...], str] = {}
    with_peers: set[str] = set()
    for path in models:
        source = path if path.suffix in EXPORTED else load_model(path)
        opened = [(kind, found) for kind in kinds(path, batch) if (found := _opened(kind, source, threads, made))]
        if not opened:
            raise UserError(f"{path}: nothing here can run it: " + "; ".join(f"{a.what}: {a.why}" for a in made.absent))
        about = opened[0][1].about
        network = shared.setdefault(
            (about.layers, about.channels, about.input_size), _name(path, about, set(shared.values()))
        )
        for kind, backend in opened:
            for each in kind.batches:
                made.rows.append(Row(str(path), network, kind.name, backend.info.precision, kind.device, each))
                made.runs.append(_run(backend, each, about.input_size))
        if isinstance(source, Model) and network not in with_peers:
            with_peers.add(network)
            _add_peers(made, str(path), network, source, batch)
    order = sorted(range(len(made.rows)), key=lambda place: _order(made.rows[place], list(shared.values())))
    return Lineup([made.rows[n] for n in order], [made.runs[n] for n in order], made.absent)


def kinds(path: Path, batch: int) -> Iterator[Kind]:
    """The ways in which a model may run: one image at a time, and several at once."""
    exported, both = path.suffix in EXPORTED, (1, batch)
    for precision in ("auto",) if is_int8(path) else ("fp32", "bf16"):  # of an int8 file what is left is the backend's
        yield Kind("openvino", "cpu", precision, (1,))  # type: ignore[arg-type]
        yield Kind("openvino", "cpu", precision, (batch,), throughput=True)  # type: ignore[arg-type]
    if path.suffix != ".xml":
        yield Kind("onnxruntime", "cpu", "fp32", both)
    if not exported:
        yield from (Kind("torch", "cpu", "fp32", both), Kind("torch", "cpu", "bf16", both))
    if torch.cuda.is_available():
        if path.suffix != ".xml":
            yield Kind("onnxruntime", "cuda", "fp32", both)
        if not exported:
            yield from (Kind("torch", "cuda", "fp32", both), Kind("torch", "cuda", "bf16", both))


def is_int8(path: Path) -> bool:
    """Whether an exported .xml says where values are rounded to 8 bits."""
    if path.suffix != ".xml" or not path.is_file():
        return False
    return b'type="FakeQuantize"' in path.read_bytes()


def missing(module: str) -> str | None:
    """Why a module cannot be had; None where it is installed."""
    return None if importlib.util.find_spec(module) else f"not installed; pip install {PACKAGES[module]}"


@contextmanager
def process_threads(threads: int) -> Iterator[None]:
    """Give PyTorch and OpenCV, which have one number for the process, so many threads until the block ends."""
    before, torch_threads = None, torch.get_num_threads()
    torch.set_num_threads(threads)
    cv2: Any = None if missing("cv2") else importlib.import_module("cv2")
    if cv2 is not None:
        before = cv2.getNumThreads()
        cv2.setNumThreads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        if cv2 is not None:
            cv2.setNumThreads(before)


def _opened(kind: Kind, source: Model | Path, threads: int, made: Lineup) -> Backend | None:
    """The backend; where it cannot be had, that is noted."""
    why = None if kind.backend == "torch" else missing(kind.backend)
    what = str(kind.backend)
    if why is None and kind.precision == "bf16" and kind.device == "cpu" and not computes_bf16():
        what, why = "bf16", "this CPU has no instructions for it (AVX512-BF16 or AMX)"
    if why is None:
        try:
            return open_backend(source, Settings(kind.backend, kind.device, kind.precision, kind.throughput, threads))
        except ConfigError as error:
            what, why = f"{kind.name}, {kind.device}, {kind.precision}", str(error)
    made.miss(what, why)
    return None


def _run(run: Run, batch: int, input_size: tuple[int, int]) -> Callable[[], object]:
    """Runs one batch of noise. input_size: (W, H)."""
    images = np.random.default_rng(0).random((batch, 3, input_size[1], input_size[0]), np.float32)
    return lambda: run(images)


def _add_peers(made: Lineup, path: str, network: str, model: Model, batch: int) -> None:
    """Other programs with the same numbers."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    peers: list[tuple[str, str, Run]] = []
    if why := missing("cv2"):
        made.miss(OPENCV, why)
    else:
        try:
            peers.append((OPENCV, "cpu", opencv(model)))
        except importlib.import_module("cv2").error as error:
            made.miss(OPENCV, f"cannot read {path} as Darknet's files ({' '.join(str(error).split())[:120]})")
    peers += [(PLAIN, device, plain(model, device)) for device in devices]
    for name, device, run in peers:
        for each in (1, batch):
            made.rows.append(Row(path, network, name, "fp32", device, each))
            made.runs.append(_run(run, each, model.input_size))


def opencv(model: Model) -> Run:
    """The network in OpenCV's dnn, up to the raw maps, as the backends here."""
    cv2: Any = importlib.import_module("cv2")
    with tempfile.TemporaryDirectory() as folder:
        cfg, weights, *_ = write_darknet(model, Path(folder) / "model", Options(folded=True)).files
        network = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    names = [f"conv_{head.index - 1}" for head in model.network.heads]
    grey = model.network.channels == 1

    def run(images: NDArray[np.float32]) -> object:
        network.setInput(images[:, :1] if grey else images)
        return network.forward(names)

    return run


def plain(model: Model, device: str) -> Run:
    """The network as PyTorch runs it when nothing was done for speed: fp32, NCHW, eager, batch norm not folded."""
    network = deepcopy(model.network).to(device).eval()

    def run(images: NDArray[np.float32]) -> object:
        with torch.inference_mode():
            return [raw.cpu() for raw in network(torch.from_numpy(images).to(device))]

    return run


def _name(path: Path, about: Model, taken: set[str]) -> str:
    """What the models with these layers and this input are called together."""
    width, height = about.input_size
    stem = short(str(path)).removesuffix(path.suffix)
    name, number = f"{stem} {width} x {height}", 2
    while name in taken:
        name, number = f"{stem} ({number}) {width} x {height}", number + 1
    return name


def _order(row: Row, networks: list[str]) -> tuple[object, ...]:
    """Tables by network, batch and device; in each the order in which rows were made, peers last."""
    return networks.index(row.network), row.batch, row.device, row.is_peer


log = logging.getLogger("lookonce")


WARM_UP = 1
"""Slices before those that count."""


def readable(files: Sequence[str]) -> list[str]:
    """Those that begin as an image does; the others are told. Raises UserError where none does."""
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


def measure_files(
    model: Path, files: Sequence[str], rounds: int, threads: int, each: Callable[[int], None]
) -> tuple[FilesSpeed | None, bool]:
    """Detect a slice of the images in each round, as `lookonce detect` does but without drawing.

    Args:
        model: as a user gives it: it runs in the backend and precision that a Detector takes.
        files: images; all rounds together go through them once, or again from the start where there are few.
        rounds: slices that count.
        threads: of the network; images are decoded ahead in threads beside.
        each: called with 0, 1 or 2 before each run.
    Returns:
        (what was measured, None where not one round was; whether Ctrl-C came).
    """
    detector = Detector(open_backend(model, Settings(throughput=True, threads=threads)))
    size = BATCH * math.ceil(len(files) / rounds / BATCH)
    work = Work(detector, files, size)
    runs = [timed(run) for run in (work.decode, work.detect, work.network)]
    found = interleave(runs, rounds, WARM_UP, each)
    if not found.found:
        return None, found.stopped
    return files_speed(str(model), str(detector.backend.info), (len(files), size), found), found.stopped


class Work:
    """What is done with a slice of the images. size: images in it, a multiple of BATCH."""

    def __init__(self, detector: Detector, files: Sequence[str], size: int) -> None:
        self.detector, self.size = detector, size
        self.ahead: Iterator[str] = cycle(files)
        self.part: list[str] = []
        width, height = detector.about.input_size
        self.images = np.random.default_rng(0).random((BATCH, 3, height, width), np.float32)

    def decode(self) -> None:
        """Read the next slice's files into pixels; they lie in memory for what follows."""
        self.part = list(islice(self.ahead, self.size))
        for file in self.part:
            try:
                load_for(file, self.detector.about.input_size, self.detector.about.pixel_range)
            except ImageError:
                pass  # a cut one; told by those who look at their data

    def detect(self) -> None:
        """Find objects on the slice and write them as JSON."""
        with tempfile.TemporaryFile("w", encoding="utf-8") as text:
            for file, image, found in self.detector.detect_files(self.part):
                if not isinstance(image, ImageError):
                    write_entry(text, file, found, first=file == self.part[0])

    def network(self) -> None:
        """Run the network on as many inputs."""
        for _ in range(self.size // BATCH):
            self.detector.backend(self.images)


def files_speed(model: str, backend: str, images: tuple[int, int], found: Rounds[Spent]) -> FilesSpeed:
    """What the rounds of (decode, detect, network) tell. images: (in all, in a slice)."""
    decoding, files, bare = found.of(0), found.of(1), found.of(2)
    in_all, size = images
    return FilesSpeed(
        model, backend, in_all,
        images_per_s=size / median(spent.seconds for spent in files),
        bare_images_per_s=size / median(spent.seconds for spent in bare),
        share_of_bare=ratio([spent.seconds for spent in bare], [spent.seconds for spent in files]),
        network_ms=median(spent.processor for spent in bare) / size * 1e3,
        decode_ms=median(spent.processor for spent in decoding) / size * 1e3,
        share_of_possible=ratio(
            [a.processor + b.processor for a, b in zip(bare, decoding, strict=True)],
            [spent.processor for spent in files],
        ),
    )  # fmt: skip
