"""Which runtime runs a model, and the converted form that it keeps beside the model's file."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lookonce import __version__
from lookonce.description import FORMAT, Description
from lookonce.errors import ConfigError, UserError
from lookonce.files import replacing
from lookonce.runtimes.settings import RuntimeName, Settings

if TYPE_CHECKING:
    import onnx

    from lookonce.model_file import Model

log = logging.getLogger("lookonce")

EXPORTED = (".onnx", ".xml")


@runtime_checkable
class Runtime(Protocol):
    """Runs a network."""

    name: str
    """What runs it, in which precision, where."""
    precision: str
    about: Description

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """[B, 3, H, W] floats 0..1 to the raw map [B, A*(5+C), H/stride, W/stride], float32."""


def open_runtime(model: Model | Path, settings: Settings) -> Runtime:
    """A runtime with a model in it.

    Args:
        model: a model in memory, which PyTorch runs unless another is asked for, or a file: a model file, a run's
            folder, Darknet's .cfg or .weights, or an exported .onnx or .xml. For OpenVINO and ONNX Runtime a file is
            converted once; the converted form lies beside it, or in memory where its folder cannot be written.
        settings: what is asked for.
    Raises:
        UserError: a file that cannot be read, a runtime that is not installed or cannot run such a file.
    """
    path = _whole(model) if isinstance(model, Path) else None
    name = _choose(path, settings)
    if name == "torch":
        from lookonce.model_file import load_model
        from lookonce.runtimes.torch import TorchRuntime

        return TorchRuntime(load_model(model) if isinstance(model, Path) else model, settings)
    if name == "openvino":
        from lookonce.runtimes.openvino import OpenvinoRuntime

        return OpenvinoRuntime(_converted(path or model, ".xml"), settings)
    from lookonce.runtimes.onnxruntime import OnnxRuntime

    return OnnxRuntime(_converted(path or model, ".onnx"), settings)


def _choose(path: Path | None, settings: Settings) -> RuntimeName:
    """The runtime asked for, or the fastest at hand. Raises ConfigError for one that cannot run such a file."""
    ending = path.suffix if path else ""
    if settings.runtime == "openvino" and importlib.util.find_spec("openvino") is None:
        raise ConfigError("runtime: 'openvino': the package is not installed; run: pip install openvino")
    if settings.runtime != "auto":
        fits = {"torch": ending not in EXPORTED, "onnxruntime": ending != ".xml", "openvino": True}
        if not fits[settings.runtime]:
            raise ConfigError(f"runtime: {settings.runtime!r} cannot run {path}; take openvino")
        return settings.runtime
    if ending == ".onnx" and _onnxruntime_has_cuda():
        return "onnxruntime"
    if ending in EXPORTED:
        return "openvino"
    if path is None or importlib.util.find_spec("openvino") is None or _cuda(settings.device):
        return "torch"
    return "openvino"


def _cuda(device: str | None) -> bool:
    """Whether PyTorch would run on a GPU. It is asked only where there may be one: importing it takes seconds."""
    if device is not None:
        return device.startswith("cuda")
    if shutil.which("nvidia-smi") is None:
        return False
    import torch

    return torch.cuda.is_available()


def _onnxruntime_has_cuda() -> bool:
    if importlib.util.find_spec("onnxruntime") is None:
        return False
    return "CUDAExecutionProvider" in importlib.import_module("onnxruntime").get_available_providers()


def _whole(path: Path) -> Path:
    """The file that a path means. Raises UserError where an exported file is missing."""
    path = path.expanduser()
    if path.is_dir():
        return path / "model.safetensors"  # a run folder
    if path.suffix in EXPORTED and not path.is_file():
        raise UserError(f"{path}: no such file; write it with lookonce export")
    return path


def _converted(model: Model | Path, ending: str) -> Path | onnx.ModelProto:
    """The form that a runtime reads: the file itself if it is exported, that kept beside it, or one in memory."""
    from lookonce.darknet.pair import source_files

    if not isinstance(model, Path):
        return _convert(model)
    if model.suffix in EXPORTED:
        return model
    kept = model.with_name(f".lookonce-{model.stem}-{_digest(source_files(model))}{ending}")
    if kept.is_file():
        return kept
    from lookonce.model_file import load_model

    made = _convert(load_model(model))
    log.info("%s: converted for %s; this is done once", model, "OpenVINO" if ending == ".xml" else "ONNX Runtime")
    try:
        _keep(made, kept)
    except UserError:
        log.info("%s: not writable, so the converted form stays in memory", model.parent)
        return made
    for old in model.parent.glob(f".lookonce-{model.stem}-*"):
        if old.stem != kept.stem:
            old.unlink(missing_ok=True)
    return kept


def _digest(files: tuple[Path, ...]) -> str:
    """Of what the files hold and of the program that converts them; no file there: of nothing."""
    found = hashlib.sha256(f"{FORMAT} {__version__}".encode())
    for file in files:
        if file.is_file():
            with file.open("rb") as content:
                found.update(hashlib.file_digest(content, "sha256").digest())
    return found.hexdigest()[:16]


def _convert(model: Model) -> onnx.ModelProto:
    """The network alone, with its description."""
    from lookonce.network import folded
    from lookonce.onnx_form import describe, network_model

    made = network_model(folded(model.network))
    describe(made, model.description)
    return made


def _keep(made: onnx.ModelProto, path: Path) -> None:
    """Write the converted form."""
    if path.suffix == ".onnx":
        with replacing(path) as beside:
            beside.write_bytes(made.SerializeToString())
        return
    from lookonce.runtimes.openvino import openvino_model, saved

    with saved(openvino_model(made), path):
        pass
