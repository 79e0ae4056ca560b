"""Names with a fixed set of choices: networks, optimizers, formats. Case, `-` and `_` do not matter.

Check that the fields of a dataclass hold what their annotations say: options come from YAML and from Python.
"""

from __future__ import annotations

import dataclasses
import difflib
import reprlib
from collections.abc import Iterable
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lookonce.errors import ConfigError

Name = TypeVar("Name", bound=str)


CLOSE = 0.7
"""Similarity (difflib's ratio, 0..1) from which on another name is suggested; lower ones mislead."""


def key(name: str) -> str:
    """A name as it is compared: `YOLOv2-Tiny` and `yolov2_tiny` are one."""
    return name.casefold().translate({ord(sign): None for sign in "-_ "})


def choose(given: object, choices: Iterable[Name], what: str, also: str = "") -> Name:
    """Return the choice that is meant.

    Args:
        given: what the user wrote.
        choices: all that there are, spelt as the program spells them.
        what: the name of the setting, for the message.
        also: what else the setting takes, for the message.
    Raises:
        ConfigError: none of them; names all of them, and the one that may be meant.
    """
    known = list(choices)
    if isinstance(given, str):
        for choice in known:
            if key(choice) == key(given):
                return choice
    near = closest(given, known) if isinstance(given, str) else None
    meant = f"; did you mean {near!r}?" if near else ""
    other = f", or {also}" if also else ""
    raise ConfigError(f"{what}: {given!r}; expected one of {', '.join(known)}{other}{meant}")


def closest(given: str, choices: Iterable[Name]) -> Name | None:
    """The choice nearest to a misspelt name; None where none is CLOSE. Another number is another thing, not a slip."""
    keys = {key(choice): choice for choice in choices if _digits(choice) == _digits(given)}
    near = difflib.get_close_matches(key(given), keys, 1, CLOSE)
    return keys[near[0]] if near else None


def _digits(name: str) -> str:
    return "".join(c for c in name if c.isdigit())


def literals(kind: Any) -> tuple[str, ...]:
    """The words that an annotation allows: those of a Literal, or of the Literals in a union; () for any other."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return tuple(word for part in get_args(kind) for word in literals(part))
    return ()


def settle_names(record: Any) -> None:
    """Replace what a frozen dataclass's fields of Literals hold by the choice that is meant, at its birth.

    Raises ConfigError for a name that is no choice.
    """
    hints = get_type_hints(type(record))
    for name in (field.name for field in fields(record)):
        given, choices = getattr(record, name), literals(hints[name])
        if choices and isinstance(given, str):
            object.__setattr__(record, name, choose(given, choices, name.replace("_", "-")))


SHORT = reprlib.Repr()


SHORT.maxlevel = 2


WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", NoneType: "nothing"}


def check_types(record: Any, prefix: str = "") -> None:
    """Raise ConfigError for the first field of a dataclass that holds something else than its annotation says.

    A whole number is a number too. prefix: stands before the field's name in the message.
    """
    hints = get_type_hints(type(record))
    for field in dataclasses.fields(record):
        value, hint = getattr(record, field.name), hints[field.name]
        if not fits(value, hint):
            name = prefix + field.name.replace("_", "-")
            raise ConfigError(f"{name}: {SHORT.repr(value)}; expected {described(hint)}")


def fits(value: object, hint: Any) -> bool:
    """Whether a value is what an annotation says: plain types, Literal, tuples, unions and classes."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inside)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in inside)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if inside[-1] is Ellipsis:
            return all(fits(one, inside[0]) for one in value)
        return len(value) == len(inside) and all(map(fits, value, inside))
    if hint in (int, float):
        return isinstance(value, int if hint is int else (int, float)) and not isinstance(value, bool)
    return isinstance(value, hint)


def described(hint: Any) -> str:
    """An annotation in words."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(described(one) for one in inside)
    if origin is Literal:
        return f"one of {', '.join(map(str, inside))}"
    if origin is tuple:
        many = "values" if inside[-1] is Ellipsis else f"{len(inside)} values"
        return f"a list of {many}, each {described(inside[0])}"
    return WORDS.get(hint, getattr(hint, "__name__", str(hint)))
