"""Text files of any machine: their encoding by a byte order mark, as UTF-8, or else guessed. JSON by msgspec."""

from __future__ import annotations

import codecs
import json
import logging
import re
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from lookonce.errors import UserError, printable

log = logging.getLogger("lookonce")
Shape = TypeVar("Shape")
Note = Callable[[str], None]
"""Takes a sentence about a file."""
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark begins it
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
GUESSES = ("gb2312", "cp1252", "cp1251", "gb18030", "big5", "shift_jis", "euc_jp", "euc_kr", "cp1250", "cp1253",
           "cp1254", "cp1255", "cp1256", "cp874")  # fmt: skip
"""Encodings of systems that wrote no UTF-8, the more common first: class names are too short to tell all apart."""
TIE = 0.03
"""Encodings whose fraction of odd characters differs by less are equally likely."""
SAMPLE_BYTES = 4096
"""Bytes from which the encoding is guessed."""
CONTROL = re.compile(rb"[\0-\x08\x0e-\x19\x1c-\x1f]")
"""Bytes that no text of these encodings has."""
NOT_ASCII = re.compile(rb"[\x80-\xff]")
LAST_COMMON = 0xD7
"""First byte of the last of GB 2312's characters in everyday use; pairs of accented letters look like the rest."""
HALF = re.compile("[\ud800-\udfff]")
NAME = 200
"""Most letters of a class name."""
LIST_BYTES = 64 << 20
"""Most bytes of a label file or list; a list of a million images has half of that."""
JSON_BYTES = 2 << 30
"""Most bytes of a JSON file; instances_train2017.json has a quarter of that."""
YAML_BYTES = 256 << 10
"""Most bytes of a YAML file; a data.yaml with the names of 9,000 classes has two thirds of that."""
YAML_DEPTH = 20
TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*+"?|NaN|-?Infinity', re.DOTALL)
"""What may hold what msgspec refuses: texts (halves of surrogate pairs), and numbers that are not finite."""


def clean_name(text: str) -> str:
    """Return the name of a class as every reader takes it in: one line of visible text of at most NAME letters.

    Blanks around it are removed. Characters that no one can see become escapes, as everywhere on a screen; halves of a
    surrogate pair become U+FFFD. A longer name is cut, and ends in a digest of the whole: names that differ stay apart.

    >>> clean_name(" two\\nlines "), clean_name("red\\x1b[0m")
    ('two\\\\nlines', 'red\\\\x1b[0m')
    """
    name = printable(HALF.sub("\ufffd", text.strip()))
    if len(name) <= NAME:
        return name
    return f"{name[: NAME - 9]}~{zlib.crc32(name.encode()):08x}"


def read_lines(path: Path, expected: str, most: int = LIST_BYTES, note: Note | None = None) -> list[str]:
    """Return the lines of a text file, whatever ends them. Arguments and errors as read_text."""
    return read_text(path, expected, most, note).replace("\r\n", "\n").replace("\r", "\n").split("\n")


def read_text(path: Path, expected: str, most: int, note: Note | None = None) -> str:
    """Return the text of a file, with the line ends that it has.

    Args:
        expected: what such a file holds, for the error.
        most: bytes; checked before any is read.
        note: takes a sentence where the encoding was guessed; None: log it as a warning.
    Raises:
        UserError: a file that cannot be read, is no text or is larger than `most`.
    """
    text, guess = _decode_file(path, _read_bytes(path, expected, most), expected)
    if guess:
        note_guess(path, text, guess, note)
    return text


def read_json(path: Path, shape: type[Shape], expected: str, note: Note | None = None) -> Shape:
    """Return a JSON file decoded into `shape`, a type that msgspec knows.

    NaN and Infinity, which Python writes, become the texts "NaN" and "Infinity". Arguments as read_text.

    Raises:
        UserError: as read_text, and for what is not JSON of this shape, with the line or the path of the entry.
    """
    import msgspec

    content = _read_bytes(path, expected, JSON_BYTES)
    if not content.isascii() or b"\0" in content[:4]:
        text, guess = _decode_file(path, content, expected)
        if guess:
            note_guess(path, text, guess, note)
        content = text.encode()
    decoder = msgspec.json.Decoder(shape)
    try:
        try:
            return decoder.decode(content)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            if (repaired := _without_python_values(content)) == content:
                raise
            return decoder.decode(repaired)
    except RecursionError:
        raise UserError(f"{path}: nested too deeply; expected {expected}") from None
    except msgspec.ValidationError as error:
        found, _, place = str(error).partition(" - at ")
        at = f"{place.strip('`')}: " if place else ""
        raise UserError(f"{path}: {at}{found.replace('`', '')}; expected {expected}") from None
    except msgspec.DecodeError as error:
        at_byte = re.search(r"\(byte (\d+)\)", str(error))
        line = content.count(b"\n", 0, int(at_byte[1]) if at_byte else len(content)) + 1
        reason = str(error).removeprefix("JSON is malformed: ")
        raise UserError(f"{path}:{line}: not valid JSON ({reason}); expected {expected}") from None


