"""lookonce: You Only Look Once, v2. From a folder of labelled images to a detector that runs anywhere."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

# openvino and nncf would report that they are imported
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

if TYPE_CHECKING:
    from lookonce.commands.evaluate import Report, evaluate
    from lookonce.commands.export import export
    from lookonce.commands.train import train
    from lookonce.data.anchors import cluster_anchors
    from lookonce.data.dataset import Dataset, Record
    from lookonce.data.read import read_dataset
    from lookonce.errors import UserError
    from lookonce.inference.detector import Detector
    from lookonce.model.anchors import Anchors
    from lookonce.model.darknet.files import load_darknet, save_darknet
    from lookonce.model.detections import Detections
    from lookonce.model.network import Network

__version__ = "0.1.0"

_HOMES = {
    "Anchors": "lookonce.model.anchors",
    "Dataset": "lookonce.data.dataset",
    "Detections": "lookonce.model.detections",
    "Detector": "lookonce.inference.detector",
    "Network": "lookonce.model.network",
    "Record": "lookonce.data.dataset",
    "Report": "lookonce.commands.evaluate",
    "UserError": "lookonce.errors",
    "cluster_anchors": "lookonce.data.anchors",
    "evaluate": "lookonce.commands.evaluate",
    "export": "lookonce.commands.export",
    "load_darknet": "lookonce.model.darknet.files",
    "read_dataset": "lookonce.data.read",
    "save_darknet": "lookonce.model.darknet.files",
    "train": "lookonce.commands.train",
}

__all__ = [
    "Anchors", "Dataset", "Detections", "Detector", "Network", "Record", "Report", "UserError",
    "cluster_anchors", "evaluate", "export", "load_darknet", "read_dataset", "save_darknet", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import lookonce` stays instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lookonce' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
