"""Tests of lookonce.commands.models."""

import json

import pytest

from lookonce.cli import main
from lookonce.commands.models import models
from lookonce.inference.pretrained_models import MODELS, path_of


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LOOKONCE_CACHE", str(tmp_path))


def test_the_table_fits_a_terminal_and_has_a_row_for_each_model(tmp_path):
    lines = [line for line in str(models()).splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 80
    for model in MODELS:
        line = next(line for line in lines if line.split()[:1] == [model.name])
        assert f" {max(model.weights.sizes) / 1e6:,.1f} " in line
        assert not line.endswith("yes")


def test_the_list_says_what_is_downloaded_and_where(capsys, published, published_weights):
    server = published("good")
    assert main(["models", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["name"], found["bytes"], found["downloaded"]) == ("x", len(published_weights), False)
    assert found["mirrors"] == [server.url("good")]
    assert server.asked == []
    assert found["file"] == str(path_of("x"))
    assert main(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["downloaded"] is True
    assert next(line for line in str(models()).splitlines() if line.startswith("x ")).endswith(" yes")
