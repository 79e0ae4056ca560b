"""Who runs a network: our runtimes, and the other programs that are installed; each as a row and a function."""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lookonce.description import Description
from lookonce.errors import ConfigError, UserError
from lookonce.exporting.darknet import write
from lookonce.exporting.options import Options
from lookonce.model_file import Model, load_model
from lookonce.runtimes.opening import EXPORTED, Runtime, open_runtime
from lookonce.runtimes.settings import Precision, RuntimeName, Settings
from lookonce.runtimes.torch import computes_bf16
from lookonce.speed.result import OPENCV, PLAIN, Absent, Row, short

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

    runtime: RuntimeName
    device: str
    precision: Precision
    batches: tuple[int, ...]
    throughput: bool = False

    @property
    def name(self) -> str:
        """What the table calls it."""
        mode = (", throughput" if self.throughput else ", latency") if self.runtime == "openvino" else ""
        return self.runtime + mode


def line_up(models: Sequence[Path], batch: int, threads: int) -> Lineup:
    """Open everything that can run these models.

    Args:
        models: model files, and exported ones; of an exported one there are no peers of its own.
        batch: pictures at once, beside one alone.
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
            (about.layers, about.channels, about.frame), _name(path, about, set(shared.values()))
        )
        for kind, runtime in opened:
            for each in kind.batches:
                made.rows.append(Row(str(path), network, kind.name, runtime.backend.precision, kind.device, each))
                made.runs.append(_run(runtime, each, about.frame))
        if isinstance(source, Model) and network not in with_peers:
            with_peers.add(network)
            _add_peers(made, str(path), network, source, batch)
    order = sorted(range(len(made.rows)), key=lambda place: _order(made.rows[place], list(shared.values())))
    return Lineup([made.rows[n] for n in order], [made.runs[n] for n in order], made.absent)


def kinds(path: Path, batch: int) -> Iterator[Kind]:
    """The ways in which a model may run: one picture at a time, and several at once."""
    exported, both = path.suffix in EXPORTED, (1, batch)
    for precision in ("auto",) if is_int8(path) else ("fp32", "bf16"):  # of an int8 file what is left is the runtime's
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


def _opened(kind: Kind, source: Model | Path, threads: int, made: Lineup) -> Runtime | None:
    """The runtime; where it cannot be had, that is noted."""
    why = None if kind.runtime == "torch" else missing(kind.runtime)
    what = str(kind.runtime)
    if why is None and kind.precision == "bf16" and kind.device == "cpu" and not computes_bf16():
        what, why = "bf16", "this CPU has no instructions for it (AVX512-BF16 or AMX)"
    if why is None:
        try:
            return open_runtime(source, Settings(kind.runtime, kind.device, kind.precision, kind.throughput, threads))
        except ConfigError as error:
            what, why = f"{kind.name}, {kind.device}, {kind.precision}", str(error)
    made.miss(what, why)
    return None


def _run(run: Run, batch: int, frame: tuple[int, int]) -> Callable[[], object]:
    """Runs one batch of noise. frame: (W, H)."""
    images = np.random.default_rng(0).random((batch, 3, frame[1], frame[0]), np.float32)
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
            made.runs.append(_run(run, each, model.frame))


def opencv(model: Model) -> Run:
    """The network in OpenCV's dnn, up to the map before the region layer, as the runtimes here."""
    cv2: Any = importlib.import_module("cv2")
    with tempfile.TemporaryDirectory() as folder:
        cfg, weights, *_ = write(model, Path(folder) / "model", Options(folded=True)).files
        network = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    last = [name for name in network.getLayerNames() if name.startswith("conv_")][-1]

    grey = model.network.channels == 1

    def run(images: NDArray[np.float32]) -> object:
        network.setInput(images[:, :1] if grey else images)
        return network.forward(last)

    return run


def plain(model: Model, device: str) -> Run:
    """The network as PyTorch runs it when nothing was done for speed: fp32, NCHW, eager, batch norm not folded."""
    network = deepcopy(model.network).to(device).eval()

    def run(images: NDArray[np.float32]) -> object:
        with torch.inference_mode():
            return network(torch.from_numpy(images).to(device)).cpu()

    return run


def _name(path: Path, about: Description, taken: set[str]) -> str:
    """What the models with these layers and this input are called together."""
    width, height = about.frame
    stem = short(str(path)).removesuffix(path.suffix)
    name, number = f"{stem} {width} x {height}", 2
    while name in taken:
        name, number = f"{stem} ({number}) {width} x {height}", number + 1
    return name


def _order(row: Row, networks: list[str]) -> tuple[object, ...]:
    """Tables by network, batch and device; in each the order in which rows were made, peers last."""
    return networks.index(row.network), row.batch, row.device, row.is_peer
