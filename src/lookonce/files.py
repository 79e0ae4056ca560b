"""Writing files so that nothing half-written ever stands under its final name."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lookonce.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; renamed to `path` when the block ends well, else removed.

    Its ending is that of `path`, for writers that choose a format by it.
    Raises UserError naming `path` where the disk is full or writing is not allowed.
    """
    beside = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        beside.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}; nothing was changed") from None
    finally:
        try:
            beside.unlink(missing_ok=True)
        except OSError:
            pass  # the folder itself is out of reach, and the error above said so


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with \\n line ends, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def sweep(folder: Path, name: str = "*") -> None:
    """Remove what killed processes left beside the files of a folder, or beside those alone that a pattern names.

    A file that a living process may still write stays.
    """
    for left in folder.glob(f".[0-9]*-{name}"):
        number = left.name[1:].partition("-")[0]
        if number.isdigit() and not _is_running(int(number)):
            try:
                left.unlink(missing_ok=True)
            except OSError:
                pass  # in use, or not ours to remove


def _is_running(process: int) -> bool:
    """Whether there is such a process; yes where that cannot be known."""
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.windll.kernel32  # os.kill would end it here
        handle = kernel.OpenProcess(0x1000, False, process)  # PROCESS_QUERY_LIMITED_INFORMATION
        if not handle:
            return bool(kernel.GetLastError() == 5)  # access denied: there, and another's
        kernel.CloseHandle(handle)
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
