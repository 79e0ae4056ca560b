"""Tests of lookonce.commands.arguments."""

import inspect
from pathlib import Path
from typing import get_type_hints

import pytest

import lookonce
from lookonce.cli import COMMANDS
from lookonce.commands.arguments import expanded, several
from lookonce.errors import UserError


def test_the_home_folder_is_found(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("USERPROFILE", "/home/ann")
    assert expanded("~/runs") == expanded(Path("~/runs")) == Path("/home/ann/runs")
    assert expanded("a~b") == Path("a~b")


def test_every_command_takes_paths_as_text_and_names_as_any_sequence():
    for name in COMMANDS:
        command = getattr(lookonce, name)
        hints = get_type_hints(command)
        for parameter in inspect.signature(command).parameters:
            text = str(hints[parameter])
            assert "Path" not in text or "str" in text, f"{name}: {parameter}: {text}"
            assert "tuple[str" not in text, f"{name}: {parameter}: {text}"


def test_one_name_or_path_is_several():
    assert several("RBC") == several(["RBC"]) == ("RBC",)
    assert several(Path("a.jpg")) == (Path("a.jpg"),)
    assert several(name for name in "ab") == ("a", "b")


@pytest.mark.parametrize("command, call", [
    ("evaluate MODEL DATA", lambda run, data: lookonce.evaluate(data, run)),
    ("detect MODEL IMAGES", lambda run, data: lookonce.detect(data, str(run))),
    ("diagnose RUN DATA", lambda run, data: lookonce.diagnose(data, run)),
])  # fmt: skip
def test_swapped_arguments_are_noticed(command, call, run, squares):
    with pytest.raises(
        UserError, match=f"squares: not a model, but .* is one; the model comes first: lookonce {command}"
    ):
        call(run, squares)
