"""What `check` found, as tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from lookonce.checking import CheckReport

SHOWN = 3
"""Places told of each finding."""
MOST_CLASSES = 30
"""Classes in the table; the page has all."""


def tables(report: CheckReport) -> Group:
    """Counts, classes, anchors, then each finding with its first places and what to do."""
    return Group(Text(summary(report)), _classes(report), _anchors(report), *_findings(report), Text(verdict(report)))


def summary(report: CheckReport) -> str:
    """What there is, in a few lines."""
    c = report.counted
    mean, most = c.objects_a_picture
    marked = ", ".join(f"{n:,} {what}" for n, what in ((c.difficult - c.crowd, "difficult"), (c.crowd, "crowd")) if n)
    low, middle, high = c.box_side
    lines = [
        f"{report.data} ({report.format}): {c.pictures:,} pictures, {c.objects:,} objects of {len(c.classes)} classes"
        + (f" ({marked})" if marked else ""),
        f"{mean:.1f} objects a picture, {most} at most; {c.empty:,} pictures without any",
        f"side of a box at {report.size} px: {low:.0f} to {high:.0f} px (8 of 10), {middle:.0f} in the middle",
        "splits: " + ", ".join(f"{name} {p:,} ({o:,} objects)" for name, (p, o) in c.splits.items()),
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
        table.add_row(name, f"{objects:,}", f"{pictures:,}")
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
    found = []
    for finding in report.findings:
        mark = "!!" if finding.harms else " -"
        text = Text(
            f"{mark} {finding.count:,} x {finding.kind}: {finding.remedy}", style="bold" if finding.harms else ""
        )
        text.append("".join(f"\n     {place}" for place in finding.places[:SHOWN]), style="not bold")
        if finding.count > SHOWN:
            text.append(f"\n     and {finding.count - SHOWN:,} more", style="not bold")
        found.append(text)
    return found


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    return table
