"""Errors the user can mend. cli.py prints them; anything else is a bug and keeps its traceback."""

from __future__ import annotations

from pathlib import Path


class UserError(ValueError):
    """Wrong input: message = place, what was found, what is allowed, what to do."""


class ConfigError(UserError):
    """A setting outside its law."""


class PictureError(UserError):
    """A picture that cannot be read."""

    def __init__(self, path: Path | str, found: str) -> None:
        super().__init__(f"{path}: {found}")
        self.path, self.found = path, found


class AnnotationError(UserError):
    """A label that cannot be read."""

    def __init__(self, path: Path | str, line: int, found: str, law: str) -> None:
        super().__init__(f"{path}:{line}: {found}; expected {law}")


class NonFiniteLossError(UserError):
    """Training met a loss that is not a number: the run stopped, its last good checkpoint stands."""

    def __init__(self, term: str, pictures: list[int] | list[str], batch: object = None) -> None:
        super().__init__(
            f"the loss term {term!r} is not a finite number on the pictures {', '.join(map(str, pictures))}; "
            "the last good checkpoint stands: lower --learning-rate or set --gradient-clip, then --resume"
        )
        self.term, self.pictures, self.batch = term, pictures, batch


class Interrupted(KeyboardInterrupt):
    """Long work was asked to stop and did so in good order: the message says how to go on.

    exit_code: 128 + the signal's number, as shells have it.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
