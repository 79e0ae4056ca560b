"""Options from YAML and Python: names from a fixed set in any spelling, and values of the annotated types."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lookonce.errors import ConfigError

Name = TypeVar("Name", bound=str)
CLOSE = 0.7
"""Similarity (difflib's ratio, 0..1) from which a name is suggested; below it suggestions mislead."""
WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", NoneType: "nothing"}
SHORT = reprlib.Repr()
SHORT.maxlevel = 2


def choose(given: object, choices: Iterable[Name], what: str, also: str = "") -> Name:
    """Return the choice that equals `given` apart from case, `-`, `_` and spaces.

    Args:
        given: what the user wrote.
        choices: all names, in the program's spelling.
        what: the name of the setting, for the message.
        also: what else the setting accepts, for the message.
    Raises:
        ConfigError: no such choice; the message lists all and suggests a close one.
    """
    known = list(choices)
    near = None
    if isinstance(given, str):
        for choice in known:
            if key(choice) == key(given):
                return choice
        near = closest(given, known)
    other = f", or {also}" if also else ""
    suggestion = f"; did you mean {near!r}?" if near else ""
    raise ConfigError(f"{what}: {given!r}; expected one of {', '.join(known)}{other}{suggestion}")


def key(name: str) -> str:
    """Return a name as it is compared: `YOLOv2-Tiny` and `yolov2_tiny` have one key."""
    return name.casefold().translate(dict.fromkeys(map(ord, "-_ ")))


def device_name(given: object) -> str:
    """Return a device as PyTorch names it: cpu, cuda, cuda:1, mps. Other programs also write 0 for cuda:0, and gpu."""
    name = str(given).strip().casefold()
    return f"cuda:{name}" if name.isdecimal() else {"gpu": "cuda"}.get(name, name)


def closest(given: str, choices: Iterable[Name]) -> Name | None:
    """Return the choice nearest to a misspelt name, or None. Names with other digits are other things (yolov3)."""
    keys = {key(choice): choice for choice in choices if _digits(choice) == _digits(given)}
    near = difflib.get_close_matches(key(given), keys, 1, CLOSE)
    return keys[near[0]] if near else None


def _digits(name: str) -> str:
    return "".join(filter(str.isdigit, name))


def literals(hint: Any) -> tuple[str, ...]:
    """Return the words of a Literal, or of the Literals in a union; () for any other annotation."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return tuple(word for part in get_args(hint) for word in literals(part))
    return ()


def settle_names(record: Any) -> None:
    """Replace names in the Literal fields of a frozen dataclass by the program's spelling, in its __post_init__.

    Raises ConfigError for an unknown choice.
    """
    hints = get_type_hints(type(record))
    for name in (field.name for field in fields(record)):
        given, choices = getattr(record, name), literals(hints[name])
        if choices and isinstance(given, str):
            object.__setattr__(record, name, choose(given, choices, name.replace("_", "-")))


def check_types(record: Any, prefix: str = "") -> None:
    """Raise ConfigError for the first field of a dataclass whose value is not of the annotated type.

    An int is accepted for a float. prefix: stands before the field's name in the message.
    """
    hints = get_type_hints(type(record))
    for name in (field.name for field in fields(record)):
        value = getattr(record, name)
        if not _fits(value, hints[name]):
            place = prefix + name.replace("_", "-")
            raise ConfigError(f"{place}: {SHORT.repr(value)}; expected {_described(hints[name])}")


def _fits(value: object, hint: Any) -> bool:
    """Return whether a value is of an annotated type: a class, Literal, tuple or union."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in inner)
    if origin is Literal:
        return any(value == word and type(value) is type(word) for word in inner)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if inner[-1] is Ellipsis:
            return all(_fits(part, inner[0]) for part in value)
        return len(value) == len(inner) and all(map(_fits, value, inner))
    if hint in (int, float):
        return isinstance(value, int if hint is int else (int, float)) and not isinstance(value, bool)
    return isinstance(value, hint)


def _described(hint: Any) -> str:
    """Return an annotation in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(_described, inner))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin is tuple:
        many = "values" if inner[-1] is Ellipsis else f"{len(inner)} values"
        return f"a list of {many}, each {_described(inner[0])}"
    return WORDS.get(hint, getattr(hint, "__name__", str(hint)))
