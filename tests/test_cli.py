"""Tests of lookonce.cli."""

import io
import json
import logging
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import lookonce
from lookonce import cli
from lookonce.__main__ import entry
from lookonce.cli import COMMANDS, OFF_BY_DEFAULT, RENAMED, main, make_app
from lookonce.errors import Interrupted

HEAVY = ("cv2", "lightning", "matplotlib", "numpy", "onnx", "openvino", "PIL", "torch")


def test_help_loads_nothing_heavy():
    code = (
        f"import sys; from lookonce.cli import main; main(['--help']); sys.exit(bool({set(HEAVY)} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_the_package_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "lookonce", "--version"], capture_output=True, check=True, text=True)
    assert done.stdout.startswith(f"lookonce {lookonce.__version__} (Python {platform.python_version()}, torch ")


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
    (["detect"], "MODEL is missing"),
    (["download", "yolo2"], "did you mean 'yolov2'?"),
    (["fly"], "fly"),
    (["train", "nowhere", "--network", "yolo9"], "network: 'yolo9'; expected one of"),
    (["train", "nowhere", "--no-patience"], "Unknown option: --no-patience"),
    (["train", "none"], "data: missing"),
    (["train", "--config"], "no file given"),
    (["train", "--config", "none.yaml"], "none.yaml: cannot be read (No such file"),
    (["train", "--config=none.yaml"], "none.yaml: cannot be read (No such file"),
])  # fmt: skip
def test_wrong_input_is_one_line_and_code_2(words, message, capsys):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("lookonce: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("text", [
    "a: [1", "just words", "- 1", "a: &a [x]\nb: [*a, *a]", "a: " + "[" * 1000, "epochs: 2001-99-99", "? [1]\n: 2",
    "epochs: " + "9" * 5000, "a: " + "x" * 300_000,
])  # fmt: skip
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
    images = [str(p) for p in sorted((squares / "JPEGImages").glob("test00[01].png"))]
    assert main(["detect", str(run), *images, "--out", str(tmp_path / "d"), "--threshold", "0.99"]) == 0
    assert "in 2 images" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "d" / "detections.json").read_text())["images"]) == 2
    again = ["train", "--config", str(run / "config.yaml"), "--out", str(tmp_path / "runs"), "--name", "again"]
    assert main(again) == 0
    assert (tmp_path / "runs" / "again" / "model.safetensors").is_file()


def test_an_interrupt_during_the_imports_is_a_line(monkeypatch, capsys):
    class Interrupting:
        def find_spec(self, name, *_):
            if name == "lookonce.cli":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "lookonce.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    with pytest.raises(SystemExit) as stop:
        entry()
    assert stop.value.code == 130
    assert capsys.readouterr().err == "lookonce: interrupted\n"


