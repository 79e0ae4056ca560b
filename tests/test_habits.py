"""Tests of lookonce.habits. Oracle of the options that are named: the command line itself."""

import pytest

from lookonce.cli import COMMANDS, main, make_app
from lookonce.errors import ConfigError
from lookonce.habits import OPTIONS, current_command, hint, refuse_pairs

EVERYWHERE = {"--config"}


@pytest.fixture(scope="module")
def options():
    """The options of each command."""
    app = make_app()
    return {
        name: {
            option
            for argument in app[name].assemble_argument_collection(default_parameter=app.default_parameter)
            for option in argument.names
        }
        for name in COMMANDS
    }


@pytest.mark.parametrize("spellings, command, text", OPTIONS)
def test_every_option_that_is_named_exists(options, spellings, command, text):
    for word in text.split():
        if word.startswith("--"):
            known = options[command] if command else set().union(*options.values())
            assert word in known | EVERYWHERE


def test_a_spelling_that_is_an_option_here_gets_no_hint_of_another_command(options):
    for spellings, command, _ in OPTIONS:
        for spelling in spellings.split():
            assert not command or f"--{spelling}" not in options[command]


@pytest.mark.parametrize("line, expected", [
    ("predict RUN photo.jpg", "detect RUN photo.jpg"), ("val RUN", "evaluate RUN"), ("help train", "train --help"),
    ("version", "--version"), ("train cells", "train cells"), ("", ""),
])  # fmt: skip
def test_names_of_commands_in_other_programs_work(line, expected):
    assert current_command(line.split()) == expected.split()


@pytest.mark.parametrize("line, part", [
    ("test RUN", "use lookonce evaluate for scores, lookonce detect for images"),
    ("detector train x.data", "use lookonce train, detect or evaluate"),
    ("train cells --imgsz 128", "--imgsz: no option of lookonce train; use --size"),
    ("train cells --imgsz=128", "use --size"),
    ("train cells --lr0 .1", "use --learning-rate"),
    ("train cells -e 3", "-e: no option of lookonce train; use --epochs"),
    ("train cells --exist_ok", "use another --name"),
    ("detect RUN x.jpg -thresh .25", "-thresh: no option of lookonce detect; use --threshold"),
    ("detect RUN x.jpg --dont-show", "nothing is shown unless asked for; leave it out"),
    ("evaluate RUN --show", "open the images in the output folder"),
    ("train cells --frobnicate", "Unknown option: --frobnicate."),
    ("detect", "detect: MODEL is missing; usage: lookonce detect MODEL IMAGES [OPTIONS]"),
    ("detect a.jpg", "detect: MODEL is missing; to find objects of COCO's 80 classes: lookonce detect coco a.jpg"),
    ("detect RUN", "detect: IMAGES is missing; usage: lookonce detect MODEL IMAGES [OPTIONS]"),
    ("train data=cells epochs=3 imgsz=128",
     "data=cells: write options as --name value: lookonce train cells --epochs 3 --size 128"),
])  # fmt: skip
def test_a_habit_of_another_program_is_one_line_that_says_what_to_type(line, part, capsys):
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert part in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("line, expected", [
    ("train data=cells epochs=3", "lookonce train cells --epochs 3"),
    ("detect source=a.jpg model=RUN conf=.3", "lookonce detect RUN a.jpg --threshold .3"),
    ("train cells batch=4 foo=1", "lookonce train cells --batch-size 4 (there is no foo)"),
    ("train cells model=yolov2", "lookonce train cells (there is no model)"),
])  # fmt: skip
def test_pairs_become_the_line_to_type(options, line, expected):
    words = line.split()
    with pytest.raises(ConfigError) as error:
        refuse_pairs(words, options[words[0]])
    assert str(error.value).endswith(f": {expected}")


def test_a_file_with_an_equals_sign_is_a_file(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()
    refuse_pairs(["train", "a=b"], options["train"])
    refuse_pairs(["train", "x/y=z", "--name=a=b"], options["train"])


def test_what_is_unknown_gets_no_hint():
    assert hint("--frobnicate", "train") is None
    assert hint("--conf", "detect") == "--threshold"
    assert "leave it out" in hint("--conf", "evaluate")
