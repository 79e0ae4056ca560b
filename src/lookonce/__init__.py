"""lookonce: You Only Look Once, v2. Train object detectors on labelled images and run them anywhere."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # openvino and nncf would call home
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # onnxruntime would, from version 1.29 on

if TYPE_CHECKING:
    from lookonce.commands.anchors import anchors
    from lookonce.commands.benchmark import benchmark
    from lookonce.commands.cache import cache
    from lookonce.commands.check import check
    from lookonce.commands.compare import compare
    from lookonce.commands.convert import convert
    from lookonce.commands.demo import demo
    from lookonce.commands.detect import detect
    from lookonce.commands.diagnose import diagnose
    from lookonce.commands.download import download
    from lookonce.commands.evaluate import Report, evaluate
    from lookonce.commands.explain import explain
    from lookonce.commands.export import export
    from lookonce.commands.models import models
    from lookonce.commands.prune import prune
    from lookonce.commands.serve import serve
    from lookonce.commands.train import train
    from lookonce.commands.zones import zones
    from lookonce.data.anchors import cluster_anchors
    from lookonce.data.dataset import Dataset, Record
    from lookonce.data.read import read_dataset
    from lookonce.errors import UserError
    from lookonce.inference.detector import Detector
    from lookonce.inference.draw import draw
    from lookonce.model.anchors import Anchors
    from lookonce.model.darknet.files import load_darknet, save_darknet
    from lookonce.model.detections import Detection, Detections
    from lookonce.model.network import Network
    from lookonce.server.client import Client

__version__ = "0.1.0"
__all__ = [
    "Anchors", "Client", "Dataset", "Detection", "Detections", "Detector", "Network", "Record", "Report", "UserError",
    "anchors", "benchmark", "cache", "check", "cluster_anchors", "compare", "convert", "demo", "detect", "diagnose",
    "download", "draw", "evaluate", "explain", "export", "load_darknet", "models", "prune", "read_dataset",
    "save_darknet", "serve", "train", "zones",
]  # fmt: skip
_MODULES = {
    "commands.anchors": ("anchors",),
    "commands.benchmark": ("benchmark",),
    "commands.cache": ("cache",),
    "commands.check": ("check",),
    "commands.compare": ("compare",),
    "commands.convert": ("convert",),
    "commands.demo": ("demo",),
    "commands.detect": ("detect",),
    "commands.diagnose": ("diagnose",),
    "commands.download": ("download",),
    "commands.evaluate": ("Report", "evaluate"),
    "commands.explain": ("explain",),
    "commands.export": ("export",),
    "commands.models": ("models",),
    "commands.prune": ("prune",),
    "commands.serve": ("serve",),
    "commands.train": ("train",),
    "commands.zones": ("zones",),
    "data.anchors": ("cluster_anchors",),
    "data.dataset": ("Dataset", "Record"),
    "data.read": ("read_dataset",),
    "errors": ("UserError",),
    "inference.detector": ("Detector",),
    "inference.draw": ("draw",),
    "model.anchors": ("Anchors",),
    "model.darknet.files": ("load_darknet", "save_darknet"),
    "model.detections": ("Detection", "Detections"),
    "model.network": ("Network",),
    "server.client": ("Client",),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import lookonce` stays instant."""
    for module, names in _MODULES.items():
        if name in names:
            globals()[name] = value = getattr(importlib.import_module(f"lookonce.{module}"), name)
            return value
    raise AttributeError(f"module 'lookonce' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    """List the public names, for completion, whether they are imported or not."""
    return [*__all__, "__version__"]
