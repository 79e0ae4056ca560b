"""ledger.jsonl: what happened to each shard, one event a line. Only the driver writes it; any program can read it.

{"event": "begun", "shard": 3, ...}, {"event": "done", "shard": 3, "images": 1000, ...}, {"event": "died", ...}
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lookonce.errors import UserError

FILE = "ledger.jsonl"


class Ledger:
    """The ledger of a folder."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE

    def write(self, event: str, **more: Any) -> None:
        """Append an event. Raises UserError if the disk is full."""
        line = json.dumps({"event": event, "time": round(time.time(), 3), **more}) + "\n"
        try:
            with self.file.open("ab") as file:
                file.write(("\n" * self._is_torn() + line).encode())
        except OSError as error:
            raise UserError(f"{self.file}: cannot be written: {error.strerror or error}") from None

    def _is_torn(self) -> bool:
        """Return whether the last line has no end: its writer was killed."""
        with self.file.open("rb") as file:
            if not file.seek(0, 2):
                return False
            file.seek(-1, 2)
            return file.read(1) != b"\n"

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the events, without lines that are not whole."""
        if not self.file.exists():
            return
        with self.file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if isinstance(event, dict):
                    yield event
