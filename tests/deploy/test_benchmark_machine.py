"""Mirrors src/lookonce/speed/machine.py."""

import importlib.util
import platform
import subprocess
import sys
from types import SimpleNamespace

from lookonce.deploy import benchmark as machine
from lookonce.deploy.benchmark import Machine, read_cpuinfo, read_sysctl, this_machine

X86 = """processor\t: 0
model name\t: Some Xeon @ 2.00GHz
flags\t\t: fpu avx2 avx512f avx512_vnni amx_bf16

processor\t: 1
model name\t: not this one
flags\t\t: fpu
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n"
APPLE = "machdep.cpu.brand_string: Apple M9\nhw.optional.arm.FEAT_BF16: 1\nhw.optional.avx512f: 0\n"
INTEL = "machdep.cpu.brand_string: Intel i7\nmachdep.cpu.leaf7_features: BMI1 AVX512F AVX512_VNNI\n"


def features_of(monkeypatch, name, flags):
    monkeypatch.setattr(machine, "_processor", lambda: (name, flags))
    return this_machine().features


def test_linux_tells_name_and_flags(monkeypatch):
    assert read_cpuinfo(X86) == ("Some Xeon @ 2.00GHz", {"fpu", "avx2", "avx512f", "avx512_vnni", "amx_bf16"})
    assert features_of(monkeypatch, *read_cpuinfo(X86)) == {"AVX-512": True, "bf16": True, "VNNI": True}
    assert read_cpuinfo(ARM) == (platform.machine(), {"fp", "asimd", "bf16", "i8mm"})
    assert features_of(monkeypatch, *read_cpuinfo(ARM)) == {"AVX-512": False, "bf16": True, "VNNI": False}


def test_macos_tells_name_and_flags(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    for said, expected in ((APPLE, (False, True, False)), (INTEL, (True, False, True))):
        monkeypatch.setattr(subprocess, "run", lambda *_, said=said, **__: SimpleNamespace(stdout=said))
        found = this_machine()
        assert found.cpu in said
        assert tuple(found.features.values()) == expected
    assert read_sysctl("")[1] == set()


def test_windows_tells_a_name_and_no_flags(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(platform, "processor", lambda: "Intel64 Family 6")
    found = this_machine()
    assert (found.cpu, found.features) == ("Intel64 Family 6", None)
    assert "its instructions are unknown" in str(found)


def test_versions_are_those_of_what_is_installed(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cv2" else real(name))
    found = this_machine()
    assert "cv2" not in found.versions
    assert {"lookonce", "Python", "torch", "numpy"} <= found.versions.keys()
    assert 1 <= found.cores <= found.all_cores


def test_a_machine_is_told_in_two_lines_and_its_gpu_in_one_more():
    told = Machine("X", {"AVX-512": True, "bf16": False, "VNNI": True}, 2, 8, None, "Linux x86_64", {"torch": "3.0"})
    assert str(told) == "X; AVX-512 yes, bf16 no, VNNI yes; 2 of 8 cores; Linux x86_64\ntorch 3.0"
    assert str(Machine("X", None, 1, 1, "Big GPU", "S", {})).splitlines()[1] == "Big GPU"
