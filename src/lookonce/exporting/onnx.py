"""A model as ONNX: one file from pixels to rows, for ONNX Runtime and what else reads it."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lookonce.exporting.graph import detector_model, predictions_info, raw_model
from lookonce.exporting.openvino import run_openvino
from lookonce.exporting.options import Exported, Options
from lookonce.exporting.parity import Run, check_parity, from_raw
from lookonce.files import replacing
from lookonce.model_file import Model

log = logging.getLogger("lookonce")

READERS = "for ONNX Runtime and OpenVINO; for OpenCV use --raw, or for OpenCV 4 --format darknet"
RAW_READERS = (
    "for every reader of ONNX, OpenCV too: float RGB pixels in 0..1, [1, 3, height, width], to the raw map; decode it "
    "and suppress in your own program"
)


def write(model: Model, stem: Path, options: Options) -> Exported:
    """Write a model as one .onnx file, compare it with the model on pictures, and keep it only if it is the same.

    Raises UserError for a file that cannot be written, or one that does not give what the model gives.
    """
    path = stem.with_name(stem.name + ".onnx")
    with replacing(path) as beside:
        onnx.save_model(raw_model(model) if options.raw else detector_model(model), beside)
        run, runtime = _runner(beside)
        parity = check_parity(model, from_raw(model, run) if options.raw else run, runtime, options.data)
    log.info("%s: %s", path, RAW_READERS if options.raw else READERS)
    return Exported((path,), str(parity))


def _runner(path: Path) -> tuple[Run, str]:
    """Runs the file: in ONNX Runtime, or in OpenVINO where that is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return run_openvino(path)
    import onnxruntime

    made = onnx.load_model(path)
    inside = {name for node in made.graph.node for name in node.output}
    made.graph.output.extend(info for info in predictions_info() if info.name in inside)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # it warns of inputs that have defaults
    session: Any = onnxruntime.InferenceSession(made.SerializeToString(), settings, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    given = session.get_inputs()[0].name

    def run(images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        return dict(zip(names, session.run(None, {given: images}), strict=True))

    return run, f"ONNX Runtime {onnxruntime.__version__}"
