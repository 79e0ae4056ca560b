"""Tests of lookonce.console."""

import sys
from io import StringIO

import pytest

from lookonce.console import is_shown, track


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
