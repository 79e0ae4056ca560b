"""A run ends after its steps, or at about its time, whatever its steps and validations take."""

from types import SimpleNamespace

import pytest

from lookonce.training import duration
from lookonce.training.duration import FINISH, INT8_SECONDS, INT8_VALIDATIONS, TimeLimit, validate_every


@pytest.mark.parametrize("epochs, every", [(1, 1), (19, 1), (20, 1), (40, 2), (58, 2), (59, 1), (160, 8), (300, 15)])
def test_the_last_epoch_is_always_validated(epochs, every):
    assert validate_every(epochs) == every


class Clock:
    """Seconds that pass only when they are told to."""

    now = 100.0

    def monotonic(self):
        return self.now


class Module:
    planned_steps = None

    @property
    def total_steps(self):
        return self.planned_steps or 1508


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(duration, "time", clock)
    return clock


def simulate(clock, limit, seconds, validation, per_epoch=26, val_batches=11):
    """Run a loop as Lightning does. seconds: function of the step. Return the planned steps and the validations."""
    trainer = SimpleNamespace(global_step=0, current_epoch=0, num_training_batches=per_epoch, should_stop=False,
                              num_val_batches=[val_batches], check_val_every_n_epoch=1,
                              fit_loop=SimpleNamespace(max_epochs=58))  # fmt: skip
    module = Module()
    plans, validations = [], 0
    limit.on_train_start(trainer, module)
    while not trainer.should_stop:
        clock.now += seconds(trainer.global_step)
        trainer.global_step += 1
        limit.on_train_batch_end(trainer, module)
        plans.append(module.planned_steps)
        if trainer.global_step % per_epoch == 0 or trainer.should_stop:
            if (trainer.current_epoch + 1) % trainer.check_val_every_n_epoch == 0:
                validations += 1
                limit.on_validation_start()
                clock.now += validation
                limit.on_validation_end()
            trainer.current_epoch += 1
    return plans, validations, trainer


@pytest.mark.parametrize("minutes", [1, 3, 10])
@pytest.mark.parametrize("step", [0.1, 0.5, 1.0])
def test_a_run_ends_at_its_time(clock, minutes, step):
    began = clock.now - 8  # data was read before
    limit = TimeLimit(minutes, began, None, SimpleNamespace(step_limit=None))
    validation = 4 * step
    plans, validations, trainer = simulate(clock, limit, lambda n: step * (4 if n < 2 else 1), validation)
    spent = clock.now - began + validation + FINISH
    assert 60 * minutes - 4 * step - 2 < spent <= 60 * minutes + validation
    assert 1 <= validations <= 21
    assert (validations - 1) * validation <= 0.1 * 60 * minutes + validation
    assert plans[4] is None
    assert abs(plans[5] - plans[-1]) < 0.25 * plans[-1]
    assert trainer.fit_loop.max_epochs == trainer.current_epoch


def test_the_int8_form_is_made_within_the_minutes(clock):
    began = clock.now
    limit = TimeLimit(10, began, None, SimpleNamespace(step_limit=None), int8=True)
    simulate(clock, limit, lambda _: 1.0, 4.0)
    left = began + 600 - clock.now
    assert INT8_SECONDS + (INT8_VALIDATIONS + 1.5) * 4 + FINISH - 4 <= left < INT8_SECONDS + 60


def test_a_machine_that_becomes_slower_gets_fewer_steps(clock):
    began = clock.now
    limit = TimeLimit(2, began, None, SimpleNamespace(step_limit=None))
    plans, _, trainer = simulate(clock, limit, lambda n: 0.3 if n < 100 else 0.9, 1.0)
    assert plans[20] > plans[-1] == trainer.global_step
    assert clock.now - began < 121


def test_no_time_is_one_step_and_steps_may_end_it_earlier(clock):
    limit = TimeLimit(0.001, clock.now - 5, None, SimpleNamespace(step_limit=None))
    assert simulate(clock, limit, lambda _: 1.0, 1.0)[0] == [1]
    limit = TimeLimit(5, clock.now, 40, SimpleNamespace(step_limit=None))
    assert simulate(clock, limit, lambda _: 0.1, 1.0)[2].global_step == 40


def test_a_resumed_run_has_the_time_that_is_left(clock):
    first = TimeLimit(10, clock.now, None, SimpleNamespace(step_limit=700))
    clock.now += 240
    state = first.state_dict()
    clock.now += 9999
    progress = SimpleNamespace(step_limit=None)
    second = TimeLimit(10, clock.now, None, progress)
    second.load_state_dict(state)
    assert second.end - clock.now == pytest.approx(360)
    assert progress.step_limit == 700
    assert second.state_dict()["spent"] == pytest.approx(240)
