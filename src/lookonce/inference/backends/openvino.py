"""OpenVINO as a backend: the fastest on a CPU. No torch here.

No telemetry: lookonce/__init__.py blocks the package that sends it, and models are read by Core.read_model, never by
openvino.convert_model.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import cycle
from pathlib import Path
from threading import Lock
from xml.etree.ElementTree import ParseError

import numpy as np
import onnx
import openvino
from defusedxml import DefusedXmlException, ElementTree
from numpy.typing import NDArray

from lookonce.errors import ConfigError
from lookonce.files import replacing
from lookonce.inference.backends.int8_form import judgement
from lookonce.inference.backends.processor import is_bf16_slow
from lookonce.inference.backends.settings import BackendInfo, Images, Settings, abandon, follow_forks
from lookonce.model.model_file import KEY, Model, ModelFileError, not_ours
from lookonce.model.onnx_graph import network_part, raw_shapes, read_description, read_onnx
from lookonce.model.onnx_layers import PIXELS, raws

VERSIONS = ("10", "11")
"""Versions of the .xml format that OpenVINO reads; it would take others for a file of another program."""


@cache
def the_core() -> openvino.Core:
    """Return the one Core of this process.

    Each Core replaces its thread's signal stack and restores the previous one when it is destroyed. If two are not
    destroyed in reverse order, a freed stack stays in use, and the next Ctrl-C crashes Python.
    """
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # Windows renames no mapped file, and a mapped file that is cut crashes
    return core


def _forked() -> None:
    """Make a forked process create its own Core: the threads of this one stay in the parent."""
    if the_core.cache_info().currsize:
        abandon(the_core())
        the_core.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class OpenvinoBackend:
    """Run a network: [B, 3, H, W] floats 0..1 to the raw maps, one for each head, float32.

    Images run one by one, each on all cores; with settings.throughput several at once. It may be called from several
    threads at once. A forked process compiles the model again.

    Args:
        source: an .onnx or .xml file of ours, or an ONNX model in memory.
        settings: how it runs.
    Raises:
        ModelFileError: a file that lookonce did not export, or that OpenVINO cannot read.
        ConfigError: a device that is missing, int8 for a network that is not.
    """

    def __init__(self, source: Path | onnx.ModelProto, settings: Settings) -> None:
        core = the_core()
        device = (settings.device or "cpu").upper()
        if device not in core.available_devices:
            raise ConfigError(
                f"device: {settings.device!r}; OpenVINO has {', '.join(core.available_devices).lower()} here"
                + ("; mps needs backend torch and a model file" if device == "MPS" else "")
            )
        self._network, self.about = _open(core, source)
        native = "BF16" in core.get_property(device, "OPTIMIZATION_CAPABILITIES")
        if settings.precision == "bf16" and not native:  # OpenVINO would silently run fp32
            raise ConfigError("precision: 'bf16': this machine has no instructions for it; take fp32")
        gains = native and not (device == "CPU" and is_bf16_slow())
        rest = settings.precision_where(gains)  # precision of the layers of an int8 file that are not int8
        is_int8 = any(op.get_type_name() == "FakeQuantize" for op in self._network.get_ops())
        self._hints = {
            "PERFORMANCE_HINT": "THROUGHPUT" if settings.throughput else "LATENCY",
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[rest],
        }
        if settings.threads is not None:
            self._hints["INFERENCE_NUM_THREADS"] = str(settings.threads)
            self._hints["ENABLE_CPU_PINNING"] = "NO"  # several processes would pin their threads to the same cores
        if settings.precision == "int8" and not is_int8:
            raise ConfigError(f"precision: int8: {source}: its network is not int8; leave --precision out, or make one "
                              "that is with lookonce export --int8")  # fmt: skip
        judged = judgement(source) if is_int8 and isinstance(source, Path) else None
        cost = "" if judged is None else str(judged)
        version = openvino.__version__.split("-")[0]
        self.info = BackendInfo("openvino", version, "int8" if is_int8 else rest, device.lower(), cost)
        self._lock, self._place = Lock(), "the model" if isinstance(source, onnx.ModelProto) else str(source)
        self._compiled: openvino.CompiledModel | None = self._compile()
        follow_forks(self)

    def __call__(self, images: Images) -> tuple[NDArray[np.float32], ...]:
        """Return the network's raw maps for a batch of input images.

        A call uses requests that no other call has, and waits for each in turn. It sets no callbacks: an OpenVINO
        thread that still holds a Python function when Python ends would be killed, and the process with it.
        """
        requests = self._take(len(images))
        try:
            found: list[list[NDArray[np.float32]]] = []
            running: deque[openvino.InferRequest] = deque()
            for image, request in zip(images, cycle(requests), strict=False):
                if len(running) == len(requests):
                    found.append(_outputs(running.popleft()))
                request.wait()  # it may still run for an interrupted call
                request.start_async({0: image[None]}, share_inputs=True)  # no copy; the request keeps the array
                running.append(request)
            found += map(_outputs, running)
        finally:
            self._idle.extend(requests)
        return tuple(np.stack(maps) for maps in zip(*found, strict=True))

    def forked(self) -> None:
        """Drop what runs in the parent."""
        abandon(self._compiled, *self._idle)
        self._compiled, self._lock = None, Lock()

    def _compile(self) -> openvino.CompiledModel:
        try:
            compiled = the_core().compile_model(self._network, self.info.device.upper(), self._hints)
        except RuntimeError as error:
            raise ModelFileError(f"{self._place}: OpenVINO cannot run it ({_reason(error)})") from None
        optimal: int = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")  # by the hint
        self._most = 2 * optimal  # half of them wait, so that no core is idle until Python has its turn
        self._idle: deque[openvino.InferRequest] = deque()
        return compiled

    def _take(self, images: int) -> list[openvino.InferRequest]:
        """Return requests for one call, first those of calls that have ended."""
        with self._lock:
            if self._compiled is None:
                self._compiled = self._compile()
            new = self._compiled.create_infer_request
            return [self._idle.pop() if self._idle else new() for _ in range(min(images, self._most))]


def _outputs(request: openvino.InferRequest) -> list[NDArray[np.float32]]:
    """Wait for a request and return its raw maps, each [A*(5+C), H/stride, W/stride]."""
    request.wait()
    return [tensor.data[0].copy() for tensor in request.output_tensors]


def openvino_model(made: onnx.ModelProto) -> openvino.Model:
    """Convert an ONNX model of lookonce, with its description."""
    read = the_core().read_model(made.SerializeToString())
    read.set_rt_info(json.dumps(read_description(made, "the model").to_json()), KEY)
    return read


@contextmanager
def saved(model: openvino.Model, xml: Path, half: bool = False) -> Iterator[Path]:
    """Write a model as .xml and .bin under temporary names, which become final when the block ends without an error.

    Raises UserError if they cannot be written; then neither exists.
    """
    with replacing(xml) as beside, replacing(xml.with_suffix(".bin")) as numbers:  # .bin is renamed first
        assert beside.with_suffix(".bin") == numbers  # where OpenVINO looks for it
        try:
            openvino.save_model(model, beside, compress_to_fp16=half)
        except RuntimeError as error:
            raise OSError(str(error).splitlines()[-1][:160]) from None
        yield beside


def _open(core: openvino.Core, source: Path | onnx.ModelProto) -> tuple[openvino.Model, Model]:
    """Return the network of a file of lookonce, from "pixels" to "raw", and its description."""
    if isinstance(source, onnx.ModelProto) or source.suffix == ".onnx":
        place = "the model" if isinstance(source, onnx.ModelProto) else str(source)
        made = read_onnx(source) if isinstance(source, Path) else source
        about = read_description(made, place)
        read = _read(core, network_part(made, about, place).SerializeToString(), place)
        return _fixed(read, about, place), about
    if not source.with_suffix(".bin").is_file():
        raise ModelFileError(f"{source}: no {source.with_suffix('.bin').name} beside it, which holds its numbers")
    try:
        root = ElementTree.parse(source).getroot()
        whole = root is not None and root.tag == "net" and root.get("version") in VERSIONS
    except (OSError, ParseError, DefusedXmlException):
        whole = False
    if not whole:  # OpenVINO would try other formats and print errors
        raise ModelFileError(f"{source}: not an OpenVINO file; write one with lookonce export --format openvino")
    read = _read(core, source, str(source))
    if not read.has_rt_info(KEY):
        raise not_ours(str(source), "an OpenVINO file")
    about = Model.from_text(read.get_rt_info(KEY).value, str(source))
    return _fixed(_network_part(read, list(raws(about.layers)), str(source)), about, str(source)), about


def _read(core: openvino.Core, source: Path | bytes, place: str) -> openvino.Model:
    try:
        return core.read_model(source)
    except RuntimeError as error:
        raise ModelFileError(f"{place}: OpenVINO cannot read it ({_reason(error)})") from None


def _reason(error: RuntimeError) -> str:
    """Return OpenVINO's message without its place in the source code; content of the file is escaped."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Exception from")]
    return lines[0][:160].encode("unicode_escape").decode() if lines else "it gives no reason"


