"""The command line: each command is the public function of the same name. The only place that prints.

Standard output carries the result and nothing else; log lines, progress and what libraries print go to standard error.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from io import TextIOWrapper
from pathlib import Path
from types import NoneType
from typing import Any, TextIO, get_args

import cyclopts
import yaml
from cyclopts.exceptions import UnknownCommandError, UnknownOptionError
from rich.console import Console

from lookonce import __version__
from lookonce.choices import choose, closest, literals
from lookonce.console import shown_json
from lookonce.errors import UserError, printable

log = logging.getLogger("lookonce")

COMMANDS = {
    "demo": ("lookonce.commands.demo:demo", "Train on embedded handwritten digits and show what it finds."),
    "check": ("lookonce.commands.check:check", "Say what is wrong with a data set."),
    "convert": ("lookonce.commands.convert:convert", "Write a data set in another format."),
    "anchors": ("lookonce.commands.anchors:anchors", "Cluster anchor boxes on a data set."),
    "train": ("lookonce.commands.train:train", "Train a detector on labelled images."),
    "evaluate": ("lookonce.commands.evaluate:evaluate", "Score a detector on labelled images."),
    "diagnose": ("lookonce.commands.diagnose:diagnose", "Say why a run finds nothing."),
    "detect": ("lookonce.commands.detect:detect", "Find objects on images."),
    "prune": ("lookonce.commands.prune:prune", "Cut the channels that count least and train on."),
    "export": ("lookonce.commands.export:export", "Write a detector for other programs."),
    "benchmark": ("lookonce.commands.benchmark:benchmark", "Measure how fast models are on this machine."),
    "cache": ("lookonce.commands.cache:cache", "Show or empty the folder of what is computed once."),
    "download": ("lookonce.commands.download:download", "Bring Pascal VOC or Darknet's weights."),
}


RENAMED = {
    "--runtime": "--backend", "--drawn": "--save-images", "--no-drawn": "--no-save-images",
    "--no-pictures": "--no-images", "--pictures": "--images", "--share": "--ratio", "--given": "--compare",
}  # fmt: skip
"""Options of version 0.1 and their names now. The old names work for one release, with a hint."""
WITHOUT_TWIN = (
    "deterministic", "folded", "half", "int8", "json", "keep-empty", "keep-last", "overwrite", "raw", "train",
)  # fmt: skip
"""Switches that are off unless given. Version 0.1 also took their --no- forms, which change nothing."""
NO_READER = 141
"""Exit code where the program behind a pipe has stopped reading, as shells have it: 128 + SIGPIPE."""


def make_app(config: dict[str, Any] | None = None, stdout: TextIO | None = None) -> cyclopts.App:
    """Return the commands; functions are imported when they are called.

    Args:
        config: options that the command line does not give, by name.
        stdout: where help is printed; None: to sys.stdout.
    """
    read = cyclopts.config.Dict(config, use_commands_as_keys=False, source="--config") if config else None
    app = cyclopts.App(
        name="lookonce",
        help="You only look once: detectors from labelled images.",
        help_epilogue="Every command takes --config FILE.yaml with any of its options. The word none stands for "
        "'not given': --name none undoes a name that the file gives.",
        version=__version__,
        default_parameter=cyclopts.Parameter(
            consume_multiple=True, negative_bool="", negative_iterable="", negative_none=""
        ),
        config=[*filter(None, [read]), _settle_words],
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
        console=_HelpConsole(file=stdout),
    )
    for name, (path, help_text) in COMMANDS.items():
        app.command(path, name=name, help=help_text)
    return app


def main(argv: list[str] | None = None) -> int:
    """Run one command. 0: done; 2: the user's input is wrong, said in one line; 128 + n: stopped by signal n.

    A result with an `exit_code` of its own ends with that one.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    _log_to_stderr()
    stdout = sys.stdout
    try:
        with redirect_stdout(_Strays(stdout)):
            config = _take_config(words)
            as_json = _take_json(words, config)
            result = make_app(config, stdout)(_new_names(words))
        _show(result, stdout, as_json)
    except (UserError, cyclopts.CycloptsError) as error:
        print(f"lookonce: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"lookonce: {printable(str(stop)) if stop.args else 'interrupted'}", file=sys.stderr)
        return getattr(stop, "exit_code", 130)
    except _NoReader:
        _drop_the_rest(stdout)
        return NO_READER
    return int(getattr(result, "exit_code", 0))


def entry() -> None:
    """What the installed command runs."""
    sys.exit(main())


def _take_config(words: list[str]) -> dict[str, Any] | None:
    """Take `--config FILE` out of the command line and read it. Raises UserError for a file without options."""
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
        said = " ".join(str(error).split())
        raise UserError(f"{file}: cannot be read as YAML ({said}); expected lines like 'epochs: 30'") from None
    if not isinstance(found, dict):
        raise UserError(f"{file}: no options in it; expected lines like 'epochs: 30'")
    old = {name.removeprefix("--"): new.removeprefix("--") for name, new in RENAMED.items() if "--no-" not in name}
    return {old.get(str(key), str(key)): value for key, value in found.items()}


def _take_json(words: list[str], config: dict[str, Any] | None) -> bool:
    """Take `--json` out of the command line: the result is shown as JSON, where it has a to_json."""
    given = "--json" in words
    words[:] = [word for word in words if word != "--json"]
    return bool((config or {}).pop("json", False)) or given


def _new_names(words: list[str]) -> list[str]:
    """The command line with options of version 0.1 under their names of today, each with a hint."""
    found = []
    for word in words:
        name, equals, value = word.partition("=")
        if name in RENAMED:
            log.warning("%s is now %s; the old name works in this release only", name, RENAMED[name])
            word = RENAMED[name] + equals + value
        elif name.removeprefix("--no-") in WITHOUT_TWIN and name.startswith("--no-"):
            log.warning("%s: leave it out; this is what happens without it", name)
            continue
        found.append(word)
    return found


def _settle_words(app: cyclopts.App, commands: tuple[str, ...], arguments: cyclopts.ArgumentCollection) -> None:
    """Read words before cyclopts does: names in any spelling, and `none` where an option may be left out.

    A class may be called none, so a list of names is left out by an option without any. Raises ConfigError for a name
    that is no choice.
    """
    for argument in arguments:
        if len(argument.tokens) != 1 or argument.tokens[0].keys or not isinstance(argument.tokens[0].value, str):
            continue
        [token], kinds, choices = argument.tokens, get_args(argument.hint), literals(argument.hint)
        if tuple[str, ...] in kinds:
            left_out = token.implicit_value in ((), [])
        else:
            left_out = token.value.lower() == "none" and "none" not in choices
        if left_out and NoneType in kinds:
            argument.tokens = [token.evolve(implicit_value=None)]
        elif choices:
            argument.tokens = [token.evolve(value=choose(token.value, choices, token.keyword or argument.name))]


class _Strays:
    """Where libraries print what is no result: standard error. It is a terminal where standard output is one, too."""

    def __init__(self, stdout: TextIO) -> None:
        self._stdout = stdout

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)

    def isatty(self) -> bool:
        """Whether both are terminals."""
        return self._stdout.isatty() and sys.stderr.isatty()


