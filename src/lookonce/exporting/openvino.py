"""A model as OpenVINO's .xml and .bin. It goes through ONNX: openvino.convert_model would report to Intel."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from lookonce.description import KEY
from lookonce.exporting.graph import BOXES, SCORES, detector_model, raw_model
from lookonce.exporting.options import Exported, Options
from lookonce.exporting.parity import BY_ACCURACY, EXACT, HALF, Run, check_parity, from_raw
from lookonce.model_file import Model
from lookonce.onnx_form import PIXELS, RAW
from lookonce.runtimes.openvino import openvino_model, saved, the_core

log = logging.getLogger("lookonce")


def write(model: Model, stem: Path, options: Options) -> Exported:
    """Write a model as .xml and .bin, compare them with the model on pictures, and keep them only if they are the same.

    Raises UserError for a file that cannot be written, or one that does not give what the model gives.
    """
    xml = stem.with_name(stem.name + ".xml")
    made = raw_model(model) if options.raw else detector_model(model)
    whole, tolerance, accuracy = openvino_model(made), EXACT, ""
    if options.half:
        tolerance = HALF
    if options.int8:
        from lookonce.exporting.int8 import MAX_DROP, quantise

        assert options.data is not None  # which the command checks
        quantised = quantise(model, options.data, MAX_DROP if options.max_drop is None else options.max_drop)
        whole, tolerance, accuracy = _with_network(whole, quantised.network), BY_ACCURACY, str(quantised)
    with saved(whole, xml, options.half) as beside:
        run, runtime = run_openvino(beside)
        parity = check_parity(model, from_raw(model, run) if options.raw else run, runtime, options.data, tolerance)
    log.info("%s: for OpenVINO; for OpenCV use --format onnx --raw, or for OpenCV 4 --format darknet", xml)
    return Exported((xml, xml.with_suffix(".bin")), str(parity), accuracy)


def _with_network(whole: openvino.Model, network: openvino.Model) -> openvino.Model:
    """A detector with its network, the part from "pixels" to "raw", replaced."""
    tensors = {name: output for op in whole.get_ops() for output in op.outputs() for name in output.get_names()}
    for reader in network.input(0).get_target_inputs():
        reader.replace_source_output(tensors[PIXELS])
    made = network.output(0).get_node().input_value(0)  # behind the result is what makes it
    for reader in tensors[RAW].get_target_inputs():
        reader.replace_source_output(made)
    tensors[RAW].set_names(set())
    made.set_names({RAW})
    joined = openvino.Model(whole.get_results(), whole.get_parameters(), "lookonce")
    joined.set_rt_info(whole.get_rt_info(KEY).value, KEY)
    return joined


def run_openvino(path: Path) -> tuple[Run, str]:
    """Runs an .onnx or .xml file in float32."""
    core = the_core()
    read = core.read_model(path)
    inside = {name for op in read.get_ops() for output in op.outputs() for name in output.get_names()}
    read.add_outputs([name for name in (BOXES, SCORES) if name in inside])
    compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        found = compiled(images)
        return {name: found[output] for output in compiled.outputs for name in output.get_names()}

    return run, f"OpenVINO {openvino.__version__.split('-')[0]}"
