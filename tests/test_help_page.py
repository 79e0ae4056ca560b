"""Tests of lookonce.help_page. Oracle: the options that the commands have."""

import re

import pytest

from lookonce.cli import COMMANDS, main, make_app
from lookonce.help_page import COMMON, EXAMPLES, GROUPS, epilogue


def page(capsys, monkeypatch, *words):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*words]) == 0
    return capsys.readouterr().out


def names(command):
    app = make_app()
    arguments = app[command].assemble_argument_collection(default_parameter=app.default_parameter)
    return {argument.name.removeprefix("--") for argument in arguments if argument.show}


def listed(text):
    return set(re.findall(r"^(?:[A-Z]+ )?--([\w.-]+)", text, re.MULTILINE))


@pytest.mark.parametrize("command", list(GROUPS))
def test_the_long_help_lists_every_option_in_one_group(command, capsys, monkeypatch):
    text = page(capsys, monkeypatch, command, "--help-all")
    assert listed(text) == names(command)
    assert [title for title in GROUPS[command] if f"\n{title}\n" in text] == list(GROUPS[command])


def test_the_short_help_of_train_fits_two_screens_and_names_the_long_one(capsys, monkeypatch):
    text = page(capsys, monkeypatch, "train", "--help")
    assert listed(text) - {"help-all"} == COMMON["train"] <= names("train")
    assert text.count("\n") <= 60
    assert max(map(len, text.splitlines())) <= 80
    assert "--help-all lists all options." in text
    assert "Usage: lookonce train" in text


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_help_page_has_examples_of_its_command_that_parse(command):
    assert EXAMPLES[command]
    app = make_app()
    for example in EXAMPLES[command]:
        program, name, *words = example.split()
        assert (program, name) == ("lookonce", command)
        app.parse_args([name, *words])
        assert example in epilogue(command, show_all=False)


def test_commands_are_listed_in_the_order_of_their_use(capsys, monkeypatch):
    text = page(capsys, monkeypatch, "--help")
    assert re.findall(r"^([a-z]+) ", text, re.MULTILINE)[: len(COMMANDS)] == list(COMMANDS)
