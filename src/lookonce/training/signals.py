"""Ctrl-C and SIGTERM: a run that is stopped leaves a checkpoint, or nothing. No torch here."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lookonce.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Signals that stop a run: Ctrl-C, and the end of a session, a job or a container."""


class Stopped(BaseException):
    """A signal ended the training. Not a KeyboardInterrupt, which Lightning would turn into an exit."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def handling_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle SIGNALS with a function. Only the main thread can: in another one do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextmanager
def listening() -> Iterator[None]:
    """Unwind the run at a signal before or after its steps, so that nothing unfinished is left behind."""

    def stop(number: int, _: FrameType | None) -> None:
        raise Stopped(number)

    try:
        with handling_signals(stop):
            yield
    except Stopped as stopped:
        raise Interrupted("stopped before training began; give the same command again", stopped.number) from None


def ignore_interrupts(_: int) -> None:
    """Ignore Ctrl-C in the processes that decode images: the run ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
