"""Mirrors src/lookonce/cli.py."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from lookonce.cli import COMMANDS, main
from lookonce.errors import Interrupted


def test_help_needs_no_torch():
    code = "import sys; from lookonce.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_explains_itself(command, capsys):
    assert main([command, "--help"]) == 0
    assert "Usage: lookonce" in capsys.readouterr().out


@pytest.mark.parametrize("words, message", [
    (["evaluate", "no.safetensors", "nowhere"], "no.safetensors: no such model file"),
    (["train", "nowhere"], "nowhere: no such folder"),
    (["train", "nowhere", "--epochs", "0"], "epochs: 0; expected at least 1"),
    (["train", "nowhere", "--optimizer", "lion"], "lion"),
    (["train", "nowhere", "--epoch", "3"], "--epoch"),
    (["detect"], "--model"),
    (["download", "yolo2"], "did you mean 'yolov2'?"),
    (["fly"], "fly"),
    (["train", "--config"], "no file given"),
    (["train", "--config", "none.yaml"], "none.yaml: cannot be read as YAML"),
    (["train", "--config=none.yaml"], "none.yaml: cannot be read as YAML"),
])  # fmt: skip
def test_wrong_input_is_one_line_and_code_2(words, message, capsys):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("lookonce: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("text", ["a: [1", "just words", "- 1"])
def test_a_config_that_is_none_is_one_line(text, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(text)
    assert main(["train", "--config", str(tmp_path / "c.yaml")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "c.yaml" in said


def test_the_users_path_on_the_command_line(squares, tmp_path, capsys):
    config = tmp_path / "mine.yaml"
    config.write_text("epochs: 1\nnetwork: nano\nsize: 64\nmulti_scale: [64, 96]\n")
    words = [str(squares), "--out", str(tmp_path / "runs"), "--name", "r", "--labels", "red", "blue"]
    assert main(["train", *words, "--config", str(config), "--batch-size", "4", "--anchors", "2"]) == 0
    run = tmp_path / "runs" / "r"
    assert capsys.readouterr().out.strip().endswith(str(run))
    assert main(["evaluate", str(run), str(squares), "--bootstrap", "10"]) == 0
    assert "VOC 2010" in capsys.readouterr().out
    pictures = [str(p) for p in sorted((squares / "JPEGImages").glob("test00[01].png"))]
    assert main(["detect", str(run), *pictures, "--out", str(tmp_path / "d"), "--threshold", "0.99"]) == 0
    assert "on 2 pictures" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "d" / "detections.json").read_text())["pictures"]) == 2
    again = ["train", "--config", str(run / "config.yaml"), "--out", str(tmp_path / "runs"), "--name", "again"]
    assert main(again) == 0
    assert (tmp_path / "runs" / "again" / "model.safetensors").is_file()


def test_an_interrupt_is_no_crash(monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lookonce.cli.make_app", stop)
    assert main([]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_work_that_was_stopped_says_how_to_go_on(monkeypatch, capsys):
    def stop(*_, **__):
        raise Interrupted("stopped; go on with: lookonce train --resume runs/x", 15)

    monkeypatch.setattr("lookonce.evaluation.read_dataset", stop)
    monkeypatch.setattr("lookonce.evaluation.Detector", lambda *_, **__: SimpleNamespace(labels=("a",)))
    assert main(["evaluate", "model", "data"]) == 143
    assert capsys.readouterr().err == "lookonce: stopped; go on with: lookonce train --resume runs/x\n"
