"""Check that the fields of a dataclass hold what their annotations say: options come from YAML and from Python."""

from __future__ import annotations

import dataclasses
import reprlib
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lookonce.errors import ConfigError

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
