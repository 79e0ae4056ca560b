"""Mirrors src/lookonce/training/engine.py; tests/test_training_run.py drives it whole."""

import logging
import subprocess
import sys

import pytest

from lookonce.training.loop import quiet, validate_every


@pytest.mark.parametrize("epochs, every", [(1, 1), (19, 1), (20, 1), (40, 2), (58, 2), (59, 1), (160, 8), (300, 15)])
def test_the_last_epoch_is_always_validated(epochs, every):
    assert validate_every(epochs) == every


def test_lightning_is_quiet_inside_and_as_it_was_outside():
    engine = logging.getLogger("lightning.pytorch")
    before = engine.level
    with quiet():
        assert not engine.isEnabledFor(logging.INFO)
    assert engine.level == before


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone hands memory back")
def test_freed_memory_is_kept_for_the_next_step():
    code = """
import resource
from lookonce.training.loop import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytes(bytearray(2**26))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
before = faults()
keep_freed_memory()
faults()
print(before, faults())
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert int(found[0]) > 1000
    assert int(found[1]) < 100
