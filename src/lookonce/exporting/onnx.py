"""A model as ONNX: one file from pixels to rows, for ONNX Runtime and what else reads it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lookonce.exporting.graph import detector_model, predictions_info
from lookonce.exporting.openvino import run_openvino
from lookonce.exporting.options import Exported, Options
from lookonce.exporting.parity import Run, check_parity
from lookonce.files import replacing
from lookonce.model_file import Model


def write(model: Model, stem: Path, options: Options) -> Exported:
    """Write a model as one .onnx file, compare it with the model on pictures, and keep it only if it is the same.

    Raises UserError for a file that cannot be written, or one that does not give what the model gives.
    """
    path = stem.with_name(stem.name + ".onnx")
    with replacing(path) as beside:
        made = detector_model(model, options.raw)
        onnx.save_model(made, beside)
        run, runtime = _runner(beside)
        parity = check_parity(model, run, runtime, options.data)
    return Exported((path,), str(parity))


def _runner(path: Path) -> tuple[Run, str]:
    """Runs the file: in ONNX Runtime, or in OpenVINO where that is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return run_openvino(path)
    import onnxruntime

    made = onnx.load_model(path)
    present = {output.name for output in made.graph.output}
    made.graph.output.extend(info for info in predictions_info() if info.name not in present)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # it warns of inputs that have defaults
    session: Any = onnxruntime.InferenceSession(made.SerializeToString(), settings, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        return dict(zip(names, session.run(None, {"images": images}), strict=True))

    return run, f"ONNX Runtime {onnxruntime.__version__}"
