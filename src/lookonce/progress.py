"""Progress bars: on a terminal alone, and on stderr, so that logs and pipes stay clean."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

import rich.progress
from rich.console import Console

T = TypeVar("T")


def is_shown() -> bool:
    """Whether bars are drawn: where both stdout and stderr are a terminal."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdout, sys.stderr))


def track(items: Iterable[T], description: str) -> Iterable[T]:
    """The items, with a bar of how many have been taken; it goes when they are done."""
    console = Console(stderr=True)
    return rich.progress.track(items, description, console=console, transient=True, disable=not is_shown())
