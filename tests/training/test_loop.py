"""Tests of lookonce.training.loop."""

import inspect
import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from lookonce.model.network import Network
from lookonce.training.loop import (
    Averaging,
    MovingAverage,
    Patience,
    keep_freed_memory,
    quiet,
)
from lookonce.training.recipes import Settings
from lookonce.training.step import Training
from sets import nano


def test_the_decay_of_the_average_grows_to_its_limit():
    def module(weight, count):
        made = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(made.weight, weight)
        made.register_buffer("count", torch.tensor(count))
        return made

    def after(updates, old, new):
        average = MovingAverage(module(old, 3), 0.9)
        average.n_averaged.fill_(updates)
        average.update_parameters(module(new, 5))
        assert average.module.count.item() == 5  # counts are copied
        assert int(average.n_averaged) == updates + 1
        return average.module.weight.item()

    assert after(0, 1.0, 0.25) == 0.25  # the first update copies
    assert after(1, 1.0, 0.0) == pytest.approx(2 / 11)
    assert after(8, 1.0, 0.0) == pytest.approx(9 / 18)
    assert after(10_000, 1.0, 0.0) == pytest.approx(0.9)


def test_validations_under_the_prior_loss_do_not_count_for_patience(monkeypatch):
    callback, judged = Patience("val/mAP", 0.0, 1, mode="max"), []
    monkeypatch.setattr(type(callback).__mro__[1], "on_validation_end", lambda *_: judged.append(1))
    module = SimpleNamespace(uses_prior_loss=True)
    monkeypatch.setattr("lookonce.training.loop.Training", SimpleNamespace)
    callback.on_validation_end(None, module)
    assert not judged
    module.uses_prior_loss = False
    callback.on_validation_end(None, module)
    assert judged
    assert Training is not SimpleNamespace


def test_lightning_is_quiet_inside_and_as_it_was_outside():
    engine = logging.getLogger("lightning.pytorch")
    before = engine.level
    with quiet():
        assert not engine.isEnabledFor(logging.INFO)
    assert engine.level == before


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone hands memory back")
def test_freed_memory_is_kept_for_the_next_step():
    code = f"""
import ctypes, resource, sys
{inspect.getsource(keep_freed_memory)}
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


def test_the_average_is_on_the_networks_device_and_reads_nothing_from_it():
    module = Training(Network(nano(2, ((1.0, 1.0),))), Settings(), seed=0)
    callback = Averaging(0.9)
    callback.setup(SimpleNamespace(), module, "fit")  # Lightning calls this before the module moves
    module.to("meta")
    callback.on_train_start(SimpleNamespace(), module)
    for _ in range(2):
        callback._average_model.update_parameters(module)  # of tensors without values: reading one fails
    assert {value.device.type for value in callback._average_model.parameters()} == {"meta"}
    assert int(callback._average_model.n_averaged) == 2
