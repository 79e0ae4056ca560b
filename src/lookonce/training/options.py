"""Settings as keyword options of a public function, so that none is declared twice.

A function that takes **changes gets one option for each field of Settings: its type, its docstring, default None
(the recipe's). Python's help() and the command line then show what the table in recipes.py says.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, TypeVar, get_type_hints

from cyclopts import Parameter
from docstring_parser import parse_from_object

from lookonce.training.recipes import RECIPES, Settings

F = TypeVar("F", bound=Callable[..., Any])


def takes_settings(function: F) -> F:
    """Spell out the function's **changes as the fields of Settings."""
    hints = get_type_hints(function, include_extras=True)
    own = inspect.signature(function)
    plain = [p.replace(annotation=hints[n]) for n, p in own.parameters.items() if p.kind is not p.VAR_KEYWORD]
    said = {entry.arg_name: " ".join((entry.description or "").split()) for entry in parse_from_object(Settings).params}
    types = get_type_hints(Settings)
    for entry in fields(Settings):
        shown = Parameter(help=f"{said[entry.name]} [{_default(entry.name)}]".strip(), show_default=False)
        kind = types[entry.name] | None
        annotation: Any = Annotated[kind, shown]
        plain.append(inspect.Parameter(entry.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    function.__signature__ = own.replace(parameters=plain, return_annotation=hints["return"])  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in plain} | {"return": hints["return"]}
    return function


def _default(name: str) -> str:
    """What each recipe takes for a setting, in a few characters."""
    if name == "augment":
        return "by recipe"
    values = [getattr(settings, name) for settings in RECIPES.values()]
    words = [
        f"{v[0]}..{v[-1]}" if isinstance(v, tuple) and v else "none" if v in ((), None) else f"{v}" for v in values
    ]
    return words[0] if len(set(words)) == 1 else ", ".join(f"{r}: {w}" for r, w in zip(RECIPES, words, strict=True))
