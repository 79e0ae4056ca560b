"""ONNX Runtime as a backend: CPU, CUDA and TensorRT. No torch here."""

from __future__ import annotations

import importlib
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lookonce.data.images import usable_cores
from lookonce.errors import ConfigError
from lookonce.inference.backends.settings import BackendInfo, Images, Settings, abandon, follow_forks
from lookonce.model.model_file import ModelFileError
from lookonce.model.onnx_graph import network_part, read_description, read_onnx
from lookonce.model.onnx_layers import PIXELS

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
"""Names of devices in ONNX Runtime."""


class OnnxruntimeBackend:
    """Run a network: [B, 3, H, W] floats 0..1 to the raw maps, one for each head, float32.

    May be called from several threads at once. A forked process opens a session of its own.

    Args:
        source: an .onnx file of ours, or an ONNX model in memory.
        settings: how it runs. Without a device it uses CUDA if this ONNX Runtime has it, never TensorRT, which takes
            minutes to build an engine.
    Raises:
        ModelFileError: a file that lookonce did not export, or that ONNX Runtime cannot read.
        ConfigError: the package or device is missing, or it does not support the precision.
    """

    def __init__(self, source: Path | onnx.ModelProto, settings: Settings) -> None:
        backend = import_onnxruntime()
        if settings.precision == "bf16":
            raise ConfigError("precision: 'bf16': onnxruntime runs networks in fp32; take openvino or torch")
        present = backend.get_available_providers()
        device = settings.device or ("cuda" if PROVIDERS["cuda"] in present else "cpu")
        kind, _, number = device.partition(":")
        if PROVIDERS.get(kind) not in present:
            have = [name for name, provider in PROVIDERS.items() if provider in present]
            raise ConfigError(
                f"device: {device!r}; this onnxruntime has {', '.join(have)}; for cuda and tensorrt run: "
                "pip install onnxruntime-gpu"
            )
        place = str(source) if isinstance(source, Path) else "the model"
        made = read_onnx(source) if isinstance(source, Path) else source
        self.about = read_description(made, place)
        self._model = network_part(made, self.about, place).SerializeToString()
        self._place, self._settings, self._lock = place, settings, Lock()
        chosen = list(dict.fromkeys((PROVIDERS[kind], PROVIDERS["cpu"])))  # operators that a GPU lacks run on the CPU
        on_gpu = {"device_id": number or "0"}
        options = {PROVIDERS["cuda"]: {"use_tf32": "0", **on_gpu}, PROVIDERS["tensorrt"]: on_gpu}
        self._providers = [(name, options.get(name, {})) for name in chosen]
        self._session: Any = self._open()
        self.info = BackendInfo("onnxruntime", backend.__version__, "fp32", device)
        follow_forks(self)

    def __call__(self, images: Images) -> tuple[NDArray[np.float32], ...]:
        """Return the network's raw maps for a batch of input images."""
        images = images if isinstance(images, np.ndarray) else np.stack(images)
        with self._lock:
            self._session = self._session or self._open()
        return tuple(self._session.run(None, {PIXELS: images}))

    def forked(self) -> None:
        """Drop the parent's session."""
        abandon(self._session)
        self._session, self._lock = None, Lock()

    def _open(self) -> Any:
        """Open a session. Raises ModelFileError if ONNX Runtime cannot read the model."""
        backend = import_onnxruntime()
        quiet = backend.SessionOptions()
        quiet.log_severity_level = 3
        quiet.intra_op_num_threads = self._settings.threads or usable_cores()  # its default is all cores of the machine
        try:
            return backend.InferenceSession(self._model, quiet, providers=self._providers)
        except Exception as error:  # its error classes share no base but Exception
            reason = " ".join(str(error).split())[:160].encode("unicode_escape").decode()
            raise ModelFileError(f"{self._place}: ONNX Runtime cannot read it ({reason})") from None


def import_onnxruntime() -> Any:
    """Return the package onnxruntime with its telemetry off; lookonce/__init__.py turns off what starts at import.

    Raises ConfigError if it is not installed.
    """
    try:
        found = importlib.import_module("onnxruntime")
    except ImportError:
        raise ConfigError(
            "backend: 'onnxruntime': the package is not installed; run: pip install 'lookonce[onnx]'"
        ) from None
    getattr(found, "disable_telemetry_events", lambda: None)()  # builds for Windows ignore the variable
    return found
