"""Errors the user can mend. cli.py prints them; anything else is a bug and keeps its traceback."""

from __future__ import annotations

import re
from pathlib import Path

UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""Control characters, line ends, marks that turn text around or cannot be seen, and halves of characters."""


def printable(text: str) -> str:
    """Text of a file, safe to print: one line, no escape sequences. Letters and emoji of every script stay.

    >>> printable("red\\n\\x1b[31mcell")
    'red\\\\n\\\\x1b[31mcell'
    """
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


LONGEST = 1500
"""Characters of a message; what a file holds can be longer."""


class UserError(ValueError):
    """Invalid input. The message says where, what was found, what is expected and what to do, in one printable line.

    Of a message longer than LONGEST the middle is left out: its ends say where, and what to do.
    """

    def __init__(self, message: str = "") -> None:
        said = printable(message)
        super().__init__(said if len(said) <= LONGEST else f"{said[: LONGEST - 505]} ... {said[-500:]}")


class ConfigError(UserError):
    """A setting outside its law."""


class ImageError(UserError):
    """An image that cannot be read."""

    def __init__(self, path: Path | str, found: str) -> None:
        super().__init__(f"{path}: {found}")
        self.path, self.found = path, found


class AnnotationError(UserError):
    """A label that cannot be read."""

    def __init__(self, path: Path | str, line: int, found: str, law: str) -> None:
        super().__init__(f"{path}:{line}: {found}; expected {law}")


class NonFiniteLossError(UserError):
    """Training met a loss that is not a number: the run stopped, its last good checkpoint stands."""

    def __init__(self, term: str, images: list[int] | list[str], batch: object = None) -> None:
        super().__init__(
            f"the loss term {term!r} is not a finite number on the images {', '.join(map(str, images))}; "
            "the last good checkpoint stands: lower --learning-rate or set --gradient-clip, then --resume"
        )
        self.term, self.images, self.batch = term, images, batch


class Interrupted(KeyboardInterrupt):
    """Long work was asked to stop and did so in good order: the message says how to go on.

    exit_code: 128 + the signal's number, as shells have it.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
