"""Terminal output: tables, JSON and progress bars. Names from files are text, never markup or escape sequences."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from io import StringIO
from typing import TYPE_CHECKING, Any, TypeVar

from lookonce.errors import UNPRINTABLE, printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

Item = TypeVar("Item")


def cell(name: str, style: str = "") -> Text:
    """Return a table cell with the name of a file or class."""
    from rich.text import Text

    return Text(printable(name), style=style)


def cells(lines: Iterable[str]) -> Text:
    """Return lines that hold names of files or classes; long ones are folded."""
    from rich.text import Text

    return Text("\n".join(map(printable, lines)), overflow="fold")


def rendered(shown: RenderableType, width: int = 120, blank_lines: bool = True) -> str:
    """Return a table, or several, as text without colours.

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


def json_text(value: Any, ascii: bool = False) -> str:
    """Return indented JSON: letters of every script as they are, escape sequences and invisible marks escaped.

    ascii: escape all other letters, too.
    """
    text = json.dumps(value, indent=2, ensure_ascii=ascii)
    return "\n".join(UNPRINTABLE.sub(lambda found: json.dumps(found[0])[1:-1], line) for line in text.split("\n"))


def is_shown() -> bool:
    """Return whether to draw progress bars: only where stdout and stderr are terminals; logs and pipes get none."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdout, sys.stderr))


def track(items: Iterable[Item], description: str) -> Iterable[Item]:
    """Yield the items with a progress bar on stderr, which disappears at the end."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, escape(printable(description)), console=console, transient=True, disable=not is_shown())
