"""The command line: each command is the public function of the same name. The only place that prints."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import cyclopts
import yaml

from lookonce import __version__
from lookonce.errors import UserError

COMMANDS = {
    "demo": ("lookonce.demo:demo", "Train on embedded handwritten digits and show what it finds."),
    "check": ("lookonce.checking:check", "Say what is wrong with a data set."),
    "convert": ("lookonce.data.converting:convert", "Write a data set in another format."),
    "anchors": ("lookonce.anchors_command:anchors", "Cluster anchor boxes on a data set."),
    "train": ("lookonce.training.run:train", "Train a detector on labelled pictures."),
    "evaluate": ("lookonce.evaluation:evaluate", "Score a detector on labelled pictures."),
    "diagnose": ("lookonce.diagnosing:diagnose", "Say why a run finds nothing."),
    "detect": ("lookonce.detect:detect", "Find objects on pictures."),
    "prune": ("lookonce.pruning:prune", "Cut the channels that count least and train on."),
    "export": ("lookonce.exporting.command:export", "Write a detector for other programs."),
    "benchmark": ("lookonce.benchmarking:benchmark", "Measure how fast models are on this machine."),
    "download": ("lookonce.downloading:download", "Bring Pascal VOC or Darknet's weights."),
}


def make_app(config: str | None = None) -> cyclopts.App:
    """The commands; functions are imported when they are called. config: a YAML file of their options."""
    read = cyclopts.config.Yaml(config, must_exist=True, use_commands_as_keys=False) if config else None
    app = cyclopts.App(
        name="lookonce",
        help="You only look once: detectors from labelled pictures.",
        help_epilogue="Every command takes --config FILE.yaml with any of its options.",
        version=__version__,
        default_parameter=cyclopts.Parameter(consume_multiple=True, negative_none="no-", negative_iterable=""),
        config=read,
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
    )
    for name, (path, help_text) in COMMANDS.items():
        app.command(path, name=name, help=help_text)
    return app


def main(argv: list[str] | None = None) -> int:
    """Run one command. 0: done; 2: the user's input is wrong, said in one line; 128 + n: stopped by signal n.

    A result with an `exit_code` of its own ends with that one.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(format="lookonce: %(message)s", level=logging.WARNING)
    logging.getLogger("lookonce").setLevel(logging.INFO)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what is wrong with an image is our message
    try:
        config = _take_config(words)
        result = make_app(config)(words)
    except (UserError, cyclopts.CycloptsError) as error:
        print(f"lookonce: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"lookonce: {stop if stop.args else 'interrupted'}", file=sys.stderr)
        return getattr(stop, "exit_code", 130)
    _show(result)
    return int(getattr(result, "exit_code", 0))


def entry() -> None:
    """What the installed command runs."""
    sys.exit(main())


def _take_config(words: list[str]) -> str | None:
    """Take `--config FILE` out of the command line. Raises UserError for a file that is no YAML of options."""
    at = next((i for i, word in enumerate(words) if word == "--config" or word.startswith("--config=")), None)
    if at is None:
        return None
    _, equals, file = words.pop(at).partition("=")
    if not equals:
        if at == len(words):
            raise UserError("--config: no file given; expected a YAML file of options")
        file = words.pop(at)
    try:
        found = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file}: cannot be read as YAML ({error}); expected lines like 'epochs: 30'") from None
    if not isinstance(found, dict):
        raise UserError(f"{file}: no options in it; expected lines like 'epochs: 30'")
    return file


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _show(result: Any) -> None:
    if result is None:
        return
    print(result)  # tables too: a terminal wraps what a narrow table would cut
