"""Tests of lookonce.training.checkpoints; test_run.py stops and resumes whole runs."""

import io
import math
import signal
import threading
from types import SimpleNamespace

import pytest
import torch

from lookonce.data.loader import Shuffled
from lookonce.errors import UserError
from lookonce.model.network import Network
from lookonce.training.checkpoints import (
    BestModel,
    LastCheckpoint,
    WholeFiles,
    minutes_between,
    random_state,
    read_checkpoint,
    set_random_state,
)
from lookonce.training.duration import StepLimit
from lookonce.training.history import History
from lookonce.training.recipes import Settings
from lookonce.training.signals import Stopped
from lookonce.training.step import Training
from sets import nano

SIZE = 1000
"""Bytes of a checkpoint."""


def trainer(ready, batches=6, epoch=2):
    progress = SimpleNamespace(current=SimpleNamespace(ready=ready, processed=ready))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    saved = []

    def save(path):
        saved.append(path)
        path.write_bytes(bytes(SIZE))

    return SimpleNamespace(fit_loop=loop, num_training_batches=batches, current_epoch=epoch, global_step=0,
                           saved=saved, save_checkpoint=save, should_stop=False, max_epochs=9)  # fmt: skip


@pytest.fixture
def last(tmp_path):
    return LastCheckpoint(tmp_path / "last.ckpt", Shuffled(24, 0), 4, 5.0, History(tmp_path / "metrics.csv"),
                          tmp_path / "model.safetensors")  # fmt: skip


@pytest.mark.parametrize("ready, place", [(4, (2, 16)), (6, (3, 0))])
def test_a_checkpoint_keeps_its_position_and_the_order_continues_there(ready, place, last):
    checkpoint = {}
    last.on_save_checkpoint(trainer(ready), None, checkpoint)
    assert checkpoint["place"] == {"epoch": place[0], "images": place[1]}
    last.on_load_checkpoint(None, None, checkpoint)
    whole = Shuffled(24, 0)
    whole.set_epoch(place[0])
    assert list(last.sampler) == list(whole)[place[1] :]
    last.sampler.set_epoch(place[0])  # as Lightning says again when it begins
    assert len(list(last.sampler)) == 24 - place[1]
    last.sampler.set_epoch(place[0] + 1)
    assert len(list(last.sampler)) == len(last.sampler) == 24