def test_an_interrupt_is_no_crash(monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lookonce.cli.make_app", stop)
    assert main([]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_work_that_was_stopped_says_how_to_go_on(monkeypatch, capsys):
    def stop(*_, **__):
        raise Interrupted("stopped; go on with: lookonce train --resume runs/x", 15)

    monkeypatch.setattr("lookonce.commands.evaluate.read_for", stop)
    monkeypatch.setattr(
        "lookonce.commands.evaluate.Detector",
        lambda *_, **__: SimpleNamespace(labels=("a",), about=SimpleNamespace(tree=None)),
    )
    assert main(["evaluate", "model", "data"]) == 143
    assert capsys.readouterr().err == "lookonce: stopped; go on with: lookonce train --resume runs/x\n"


def bound(*words, config=None):
    arguments = dict(make_app(config).parse_args(list(words))[1].arguments)
    return arguments | arguments.pop("options", {})


def options(command):
    """The options of a command: {name: its argument}."""
    app = make_app()
    arguments = app[command].assemble_argument_collection(default_parameter=app.default_parameter)
    return {name: argument for argument in arguments for name in argument.names}


@pytest.mark.parametrize("command", list(COMMANDS))
def test_only_switches_that_are_on_have_a_form_with_no(command):
    found = options(command)
    on = {name for name, argument in found.items() if argument.field_info.default is True and "--no-" not in name}
    own = {name for name, argument in found.items() if argument.field_info.name.startswith("no_")}  # as in --no-token
    assert {name for name in found if name.startswith("--no-")} - own == {f"--no-{name[2:]}" for name in on}
    off = {name[2:] for name, argument in found.items() if argument.field_info.default is False}
    assert off <= set(OFF_BY_DEFAULT)


OLD_OPTIONS = [(command, old, new) for command, names in RENAMED.items() for old, new in names.items()]


@pytest.mark.parametrize("command, old, new", OLD_OPTIONS)
def test_an_old_option_works_with_a_hint(command, old, new, caplog, tmp_path):
    assert f"--{new}" in options(command)
    assert f"--{old}" not in options(command)
    hint = "the old name works in this release only"
    for word, expected in ((f"--{old}", f"--{new}"), (f"--no-{old}", f"--no-{new}"), (f"--{old}=a=b", f"--{new}=a=b")):
        caplog.clear()
        assert cli._current_names([command, word, "x"]) == [command, expected, "x"]
        said = f"{word.removesuffix('=a=b')} is now {expected.removesuffix('=a=b')}; {hint}"
        assert [record.getMessage() for record in caplog.records] == [said]
    config = tmp_path / "c.yaml"
    for key in {old, old.replace("-", "_")}:
        caplog.clear()
        config.write_text(f"{key}: 1\nseed: 2\n")
        words = [command, "--config", str(config)]
        assert cli._take_config(words) == {new.replace("-", "_"): 1, "seed": 2}
        assert words == [command]
        assert [record.getMessage() for record in caplog.records] == [f"{config}: {key} is now {new}; {hint}"]


def test_a_config_may_spell_options_as_the_command_line_does(tmp_path):
    (tmp_path / "c.yaml").write_text("val-split: none\nbatch_size: 2\n")
    words = ["train", "--config", str(tmp_path / "c.yaml"), "x"]
    config = cli._take_config(words)
    found = bound(*words, config=config)
    assert (found["val_split"], found["batch_size"]) == ("none", 2)


def test_an_old_option_reaches_the_command(monkeypatch, capsys):
    def detect(model: str, images: str, *, backend: str = "auto"):
        return f"{images} {backend}"

    monkeypatch.setattr("lookonce.commands.detect.detect", detect)
    assert main(["detect", "m", "--pictures", "a.jpg", "--runtime", "torch"]) == 0
    assert capsys.readouterr().out == "a.jpg torch\n"


def test_an_option_that_only_looks_like_an_old_one_stays():
    for words in (["detect", "m", "drawn", "-drawn", "a--drawn"], ["train", "--pictures"], ["--drawn"], []):
        assert cli._current_names(words) == words


@pytest.mark.parametrize("name", OFF_BY_DEFAULT)
def test_the_no_form_of_a_switch_that_is_off_is_left_out_with_a_hint(name, caplog):
    assert cli._current_names(["check", f"--no-{name}", "x"]) == ["check", "x"]
    assert [record.getMessage() for record in caplog.records] == [f"--no-{name}: is the default; leave it out"]


def test_the_word_none_unsets_what_the_config_gives():
    config = {"epochs": 5, "name": "a", "patience": 3, "labels": ["a", "b"], "weights": "w", "multi_scale": [320],
              "val_split": "val"}  # fmt: skip
    words = ["--epochs", "none", "--name", "None", "--labels", "--multi-scale"]
    words += ["--patience", "0", "--val-split", "none"]
    found = bound("train", "x", *words, config=config)
    assert [found[n] for n in ("epochs", "name", "labels")] == [None] * 3
    assert (found["multi_scale"], found["patience"], found["val_split"]) == ((), 0, "none")
    assert bound("anchors", "x", "--plot", "none")["plot"] is None
    assert bound("train", "x", "--labels", "none")["labels"] == ["none"]
    assert bound("train", "x", "--features", "None")["features"] == "none"
    assert "network" not in bound("train", "x", "--network", "none")
    assert bound("train", "none/data")["data"] == Path("none/data")


@pytest.mark.parametrize("words, name, meant", [
    ("train x --optimizer AdamW", "optimizer", "adamw"), ("train x --recipe Quick", "recipe", "quick"),
    ("train x --schedule one-cycle", "schedule", "one_cycle"),
    ("convert x y --format COCO", "format", "coco"), ("evaluate m x --protocol VOC2007", "protocol", "voc2007"),
    ("export m OpenVINO", "format", "openvino"), ("detect m x --backend ONNX-Runtime", "backend", "onnxruntime"),
    ("evaluate m x --difficult Ignore", "difficult", "ignore"),
])  # fmt: skip
def test_choices_may_be_spelt_freely(words, name, meant):
    assert bound(*words.split())[name] == meant
    command, *rest = words.split()
    if "--" in words:
        assert bound(command, *rest[:-2], config={name: rest[-1]})[name] == meant


@pytest.mark.parametrize("words, meant", [
    ("train x --epoch 3", "--epochs"), ("train x --cat 3", None), ("train x --steps-per-epoch 3", None),
    ("train x --optimizer AdmW", "'adamw'"), ("train x --optimizer lion", None), ("trian x", '"train"'), ("fly", None),
])  # fmt: skip
def test_a_suggestion_is_close_or_there_is_none(words, meant, capsys):
    assert main(words.split()) == 2
    said = capsys.readouterr().err
    assert (f"id you mean {meant}?" if meant else "") in said
    assert bool(meant) == ("you mean" in said)


class Closed(io.StringIO):
    """Standard output whose reader has left."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


@pytest.mark.parametrize("words", [["download"], ["train", "-h"], ["--help"], ["--version"]])
@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(22, "Invalid argument")])
def test_a_closed_pipe_ends_quietly(words, error, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Closed(error))
    assert main(words) == cli.BROKEN_PIPE == 141
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", [["download"], ["train", "-h"]])
def test_a_full_disk_behind_standard_output_is_one_line(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Closed(OSError(28, "No space left on device")))
    assert main(words) == 2
    assert capsys.readouterr().err == "lookonce: standard output: cannot be written: No space left on device\n"


@pytest.mark.skipif(os.name == "nt", reason="no shell with a pipe of its own")
def test_head_ends_a_command_quietly():
    code = "from lookonce.__main__ import entry; entry()"
    with subprocess.Popen([sys.executable, "-c", code, "--help"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:  # fmt: skip
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def a_command(monkeypatch, result=None, said=(), printed=None):
    """A `lookonce demo` that logs, prints as a library does, and gives a result."""

    def demo():
        for line in said:
            logging.getLogger("lookonce").warning("%s", line)
        if printed:
            sys.stdout.write(printed)
        return result

    monkeypatch.setattr("lookonce.commands.demo.demo", demo)


def test_standard_output_carries_the_result_alone(monkeypatch, capsys):
    a_command(monkeypatch, "the result", ["a line"], "what a library prints")
    assert main(["demo"]) == 0
    said = capsys.readouterr()
    assert said.out == "the result\n"
    assert "what a library prints" in said.err


@pytest.mark.parametrize("result, printed", [
    (SimpleNamespace(to_json=lambda: {"a": [1]}), {"a": [1]}), (Path("runs/x"), str(Path("runs/x"))), ("a\nb", "a\nb"),
])  # fmt: skip
def test_every_result_can_be_printed_as_json(result, printed, monkeypatch, capsys, tmp_path):
    a_command(monkeypatch, result)
    assert main(["demo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == printed
    (tmp_path / "c.yaml").write_text("json: true\n")
    assert main(["demo", "--config", str(tmp_path / "c.yaml")]) == 0
    assert json.loads(capsys.readouterr().out) == printed


def test_what_is_no_result_goes_to_a_terminal_only_where_both_outputs_do(monkeypatch):
    for out, err in ((True, True), (True, False), (False, True)):
        outputs = [io.StringIO(), io.StringIO()]
        for stream, terminal in zip(outputs, (out, err), strict=True):
            monkeypatch.setattr(stream, "isatty", lambda terminal=terminal: terminal)
        monkeypatch.setattr(sys, "stdout", outputs[0])
        monkeypatch.setattr(sys, "stderr", outputs[1])
        seen = []
        monkeypatch.setattr("lookonce.commands.demo.demo", lambda seen=seen: seen.append(sys.stdout.isatty()))
        assert main(["demo"]) == 0
        assert seen == [out and err]


HOSTILE = "a\x1b[31mred\x1b[0m\n\u202eb \x9bc [bold]"
ESCAPED = r"a\x1b[31mred\x1b[0m\n\u202eb \x9bc [bold]"


def test_names_of_files_are_printed_escaped(monkeypatch, capsys, tmp_path):
    code = f"""
import logging, sys, types
from lookonce.cli import main
def demo():
    logging.getLogger("lookonce").warning("%s: odd", {HOSTILE!r})
    return "two\\nlines \\x1b[2J"
sys.modules["lookonce.commands.demo"] = types.SimpleNamespace(demo=demo)
sys.exit(main(["demo"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, encoding="utf-8")
    assert done.stderr == f"lookonce: {ESCAPED}: odd\n"
    assert done.stdout == "two\nlines \\x1b[2J\n"
    assert main(["check", str(tmp_path / HOSTILE)]) == 2
    said = capsys.readouterr().err
    assert ESCAPED in said
    assert said.count("\n") == 1
    assert main(["train", "x", f"--{HOSTILE}", "1"]) == 2
    assert not set(capsys.readouterr().err[:-1]) & {"\n", "\x1b", "\u202e", "\x9b"}


def test_letters_that_an_output_cannot_write_are_escaped(monkeypatch, tmp_path):
    a_command(monkeypatch, "кот 猫")
    with (tmp_path / "out.txt").open("w", encoding="cp1252") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert main(["demo"]) == 0
    assert (tmp_path / "out.txt").read_text() == r"\u043a\u043e\u0442 \u732b" + "\n"


def test_json_stays_json_in_an_output_that_cannot_write_every_letter(monkeypatch, tmp_path):
    a_command(monkeypatch, "кот \U0001f408")
    with (tmp_path / "out.txt").open("w", encoding="cp1252") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert main(["demo", "--json"]) == 0
    assert json.loads((tmp_path / "out.txt").read_text(encoding="cp1252")) == "кот \U0001f408"


def test_processes_of_a_command_import_nothing_from_the_current_folder(tmp_path, monkeypatch):
    """Without the setting, `python -c` and workers look there first."""
    (tmp_path / "csv.py").write_text("raise SystemExit('code of the current folder')")
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    start = [sys.executable, "-c", "import csv"]
    assert subprocess.run(start, capture_output=True).returncode == 1
    assert main(["--version"]) == 0
    assert subprocess.run(start, capture_output=True).returncode == 0
