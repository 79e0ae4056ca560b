"""Tests of lookonce.choices."""

from dataclasses import dataclass
from typing import Literal

import pytest

from lookonce.choices import check_types
from lookonce.errors import ConfigError


@dataclass
class Options:
    count: int = 1
    rate: float = 0.5
    kind: Literal["a", "b"] = "a"
    pair: tuple[float, float] = (0.0, 1.0)
    names: tuple[str, ...] | None = None
    fast: bool = False


@pytest.mark.parametrize("given", [{}, {"rate": 1}, {"names": ("x",)}, {"names": ()}, {"pair": (1, 2)}, {"fast": True}])
def test_values_of_the_annotated_type_pass(given):
    check_types(Options(**given))


@pytest.mark.parametrize("given, message", [
    ({"count": "5"}, "count: '5'; expected a whole number"),
    ({"count": True}, "count: True; expected a whole number"),
    ({"count": 1.0}, "count: 1.0; expected a whole number"),
    ({"rate": None}, "rate: None; expected a number"),
    ({"kind": "c"}, "kind: 'c'; expected one of a, b"),
    ({"kind": ["a"]}, r"kind: \['a'\]; expected one of a, b"),
    ({"pair": (1.0,)}, r"pair: \(1.0,\); expected a list of 2 values, each a number"),
    ({"pair": [1.0, 2.0]}, "pair: .*expected a list"),
    ({"names": (1,)}, "names: .*expected a list of values, each text or nothing"),
    ({"fast": 1}, "fast: 1; expected true or false"),
])  # fmt: skip
def test_values_of_another_type_are_refused_by_name(given, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        check_types(Options(**given))


def test_the_message_stays_short_whatever_the_value_is():
    value = ["x"]
    for _ in range(60):
        value = [value] * 8  # shared, as YAML aliases are: its full text would fill the memory
    with pytest.raises(ConfigError) as error:
        check_types(Options(count=value))
    assert len(str(error.value)) < 2000
