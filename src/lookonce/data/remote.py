"""Files at addresses such as s3://bucket/cells, through fsspec, which PyTorch brings, and its package for them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from lookonce.data.download import OFFLINE, is_offline
from lookonce.errors import UserError
from lookonce.files import replacing

ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):[/\\]+", re.IGNORECASE)
"""Start of an address; one letter is a drive of Windows."""
BLOCK = 1 << 20


def is_address(name: Path | str) -> bool:
    """Return whether a name is an address, also one that a Path made of it.

    >>> is_address("s3://bucket/a.jpg"), is_address("C:/a.jpg"), is_address("photos/a.jpg")
    (True, False, False)
    """
    return ADDRESS.match(str(name)) is not None


def as_address(name: Path | str) -> str:
    """Return an address with its slashes, of which a Path keeps one.

    >>> as_address("s3:/bucket/cells")
    's3://bucket/cells'
    """
    text = str(name)
    found = ADDRESS.match(text)
    if found is None:
        return text
    local = found[1].lower() == "file"
    return f"{found[1]}://{'/' if local and found[0].endswith('/') else ''}" + text[found.end() :].replace("\\", "/")


def is_there(path: Path | str) -> bool:
    """Return whether a path exists; an address may."""
    return is_address(path) or Path(path).exists()


def opened_system(address: str) -> tuple[Any, str]:
    """Return (fsspec's file system, the path in it) of an address.

    Raises UserError without the package of its protocol, or if connections are forbidden.
    """
    from fsspec.core import url_to_fs

    protocol = address.partition("://")[0].lower()
    if protocol not in ("file", "memory") and is_offline():
        raise UserError(f"{address}: not opened, because of --offline or {OFFLINE}; give files of this machine")
    with reading(address):
        system, path = url_to_fs(address)
        return system, path


@contextmanager
def reading(address: str) -> Iterator[None]:
    """Turn what fsspec and its packages raise in the block into a UserError of one line."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{address}: needs a package of its protocol: {error}") from None
    except FileNotFoundError:
        raise UserError(f"{address}: no such file or folder") from None
    except Exception as error:  # each protocol has its own: botocore, aiohttp, google
        words = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"{address}: cannot be read ({words}); check the address and the rights to read it") from None


def read_remote(address: str, most: int, start: int = 0, size: int | None = None) -> bytes:
    """Return a remote file, or `size` bytes of it from `start`. Raises UserError, also for more than `most` bytes."""
    system, path = opened_system(address)
    with reading(address):
        end = start + (most + 1 if size is None else size)
        content: bytes = system.cat_file(path, start=start, end=end)
    if len(content) > most:
        raise UserError(f"{address}: more than {most:,} bytes; expected fewer")
    return content


def copy_remote(address: str, target: Path) -> None:
    """Copy a remote file to a path, which appears when it is complete. Raises UserError."""
    system, path = opened_system(address)
    with replacing(target) as beside, reading(address):
        source: BinaryIO = system.open(path, "rb")
        with source, beside.open("wb") as file:
            while block := source.read(BLOCK):
                file.write(block)
