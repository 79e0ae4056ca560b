"""Tests of lookonce.training.signals."""

import signal

import pytest

from lookonce.errors import Interrupted
from lookonce.training.signals import SIGNALS, handling_signals, ignore_interrupts, listening


def test_a_signal_around_the_steps_unwinds_them():
    before = [signal.getsignal(number) for number in SIGNALS]
    for number in SIGNALS:
        with pytest.raises(Interrupted, match="stopped before training began; give the same") as stop, listening():
            signal.raise_signal(number)
        assert stop.value.exit_code == 128 + number
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_worker_ignores_ctrl_c_and_a_block_handles_it():
    seen = []
    before = signal.getsignal(signal.SIGINT)
    try:
        ignore_interrupts(0)
        signal.raise_signal(signal.SIGINT)
        with handling_signals(lambda number, _: seen.append(number)):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]
