"""Choose the backend that runs a model, and keep the model's converted form in the cache folder."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lookonce.data.images import BATCH
from lookonce.errors import ConfigError, UserError
from lookonce.files import replacing
from lookonce.inference.backends.int8_form import int8_form
from lookonce.inference.backends.settings import BackendInfo, BackendName, Images, Settings
from lookonce.inference.cache import KEY_LENGTH, CacheError, locked, make_room
from lookonce.model.model_file import FORMAT, Model, ModelFileError
from lookonce.model.resize import Framed

if TYPE_CHECKING:
    import onnx


log = logging.getLogger("lookonce")
EXPORTED = (".onnx", ".xml")
ENDINGS = {"openvino": ".xml", "onnxruntime": ".onnx"}
"""Ending of the file that a backend reads."""
SCHEMA = 1
"""Version of the conversion. Increase it when the converted form of a model changes, so that old ones are not used."""


@runtime_checkable
class Backend(Protocol):
    """What runs a network. It may be called from several threads at once."""

    info: BackendInfo
    about: Model

    def __call__(self, images: Images) -> tuple[NDArray[np.float32], ...]:
        """Run B inputs [3, H, W], floats 0..1, and return the raw maps, one for each head, float32."""


class Opened:
    """A backend that remembers its source, so that a copy, in this process or another, opens it again."""

    def __init__(self, backend: Backend, source: Model | Path, settings: Settings) -> None:
        self._runtime, self._source, self._settings = backend, source, settings
        self.info, self.about = backend.info, backend.about
        self.takes_bytes = bool(getattr(backend, "takes_bytes", False))
        """Whether `maps` is there for a device: it takes Framed inputs and leaves the maps where they are."""
        self.batch: int = getattr(backend, "batch", None) or BATCH
        """Images that should run together."""

    def maps(self, images: Images | Sequence[Framed]) -> Sequence[Any]:
        """Return the raw maps as tensors of the device."""
        return cast(Any, self._runtime).maps(images)  # type: ignore[no-any-return]

    def __call__(self, images: Images) -> tuple[NDArray[np.float32], ...]:
        """Run B inputs [3, H, W], floats 0..1, and return the raw maps, one for each head, float32."""
        return self._runtime(images)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return open_backend, (self._source, self._settings)


def open_backend(model: Model | Path, settings: Settings) -> Backend:
    """Open a model in a backend, which can be pickled, copied, and used after a fork.

    Args:
        model: a model in memory (run by PyTorch unless settings name another backend), a model file, a run folder,
            Darknet's .cfg or .weights, or an exported .onnx or .xml. For OpenVINO and ONNX Runtime a file is converted
            once and kept in the cache folder, or in memory if that cannot be written. The int8 form of a model file
            runs in its place where int8_form.py says so.
        settings: how to run it.
    Raises:
        UserError: a file that cannot be read, a backend that is not installed or cannot run such a file.
    """
    source = _whole(model) if isinstance(model, Path) else model
    name = _choose(source if isinstance(source, Path) else None, settings)
    found = _opened(source, name, settings)
    if isinstance(source, Path):
        source = source.absolute()  # a copy may be opened from another working folder
    return Opened(found, source, replace(settings, backend=name))


def _opened(source: Model | Path, name: BackendName, settings: Settings) -> Backend:
    if settings.precision == "int8" and not (name == "openvino" and isinstance(source, Path)):
        raise ConfigError("precision: int8 runs on OpenVINO, from a file; give a model file and leave --backend out")
    if name == "torch":
        from lookonce.inference.backends.torch import TorchBackend

        return TorchBackend(_loaded(source) if isinstance(source, Path) else source, settings)
    backend: Callable[[Path | onnx.ModelProto, Settings], Backend]
    if name == "openvino":
        from lookonce.inference.backends.openvino import OpenvinoBackend as backend
    else:
        from lookonce.inference.backends.onnxruntime import OnnxruntimeBackend as backend
    if not isinstance(source, Path):
        return backend(_convert(source), settings)
    if source.suffix in EXPORTED:
        return backend(source, settings)
    if name == "openvino" and (form := int8_form(source, settings)):
        return backend(form, settings)
    return _open_kept(source, name, lambda form: backend(form, settings))


def _choose(path: Path | None, settings: Settings) -> BackendName:
    """Return the requested backend, or the fastest that is installed. Raises ConfigError if it cannot run the file."""
    ending = path.suffix if path else ""
    if settings.backend == "openvino" and importlib.util.find_spec("openvino") is None:
        raise ConfigError("backend: 'openvino': the package is not installed; run: pip install openvino")
    if settings.backend != "auto":
        fits = {"torch": ending not in EXPORTED, "onnxruntime": ending != ".xml", "openvino": True}
        if not fits[settings.backend]:
            raise ConfigError(f"backend: {settings.backend!r} cannot run {path}; take openvino")
        return settings.backend
    if ending == ".onnx" and _onnxruntime_has_cuda():
        return "onnxruntime"
    if ending in EXPORTED:
        return "openvino"
    of_torch = settings.device == "mps" or _cuda(settings.device)
    if path is None or importlib.util.find_spec("openvino") is None or of_torch:
        return "torch"
    return "openvino"


def _cuda(device: str | None) -> bool:
    """Return whether PyTorch would use a GPU. Imports torch, which takes seconds, only if there may be one."""
    if device is not None:
        return device.startswith("cuda")
    if shutil.which("nvidia-smi") is None:
        return False
    import torch

    return torch.cuda.is_available()


def _onnxruntime_has_cuda() -> bool:
    if importlib.util.find_spec("onnxruntime") is None:
        return False
    from lookonce.inference.backends.onnxruntime import import_onnxruntime

    return "CUDAExecutionProvider" in import_onnxruntime().get_available_providers()


def _whole(path: Path) -> Path:
    """Return the file that a path means. Raises UserError if an exported file is missing."""
    path = path.expanduser()
    if path.is_dir():
        return path / "model.safetensors"  # a run folder
    if path.suffix in EXPORTED and not path.is_file():
        raise UserError(f"{path}: no such file; write it with lookonce export")
    return path


def model_files(path: Path) -> tuple[Path, ...]:
    """Return every file that a model consists of."""
    from lookonce.model.darknet.files import source_files

    whole = _whole(path)
    return (whole, whole.with_suffix(".bin")) if whole.suffix == ".xml" else source_files(whole)


def _open_kept(model: Path, name: BackendName, opening: Callable[[Path | onnx.ModelProto], Backend]) -> Backend:
    """Open the converted form of a model file, from the cache or else in memory."""
    from lookonce.model.darknet.files import source_files

    files = source_files(model)
    key = _key(files, name)
    made: onnx.ModelProto | None = None
    try:
        with locked("forms", key) as entry:
            form = entry.folder / f"network{ENDINGS[name]}"
            if not entry.is_whole():
                entry.empty()
                made = _convert(_loaded(model))
                if _key(files, name) != key:
                    raise ModelFileError(f"{model}: changed while it was read; try again")
                entry.finish(f"{model.absolute()} for {name}", *_keep(made, form))
                log.info("%s: converted for %s; this is done once", model, name)
            found = opening(form)
        if made is not None:
            make_room()
        return found
    except CacheError as error:
        log.info("%s, so the converted form stays in memory", error)
        return opening(made or _convert(_loaded(model)))


def _loaded(path: Path) -> Model:
    from lookonce.model.model_file import load_model  # needs torch, which a cached form does not

    return load_model(path)


def _key(files: tuple[Path, ...], name: BackendName) -> str:
    """Return the cache key: a digest of the files' content and of the versions that convert them."""
    makers = ("onnx", "openvino") if name == "openvino" else ("onnx",)
    found = hashlib.sha256(f"{SCHEMA} {FORMAT} {name} {[(maker, version(maker)) for maker in makers]}".encode())
    for file in files:
        found.update(file.suffix.encode())
        if file.is_file():  # load_model reports a missing file
            with file.open("rb") as content:
                found.update(hashlib.file_digest(content, "sha256").digest())
    return found.hexdigest()[:KEY_LENGTH]


def _convert(model: Model) -> onnx.ModelProto:
    """Return the network without decoding, with its description."""
    from lookonce.model.onnx_graph import network_model

    return network_model(model)


def _keep(made: onnx.ModelProto, path: Path) -> tuple[Path, ...]:
    """Write the converted form and return its files. Raises CacheError if they cannot be written."""
    try:
        if path.suffix == ".onnx":
            with replacing(path) as beside:
                beside.write_bytes(made.SerializeToString())
            return (path,)
        from lookonce.inference.backends.openvino import openvino_model, saved

        with saved(openvino_model(made), path):
            pass
        return path, path.with_suffix(".bin")
    except UserError as error:
        raise CacheError(str(error)) from None
