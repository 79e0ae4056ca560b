"""Tests of lookonce.training.loop."""

import inspect
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import TQDMProgressBar

from lookonce.model.network import Network
from lookonce.training.loop import (
    BestCheckpoint,
    Patience,
    Progress,
    averaging,
    keep_freed_memory,
    quiet,
    validate_every,
)
from lookonce.training.recipes import Settings
from lookonce.training.step import Training
from sets import nano


def test_the_average_is_young_at_first_and_old_in_the_end():
    average = averaging(0.9)._kwargs["multi_avg_fn"]

    def after(updates, old, new):
        averaged = [torch.tensor(old), torch.tensor([old, old])]
        average(averaged, [torch.tensor(new), torch.tensor([new, new])], torch.tensor(updates))
        assert averaged[1].tolist() == [averaged[0].item()] * 2
        return averaged[0].item()

    assert after(0, 1.0, 0.0) == pytest.approx(1 / 10)
    assert after(8, 1.0, 0.0) == pytest.approx(9 / 18)
    assert after(10_000, 1.0, 0.0) == pytest.approx(0.9)
    assert after(4, 3, 5) == 5


@pytest.mark.parametrize("callback", [BestCheckpoint(Path(), print), Patience("val/mAP", 0.0, 1, mode="max")])
def test_warm_up_is_neither_best_nor_a_trial_of_patience(callback, monkeypatch):
    judged = []
    monkeypatch.setattr(type(callback).__mro__[1], "on_validation_end", lambda *_: judged.append(1))
    module = SimpleNamespace(uses_prior_loss=True)
    monkeypatch.setattr("lookonce.training.loop.Training", SimpleNamespace)
    callback.on_validation_end(None, module)
    assert not judged
    module.uses_prior_loss = False
    callback.on_validation_end(None, module)
    assert judged
    assert Training is not SimpleNamespace


def test_the_bar_knows_how_long_steps_waited_for_images(monkeypatch):
    clock = iter([10.0, 11.0, 14.0, 14.5, 15.5, 21.5, 22.0])
    monkeypatch.setattr("lookonce.training.loop.time.perf_counter", lambda: next(clock))
    for name in ("on_train_epoch_start", "on_train_batch_start", "on_train_batch_end"):
        monkeypatch.setattr(TQDMProgressBar, name, lambda *_: None)
    bar = Progress()
    bar.on_train_epoch_start(None)  # at 10
    for _ in range(2):  # waits 1, works 3, bar drawn; waits 1, works 6
        bar.on_train_batch_start()
        bar.on_train_batch_end(None, None, None, range(8), 0)
    assert bar.loading_fraction == pytest.approx(2 / 11)
    assert bar.rate == pytest.approx(16 / 11)


def test_the_bar_shows_the_numbers_of_the_last_step(monkeypatch):
    monkeypatch.setattr(TQDMProgressBar, "get_metrics", lambda *_: {"v_num": 3, "loss_epoch": 9.0, "val/mAP": 0.51234})
    module = Training(Network(nano(2, ((1.0, 1.0),))), Settings(), seed=0)
    module.means.add({"loss": torch.tensor(2.3456), "recall": torch.tensor(float("nan"))}, 4)
    trainer = SimpleNamespace(max_epochs=1, num_training_batches=1,
                              fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=0)))  # fmt: skip
    shown = Progress().get_metrics(trainer, module)
    assert shown == {"val/mAP": "0.512", "loss": "2.35", "images/s": "0.0", "left": "0 min"}


def test_the_bar_tells_what_is_left_of_the_whole_run():
    bar = Progress()
    bar.working, bar.waiting, bar.steps = 50.0, 10.0, 10  # 6 s a step
    trainer = SimpleNamespace(max_epochs=10, num_training_batches=26,
                              fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=59)))  # fmt: skip
    assert bar._left(trainer) == "20 min"
    trainer.max_epochs = 100
    assert bar._left(trainer) == "4.2 h"
    bar.step_limit = 160
    assert bar._left(trainer) == "10 min"


@pytest.mark.parametrize("scored", [True, False])
def test_where_there_is_no_bar_an_epoch_is_one_line(scored, monkeypatch, caplog):
    module = Training(Network(nano(2, ((1.0, 1.0),))), Settings(), seed=0)
    module.means.add({"loss": torch.tensor(2.0)}, 3)
    module.means.add({"loss": torch.tensor(4.0)}, 1)
    monkeypatch.setattr(module, "log_dict", lambda *_: None)
    trainer = SimpleNamespace(max_epochs=4, num_training_batches=10, current_epoch=1,
                              callback_metrics={"val/mAP": torch.tensor(0.25)},
                              fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=19)))  # fmt: skip
    monkeypatch.setattr("lookonce.training.loop.is_shown", lambda: False)
    monkeypatch.setattr(TQDMProgressBar, "on_train_epoch_end", lambda *_: None)
    bar = Progress()
    bar.working, bar.steps, bar.images = 120.0, 20, 240
    if scored:
        bar._scored = True
    with caplog.at_level("INFO", "lookonce"):
        bar.on_train_epoch_end(trainer, module)
    said = ", val mAP 0.250" if scored else ""
    assert caplog.messages == [f"epoch 2/4: loss 2.5{said}, 2.0 images/s, 2 min left"]
    assert bar._scored is False


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
