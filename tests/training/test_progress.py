"""Tests of lookonce.training.progress. Times are computed by hand."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from lookonce import Network
from lookonce.data.augment import InputBatch
from lookonce.training import progress
from lookonce.training.history import RunState
from lookonce.training.progress import Progress, batch_sheet, duration
from lookonce.training.recipes import Settings
from lookonce.training.step import Training
from sets import nano


@pytest.fixture
def shown():
    """The progress of a run of 6 s a step."""
    made = Progress(SimpleNamespace(state=RunState()))
    made.working, made.waiting, made.steps, made.images = 110.0, 10.0, 20, 240
    return made


@pytest.fixture
def trainer():
    return SimpleNamespace(max_epochs=10, num_training_batches=26, current_epoch=1,
                           callback_metrics={"val/mAP": torch.tensor(0.25)},
                           fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=59)))  # fmt: skip


@pytest.fixture
def module(monkeypatch):
    made = Training(Network(nano(2, ((1.0, 1.0),))), Settings(), seed=0)
    made.means.add({"loss": 2.0}, 3)
    made.means.add({"loss": 4.0}, 1)
    monkeypatch.setattr(made, "log_dict", lambda *_: None)
    return made


def test_waiting_for_images_is_told_from_training(monkeypatch):
    clock = iter([10.0, 11.0, 14.0, 14.5, 15.5, 21.5, 22.0])
    monkeypatch.setattr("lookonce.training.progress.time.perf_counter", lambda: next(clock))
    found = Progress(SimpleNamespace(state=RunState()))
    found.on_train_epoch_start(SimpleNamespace(current_epoch=0), None)  # at 10
    for step in range(2):  # waits 1, works 3, bar drawn; waits 1, works 6
        found.on_train_batch_start()
        found.on_train_batch_end(None, None, None, range(8), step)
    assert found.loading_fraction == pytest.approx(2 / 11)
    assert found.rate == pytest.approx(16 / 11)


def test_the_time_left_is_that_of_the_whole_run(shown, trainer):
    assert shown._left(trainer) == 200 * 6
    trainer.max_epochs = 100
    assert shown._left(trainer) == 2540 * 6
    shown.step_limit = 160
    assert shown._left(trainer) == 100 * 6


@pytest.mark.parametrize("seconds, text", [(0, "0 s"), (99, "99 s"), (600, "10 min"), (15240, "4.2 h")])
def test_times_are_for_people(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("scored", [True, False])
def test_an_epoch_is_one_line_and_the_state_of_the_run(scored, shown, trainer, module, caplog):
    if scored:
        shown.on_validation_end(trainer, module)
    with caplog.at_level("INFO", "lookonce"):
        shown.on_train_epoch_end(trainer, module)
    score = ", val mAP 0.250 (best 0.250)" if scored else ""
    assert caplog.messages == [f"epoch 2/10: loss 2.5{score}, 2.0 images/s, 20 min left"]
    state = shown.report.state
    assert (state.epoch, state.epochs, state.images_per_s, state.seconds_left) == (2, 10, 2.0, 1200)
    assert (state.best_map, state.best_epoch) == ((0.25, 2) if scored else (None, None))


def test_a_lower_score_leaves_the_best_and_a_resumed_run_knows_it(shown, trainer, module):
    shown.on_validation_end(trainer, module)
    trainer.callback_metrics["val/mAP"], trainer.current_epoch = torch.tensor(0.125), 5
    shown.on_validation_end(trainer, module)
    other = Progress(SimpleNamespace(state=RunState()))
    other.load_state_dict(shown.state_dict())
    assert (other.state.best_map, other.state.best_epoch) == (0.25, 2)


def test_no_score_under_the_prior_loss_is_the_best(shown, trainer, module, monkeypatch):
    monkeypatch.setattr(Training, "uses_prior_loss", True)
    shown.on_validation_end(trainer, module)
    assert shown.state.best_map is None
    assert "val mAP 0.250, " in shown._line(trainer, module)


@pytest.mark.parametrize("width", [80, 120])
def test_the_bar_fits_the_terminal_with_all_its_numbers(width, shown, trainer, module, monkeypatch):
    terminal = io.StringIO()
    bar = progress._bar()
    bar.live.console = Console(file=terminal, width=width, force_terminal=True, color_system=None)
    bar.add_task("", total=26, text="")
    shown._bar = bar
    shown._note(best_map=0.5)
    shown._show(trainer, module, 8)
    terminal_line = Console(file=io.StringIO(), width=width)
    terminal_line.print(bar.get_renderable())
    [line] = terminal_line.file.getvalue().rstrip().splitlines()
    for part in ("epoch 2/10", "8/26", "loss 4", "mAP 0.250", "img/s", "20 min left"):
        assert part in line
    assert ("(best 0.500)" in line) == (width >= 90)
    assert len(line) <= width


def test_without_a_terminal_there_is_no_bar(shown, trainer, module, monkeypatch):
    monkeypatch.setattr("lookonce.training.progress.is_shown", lambda: False)
    shown.on_train_start(trainer, module)
    shown._show(trainer, module, 1)
    shown.teardown(trainer, module, "fit")
    assert shown._bar is None


def test_the_first_batch_is_drawn_with_its_boxes_in_a_grid():
    pixels = torch.zeros(3, 3, 200, 200)
    boxes = torch.tensor([[20.0, 20.0, 120.0, 120.0], [50.0, 60.0, 150.0, 160.0]])
    inputs = InputBatch(pixels, boxes, torch.tensor([0, 1]), torch.tensor([0, 2]), torch.zeros(2, dtype=torch.bool))
    sheet = np.asarray(batch_sheet(inputs, ("a", "b")))
    assert sheet.shape == (800, 800, 3)  # 2 x 2 images, twice as large
    first, second, third, fourth = (sheet[y : y + 400, x : x + 400] for y in (0, 400) for x in (0, 400))
    assert first[40:240, 40].any(axis=-1).all()  # the left edge of its box
    assert third[120:320, 100].any(axis=-1).all()
    assert not second.any()
    assert not fourth.any()
