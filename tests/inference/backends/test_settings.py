"""Mirrors src/lookonce/backends/settings.py."""

import pytest

from lookonce.errors import ConfigError
from lookonce.inference.backends.settings import Settings


@pytest.mark.parametrize("given", [{"backend": "abacus"}, {"precision": "int4"}])
def test_unknown_words_are_told_what_is_known(given):
    name, value = next(iter(given.items()))
    with pytest.raises(ConfigError, match=f"{name}: '{value}'; expected one of auto"):
        Settings(**given)


@pytest.mark.parametrize("asked, native, meant", [
    ("auto", True, "bf16"), ("auto", False, "fp32"), ("fp32", True, "fp32"), ("bf16", False, "bf16"),
])  # fmt: skip
def test_bf16_is_taken_where_the_machine_has_it(asked, native, meant):
    assert Settings(precision=asked).precision_where(native) == meant


def test_less_than_one_thread_is_refused():
    with pytest.raises(ConfigError, match="threads: 0; expected at least 1"):
        Settings(threads=0)
