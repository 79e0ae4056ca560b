"""Training steps: the set of noise, each kind of step, and the processes that they run in."""

import json
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from lookonce import Network, read_dataset
from lookonce.data.images import image_size
from lookonce.deploy import step_speed as steps
from lookonce.deploy.benchmark import Took, tabulate
from lookonce.deploy.step_speed import (
    KINDS,
    Task,
    fixed,
    in_process,
    main,
    prepare,
    seconds_a_step,
    step_series,
    write_set,
)
from lookonce.errors import UserError
from lookonce.model.model_file import Model, load_model
from sets import nano


@pytest.fixture(scope="module")
def model():
    return Model(Network(nano(7, ((1.0, 1.0), (2.0, 1.5)))), tuple("abcdefg"), (64, 64))


@pytest.fixture
def task(model, tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "STEPS", 2)
    return replace(prepare(model, 3, 1, tmp_path), steps=2)


def test_a_set_is_as_large_as_asked_and_its_boxes_lie_on_its_images(tmp_path):
    write_set(tmp_path / "set", 5, (400, 320), ["a", "b"], (2, 5))
    found = read_dataset(tmp_path / "set", "train")
    assert len(found) == 5
    assert set(found.labels) <= {"a", "b"}
    for record in found.records:
        assert image_size(record.path) == (400, 320)
        assert 2 <= len(record.boxes) <= 4
        assert record.boxes.min() >= 0
        assert (record.boxes[:, 2:].max(0) <= (400, 320)).all()


def test_images_may_be_written_by_someone_else(tmp_path, squares):
    image = (squares / "JPEGImages" / "test000.png").read_bytes()
    write_set(tmp_path / "set", 2, (400, 320), ["a"], (1, 2), lambda path, _: path.write_bytes(image))
    assert [p.read_bytes() for p in (tmp_path / "set" / "JPEGImages").iterdir()] == [image] * 2


def test_steps_are_timed_without_the_first(monkeypatch):
    done, ticks = [], iter([100.0, 104.0])

    def step():
        done.append(1)
        return torch.tensor(0.0)

    monkeypatch.setattr(steps, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert seconds_a_step(step, 8) == 0.5
    assert len(done) == 9


def test_each_kind_trains_the_models_layers_for_three_classes(task, tmp_path, monkeypatch):
    made, real = [], steps.Network
    monkeypatch.setattr(steps, "Network", lambda *given: made.append(real(*given)) or made[-1])
    hostile = tmp_path / "hostile"
    (hostile / "lookonce").mkdir(parents=True)
    for file in ("csv.py", "lookonce/__init__.py"):
        (hostile / file).write_text("raise SystemExit('code of the current folder')")
    monkeypatch.chdir(hostile)
    for kind in ("plain", "bare"):
        found = KINDS[kind][1](task)
        assert found.seconds > 0
        assert found.waiting is None
    found = in_process("train", task)  # in a process of its own, as every kind; it imports csv and lookonce
    assert found.seconds > 0
    assert 0 <= found.waiting <= 1
    made.append(load_model(tmp_path / "runs" / "run-0").network)
    for network in made:
        filters = [layer.filters for layer in network.layers if hasattr(layer, "filters")]
        assert filters == [8, 16, 16, 32, 32, 48, 2 * (5 + 3)]
    assert len(made) == 3


def test_a_batch_has_its_objects_inside_the_input():
    task = Task("", 64, 3, 1)
    found = fixed(task, torch.zeros(3, 3, 64, 64), "cpu")
    assert found.image_index.bincount().tolist() == [8, 8, 8]
    assert found.boxes.min() >= 0
    assert found.boxes.max() <= 64
    assert ((found.boxes[:, 2:] - found.boxes[:, :2]) >= 1).all()
    assert torch.equal(found.boxes, fixed(task, found.images, "cpu").boxes)


def test_rows_and_shares_are_medians_over_rounds(task, model, monkeypatch):
    monkeypatch.setattr(steps, "prepare", lambda *_: task)
    series = step_series("m", model, 3, 15, 1, None)
    assert (series.rounds, series.warm_up) == (steps.ROUNDS, 0)
    seconds = {"plain": [4, 6, 4], "bare": [2, 1, 3], "train": [2, 2, 4]}
    waiting = iter([0.1, 0.3, 0.2])
    rounds = [[Took(seconds[kind][n], None, next(waiting) if kind == "train" else None) for kind in KINDS]
              for n in range(3)]  # fmt: skip
    (table,) = tabulate(series, rounds)
    assert table.heading.startswith("m: training steps, 64 x 64, batch 3, ")
    assert [(row.name, row.images_per_s, row.ratio) for row in table.rows] == [
        ("plain loop", 0.75, 1), ("step alone", 1.5, 2), ("through train", 1.5, 2),
    ]  # fmt: skip
    assert table.against == "plain loop"
    assert list(table.shares.values()) == [0.75, 0.2]  # 1, .5, .75


def test_a_process_reads_its_task_and_writes_what_it_took(task, tmp_path, monkeypatch):
    monkeypatch.setitem(KINDS, "bare", ("", lambda given: Took(given.size / given.steps, None, 0.5)))
    main("bare", json.dumps(vars(task)), tmp_path / "result.json")
    assert Took(*json.loads((tmp_path / "result.json").read_text())) == Took(32.0, None, 0.5)


@pytest.mark.parametrize("code, raised", [(1, UserError), (130, KeyboardInterrupt), (-2, KeyboardInterrupt)])
def test_a_process_that_fails_says_why_and_one_that_was_stopped_stops(task, tmp_path, monkeypatch, code, raised):
    done = SimpleNamespace(returncode=code, stderr="Traceback\nMemoryError: too much\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(raised) as error:
        in_process("bare", task)
    assert raised is KeyboardInterrupt or "training steps (bare): the process failed: MemoryError" in str(error.value)


@pytest.mark.parametrize("input_size", [(96, 64), (80, 80)])
def test_inputs_that_training_does_not_take_are_refused(model, tmp_path, input_size):
    with pytest.raises(UserError, match="training takes square inputs that divide by 32, and this one is"):
        prepare(SimpleNamespace(network=model.network, input_size=input_size), 2, 1, tmp_path)
