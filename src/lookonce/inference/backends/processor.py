"""The processor: its name, and its instructions for fp32, bf16 and int8."""

from __future__ import annotations

import platform
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

FEATURES = {  # instructions that decide the speed of fp32, bf16 and int8: their flags on Linux and macOS
    "AVX-512": {"avx512f"},
    "bf16": {"avx512_bf16", "amx_bf16", "bf16", "feat_bf16"},
    "VNNI": {"avx512_vnni", "avx_vnni", "amx_int8"},
}


@cache
def processor() -> tuple[str, set[str] | None]:
    """Return the CPU's name and flags; None: this system does not say."""
    with suppress(OSError):
        if sys.platform == "linux":
            return read_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
        if sys.platform == "darwin":
            command = ["sysctl", "machdep.cpu", "hw.optional"]
            return read_sysctl(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    return platform.processor() or platform.machine(), None


def features() -> dict[str, bool] | None:
    """Return which of FEATURES the CPU has; None: this system does not say."""
    flags = processor()[1]
    return None if flags is None else {feature: bool(names & flags) for feature, names in FEATURES.items()}


def has_int8() -> bool:
    """Return whether the CPU multiplies bytes faster than floats: VNNI or AMX. Where it is unknown: no."""
    return bool((features() or {}).get("VNNI"))


def is_bf16_slow() -> bool:
    """Return whether the CPU has instructions for bf16 and yet computes fp32 faster: Intel's AVX512-BF16 without AMX.

    Many virtual machines hide AMX. bf16 then runs at half the rate of fp32; on AMD's Zen 4 it runs at more than twice
    the rate (docs/results.md). Where it is unknown: no.
    """
    name, flags = processor()
    return flags is not None and "avx512_bf16" in flags and "amx_bf16" not in flags and "Intel" in name


def read_cpuinfo(text: str) -> tuple[str, set[str]]:
    """Return the CPU's name and flags from Linux's /proc/cpuinfo (x86 and ARM)."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())  # every core repeats the same
    name = found.get("model name") or found.get("Model") or platform.machine()
    return name, set((found.get("flags") or found.get("Features", "")).split())


def read_sysctl(text: str) -> tuple[str, set[str]]:
    """Return the CPU's name and flags from macOS' `sysctl machdep.cpu hw.optional` (Intel and Apple)."""
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
