"""Tables as text. Names that come from files are shown as they are: neither markup nor escape sequences take effect.

Progress bars: on a terminal alone, and on stderr, so that logs and pipes stay clean.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from io import StringIO
from typing import TYPE_CHECKING, Any, TypeVar

import rich.progress
from rich.console import Console

from lookonce.errors import UNPRINTABLE, printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text


def cell(name: str, style: str = "") -> Text:
    """A name of a file or class as the cell of a table."""
    from rich.text import Text

    return Text(printable(name), style=style)


def rendered(shown: RenderableType, width: int = 120, blank_lines: bool = True) -> str:
    """A table, or several, as text without colours.

    Args:
        shown: what rich can print.
        width: columns, at most.
        blank_lines: keep the blank lines around tables.
    """
    from rich.console import Console

    text = StringIO()
    Console(file=text, width=width, color_system=None, markup=False, emoji=False, highlight=False).print(shown)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    return "\n".join(line for line in lines if line or blank_lines)


def cells(lines: Iterable[str]) -> Text:
    """Lines that hold names of files or classes, one below the other; long ones are folded."""
    from rich.text import Text

    return Text("\n".join(map(printable, lines)), overflow="fold")


def shown_json(value: Any) -> str:
    """A value as JSON to read: letters of every script as they are, escape sequences and invisible marks escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return "\n".join(UNPRINTABLE.sub(lambda found: json.dumps(found[0])[1:-1], line) for line in text.split("\n"))


T = TypeVar("T")


def is_shown() -> bool:
    """Whether bars are drawn: where both stdout and stderr are a terminal."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdout, sys.stderr))


def track(items: Iterable[T], description: str) -> Iterable[T]:
    """The items, with a bar of how many have been taken; it goes when they are done."""
    console = Console(stderr=True)
    return rich.progress.track(items, description, console=console, transient=True, disable=not is_shown())