class _NoReader(Exception):
    """The program that read what is printed, such as head, has stopped reading."""


@contextmanager
def _printing() -> Iterator[None]:
    """Print something. Raises _NoReader for a closed pipe, UserError for a disk that is full."""
    try:
        yield
    except OSError as error:
        if isinstance(error, BrokenPipeError) or error.errno == errno.EINVAL:  # the latter on Windows
            raise _NoReader from None
        raise UserError(f"standard output: cannot be written: {error.strerror or error}") from None


class _HelpConsole(Console):
    """Prints help; a reader that has left does not end the program at once."""

    def print(self, *objects: Any, **how: Any) -> None:
        with _printing():
            super().print(*objects, **how)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "closed")


class _Printable(logging.Formatter):
    """Log lines in which names of files and classes cannot be mistaken for ends of lines or escape sequences."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)


def _log_to_stderr() -> None:
    """Show what this program logs on standard error, a line each."""
    root = logging.getLogger()
    logging.basicConfig(level=logging.WARNING)
    for handler in root.handlers:
        if type(handler) is logging.StreamHandler:
            handler.setFormatter(_Printable("lookonce: %(message)s"))
    logging.getLogger("lookonce").setLevel(logging.INFO)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what is wrong with an image is our message


def _drop_the_rest(stdout: TextIO) -> None:
    """Send what is still to be printed nowhere, so that closing standard output raises nothing."""
    with suppress(OSError, ValueError):  # no file, as in a notebook
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())


def _one_line(error: Exception) -> str:
    said = printable(" ".join(str(error).split())) or type(error).__name__
    if isinstance(error, UnknownOptionError):
        return _without_far_fetched(said, error.token.keyword or error.token.value)
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        return _without_far_fetched(said, error.unused_tokens[0])
    return said


def _without_far_fetched(said: str, given: str) -> str:
    """A message without its suggestion, where that is not close to the word that was given."""
    found = re.search(r' Did you mean "?([^"?]+)"?\?', said)
    if found is None or closest(given.partition("=")[0].strip("-"), [found[1].strip("-")]):
        return said
    return said[: found.start()] + said[found.end() :]


def _show(result: Any, stdout: TextIO, as_json: bool) -> None:
    if result is None:
        return
    if as_json and not hasattr(result, "to_json"):
        raise UserError("--json: the result of this command is a line of text; leave --json out")
    if isinstance(stdout, TextIOWrapper):
        stdout.reconfigure(errors="backslashreplace")  # a pipe on Windows knows few letters
    shown = shown_json(result.to_json()) if as_json else str(result)
    lines = shown.split("\n")  # of tables too: a terminal wraps what a narrow table would cut
    with _printing():
        print("\n".join(map(printable, lines)), file=stdout, flush=True)