def read_yaml(path: Path, expected: str, as_text: bool = False, note: Note | None = None) -> Any:
    """Return what a YAML file of at most YAML_BYTES holds. Arguments as read_text; errors as it and parse_yaml."""
    return parse_yaml("\n".join(read_lines(path, expected, YAML_BYTES, note)), str(path), expected, as_text)


def parse_yaml(text: str, place: str, expected: str, as_text: bool = False) -> Any:
    """Return what YAML holds: numbers, texts, lists, mappings and dates.

    Args:
        text: of a file.
        place: the file, for messages.
        expected: what such a file holds, for the error.
        as_text: return each scalar as text: a class may be named no, 007 or 12:30.
    Raises:
        UserError: not YAML; aliases, a few lines of which can expand to gigabytes; deep nesting.
    """
    import yaml

    loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader) if as_text else getattr(
        yaml, "CSafeLoader", yaml.SafeLoader)  # fmt: skip
    try:
        depth = 0
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > YAML_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else 0
                raise UserError(f"{place}:{line}: an alias or deep nesting; expected {expected}")
        return yaml.load(text, Loader=loader)  # makes plain values only, whatever the tags
    except yaml.YAMLError as error:
        if "nesting depth" in str(error):  # PyYAML 6.0.4 has a limit of its own
            raise UserError(f"{place}:1: an alias or deep nesting; expected {expected}") from None
        way = "; write paths with /, or in single quotes" if "escape character" in str(error) else ""
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{place}: not YAML ({reason}){way}; expected {expected}") from None
    except UserError:
        raise
    except (ValueError, TypeError, RecursionError) as error:  # of a date or a number
        raise UserError(f"{place}: not YAML that can be read ({str(error)[:80]}); expected {expected}") from None


def _without_python_values(content: bytes) -> bytes:
    """JSON with what Python writes and msgspec refuses made valid: NaN as "NaN", half a surrogate pair as U+FFFD."""
    parts: list[bytes] = []
    at = 0
    for token in TOKENS.finditer(content):
        text = token[0]
        if not text.startswith(b'"'):
            valid = b'"%s"' % text
        elif b"\\ud" in text.lower():
            try:
                valid = json.dumps(
                    json.loads(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
                ).encode()
            except ValueError:
                continue
        else:
            continue
        parts += content[at : token.start()], valid
        at = token.end()
    return b"".join((*parts, content[at:]))


def _read_bytes(path: Path, expected: str, most: int) -> bytes:
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= most else b""
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from None
    if size > most:
        raise UserError(f"{path}: {size} bytes; expected {expected}, at most {most} bytes: split it")
    return content


def _decode_file(path: Path, content: bytes, expected: str) -> tuple[str, str]:
    try:
        return decode(content)
    except ValueError:
        raise UserError(f"{path}: not a text file; expected {expected}, in UTF-8") from None


def note_guess(path: Path, text: str, guess: str, note: Note | None) -> None:
    """Report the encoding that was guessed, with the first words of the text that are not ASCII."""
    words = (word[0] for word in re.finditer(r"\w+", text) if not word[0].isascii())
    shown = ", ".join(repr(word[:20]) for word in islice(words, 3))
    message = f"not UTF-8, read as {guess}" + (f": {shown}" if shown else "")
    if note is None:
        log.warning("%s: %s; if that is wrong, save it as UTF-8", path, message)
    else:
        note(message)


def decode(content: bytes) -> tuple[str, str]:
    """Return (text, encoding if it was guessed, else ""). Raises ValueError for what is no text."""
    for mark, encoding in MARKS:
        if content.startswith(mark):
            return content.decode(encoding), ""
    try:
        return content.decode(), ""
    except UnicodeDecodeError:
        pass
    if not CONTROL.search(content):
        for encoding in _likely(content):
            try:
                return content.decode(encoding), encoding
            except UnicodeDecodeError:
                continue
    raise ValueError("not text of a known encoding")


def _likely(content: bytes) -> list[str]:
    """Return the encodings in which the lines that are not ASCII read as words, the most likely first."""
    from charset_normalizer import from_bytes

    sample, at = b"", 0
    while len(sample) < SAMPLE_BYTES and (found := NOT_ASCII.search(content, at)):
        start = max(content.rfind(b"\n", at, found.start()) + 1, found.start() - 80, at)
        at = content.find(b"\n", found.start()) + 1 or len(content)
        sample += content[start : min(at, start + SAMPLE_BYTES)]
    matches = from_bytes(sample, cp_isolation=list(GUESSES), preemptive_behaviour=False, enable_fallback=False)
    odd = {name: match.chaos for match in matches for name in match.could_be_from_charset if name in GUESSES}
    if "gb2312" in odd:
        first = [char.encode("gb2312")[0] for char in sample.decode("gb2312") if not char.isascii()]
        if sum(byte > LAST_COMMON for byte in first) > 0.2 * len(first):
            del odd["gb2312"]
    if not odd and len(NOT_ASCII.findall(sample)) <= len(sample) / 4:  # a sign or two among ASCII
        odd["cp1252"] = 0.0
    least = min(odd.values(), default=0.0)
    return sorted(odd, key=lambda encoding: (odd[encoding] > least + TIE, GUESSES.index(encoding)))