def test_minutes_bring_a_checkpoint_but_not_at_the_end_of_an_epoch(last, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("lookonce.training.checkpoints.time.monotonic", lambda: now[0])
    early, late, end = trainer(2), trainer(3), trainer(6)
    last.on_train_start(early, None)
    last.teardown(early, None, "fit")
    last.on_train_batch_end(early, None, None, None, 0)
    assert early.saved == []
    now[0] += 5 * 60
    last.on_train_batch_end(end, None, None, None, 0)
    assert end.saved == []
    last.on_train_batch_end(late, None, None, None, 0)
    last.on_train_batch_end(late, None, None, None, 0)
    assert late.saved == [last.file]


@pytest.mark.parametrize("size, minutes", [(177e6, 10.6), (221e6, 13.3), (18e6, 1.1), (1e6, 1), (810e6, 30)])
def test_checkpoints_write_a_gigabyte_an_hour_within_limits(size, minutes):
    assert minutes_between(size) == pytest.approx(minutes, abs=0.05)


def test_the_time_to_the_next_checkpoint_follows_from_the_size_of_the_files(last, monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr("lookonce.training.checkpoints.time.monotonic", lambda: now[0])
    monkeypatch.setattr("lookonce.training.checkpoints.BYTES_AN_HOUR", 6.0 * SIZE)
    last.minutes = None
    last.model.write_bytes(bytes(SIZE // 2))
    here = trainer(2)
    here.current_epoch = 0
    with caplog.at_level("INFO", "lookonce"):
        last.on_train_epoch_end(here, None)  # the first
    assert caplog.messages == [
        "checkpoints: 0 MB, at most 15 min apart, all that a kill can lose (--checkpoint-minutes)"
    ]
    for minute, saved in ((14.9, 1), (15.1, 2), (30, 2), (30.2, 3)):
        now[0] = 60.0 * minute
        last.on_train_epoch_end(here, None)
        assert len(here.saved) == saved, minute
    now[0] = 60 * 40.0
    last.on_train_batch_end(here, None, None, None, 0)
    assert len(here.saved) == 3
    here.current_epoch = 8
    last.on_train_epoch_end(here, None)  # the end
    assert len(here.saved) == 4


def validated(best, module, values):
    for epoch, value in enumerate(values):
        here = SimpleNamespace(current_epoch=epoch, callback_metrics={f"val/{best.monitor}": torch.tensor(value)})
        best.on_validation_epoch_start(here, module)
        best.on_validation_end(here, module)


@pytest.mark.parametrize("monitor, best", [("mAP", 2), ("loss", 1)])
def test_the_best_model_is_that_of_the_highest_map_or_the_lowest_loss(monitor, best, tmp_path):
    module = Training(Network(nano(2, ((1.0, 1.0),))), Settings(), seed=0)
    callback = BestModel(tmp_path / "m", lambda state: state["epoch"], monitor)
    callback.write = lambda: None
    validated(callback, module, (math.nan, 0.25, 0.5, 0.5, 0.3))
    assert callback.model() == best
    assert callback.state_dict() == {"best_model_score": (0.5 if monitor == "mAP" else 0.25)}


def test_validations_under_the_prior_loss_are_not_the_best(tmp_path):
    module = Training(Network(nano(2, ((1.0, 1.0),))), Settings(prior_loss_images=1), seed=0)
    callback = BestModel(tmp_path / "m", lambda state: state["epoch"])
    callback.write = lambda: None
    validated(callback, module, (0.9,))
    assert callback.model() is None
    module.seen = 2
    validated(callback, module, (0.1, 0.0))
    assert callback.model() == 0


def test_signals_are_handled_during_training_only_and_the_second_stops_at_once(last):
    before = signal.getsignal(signal.SIGTERM)
    here = trainer(2)
    last.on_train_start(here, None)
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Stopped):
        last.on_train_batch_end(here, None, None, None, 0)
    assert here.saved == [last.file]
    last.on_train_epoch_end(here, None)
    assert here.should_stop
    last.teardown(here, None, "fit")
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_error_restores_the_signal_handlers(last):
    """Lightning calls no teardown then; handlers restored by the garbage collector would come back at any time."""
    before = signal.getsignal(signal.SIGTERM)
    last.on_train_start(trainer(2), None)
    assert signal.getsignal(signal.SIGTERM) is not before
    last.on_exception(trainer(2), None, ValueError("a damaged image"))
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_at_the_last_step_waits_for_the_validation(last):
    end, limit = trainer(3), StepLimit(9)
    end.global_step = 8
    limit.on_train_start(end, None)
    limit.on_train_batch_end(end, None, None, None, 0)
    assert not end.should_stop
    end.global_step = 9
    last.stop_signal = 15
    for callback in (limit, last):
        callback.on_train_batch_end(end, None, None, None, 0)
    assert end.should_stop
    assert end.saved == []


def test_the_random_state_is_restored():
    state = random_state()
    expected = torch.rand(3)
    with io.BytesIO() as file:
        torch.save(state, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    set_random_state(state)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "other", "pickle"])
def test_a_damaged_checkpoint_is_one_line(damage, tmp_path):
    file = tmp_path / "run" / "checkpoints" / "last.ckpt"
    state = {"epoch": 1, "seen": 8, "place": {}, "sigmas": [], "state_dict": {"a": torch.arange(9000.0)}}
    WholeFiles().save_checkpoint(state, file)
    assert torch.equal(read_checkpoint(file)["state_dict"]["a"], torch.arange(9000.0))
    content = bytearray(file.read_bytes())
    match damage:
        case "cut":
            file.write_bytes(content[: len(content) // 2])
        case "flipped":
            content[len(content) // 2] ^= 1  # a number of the weights
            file.write_bytes(content)
        case "empty":
            file.write_bytes(b"")
        case "text":
            file.write_text("hello\n\x1b[31m")
        case "other":
            torch.save({"epoch": 1}, file)
        case "pickle":
            torch.save({**state, "place": Shuffled(4, 0)}, file)
    with pytest.raises(UserError, match=r"last\.ckpt: .*lookonce train DATA --weights .*run$") as error:
        read_checkpoint(file)
    assert str(error.value).isprintable()


def test_a_run_in_another_thread_does_not_change_signal_handlers(last):
    before = signal.getsignal(signal.SIGINT)  # ignored, where the tests themselves run in the background
    thread = threading.Thread(target=last.on_train_start, args=(trainer(0), None))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_checkpoint_is_whole_or_not_there(tmp_path, monkeypatch):
    file = tmp_path / "a.ckpt"
    WholeFiles().save_checkpoint({"x": torch.ones(3)}, file)
    assert torch.load(file, weights_only=True)["x"].tolist() == [1, 1, 1]

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lookonce.training.checkpoints.os.fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        WholeFiles().save_checkpoint({"x": torch.zeros(3)}, file)
    assert torch.load(file, weights_only=True)["x"].tolist() == [1, 1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]
