"""Tests of lookonce.training.checkpoints; test_run.py stops and resumes whole runs."""

import io
import signal
import threading
from types import SimpleNamespace

import pytest
import torch

from lookonce.data.loader import Shuffled
from lookonce.errors import UserError
from lookonce.training.checkpoints import (
    LastCheckpoint,
    WholeFiles,
    random_state,
    read_checkpoint,
    set_random_state,
)
from lookonce.training.duration import StepLimit
from lookonce.training.history import History
from lookonce.training.signals import Stopped


def trainer(ready, batches=6, epoch=2):
    progress = SimpleNamespace(current=SimpleNamespace(ready=ready))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    saved = []
    return SimpleNamespace(fit_loop=loop, num_training_batches=batches, current_epoch=epoch, global_step=0,
                           saved=saved, save_checkpoint=saved.append, should_stop=False)  # fmt: skip


@pytest.fixture
def last(tmp_path):
    return LastCheckpoint(tmp_path / "last.ckpt", Shuffled(24, 0), 4, 5.0, History(tmp_path / "metrics.csv"))


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
