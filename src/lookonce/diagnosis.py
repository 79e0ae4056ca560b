"""What `diagnose` found: checks and bars of numbers, as a table for a terminal and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from lookonce.tables import cell, cells, rendered, shown_json

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

LONGEST = 24
"""Characters of the longest bar."""


@dataclass(frozen=True)
class Check:
    """One question, and its answer in one line."""

    name: str
    state: Literal["pass", "FAIL", "skipped"]
    said: str
    """What was found; where it failed, also what to change."""
    places: tuple[str, ...] = ()
    """The first places concerned: file:line and what is there."""


def passed(name: str, said: str, places: tuple[str, ...] = ()) -> Check:
    """A check with nothing to change."""
    return Check(name, "pass", said, places)


def failed(name: str, said: str, places: tuple[str, ...] = ()) -> Check:
    """A check that says what to change."""
    return Check(name, "FAIL", said, places)


def skipped(name: str, said: str) -> Check:
    """A check that was not made, and why."""
    return Check(name, "skipped", said)


@dataclass(frozen=True)
class Bars:
    """A histogram, or several over the same steps."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int, ...]], ...]
    """Step -> one count for each column."""


@dataclass(frozen=True)
class Diagnosis:
    """Why a run may find nothing."""

    run: str
    data: str
    checks: tuple[Check, ...]
    bars: tuple[Bars, ...] = ()
    json: bool = False
    """Whether it is shown as JSON."""

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed."""
        return tuple(check.name for check in self.checks if check.state == "FAIL")

    @property
    def exit_code(self) -> int:
        """1 where a check failed, else 0."""
        return int(bool(self.failed))

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        whole = asdict(self) | {"failed": self.failed}
        return {key: value for key, value in whole.items() if key != "json"}

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        lines = [f"to change, the first first: {', '.join(self.failed)}" if self.failed else "every check passes"]
        bars = [_bars(entry) for entry in self.bars]
        return Group(cell(f"{self.run} on {self.data}"), _checks(self.checks), *bars, Text("\n".join(lines)))

    def __str__(self) -> str:
        if self.json:
            return shown_json(self.to_json())
        return rendered(self)


def _checks(checks: tuple[Check, ...]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for heading in ("check", "", "what was found"):
        table.add_column(heading, no_wrap=heading != "what was found")
    for check in checks:
        table.add_row(check.name, check.state, _told(check), style="bold" if check.state == "FAIL" else "")
    return table


def _told(check: Check) -> Text:
    return cells((check.said, *(f"  {place}" for place in check.places)))


def _bars(bars: Bars) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for number, heading in enumerate((bars.heading, *bars.columns)):
        table.add_column(heading, justify="left" if number else "right", no_wrap=True)
    most = max((count for _, counts in bars.rows for count in counts), default=0) or 1
    for step, counts in bars.rows:
        table.add_row(cell(step), *(f"{count:>6,} {'#' * round(LONGEST * count / most)}" for count in counts))
    return table
