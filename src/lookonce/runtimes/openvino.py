"""OpenVINO as a runtime: the fastest on a CPU. No torch here.

Nothing is reported to anyone: lookonce/__init__.py keeps the package that does it away, and models are read by
Core.read_model, never by openvino.convert_model.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import cycle
from pathlib import Path
from xml.etree.ElementTree import ParseError

import numpy as np
import onnx
import openvino
from defusedxml import DefusedXmlException, ElementTree
from numpy.typing import NDArray

from lookonce.description import KEY, Description, ModelFileError, not_ours
from lookonce.errors import ConfigError
from lookonce.files import replacing
from lookonce.onnx_form import PIXELS, RAW, network_part, read_description, read_onnx
from lookonce.runtimes.settings import Settings


@cache
def the_core() -> openvino.Core:
    """The one Core of this process.

    Each Core gives its thread another stack to handle signals on, and at its end puts back the one of before. Two that
    do not end in the reverse order of their beginning leave one that is gone, and the next Ctrl-C crashes Python.
    """
    return openvino.Core()


class OpenvinoRuntime:
    """Runs a network: [B, 3, H, W] floats 0..1 to the raw map [B, A*(5+C), H/32, W/32], float32.

    Pictures run one by one, each on all cores; under settings.throughput several at once.

    Args:
        source: an .onnx or .xml file of ours, or an ONNX model in memory.
        settings: how it runs.
    Raises:
        ModelFileError: a file that is not ours, or that OpenVINO cannot read.
        ConfigError: a device that is not there.
    """

    def __init__(self, source: Path | onnx.ModelProto, settings: Settings) -> None:
        core = the_core()
        device = (settings.device or "cpu").upper()
        if device not in core.available_devices:
            raise ConfigError(
                f"device: {settings.device!r}; OpenVINO has {', '.join(core.available_devices).lower()} here"
            )
        read, self.about = _open(core, source)
        width, height = self.about.frame
        read.reshape([1, 3, height, width])
        native = "BF16" in core.get_property(device, "OPTIMIZATION_CAPABILITIES")
        if settings.precision == "bf16" and not native:  # OpenVINO would silently run fp32
            raise ConfigError("precision: 'bf16': this machine has no instructions for it; take fp32")
        rest = settings.precision_where(native)  # of an int8 file: what its other layers run in
        self.precision: str = "int8" if any(op.get_type_name() == "FakeQuantize" for op in read.get_ops()) else rest
        hints = {
            "PERFORMANCE_HINT": "THROUGHPUT" if settings.throughput else "LATENCY",
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[rest],
        }
        if settings.threads is not None:
            hints["INFERENCE_NUM_THREADS"] = str(settings.threads)
        self._compiled = core.compile_model(read, device, hints)
        wanted = self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")  # by the hint
        self._requests = [self._compiled.create_infer_request() for _ in range(wanted)]
        version = openvino.__version__.split("-")[0]
        self.name = f"openvino {version}, {self.precision}, {device.lower()}"

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network's raw output for a batch of input pictures.

        Each request is waited for, in turn, and calls nothing back: a thread of OpenVINO's that has yet to let go of a
        Python function when Python ends is killed, and takes the process with it.
        """
        found: list[NDArray[np.float32]] = []
        running: deque[openvino.InferRequest] = deque()
        for image, request in zip(images, cycle(self._requests), strict=False):
            if len(running) == len(self._requests):
                found.append(_output(running.popleft()))
            request.wait()  # one that an interrupted call left
            request.start_async({0: image[None]})
            running.append(request)
        found += map(_output, running)
        return np.stack(found)


def _output(request: openvino.InferRequest) -> NDArray[np.float32]:
    """What a request found, once it has ended: [A*(5+C), H/32, W/32]."""
    request.wait()
    found: NDArray[np.float32] = request.get_output_tensor().data[0].copy()
    return found


def openvino_model(made: onnx.ModelProto) -> openvino.Model:
    """An ONNX model of ours as OpenVINO's, with its description."""
    read = the_core().read_model(made.SerializeToString())
    read.set_rt_info(json.dumps(read_description(made, "the model").to_json()), KEY)
    return read


@contextmanager
def saved(model: openvino.Model, xml: Path, half: bool = False) -> Iterator[Path]:
    """Write a model as .xml, and its numbers as .bin; the .xml as it stands until the block ends well.

    Raises UserError where they cannot be written; neither stands then.
    """
    with replacing(xml) as beside, replacing(xml.with_suffix(".bin")) as numbers:  # the numbers stand first
        assert beside.with_suffix(".bin") == numbers  # where OpenVINO looks for them
        try:
            openvino.save_model(model, beside, compress_to_fp16=half)
        except RuntimeError as error:
            raise OSError(str(error).splitlines()[-1][:160]) from None
        yield beside


def _open(core: openvino.Core, source: Path | onnx.ModelProto) -> tuple[openvino.Model, Description]:
    """The network in a file of ours, from "pixels" to "raw", and what the file says of it."""
    if isinstance(source, onnx.ModelProto) or source.suffix == ".onnx":
        place = "the model" if isinstance(source, onnx.ModelProto) else str(source)
        made = read_onnx(source) if isinstance(source, Path) else source
        about = read_description(made, place)
        return _read(core, network_part(made, place).SerializeToString(), place), about
    if not source.with_suffix(".bin").is_file():
        raise ModelFileError(f"{source}: no {source.with_suffix('.bin').name} beside it, which holds its numbers")
    try:
        root = ElementTree.parse(source).getroot()
        whole = root is not None and root.tag == "net"
    except (OSError, ParseError, DefusedXmlException):
        whole = False
    if not whole:  # OpenVINO would try it as other formats, loudly
        raise ModelFileError(f"{source}: not an OpenVINO file; write one with lookonce export --format openvino")
    read = _read(core, source, str(source))
    if not read.has_rt_info(KEY):
        raise not_ours(str(source), "an OpenVINO file")
    about = Description.from_text(read.get_rt_info(KEY).value, str(source))
    return _network_part(read, str(source)), about


def _read(core: openvino.Core, source: Path | bytes, place: str) -> openvino.Model:
    try:
        return core.read_model(source)
    except RuntimeError as error:
        said = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Exception from")]
        reason = said[0][:160] if said else "it gives no reason"
        raise ModelFileError(f"{place}: OpenVINO cannot read it ({reason})") from None


def _network_part(read: openvino.Model, place: str) -> openvino.Model:
    """The part from "pixels" to "raw"."""
    tensors = {name: output for op in read.get_ops() for output in op.outputs() for name in output.get_names()}
    if not tensors.keys() >= {PIXELS, RAW}:
        raise ModelFileError(f"{place}: no tensors {PIXELS!r} and {RAW!r} in it; write it with lookonce export")
    if tensors[PIXELS].get_node().get_type_name() == "Parameter":
        return read
    given = openvino.opset13.parameter(tensors[PIXELS].get_partial_shape(), np.float32, name=PIXELS)
    for reader in tensors[PIXELS].get_target_inputs():
        reader.replace_source_output(given.output(0))
    return openvino.Model([tensors[RAW]], [given], "network")
