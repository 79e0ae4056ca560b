"""The command line: each command is the public function of the same name. The only module that prints.

Standard output carries the result alone. Log lines, progress bars and what libraries print go to standard error.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from io import StringIO, TextIOWrapper
from pathlib import Path
from types import NoneType
from typing import Any, TextIO, get_args

import cyclopts
import yaml
from cyclopts.exceptions import UnknownCommandError, UnknownOptionError
from rich.console import Console

from lookonce import __version__
from lookonce.choices import choose, closest, literals
from lookonce.console import json_text
from lookonce.errors import UserError, printable

log = logging.getLogger("lookonce")
COMMANDS = {
    "demo": "Train on handwritten digits and write a page of what the detector finds.",
    "check": "Report problems of a data set.",
    "convert": "Write a data set in another format.",
    "anchors": "Cluster anchor boxes on a data set.",
    "train": "Train a detector on labelled images.",
    "evaluate": "Score a detector on labelled images.",
    "diagnose": "Explain why a run finds nothing.",
    "detect": "Find objects in images.",
    "prune": "Remove the least important channels and retrain.",
    "export": "Write a detector for other programs.",
    "benchmark": "Measure how fast models run on this machine.",
    "cache": "Show or clear the cache folder.",
    "download": "Download Pascal VOC or Darknet's weights.",
}
"""Command NAME is the function NAME in lookonce/commands/NAME.py."""
RENAMED = {
    "anchors": {"given": "compare"},
    "benchmark": {"pictures": "images"},
    "check": {"pictures": "images"},
    "detect": {"drawn": "save-images", "pictures": "images", "runtime": "backend"},
    "evaluate": {"runtime": "backend"},
    "prune": {"share": "ratio"},
    "train": {"warm-up-images": "prior-loss-images"},
}
"""Options of version 0.1 by command, and their names now. The old names work for one release, with a hint."""
OFF_BY_DEFAULT = (
    "clear", "deterministic", "folded", "half", "hide-labels", "hide-scores", "int8", "json", "keep-empty", "keep-last",
    "overwrite", "raw", "train",
)  # fmt: skip
"""Switches. Version 0.1 also took their --no- forms, which change nothing."""
BROKEN_PIPE = 141
"""Exit code when the program behind a pipe stops reading: 128 + SIGPIPE, as in a shell."""


def make_app(config: dict[str, Any] | None = None, console: Console | None = None) -> cyclopts.App:
    """Return the command line. Commands are imported when they are called.

    Args:
        config: values of options that the command line does not give, by name.
        console: prints help; None: on sys.stdout.
    """
    defaults = cyclopts.config.Dict(config, use_commands_as_keys=False, source="--config") if config else None
    app = cyclopts.App(
        name="lookonce",
        help="You only look once: train and run object detectors.",
        help_epilogue="Every command also takes --json, which prints the result as JSON, and --config FILE.yaml, which "
        "reads options from a file. The word none unsets an option of that file: --name none.",
        version=__version__,
        default_parameter=cyclopts.Parameter(
            consume_multiple=True, negative_bool="", negative_iterable="", negative_none=""
        ),
        config=[*filter(None, [defaults]), _read_names],
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
        console=console,
    )
    for name, help_text in COMMANDS.items():
        app.command(f"lookonce.commands.{name}:{name}", name=name, help=help_text)
    return app


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: done; 2: wrong input, explained in one line; 128 + n: stopped by signal n; a result may have an `exit_code`.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    stdout = sys.stdout
    help_page = StringIO()
    _log_to_stderr()
    try:
        console = Console(file=help_page, force_terminal=stdout.isatty() or None)
        with redirect_stdout(_OtherOutput(stdout)):
            config = _take_config(words)
            as_json = _take_json(words, config)
            result = make_app(config, console)(_current_names(words))
        _print(help_page.getvalue() + _result_text(result, as_json), stdout)
    except (UserError, cyclopts.CycloptsError) as error:
        print(f"lookonce: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"lookonce: {printable(str(stop)) if stop.args else 'interrupted'}", file=sys.stderr)
        return getattr(stop, "exit_code", 130)
    except _BrokenPipe:
        _discard_output(stdout)
        return BROKEN_PIPE
    return int(getattr(result, "exit_code", 0))


def entry() -> None:
    """Run the installed command."""
    sys.exit(main())


def _take_config(words: list[str]) -> dict[str, Any]:
    """Remove `--config FILE` from the words and return the options in that file."""
    at = next((i for i, word in enumerate(words) if word == "--config" or word.startswith("--config=")), None)
    if at is None:
        return {}
    _, equals, file = words.pop(at).partition("=")
    if not equals:
        if at == len(words):
            raise UserError("--config: no file given; expected a YAML file of options")
        file = words.pop(at)
    try:
        options = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: cannot be read as YAML ({reason}); expected lines like 'epochs: 30'") from None
    if not isinstance(options, dict):
        raise UserError(f"{file}: no options in it; expected lines like 'epochs: 30'")
    renamed = RENAMED.get(next(iter(words), ""), {})
    found = {}
    for name, value in options.items():
        option = str(name).replace("_", "-")
        if option in renamed:
            log.warning("%s: %s is now %s; the old name works in this release only", file, name, renamed[option])
        found[renamed.get(option, option).replace("-", "_")] = value
    return found


def _take_json(words: list[str], config: dict[str, Any]) -> bool:
    """Remove `--json` from the words and the config and return whether it was there."""
    given = "--json" in words
    words[:] = [word for word in words if word != "--json"]
    return bool(config.pop("json", False)) or given


def _current_names(words: list[str]) -> list[str]:
    """Return the words with options of version 0.1 under their names of today, each with a hint."""
    renamed = RENAMED.get(next(iter(words), ""), {})
    found = []
    for word in words:
        option, equals, value = word.partition("=")
        dashes, name = re.match(r"(--no-|--|)(.*)", option, re.DOTALL).groups()  # type: ignore[union-attr]
        if dashes and name in renamed:
            new = dashes + renamed[name]
            log.warning("%s is now %s; the old name works in this release only", option, new)
            word = new + equals + value
        elif dashes == "--no-" and name in OFF_BY_DEFAULT:
            log.warning("%s: is the default; leave it out", option)
            continue
        found.append("<stdin>" if word == "-" else word)  # cyclopts takes - for an option
    return found


def _read_names(app: cyclopts.App, commands: tuple[str, ...], arguments: cyclopts.ArgumentCollection) -> None:
    """Replace choices in any spelling by the program's own, and `none` by None where an option may be unset.

    A class may be called none, so a list of names is unset by its option without a value. Raises ConfigError for an
    unknown choice.
    """
    for argument in arguments:
        if len(argument.tokens) != 1 or argument.tokens[0].keys or not isinstance(argument.tokens[0].value, str):
            continue
        [token], kinds, choices = argument.tokens, get_args(argument.hint), literals(argument.hint)
        is_setting = len(argument.keys) == 1 and (str not in kinds or Path in kinds)  # one of TrainOptions
        if Sequence[str] in kinds:
            unset = token.implicit_value in ((), [])
        else:
            unset = token.value.lower() == "none" and "none" not in choices
        if unset and NoneType in kinds:
            argument.tokens = [token.evolve(implicit_value=None)]
        elif unset and is_setting:  # back to the recipe's value
            argument.tokens = []
        elif choices:
            argument.tokens = [token.evolve(value=choose(token.value, choices, token.keyword or argument.name))]


class _OtherOutput:
    """Standard error in place of standard output while a command runs; a terminal only where both are."""

    def __init__(self, stdout: TextIO) -> None:
        self._stdout = stdout

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)

    def isatty(self) -> bool:
        """Return whether standard output and standard error are terminals."""
        return self._stdout.isatty() and sys.stderr.isatty()


class _BrokenPipe(Exception):
    """The program that reads the output, such as head, has stopped reading."""


class _LogFormatter(logging.Formatter):
    """Escape line ends and escape sequences in names of files and classes."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)


