"""Mirrors src/lookonce/training/options.py."""

import inspect
from dataclasses import fields

from lookonce.cli import make_app
from lookonce.commands.train import train
from lookonce.training.recipes import Settings


def test_train_spells_out_every_setting_once():
    parameters = inspect.signature(train).parameters
    for entry in fields(Settings):
        assert parameters[entry.name].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[entry.name].default is None
    assert not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def test_an_options_help_is_the_tables_own_docstring():
    (said,) = inspect.signature(train).parameters["learning_rate"].annotation.__metadata__
    assert said.help == "Its highest value. [quick: 0.002, paper: 0.001]"


def test_an_augmentation_leaves_the_others_to_the_recipe():
    app = make_app()
    bound = app.parse_args(["train", "cells", "--augment.flip", "0", "--augment.zoom", "0.5", "2"])[1]
    assert bound.arguments["augment"] == {"flip": 0.0, "zoom": (0.5, 2.0)}
    assert "augment" not in app.parse_args(["train", "cells"])[1].arguments
