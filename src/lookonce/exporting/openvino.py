"""A model as OpenVINO's .xml and .bin. It goes through ONNX: openvino.convert_model would report to Intel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from lookonce.exporting.graph import BOXES, SCORES, detector_model
from lookonce.exporting.options import Exported, Options
from lookonce.exporting.parity import EXACT, HALF, Run, check_parity
from lookonce.model_file import Model
from lookonce.runtimes.openvino import openvino_model, saved


def write(model: Model, stem: Path, options: Options) -> Exported:
    """Write a model as .xml and .bin, compare them with the model on pictures, and keep them only if they are the same.

    Raises UserError for a file that cannot be written, or one that does not give what the model gives.
    """
    xml = stem.with_name(stem.name + ".xml")
    with saved(openvino_model(detector_model(model, options.raw)), xml, options.half) as beside:
        run, runtime = run_openvino(beside)
        parity = check_parity(model, run, runtime, options.data, HALF if options.half else EXACT)
    return Exported((xml, xml.with_suffix(".bin")), str(parity))


def run_openvino(path: Path) -> tuple[Run, str]:
    """Runs an .onnx or .xml file in float32."""
    core = openvino.Core()
    read = core.read_model(path)
    present = {name for output in read.outputs for name in output.get_names()}
    read.add_outputs([name for name in (BOXES, SCORES) if name not in present])
    compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [output.get_any_name() for output in compiled.outputs]

    def run(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        found = compiled(images)
        return {name: found[output] for name, output in zip(names, compiled.outputs, strict=True)}

    return run, f"OpenVINO {openvino.__version__.split('-')[0]}"
