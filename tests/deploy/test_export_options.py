"""Mirrors src/lookonce/exporting/options.py."""

import inspect
from dataclasses import fields

from lookonce import export
from lookonce.deploy.export import Options


def test_every_choice_is_an_option_of_the_command_with_the_same_default():
    said = inspect.signature(export).parameters
    assert {f.name: f.default for f in fields(Options)} == {f.name: said[f.name].default for f in fields(Options)}
