"""Tests of lookonce.console."""

import json
import re
import sys
from io import StringIO

import pytest
from rich.table import Table

from lookonce.console import cell, cells, is_shown, json_text, rendered, track

HOSTILE = [
    "[red]",
    "[/]",
    "[bold]x[/bold]",
    ":cat:",
    "\x1b[31mred",
    "two\nlines",
    "\u202eright to left",
    "猫",
    "a\x9bb",
]


def test_names_are_shown_as_they_are_and_take_no_effect():
    table = Table("name", "number")
    for name in HOSTILE:
        table.add_row(cell(name), "1")
    text = rendered(table, blank_lines=False)
    for shown in (
        "[red]",
        "[/]",
        "[bold]x[/bold]",
        ":cat:",
        r"\x1b[31mred",
        r"two\nlines",
        r"\u202eright",
        "猫",
        r"a\x9bb",
    ):
        assert shown in text
    assert not set(text) & {"\x1b", "\u202e", "\x9b"}
    assert len(text.splitlines()) == 4 + len(HOSTILE)


def test_lines_stay_lines_and_long_ones_are_folded():
    assert (
        rendered(cells(["first", "sec\nond", "x" * 30]), width=20) == "first\nsec\\nond\n" + "x" * 20 + "\n" + "x" * 10
    )


def test_json_is_readable_valid_and_has_no_escape_sequences():
    text = json_text(HOSTILE)
    assert json.loads(text) == HOSTILE
    assert "猫" in text
    assert not set(text) & {"\x1b", "\u202e", "\x9b"}


class Terminal(StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("out, err, shown", [
    (Terminal(), Terminal(), True), (StringIO(), Terminal(), False),
    (Terminal(), StringIO(), False), (None, None, False),
])  # fmt: skip
def test_bars_need_a_terminal_on_both_streams(out, err, shown, monkeypatch):
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert is_shown() is shown


def test_without_a_terminal_items_pass_in_silence(capsys):
    assert list(track([3, 1, 2], "counting")) == [3, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_progress_labels_are_text_not_markup(monkeypatch):
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(sys, "stderr", out)
    assert list(track([1, 2], "[red]a[/red] [/] \x1b[31m")) == [1, 2]
    assert r"[red]a[/red] [/] \x1b[31m" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
