"""Tests of lookonce.server.limits."""

import pytest

from lookonce.errors import ConfigError
from lookonce.server.limits import Limits, RequestError


@pytest.mark.parametrize("name, value", [("batch", 0), ("queue", 0), ("timeout", 0), ("timeout", float("nan")),
                                         ("max_mb", 2000), ("max_pixels", 10**9), ("max_images", 0)])  # fmt: skip
def test_a_limit_out_of_range_is_named(name, value):
    with pytest.raises(ConfigError, match=rf"^{name.replace('_', '-')}: {value}; expected"):
        Limits(**{name: value})


def test_an_error_is_a_word_for_programs_and_a_printable_line():
    error = RequestError(413, "a\n\x1b[31mb")
    assert error.to_json() == {"error": "too_large", "detail": "a\\n\\x1b[31mb"}
    assert len(str(RequestError(400, "x" * 5000))) < 620
