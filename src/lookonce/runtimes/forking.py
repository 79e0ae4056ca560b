"""What becomes of an open runtime in a forked process: its threads stay in the parent.

A network that waits for them would wait for ever, and so would one that is closed. So a forked process lets go of what
it inherited without closing it, and opens its own when it is first called.
"""

from __future__ import annotations

import ctypes
import os
from typing import Protocol
from weakref import WeakSet


class Forks(Protocol):
    """A runtime that a forked process may inherit."""

    def forked(self) -> None:
        """Called in the forked process, before anything else runs there."""


_opened: WeakSet[Forks] = WeakSet()


def follow_forks(runtime: Forks) -> None:
    """Have the runtime's `forked` called in each process that is forked from this one."""
    _opened.add(runtime)


def abandon(*inherited: object) -> None:
    """Never close these: their threads are not in this process."""
    for one in inherited:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))


def _forked() -> None:
    for runtime in list(_opened):
        runtime.forked()


if hasattr(os, "register_at_fork"):  # Windows never forks
    os.register_at_fork(after_in_child=_forked)
