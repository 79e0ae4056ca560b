"""Tests of lookonce.inference.backends.processor. Cases are what Linux and macOS print."""

import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from lookonce.inference.backends import processor as module
from lookonce.inference.backends.processor import features, has_int8, is_bf16_slow, processor, read_cpuinfo, read_sysctl

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


@pytest.fixture(autouse=True)
def ask_again():
    """The answer is kept for the process."""
    processor.cache_clear()
    yield
    processor.cache_clear()


def features_of(monkeypatch, name, flags):
    monkeypatch.setattr(module, "processor", lambda: (name, flags))
    return features()


def test_linux_reports_name_and_flags(monkeypatch):
    assert read_cpuinfo(X86) == ("Some Xeon @ 2.00GHz", {"fpu", "avx2", "avx512f", "avx512_vnni", "amx_bf16"})
    assert features_of(monkeypatch, *read_cpuinfo(X86)) == {"AVX-512": True, "bf16": True, "VNNI": True}
    assert read_cpuinfo(ARM) == (platform.machine(), {"fp", "asimd", "bf16", "i8mm"})
    assert features_of(monkeypatch, *read_cpuinfo(ARM)) == {"AVX-512": False, "bf16": True, "VNNI": False}


def test_macos_reports_name_and_flags(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    for text, expected in ((APPLE, (False, True, False)), (INTEL, (True, False, True))):
        monkeypatch.setattr(subprocess, "run", lambda *_, out=text, **__: SimpleNamespace(stdout=out))
        processor.cache_clear()
        assert processor()[0] in text
        assert tuple(features().values()) == expected
    assert read_sysctl("")[1] == set()


def test_windows_reports_a_name_and_no_flags(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(platform, "processor", lambda: "Intel64 Family 6")
    assert processor() == ("Intel64 Family 6", None)
    assert features() is None


@pytest.mark.parametrize("flags, expected", [
    ({"avx512_vnni"}, True), ({"avx_vnni"}, True), ({"amx_int8"}, True), ({"avx512f", "avx512_bf16"}, False),
    (set(), False), (None, False),
])  # fmt: skip
def test_int8_is_fast_with_vnni_or_amx_and_unknown_is_no(flags, expected, monkeypatch):
    monkeypatch.setattr(module, "processor", lambda: ("X", flags))
    assert has_int8() is expected


@pytest.mark.parametrize("name, flags, expected", [
    ("Intel(R) Xeon(R) Processor", {"avx512_bf16", "avx512_vnni"}, True),
    ("Intel(R) Xeon(R) Processor", {"avx512_bf16", "amx_bf16"}, False),
    ("AMD EPYC 9R14", {"avx512_bf16"}, False),
    ("Intel(R) Xeon(R) Processor", {"avx512f"}, False),
    ("Intel64 Family 6, GenuineIntel", None, False),
])  # fmt: skip
def test_bf16_is_slow_on_intel_without_amx(name, flags, expected, monkeypatch):
    monkeypatch.setattr(module, "processor", lambda: (name, flags))
    assert is_bf16_slow() is expected
