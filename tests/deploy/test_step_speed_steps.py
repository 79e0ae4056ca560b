"""Mirrors src/lookonce/speed/steps.py."""

import json
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from lookonce import Network
from lookonce.deploy import step_speed as steps
from lookonce.deploy.step_speed import KINDS, Task, fixed, in_process, main, measure_steps, prepare, steps_a_second
from lookonce.errors import UserError
from lookonce.model.model_file import Model
from sets import nano


@pytest.fixture(scope="module")
def model():
    return Model(Network(nano(7, ((1.0, 1.0), (2.0, 1.5)))), tuple("abcdefg"), (64, 64))


@pytest.fixture
def task(model, tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "STEPS", 2)
    return replace(prepare(model, 3, 1, tmp_path), steps=2)


def test_steps_are_timed_without_the_first(monkeypatch):
    done, ticks = [], iter([100.0, 104.0])

    def step():
        done.append(1)
        return torch.tensor(0.0)

    assert steps_a_second(step, 8, clock=lambda: next(ticks)) == 2
    assert len(done) == 9


def test_each_kind_trains_the_models_layers_for_three_classes(task, monkeypatch):
    shapes, real = [], steps.Network

    def seen(layers, channels):
        shapes.append([layer.filters for layer in layers if hasattr(layer, "filters")])
        return real(layers, channels)

    monkeypatch.setattr(steps, "Network", seen)
    monkeypatch.setattr("lookonce.training.run.Network", seen)
    for kind, train in KINDS.items():
        found = train(task)
        assert found["images_per_s"] > 0
        assert (0 <= found["waiting"] <= 1) if kind == "train" else set(found) == {"images_per_s"}
    assert shapes == [[8, 16, 16, 32, 32, 48, 2 * (5 + 3)]] * 2


def test_a_batch_has_its_objects_inside_the_input():
    task = Task("", "", "", 64, 3, 1)
    found = fixed(task, torch.zeros(3, 3, 64, 64), "cpu")
    assert found.image_index.bincount().tolist() == [8, 8, 8]
    assert found.boxes.min() >= 0
    assert found.boxes.max() <= 64
    assert ((found.boxes[:, 2:] - found.boxes[:, :2]) >= 1).all()
    assert torch.equal(found.boxes, fixed(task, found.images, "cpu").boxes)


def test_figures_are_medians_over_rounds(task, model, monkeypatch):
    rates = {"bare": [4.0, 10.0, 6.0], "train": [3.0, 5.0, 6.0], "plain": [2.0, 5.0, 3.0]}
    waiting = iter([0.1, 0.3, 0.2])

    def given(kind, *_):
        extra = {"waiting": next(waiting)} if kind == "train" else {}
        return {"images_per_s": rates[kind].pop(0), **extra}

    monkeypatch.setattr(steps, "in_process", given)
    monkeypatch.setattr(steps, "prepare", lambda *_: task)
    places = []
    found, stopped = measure_steps("m", model, 3, 15, 1, None, places.append)
    assert places == [0, 1, 2] * steps.ROUNDS
    assert (found.bare, found.train, found.plain) == (6, 5, 3)
    assert found.train_of_bare == 0.75  # .75, .5, 1
    assert found.train_of_plain == 1.5  # 1.5, 1, 2
    assert (found.waiting, found.size, found.batch, stopped) == (0.2, 64, 3, False)


def test_a_stop_before_the_first_round_is_nothing(task, model, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(steps, "in_process", stop)
    monkeypatch.setattr(steps, "prepare", lambda *_: task)
    assert measure_steps("m", model, 3, 2, 1, None, lambda _: None) == (None, True)


def test_a_kind_runs_in_a_process_of_its_own(task, tmp_path):
    assert in_process("plain", task, tmp_path)["images_per_s"] > 0


def test_a_process_reads_its_task_and_writes_what_came_of_it(task, tmp_path, monkeypatch):
    monkeypatch.setitem(KINDS, "bare", lambda given: {"images_per_s": given.size / given.steps})
    (tmp_path / "task.json").write_text(json.dumps(vars(task)))
    main("bare", tmp_path / "task.json", tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text()) == {"images_per_s": 32.0}


@pytest.mark.parametrize("code, raised", [(1, UserError), (130, KeyboardInterrupt), (-2, KeyboardInterrupt)])
def test_a_process_that_fails_says_why_and_one_that_was_stopped_stops(task, tmp_path, monkeypatch, code, raised):
    done = SimpleNamespace(returncode=code, stderr="Traceback\nMemoryError: too much\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(raised) as error:
        in_process("bare", task, tmp_path)
    assert raised is KeyboardInterrupt or "training steps (bare): the process failed: MemoryError" in str(error.value)


@pytest.mark.parametrize("input_size", [(96, 64), (80, 80)])
def test_inputs_that_training_does_not_take_are_told(model, tmp_path, input_size):
    with pytest.raises(UserError, match="training takes square inputs that divide by 32, and this one is"):
        prepare(SimpleNamespace(network=model.network, input_size=input_size), 2, 1, tmp_path)