def _fixed(read: openvino.Model, about: Model, place: str) -> openvino.Model:
    """Return the network for one image of its input size. Raises ModelFileError if its maps are not as described."""
    width, height = about.input_size
    expected = [[1, *shape] for shape in raw_shapes(about, place)]
    try:
        read.reshape([1, 3, height, width])
        found = [list(output.get_shape()) for output in read.outputs]
    except RuntimeError:
        found = None
    if found != expected:
        raise ModelFileError(
            f"{place}: the network gives {found or 'nothing'} for an input of {width} x {height}, and its description "
            f"says {expected}; export it again with lookonce export"
        )
    return read


def _network_part(read: openvino.Model, names: list[str], place: str) -> openvino.Model:
    """Return the part from "pixels" to the raw maps."""
    tensors = {name: output for op in read.get_ops() for output in op.outputs() for name in output.get_names()}
    if not tensors.keys() >= {PIXELS, *names}:
        raise ModelFileError(f"{place}: no tensors {PIXELS!r} and {names[0]!r} in it; write it with lookonce export")
    if tensors[PIXELS].get_node().get_type_name() == "Parameter":
        return read
    given = openvino.opset13.parameter(tensors[PIXELS].get_partial_shape(), np.float32, name=PIXELS)
    for reader in tensors[PIXELS].get_target_inputs():
        reader.replace_source_output(given.output(0))
    return openvino.Model([tensors[name] for name in names], [given], "network")
