"""JSON read entry by entry: a long list never stands in memory whole, and each entry has its line.

NaN and Infinity are read as the floats they are, as other readers do: a field that may not hold them says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from json.decoder import WHITESPACE  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any

from lookonce import text as text_files
from lookonce.errors import UserError

MOST_BYTES = 2 << 30
"""Of one file; instances_train2017.json has a quarter of that."""


@dataclass
class Line:
    """Counts lines up to where reading has come."""

    text: str
    at: int = 0
    number: int = 1

    def of(self, position: int) -> int:
        """The line of a position; positions grow."""
        if position > self.at:
            self.number += self.text.count("\n", self.at, position)
            self.at = position
        return self.number


def read_text(file: Path, expected: str, note: text_files.Note | None = None) -> str:
    """The text of a file of bounded size. Arguments and errors as text.read_text."""
    return text_files.read_text(file, expected, MOST_BYTES, note)


class Json:
    """Where reading has come in a text."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self._decode = json.JSONDecoder().raw_decode

    def skip(self) -> None:
        """Go on to what is no blank."""
        if self.text[self.at : self.at + 1] in " \t\n\r":  # a regular expression takes three times as long
            found = WHITESPACE.match(self.text, self.at)
            self.at = found.end() if found else self.at

    def sees(self, mark: str) -> bool:
        """Whether this mark comes next."""
        self.skip()
        return self.text.startswith(mark, self.at)

    def expect(self, marks: str) -> str:
        """Take one of these marks."""
        self.skip()
        mark = self.text[self.at : self.at + 1]
        if not mark or mark not in marks:
            raise ValueError(f"{mark or 'the end'!r} where {' or '.join(marks)} belongs")
        self.at += 1
        return mark

    def value(self) -> Any:
        """Take one whole value."""
        self.skip()
        found, self.at = self._decode(self.text, self.at)
        return found

    def entries(self) -> Iterator[tuple[Any, int]]:
        """Each entry of the list that comes next, and where it begins."""
        self.expect("[")
        if self.sees("]"):
            self.expect("]")
            return
        mark = ","
        while mark == ",":
            self.skip()
            start = self.at
            yield self.value(), start
            mark = self.expect(",]")


@contextmanager
def reading(file: Path, text: str, expected: str) -> Iterator[Json]:
    """Read a text; what is no JSON raises a UserError with its line."""
    found = Json(text)
    try:
        yield found
    except UserError:
        raise
    except RecursionError:
        raise UserError(f"{file}:{Line(text).of(found.at)}: nested too deep; expected {expected}") from None
    except (ValueError, StopIteration) as error:
        place = Line(text).of(error.pos if isinstance(error, json.JSONDecodeError) else found.at)
        said = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise UserError(f"{file}:{place}: not whole JSON ({said}); write it again") from None
