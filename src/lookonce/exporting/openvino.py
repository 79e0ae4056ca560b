"""A model as OpenVINO's .xml and .bin. It goes through ONNX: openvino.convert_model would report to Intel."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import openvino
from numpy.typing import NDArray

from lookonce.exporting.graph import BOXES, KEY, SCORES, detector_model
from lookonce.exporting.options import Exported, Options
from lookonce.exporting.parity import EXACT, HALF, Run, check_parity
from lookonce.files import replacing
from lookonce.model_file import Model


def write(model: Model, stem: Path, options: Options) -> Exported:
    """Write a model as .xml and .bin, compare them with the model on pictures, and keep them only if they are the same.

    Raises UserError for a file that cannot be written, or one that does not give what the model gives.
    """
    xml, numbers = (stem.with_name(stem.name + ending) for ending in (".xml", ".bin"))
    with replacing(numbers) as beside, replacing(xml) as beside_xml:
        assert beside_xml.with_suffix(".bin") == beside  # where OpenVINO looks for the numbers
        openvino.save_model(read_onnx(detector_model(model, options.raw)), beside_xml, compress_to_fp16=options.half)
        run, runtime = run_openvino(beside_xml)
        parity = check_parity(model, run, runtime, options.data, HALF if options.half else EXACT)
    return Exported((xml, numbers), str(parity))


def read_onnx(made: onnx.ModelProto) -> openvino.Model:
    """An ONNX model of ours as OpenVINO's, with its description."""
    with tempfile.TemporaryDirectory() as folder:
        onnx.save_model(made, Path(folder) / "model.onnx")
        read = openvino.Core().read_model(Path(folder) / "model.onnx")
        read.set_rt_info(made.metadata_props[0].value, KEY)
        return read


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
