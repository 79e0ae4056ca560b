"""Settings of a backend, what it reports about itself, and what happens to it in a forked process.

The threads of a backend stay in the parent process: a forked child that used or closed the backend would wait for them
for ever. So a child drops what it inherited without closing it, and opens its own backend at its first call.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Literal, Protocol, get_args
from weakref import WeakSet

from lookonce.choices import choose, key
from lookonce.errors import ConfigError

BackendName = Literal["auto", "torch", "openvino", "onnxruntime"]
Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Settings:
    """How a network runs."""

    backend: BackendName = "auto"
    """auto: the fastest at hand."""
    device: str | None = None
    """None: the backend's own choice. torch: cpu, cuda, cuda:1, ...; onnxruntime: cpu, cuda, tensorrt."""
    precision: Precision = "auto"
    """auto: bf16 where the processor has instructions for it, else fp32."""
    throughput: bool = False
    """Many images at once count, not how long one takes. OpenVINO then runs as many as suit the machine."""
    threads: int | None = None
    """Of the CPU. None: the backend's own choice, the cores that this process may use. PyTorch has one number for the
    whole process, and it is changed."""

    def __post_init__(self) -> None:
        for name, allowed in (("backend", BackendName), ("precision", Precision)):
            object.__setattr__(self, name, choose(getattr(self, name), get_args(allowed), name))
        if self.device is not None:
            object.__setattr__(self, "device", key(str(self.device)))
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads: {self.threads}; expected at least 1")

    def precision_where(self, native: bool) -> Literal["fp32", "bf16"]:
        """What is meant on a machine. native: it has instructions for bf16."""
        if self.precision == "auto":
            return "bf16" if native else "fp32"
        return self.precision


@dataclass(frozen=True)
class BackendInfo:
    """What computes: two results are comparable only where it is the same."""

    name: str
    """torch, openvino or onnxruntime."""
    version: str
    precision: str
    """fp32, bf16 or int8."""
    device: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}, {self.precision}, {self.device}"


class Forks(Protocol):
    """A backend that a forked process may inherit."""

    def forked(self) -> None:
        """Called in the forked process, before anything else runs there."""


_opened: WeakSet[Forks] = WeakSet()


def follow_forks(backend: Forks) -> None:
    """Have the backend's `forked` called in each process that is forked from this one."""
    _opened.add(backend)


def abandon(*inherited: object) -> None:
    """Never close these: their threads are not in this process."""
    for one in inherited:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))


def _forked() -> None:
    for backend in list(_opened):
        backend.forked()


if hasattr(os, "register_at_fork"):  # Windows never forks
    os.register_at_fork(after_in_child=_forked)
