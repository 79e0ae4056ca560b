"""Settings as keyword options of a public function, so that none is declared twice.

A function that takes **changes gets one option for each field of Settings: its type, its docstring, default None
(the recipe's). Python's help() and the command line then show what the table in recipes.py says.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, TypedDict, TypeVar, get_type_hints

from cyclopts import Parameter
from docstring_parser import parse_from_object

from lookonce.data.warp import Augmentation
from lookonce.training.recipes import RECIPES, Settings

F = TypeVar("F", bound=Callable[..., Any])


def takes_settings(function: F) -> F:
    """Spell out the function's **changes as the fields of Settings."""
    hints = get_type_hints(function, include_extras=True)
    own = inspect.signature(function)
    plain = [p.replace(annotation=hints[n]) for n, p in own.parameters.items() if p.kind is not p.VAR_KEYWORD]
    said = _said(Settings)
    types = {**get_type_hints(Settings), "augment": changes_of(Augmentation)}
    for entry in fields(Settings):
        shown = Parameter(help=f"{said[entry.name]} [{_default(entry.name)}]".strip(), show_default=False)
        kind = types[entry.name] | None
        annotation: Any = Annotated[kind, shown]
        plain.append(inspect.Parameter(entry.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    function.__signature__ = own.replace(parameters=plain, return_annotation=hints["return"])  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in plain} | {"return": hints["return"]}
    return function


def changes_of(record: type) -> Any:
    """A mapping of some of a record's fields: what `--augment.flip 0` says, which leaves the rest to the recipe."""
    said, make = _said(record), TypedDict  # by another name, since mypy wants the fields spelt out
    kinds = {name: Annotated[kind, Parameter(help=said[name])] for name, kind in get_type_hints(record).items()}
    return make(f"{record.__name__}Changes", kinds, total=False)  # type: ignore[operator]


def _said(record: type) -> dict[str, str]:
    """What a record's docstrings say of each field, in one line."""
    return {p.arg_name: " ".join((p.description or "").split()) for p in parse_from_object(record).params}


def _default(name: str) -> str:
    """What each recipe takes for a setting, in a few characters."""
    if name == "augment":
        return "by recipe"
    values = [getattr(settings, name) for settings in RECIPES.values()]
    words = [
        f"{v[0]}..{v[-1]}" if isinstance(v, tuple) and v else "none" if v in ((), None) else f"{v}" for v in values
    ]
    return words[0] if len(set(words)) == 1 else ", ".join(f"{r}: {w}" for r, w in zip(RECIPES, words, strict=True))
