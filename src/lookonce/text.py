"""Text files of any machine: their encoding by a byte order mark, as UTF-8, or else guessed."""

from __future__ import annotations

import codecs
import logging
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from lookonce.errors import UserError

log = logging.getLogger("lookonce")


Note = Callable[[str], None]
"""Takes what is to be said of a file."""


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
"""Encodings whose share of odd characters differs by less are equally likely."""


MOST_SAMPLE = 4096
"""Bytes looked at for a guess."""


CONTROL = re.compile(rb"[\0-\x08\x0e-\x19\x1c-\x1f]")
"""Bytes that no text of these encodings has."""


WIDE = re.compile(rb"[\x80-\xff]")


LAST_COMMON = 0xD7
"""First byte of the last of GB 2312's characters in everyday use; pairs of accented letters look like the rest."""


def read_text(path: Path, expected: str, most: int, note: Note | None = None) -> str:
    """The text of a file, with the line ends that it has.

    Args:
        expected: what such a file holds, for the error.
        most: bytes.
        note: takes a sentence where the encoding had to be guessed; None: it is logged as a warning.
    Raises:
        UserError: a file that cannot be read, is no text or is larger than `most`.
    """
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= most else b""
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from None
    if size > most:
        raise UserError(f"{path}: {size} bytes; expected {expected}, at most {most} bytes: split it")
    try:
        text, guess = decode(content)
    except ValueError:
        raise UserError(f"{path}: not a text file; expected {expected}, in UTF-8") from None
    if guess:
        guess_note(path, text, guess, note)
    return text


def guess_note(path: Path, text: str, guess: str, note: Note | None) -> None:
    """Say what the encoding of a text was guessed to be, with its first words that are no ASCII."""
    words = (word[0] for word in re.finditer(r"\w+", text) if not word[0].isascii())
    said = ": ".join(filter(None, (f"not UTF-8, read as {guess}", ", ".join(repr(w[:20]) for w in islice(words, 3)))))
    if note is None:
        log.warning("%s: %s; if that is wrong, save it as UTF-8", path, said)
    else:
        note(said)


def decode(content: bytes) -> tuple[str, str]:
    """(text, encoding if it had to be guessed, else ""). Raises ValueError for what is no text."""
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
    """Encodings in which the lines that are no ASCII read as words, the most likely first."""
    from charset_normalizer import from_bytes

    sample, at = b"", 0
    while len(sample) < MOST_SAMPLE and (found := WIDE.search(content, at)):
        start = max(content.rfind(b"\n", at, found.start()) + 1, found.start() - 80, at)
        at = content.find(b"\n", found.start()) + 1 or len(content)
        sample += content[start : min(at, start + MOST_SAMPLE)]
    matches = from_bytes(sample, cp_isolation=list(GUESSES), preemptive_behaviour=False, enable_fallback=False)
    odd = {name: match.chaos for match in matches for name in match.could_be_from_charset if name in GUESSES}
    if "gb2312" in odd:
        first = [char.encode("gb2312")[0] for char in sample.decode("gb2312") if not char.isascii()]
        if sum(byte > LAST_COMMON for byte in first) > 0.2 * len(first):
            del odd["gb2312"]
    if not odd and len(WIDE.findall(sample)) <= len(sample) / 4:  # a sign or two among ASCII
        odd["cp1252"] = 0.0
    least = min(odd.values(), default=0.0)
    return sorted(odd, key=lambda encoding: (odd[encoding] > least + TIE, GUESSES.index(encoding)))


MOST_TEXT = 64 << 20
"""Bytes of a label file or list; a list of a million images has half of that."""


def read_lines(path: Path, law: str, most: int = MOST_TEXT, note: Note | None = None) -> list[str]:
    """Lines of a text file, whatever ends them. law: what such a file holds, for the error.

    note: takes a sentence where its encoding had to be guessed; None: that is logged.
    Raises UserError for a file that cannot be read, is no text or is larger than `most` bytes.
    """
    return read_text(path, law, most, note).replace("\r\n", "\n").replace("\r", "\n").split("\n")
