"""Run notebooks written as text (jupytext's py:percent) cell by cell in this process, and keep what they show.

A cell tagged "parameters" may be overridden by values, as papermill does. A cell shows what it prints and the value of
its last line: HTML, an image, or its repr.
"""

import ast
import base64
import html
import io
import re
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Cell:
    """One cell and what it showed."""

    kind: str
    """code or markdown"""
    tags: tuple[str, ...]
    text: str
    shown: list[tuple[str, str]] = field(default_factory=list)
    """("text" or "html", content)"""


def read_notebook(path: Path) -> list[Cell]:
    """Return the cells of a py:percent file, without its header."""
    parts = re.split(r"^# %%(.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    cells = []
    for marker, text in zip(parts[1::2], parts[2::2], strict=True):
        tags = tuple(re.findall(r'"([^"]+)"', marker.partition("tags=")[2]))
        if "[markdown]" in marker:
            text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in text.strip().splitlines())
            cells.append(Cell("markdown", tags, text))
        else:
            cells.append(Cell("code", tags, text.strip("\n")))
    return cells


def run_notebook(cells: list[Cell], name: str, values: dict | None = None) -> dict:
    """Run the cells in order and return their namespace. values: replace those of the cell tagged parameters."""
    namespace: dict = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        if cell.kind == "code":
            run_cell(cell, namespace, f"{name}, cell {number}")
            if "parameters" in cell.tags:
                unknown = (values or {}).keys() - namespace.keys()
                assert not unknown, f"{name}: no parameters {unknown}"
                namespace |= values or {}
    return namespace


def run_cell(cell: Cell, namespace: dict, place: str) -> None:
    """Run one cell of code and keep what it shows."""
    tree = ast.parse(cell.text, place)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    value = None
    with redirect_stdout(printed):
        exec(compile(tree, place, "exec"), namespace)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), place, "eval"), namespace)
    cell.shown = [("text", printed.getvalue())] if printed.getvalue() else []
    if value is not None:
        cell.shown.append(_shown(value))


def _shown(value: object) -> tuple[str, str]:
    """Return a value as a notebook shows it."""
    if hasattr(value, "_repr_html_"):
        return "html", value._repr_html_()
    if hasattr(value, "save") and hasattr(value, "convert"):  # a PIL image
        content = io.BytesIO()
        value.convert("RGB").save(content, "JPEG", quality=87)
        return "html", f'<img src="data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}" alt="">'
    return "text", str(value) if "\n" in str(value) else repr(value)


def as_markdown(cells: list[Cell]) -> str:
    """Return a page: the text, the code, and what the code showed."""
    parts = []
    for cell in cells:
        if cell.kind == "markdown":
            parts.append(cell.text)
            continue
        parts.append(f"```python\n{cell.text}\n```")
        for kind, content in cell.shown:
            lines = re.sub(r"\n\s*\n", "\n", content.strip())  # a blank line would end the HTML
            inside = lines if kind == "html" else f"<pre>{html.escape(content.rstrip())}</pre>"
            parts.append(f'<div class="output">\n{inside}\n</div>')
    return "\n\n".join(parts) + "\n"
