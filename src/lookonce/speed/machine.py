"""What a speed was measured on: the processor and what it can, cores, versions."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lookonce import __version__
from lookonce.cores import usable_cores

FEATURES = {
    "AVX-512": {"avx512f"},
    "bf16": {"avx512_bf16", "amx_bf16", "bf16", "feat_bf16"},
    "VNNI": {"avx512_vnni", "avx_vnni", "amx_int8"},
}
"""What decides the speed of fp32, bf16 and int8, by the flags that Linux and macOS have for it."""
MODULES = ("numpy", "torch", "openvino", "onnxruntime", "cv2")
"""Whose versions are told."""


@dataclass(frozen=True)
class Machine:
    """What ran."""

    cpu: str
    features: dict[str, bool] | None
    """Which of FEATURES it has; None: this system does not tell."""
    cores: int
    """That this process may use."""
    all_cores: int
    gpu: str | None
    system: str
    versions: dict[str, str]

    def __str__(self) -> str:
        has = self.features
        can = "its instructions are unknown" if has is None else ", ".join(f"{n} {_yes(has[n])}" for n in FEATURES)
        lines = [f"{self.cpu}; {can}; {self.cores} of {self.all_cores} cores; {self.system}"]
        lines += [self.gpu] if self.gpu else []
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return "\n".join([*lines, versions])


def this_machine() -> Machine:
    """The machine that this runs on."""
    name, flags = _processor()
    features = None if flags is None else {feature: bool(words & flags) for feature, words in FEATURES.items()}
    versions = {"lookonce": __version__, "Python": platform.python_version()}
    for module in MODULES:
        if importlib.util.find_spec(module) is not None:
            versions[module] = str(importlib.import_module(module).__version__).split("-")[0]
    system = f"{platform.system()} {platform.machine()}"
    return Machine(name, features, usable_cores(), os.cpu_count() or 1, _gpu(), system, versions)


def read_cpuinfo(text: str) -> tuple[str, set[str]]:
    """The processor's name and its flags, of Linux's /proc/cpuinfo (x86 and ARM)."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())  # every core says the same
    name = found.get("model name") or found.get("Model") or platform.machine()
    return name, set((found.get("flags") or found.get("Features", "")).split())


def read_sysctl(text: str) -> tuple[str, set[str]]:
    """The processor's name and its flags, of what macOS' `sysctl machdep.cpu hw.optional` prints (Intel and Apple)."""
    name, flags = platform.machine(), set()
    for line in text.splitlines():
        key, _, value = line.partition(": ")
        if key == "machdep.cpu.brand_string":
            name = value.strip()
        elif key in ("machdep.cpu.features", "machdep.cpu.leaf7_features"):
            flags |= set(value.lower().split())
        elif key.startswith("hw.optional.") and value.strip() == "1":
            flags.add(key.rpartition(".")[2].lower())
    return name, flags


def _processor() -> tuple[str, set[str] | None]:
    """Name and flags; None: this system does not tell them."""
    try:
        if sys.platform == "linux":
            return read_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
        if sys.platform == "darwin":
            words = ["sysctl", "machdep.cpu", "hw.optional"]
            return read_sysctl(subprocess.run(words, capture_output=True, text=True, check=False).stdout)
    except OSError:
        pass  # the name that Python knows, then
    return platform.processor() or platform.machine(), None


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _yes(has: bool) -> str:
    return "yes" if has else "no"
