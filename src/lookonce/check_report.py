"""What `check` found: the report, as tables for a terminal and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookonce.anchors import Anchors
from lookonce.errors import printable
from lookonce.findings import Finding
from lookonce.tables import cell, cells, rendered, shown_json

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

SHOWN = 3
"""Places told of each finding."""
MOST_CLASSES = 30
"""Classes in the table; the page has all."""


@dataclass(frozen=True)
class Counted:
    """How much of everything there is."""

    pictures: int
    objects: int
    empty: int
    """Pictures without objects."""
    difficult: int
    crowd: int
    classes: dict[str, tuple[int, int]]
    """Class -> (objects, pictures with it)."""
    splits: dict[str, tuple[int, int]]
    """Split -> (pictures, objects)."""
    split_source: str
    """Where train, val and test come from."""
    objects_a_picture: tuple[float, int]
    """(mean, most)"""
    box_side: tuple[float, float, float]
    """Square root of a box's area at the input, px: a tenth of the boxes are below the first number, half of them
    below the second, nine tenths below the third."""


@dataclass(frozen=True)
class CheckReport:
    """What a data set holds, and what is wrong with it."""

    data: str
    format: str
    size: int
    """Side of the network's input for which it was checked, px."""
    counted: Counted
    anchors: Anchors
    lost: tuple[int, ...]
    """Objects lost to others in their cell, by anchor."""
    findings: tuple[Finding, ...]
    looked: bool
    """Whether the pictures were opened."""
    page: Path | None = None
    json: bool = False
    """Whether it is shown as JSON."""

    @property
    def harms(self) -> bool:
        """Whether something would harm training, or make its score untrue."""
        return any(finding.harms for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """1 where something would harm training, else 0."""
        return int(self.harms)

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        whole = asdict(self) | {"page": None if self.page is None else str(self.page), "harms": self.harms}
        whole["findings"] = [asdict(f) | {"harms": f.harms, "remedy": f.remedy} for f in self.findings]
        return {key: value for key, value in whole.items() if key != "json"}

    def __rich__(self) -> Group:
        from rich.console import Group

        lines = summary(self).split("\n")
        return Group(cells(lines), _classes(self), _anchors(self), *_findings(self), cell(verdict(self)))

    def __str__(self) -> str:
        if self.json:
            return shown_json(self.to_json())
        return rendered(self)


def summary(report: CheckReport) -> str:
    """What there is, in a few lines."""
    c = report.counted
    mean, most = c.objects_a_picture
    marked = ", ".join(f"{n:,} {what}" for n, what in ((c.difficult - c.crowd, "difficult"), (c.crowd, "crowd")) if n)
    low, middle, high = c.box_side
    lines = [
        f"{printable(report.data)} ({report.format}): {c.pictures:,} images, {c.objects:,} objects of "
        f"{len(c.classes)} classes" + (f" ({marked})" if marked else ""),
        f"{mean:.1f} objects a picture, {most} at most; {c.empty:,} pictures without any",
        f"side of a box at {report.size} px: {low:.0f} to {high:.0f} px (8 of 10), {middle:.0f} in the middle",
        "split: "
        + ", ".join(f"{printable(name)} {p:,} ({o:,} objects)" for name, (p, o) in c.splits.items())
        + f", {printable(c.split_source)}",
    ]
    if not report.looked:
        lines.append("the pictures were not opened")
    return "\n".join(lines)


def verdict(report: CheckReport) -> str:
    """One line: may it be trained on."""
    page = f"; page: {report.page}" if report.page else ""
    harmful = [finding.kind for finding in report.findings if finding.harms]
    if harmful:
        return f"To mend before training: {', '.join(harmful)}{page}"
    return f"Nothing that would harm training{page}"


def _classes(report: CheckReport) -> Table:
    table = _table("class", "objects", "pictures")
    order = sorted(report.counted.classes.items(), key=lambda entry: -entry[1][0])
    for name, (objects, pictures) in order[:MOST_CLASSES]:
        table.add_row(cell(name), f"{objects:,}", f"{pictures:,}")
    if len(order) > MOST_CLASSES:
        rest = order[MOST_CLASSES:]
        table.add_row(f"{len(rest)} more", f"{sum(objects for _, (objects, _) in rest):,}", "")
    return table


def _anchors(report: CheckReport) -> Table:
    fit = report.anchors
    table = _table(f"anchor, cells (mean best IoU {fit.mean_iou:.3f})", "boxes", "lost to another")
    for (w, h), boxes, lost in zip(fit.wh, fit.counts, report.lost, strict=True):
        table.add_row(f"{w:.2f} x {h:.2f}", f"{boxes:,}", f"{lost:,}")
    return table


def _findings(report: CheckReport) -> list[Text]:
    from rich.text import Text

    found = []
    for finding in report.findings:
        mark = "!!" if finding.harms else " -"
        text = Text(
            f"{mark} {finding.count:,} x {finding.kind}: {finding.remedy}", style="bold" if finding.harms else ""
        )
        text.append("".join(f"\n     {printable(place)}" for place in finding.places[:SHOWN]), style="not bold")
        if finding.count > SHOWN:
            text.append(f"\n     and {finding.count - SHOWN:,} more", style="not bold")
        found.append(text)
    return found


def _table(*headings: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    return table
