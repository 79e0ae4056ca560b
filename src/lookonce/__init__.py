"""lookonce: You Only Look Once, v2. From a folder of labelled pictures to a detector that runs anywhere."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

# openvino and nncf would report that they are imported
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

if TYPE_CHECKING:
    from lookonce.anchors import Anchors, cluster_anchors
    from lookonce.darknet.pair import load_darknet, save_darknet
    from lookonce.data.catalog import read_dataset
    from lookonce.data.record import Dataset, Record
    from lookonce.detections import Detections
    from lookonce.detector import Detector
    from lookonce.errors import UserError
    from lookonce.evaluation import Report, evaluate
    from lookonce.exporting.command import export
    from lookonce.network import Network
    from lookonce.training.run import train

__version__ = "0.1.0"

_HOMES = {
    "Anchors": "lookonce.anchors",
    "Dataset": "lookonce.data.record",
    "Detections": "lookonce.detections",
    "Detector": "lookonce.detector",
    "Network": "lookonce.network",
    "Record": "lookonce.data.record",
    "Report": "lookonce.evaluation",
    "UserError": "lookonce.errors",
    "cluster_anchors": "lookonce.anchors",
    "evaluate": "lookonce.evaluation",
    "export": "lookonce.exporting.command",
    "load_darknet": "lookonce.darknet.pair",
    "read_dataset": "lookonce.data.catalog",
    "save_darknet": "lookonce.darknet.pair",
    "train": "lookonce.training.run",
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
