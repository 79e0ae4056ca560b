"""Settings of a backend, its report of what computed a result, and its behaviour in a forked process.

The threads of a backend stay in the parent process. A forked child that used or closed the backend would wait for them
forever, so it drops the backend without closing it and opens its own at the first call.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol, TypeAlias, get_args
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from lookonce.choices import choose, device_name
from lookonce.errors import ConfigError

BackendName = Literal["auto", "torch", "openvino", "onnxruntime"]
Precision = Literal["auto", "fp32", "bf16", "int8"]
Images: TypeAlias = NDArray[np.float32] | Sequence[NDArray[np.float32]]
"""Inputs of a network: [B, 3, H, W], or B arrays [3, H, W]."""


@dataclass(frozen=True)
class Settings:
    """How a network runs."""

    backend: BackendName = "auto"
    """auto: the fastest that is installed."""
    device: str | None = None
    """None: the backend's own choice. torch: cpu, cuda, cuda:1, ...; onnxruntime: cpu, cuda, tensorrt."""
    precision: Precision = "auto"
    """auto: int8 if the processor has instructions for it and the model has an int8 form, else bf16 or fp32, whichever
    is faster."""
    throughput: bool = False
    """Optimize for many images, not for the time of one: OpenVINO then runs several at once."""
    threads: int | None = None
    """CPU threads; None: the cores that this process may use. PyTorch has one number for the whole process."""

    def __post_init__(self) -> None:
        for name, allowed in (("backend", BackendName), ("precision", Precision)):
            object.__setattr__(self, name, choose(getattr(self, name), get_args(allowed), name))
        if self.device is not None:
            object.__setattr__(self, "device", device_name(self.device))
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads: {self.threads}; expected at least 1")

    def precision_where(self, gains: bool) -> Literal["fp32", "bf16"]:
        """Return the precision of what is not int8. gains: the machine computes bf16 faster than fp32."""
        if self.precision == "auto" or self.precision == "int8":
            return "bf16" if gains else "fp32"
        return self.precision


@dataclass(frozen=True)
class BackendInfo:
    """What computed a result. Results of different backends or precisions differ slightly."""

    name: str
    """torch, openvino or onnxruntime."""
    version: str
    precision: str
    """fp32, bf16 or int8."""
    device: str
    cost: str = ""
    """What int8 costs in mAP; empty: it is not known, or nothing."""

    def to_json(self) -> dict[str, str]:
        """Return the fields, without a cost that is not known."""
        return {name: value for name, value in asdict(self).items() if value}

    def __str__(self) -> str:
        cost = f" ({self.cost})" if self.cost else ""
        return f"{self.name} {self.version}, {self.precision}{cost}, {self.device}"


class Forks(Protocol):
    """A backend that a forked process inherits."""

    def forked(self) -> None:
        """Handle a fork. Called in the child before anything else runs there."""


_opened: WeakSet[Forks] = WeakSet()


def follow_forks(backend: Forks) -> None:
    """Call the backend's `forked` in each process that is forked from this one."""
    _opened.add(backend)


def abandon(*inherited: object) -> None:
    """Keep these objects for ever, so that they are never closed: their threads are not in this process."""
    for one in inherited:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))


def _forked() -> None:
    for backend in list(_opened):
        backend.forked()


if hasattr(os, "register_at_fork"):  # Windows never forks
    os.register_at_fork(after_in_child=_forked)