def _log_to_stderr() -> None:
    """Print log records of this program on standard error, a line each."""
    logging.basicConfig(level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler:
            handler.setFormatter(_LogFormatter("lookonce: %(message)s"))
    log.setLevel(logging.INFO)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # our own message says what is wrong with an image


def _discard_output(stdout: TextIO) -> None:
    """Send what is still buffered nowhere, so that closing standard output raises nothing."""
    with suppress(OSError, ValueError):  # no file, as in a notebook
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())


def _one_line(error: Exception) -> str:
    """Return an error's message in one line, without a suggestion that is not close to the given word."""
    message = printable(" ".join(str(error).split())) or type(error).__name__
    if isinstance(error, UnknownOptionError):
        given = error.token.keyword or error.token.value
    elif isinstance(error, UnknownCommandError) and error.unused_tokens:
        given = error.unused_tokens[0]
    else:
        return message
    suggestion = re.search(r' Did you mean "?([^"?]+)"?\?', message)
    if suggestion is None or closest(given.partition("=")[0].strip("-"), [suggestion[1].strip("-")]):
        return message
    return message[: suggestion.start()] + message[suggestion.end() :]


def _result_text(result: Any, as_json: bool) -> str:
    """Return the lines that show a result: its text, or as JSON its to_json() or its text as a string."""
    if result is None:
        return ""
    text = str(result)
    if as_json:
        text = json_text(result.to_json() if hasattr(result, "to_json") else text)
    return "\n".join(map(printable, text.split("\n"))) + "\n"


def _print(text: str, stdout: TextIO) -> None:
    """Print text. Raises _BrokenPipe for a closed pipe, UserError for a full disk."""
    if isinstance(stdout, TextIOWrapper):
        stdout.reconfigure(errors="backslashreplace")  # pipes on Windows cannot encode every letter
    try:
        print(text, end="", file=stdout, flush=True)
    except OSError as error:
        if isinstance(error, BrokenPipeError) or error.errno == errno.EINVAL:  # the latter on Windows
            raise _BrokenPipe from None
        raise UserError(f"standard output: cannot be written: {error.strerror or error}") from None
