"""The command line: each command is the public function of the same name. The only module that prints.

Standard output carries the result alone. Log lines, progress bars and what libraries print go to standard error.
"""

from __future__ import annotations

import errno
import logging
import os
import platform
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from importlib.metadata import PackageNotFoundError, version
from io import StringIO, TextIOWrapper
from pathlib import Path
from types import NoneType
from typing import Any, TextIO, get_args

import cyclopts
from cyclopts.exceptions import MissingArgumentError, UnknownCommandError, UnknownOptionError
from rich.console import Console

from lookonce import __version__
from lookonce.choices import choose, closest, literals
from lookonce.console import json_text
from lookonce.data.download import OFFLINE
from lookonce.errors import UserError, printable, printable_lines
from lookonce.habits import current_command, detect_line, hint, refuse_pairs
from lookonce.help_page import SHOW_ALL, HelpPage, epilogue
from lookonce.text import read_yaml

log = logging.getLogger("lookonce")
COMMANDS = {
    "demo": "Train on handwritten digits and write a page of what the detector finds.",
    "check": "Report problems of a data set.",
    "convert": "Write a data set in another format.",
    "anchors": "Cluster anchor boxes on a data set.",
    "explain": "Follow one of your images through the method, as a page.",
    "train": "Train a detector on labelled images.",
    "evaluate": "Score a detector on labelled images.",
    "compare": "Compare two runs on the same images.",
    "diagnose": "Explain why a run finds nothing.",
    "detect": "Find objects in images, videos, cameras and streams.",
    "zones": "Draw the lines and zones at which detect counts.",
    "serve": "Serve a detector over HTTP, with a page in the browser.",
    "prune": "Remove the least important channels and retrain.",
    "export": "Write a detector for other programs.",
    "benchmark": "Measure how fast models run on this machine.",
    "cache": "Show or clear the cache folder.",
    "models": "List the published models and which are downloaded.",
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
    "clear", "deterministic", "flip", "folded", "half", "hide-labels", "hide-scores", "int8", "json", "keep-all",
    "keep-checkpoints", "keep-empty", "keep-last", "link", "no-token", "overwrite", "raw", "resume", "show", "track",
    "train", "video",
)  # fmt: skip
"""Switches. Version 0.1 also took their --no- forms, which change nothing."""
BROKEN_PIPE = 141
"""Exit code when the program behind a pipe stops reading: 128 + SIGPIPE, as in a shell."""


def make_app(config: dict[str, Any] | None = None, console: Console | None = None,
             command: str | None = None, show_all: bool = False) -> cyclopts.App:  # fmt: skip
    """Return the command line. Commands are imported when they are called.

    Args:
        config: values of options that the command line does not give, by name.
        console: prints help; None: on sys.stdout.
        command: the command of a help page; None: all commands.
        show_all: the help page lists rarely used options too.
    """
    defaults = cyclopts.config.Dict(config, use_commands_as_keys=False, source="--config") if config else None
    app = cyclopts.App(
        name="lookonce",
        help="You only look once: train and run object detectors.",
        help_epilogue=epilogue(command, show_all),
        help_flags=("--help", "-h", SHOW_ALL),
        help_format="plaintext",
        help_formatter=HelpPage(command, show_all),
        version=_versions,
        version_flags=("--version", "-V"),
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
    for order, (name, help_text) in enumerate(COMMANDS.items()):
        app.command(f"lookonce.commands.{name}:{name}", name=name, help=help_text, sort_key=order)
    app.register_install_completion_command(help="Install completion of commands and options for this shell.")
    return app


def _versions() -> str:
    """Return this version, and those of what it runs on, without importing that."""
    found = []
    for package, name in (("torch", "torch"), ("openvino", "OpenVINO")):
        with suppress(PackageNotFoundError):
            found.append(f"{name} {re.split('[-+]', version(package))[0]}")
    return f"lookonce {__version__} ({', '.join((f'Python {platform.python_version()}', *found))})"


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: done; 2: wrong input, explained in one line; 128 + n: stopped by signal n; a result may have an `exit_code`.
    """
    os.environ["PYTHONSAFEPATH"] = "1"  # workers import nothing from the current folder, where Python looks first
    words = list(sys.argv[1:] if argv is None else argv)
    stdout, command = sys.stdout, None
    help_page = StringIO()
    _log_to_stderr()
    try:
        console = Console(file=help_page, force_terminal=stdout.isatty() or None)
        with redirect_stdout(_OtherOutput(stdout)):
            words = current_command(words)
            command = words[0] if words and words[0] in COMMANDS else None
            config = _take_config(words)
            as_json = _take_switch("json", words, config)
            if _take_switch("offline", words, config):
                os.environ[OFFLINE] = "1"
            app = make_app(config, console, command, SHOW_ALL in words)
            if command and command != "serve" and any("=" in word for word in words):  # serve NAME=MODEL
                refuse_pairs(words, {name for argument in _arguments(app, command) for name in argument.names})
            result = app(_current_names(words))
        unicode = (stdout.encoding or "utf-8").lower().startswith("utf")
        _print(help_page.getvalue() + _result_text(result, as_json, unicode), stdout)
    except (UserError, cyclopts.CycloptsError) as error:
        print(_wrapped(f"lookonce: {_one_line(error, command or '', words)}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"lookonce: {printable(str(stop)) if stop.args else 'interrupted'}", file=sys.stderr)
        return getattr(stop, "exit_code", 130)
    except _BrokenPipe:
        _discard_output(stdout)
        return BROKEN_PIPE
    return int(getattr(result, "exit_code", 0))


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
    options = read_yaml(Path(file).expanduser(), "lines like 'epochs: 30'")
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


def _take_switch(name: str, words: list[str], config: dict[str, Any]) -> bool:
    """Remove a switch of every command from the words and the config and return whether it was there."""
    given = f"--{name}" in words
    words[:] = [word for word in words if word != f"--{name}"]
    return bool(config.pop(name, False)) or given


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
        elif choices and token.value:  # not a bare --show
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


def _wrapped(line: str) -> str:
    """Return a line folded between words for the terminal that shows stderr; as it is for a file or pipe."""
    if not sys.stderr.isatty():
        return line
    width = max(40, shutil.get_terminal_size().columns)
    return textwrap.fill(line, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False,
                         replace_whitespace=False) if len(line) > width else line  # fmt: skip


class _LogFormatter(logging.Formatter):
    """Mark warnings with the program's name; escape line ends and escape sequences in names of files and classes."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = printable(record.message)
        text = text if record.levelno <= logging.INFO else f"lookonce: {text}"
        return _wrapped(text)


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Print on what sys.stderr is now: a progress bar takes its place while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _log_to_stderr() -> None:
    """Print log records of this program on standard error, a line each."""
    logging.basicConfig(level=logging.WARNING, handlers=[_StderrHandler()])
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _StderrHandler) or type(handler) is logging.StreamHandler:
            handler.setFormatter(_LogFormatter())
    log.setLevel(logging.INFO)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # our own message says what is wrong with an image


