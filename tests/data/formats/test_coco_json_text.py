"""Mirrors src/lookonce/data/json_text.py."""

import json

import pytest

from lookonce.data.formats.coco import Json, Line, read_text, reading
from lookonce.errors import UserError


def test_entries_are_those_of_json_with_their_places():
    text = ' [ {"a": [1, 2]}\n, 3.5 ,\r\n"x", null, []]'
    line = Line(text)
    found = list(Json(text).entries())
    assert [value for value, _ in found] == json.loads(text)
    assert [line.of(at) for _, at in found] == [1, 2, 3, 3, 3]
    assert list(Json("[]").entries()) == list(Json(" [ ] ").entries()) == []


@pytest.mark.parametrize("text, said", [
    ("[1,\n 2", "p.json:2: not whole JSON ('the end' where , or ] belongs)"),
    ("[1,\n]", "p.json:2: not whole JSON (Expecting value)"),
    ("[" * 200_000, "p.json:1: nested too deep; expected a list"),
    ("{}", "'{' where [ belongs"),
])  # fmt: skip
def test_what_is_no_json_is_refused_in_one_line(tmp_path, text, said):
    with pytest.raises(UserError) as error, reading("p.json", text, "a list") as found:  # type: ignore[arg-type]
        list(found.entries() if text[1:2] != "[" else [found.value()])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_nan_and_infinity_are_the_floats_that_they_are():
    [[nan, low, high]] = [value for value, _ in Json("[[NaN, -Infinity, 1e999]]").entries()]
    assert (nan != nan, low, high) == (True, -float("inf"), float("inf"))


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "p.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a text file; expected a list"):
        read_text(tmp_path / "p.json", "a list")
    with pytest.raises(UserError, match="cannot be read"):
        read_text(tmp_path / "none.json", "a list")
    (tmp_path / "q.json").write_bytes(b"\xef\xbb\xbf[]")
    assert read_text(tmp_path / "q.json", "a list") == "[]"
