"""Errors that the user can fix. cli.py prints them in one line; anything else is a bug and keeps its traceback."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""Control characters, line ends, marks that are invisible or change the direction of text, and lone surrogates."""
MAX_LENGTH = 1500
"""Characters of a message; the contents of a file may be longer."""


def printable(text: str) -> str:
    """Escape what a terminal would obey. Letters and emoji of every script stay.

    >>> printable("red\\n\\x1b[31mcell")
    'red\\\\n\\\\x1b[31mcell'
    """
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable_lines(text: str) -> str:
    """Escape each line of a text as printable does; its line ends stay."""
    return "\n".join(map(printable, text.split("\n")))


def plural(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "image"), plural(4886, "box")
    ('1 image', '4,886 boxes')
    """
    ending = "" if count == 1 else "es" if noun.endswith(("s", "x", "sh", "ch")) else "s"
    return f"{count:,} {noun}{ending}"


class UserError(ValueError):
    """Invalid input. The message says where, what was found, what is expected and what to do, in one printable line.

    The middle of a message above MAX_LENGTH is left out: its start says where, its end says what to do.
    """

    def __init__(self, message: str = "") -> None:
        line = printable(message)
        super().__init__(line if len(line) <= MAX_LENGTH else f"{line[: MAX_LENGTH - 505]} ... {line[-500:]}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), str(self), self.__dict__)  # children have other parameters than `message`


def _restore(kind: type[UserError], message: str, attributes: dict[str, Any]) -> UserError:
    """Return an error from its pickle."""
    error = kind.__new__(kind, message)
    error.__dict__.update(attributes)
    return error


class ConfigError(UserError):
    """An invalid setting."""


class ImageError(UserError):
    """An image that cannot be read."""

    def __init__(self, path: Path | str, found: str) -> None:
        super().__init__(f"{path}: {found}")
        self.path, self.found = path, found


class AnnotationError(UserError):
    """A label that cannot be read."""

    def __init__(self, path: Path | str, line: int, found: str, expected: str) -> None:
        super().__init__(f"{path}:{line}: {found}; expected {expected}")


class NonFiniteLossError(UserError):
    """A term of the loss is infinite or not a number."""

    def __init__(self, term: str, images: list[int] | list[str]) -> None:
        super().__init__(
            f"the loss term {term!r} is not a finite number on the images {', '.join(map(str, images))}; "
            "lower --learning-rate or set --gradient-clip, then continue from the last checkpoint with --resume"
        )
        self.term, self.images = term, images


class Interrupted(KeyboardInterrupt):
    """A signal stopped the work after its state was saved. The message says how to continue.

    exit_code: 128 + the signal's number, as in a shell.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