def _discard_output(stdout: TextIO) -> None:
    """Send what is still buffered nowhere, so that closing standard output raises nothing."""
    with suppress(OSError, ValueError):  # no file, as in a notebook
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())


def _arguments(app: cyclopts.App, command: str) -> cyclopts.ArgumentCollection:
    """Return the arguments of a command."""
    return app[command].assemble_argument_collection(default_parameter=app.default_parameter)


def _one_line(error: Exception, command: str, words: Sequence[str] = ()) -> str:
    """Return an error's message in one line, with what to write instead if that is known or very similar.

    words: the command and its words.
    """
    message = printable(" ".join(str(error).split())) or type(error).__name__
    if isinstance(error, MissingArgumentError) and error.keyword is None and error.argument is not None:
        needed = [argument for argument in _arguments(make_app(), command) if argument.required]
        usage = " ".join(argument.name.strip("-").upper() for argument in needed)
        name = error.argument.name.strip("-").upper()
        if command == "detect" and (line := detect_line(words)):
            return f"detect: MODEL is missing; to find objects of COCO's 80 classes: {line}"
        return f"{command}: {name} is missing; usage: lookonce {command} {usage} [OPTIONS]"
    if isinstance(error, UnknownOptionError):
        given = error.token.keyword or error.token.value
        if instead := hint(given, command):
            use = f"use {instead}" if instead.startswith("--") else instead
            return f"{printable(given)}: no option of lookonce {command}; {use}"
    elif isinstance(error, UnknownCommandError) and error.unused_tokens:
        given = error.unused_tokens[0]
        near = closest(given, COMMANDS)
        suggestion = f'; did you mean "{near}"?' if near else ""
        return f"{printable(given)}: no command of lookonce; expected one of {', '.join(COMMANDS)}{suggestion}"
    else:
        return message
    match = re.search(r' Did you mean "?([^"?]+)"?\?', message)
    if match is None or closest(given.partition("=")[0].strip("-"), [match[1].strip("-")]):
        return message
    return message[: match.start()] + message[match.end() :]


def _result_text(result: Any, as_json: bool, unicode: bool) -> str:
    """Return the lines that show a result: its text, or as JSON its to_json() or its text as a string.

    unicode: standard output takes every letter.
    """
    if result is None:
        return ""
    text = str(result)
    if as_json:
        text = json_text(result.to_json() if hasattr(result, "to_json") else text, ascii=not unicode)
    return printable_lines(text) + "\n"


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
