"""Tests of lookonce.commands.train."""

import inspect
import re
from pathlib import Path

import pytest

from lookonce import train
from lookonce.cli import make_app
from lookonce.errors import UserError
from lookonce.model.darknet.cfg import Cfg, write_cfg
from lookonce.model.model_file import load_model
from lookonce.training.recipes import Settings
from sets import nano


def test_the_signature_of_train_is_what_python_sees():
    assert inspect.signature(train).parameters["options"].kind is inspect.Parameter.VAR_KEYWORD
    assert not hasattr(train, "__signature__")


def test_the_command_line_has_each_option_once_with_its_help(capsys):
    make_app()(["train", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Peak learning rate. [quick: 0.004, finetune: 0.002, paper: 0.001, blog: 5e-05]" in shown
    for name in (*Settings.__dataclass_fields__, "augment.flip"):
        assert shown.count(f"--{name.replace('_', '-')} ") >= 1 or name == "augment"


def test_an_augmentation_leaves_the_others_to_the_recipe():
    app = make_app()
    bound = app.parse_args(["train", "cells", "--augment.flip", "0", "--augment.zoom", "0.5", "2"])[1]
    assert bound.arguments["options"] == {"augment": {"flip": 0.0, "zoom": (0.5, 2.0)}}


@pytest.mark.parametrize("options, words", [
    ({"epochs": 1.5}, "epochs: 1.5; expected a whole number"),
    ({"freeze": 1.5}, "freeze: 1.5; expected"),
    ({"freeze": "half"}, "freeze: 'half'; expected one of none, features, all_but_last"),
    ({"network": 3}, "network: 3; expected"),
    ({"batch_size": True}, "batch-size: True; expected a whole number"),
    ({"lerning_rate": 0.1}, "did you mean learning_rate?"),
    ({"augment": {"flipp": 0.1}}, "did you mean augment.flip?"),
    ({"network": Path("nowhere.cfg")}, "nowhere.cfg"),
])  # fmt: skip
def test_what_an_option_does_not_take_is_refused(options, words, squares, tmp_path):
    with pytest.raises(UserError, match=re.escape(words)):
        train(squares, out=tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_a_number_freezes_so_many_layers_and_a_path_is_a_network(squares, tmp_path):
    (tmp_path / "n.cfg").write_text(write_cfg(Cfg(nano(2, ((1.0, 1.0),)), 96, 96)))
    run = train(squares, network=tmp_path / "n.cfg", freeze=5, size=64, epochs=1, anchors=1, out=tmp_path, name="r")
    recipe = load_model(run).training["recipe"]
    assert recipe["freeze"] == "5"
    assert recipe["network"] == str(tmp_path / "n.cfg")
