"""What every page has in common: its template, its figures in its own colours, its images within it.

A page is one HTML file that opens offline: no script, no other file, no address.
"""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookonce import __version__
from lookonce.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


INK, SOFT, CARD, ACCENT, WARM = "#0b0c0d", "#8a8b8c", "#fbfcfd", "#1f5fa8", "#b3401c"
"""Colours while drawing; the page puts its own in their place."""


PAGE = {INK: "currentColor", SOFT: "var(--muted)", CARD: "var(--card)", ACCENT: "var(--accent)", WARM: "var(--warm)"}


STYLE = {
    "svg.fonttype": "none", "text.parse_math": False, "svg.hashsalt": "lookonce", "font.size": 10,
    "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": SOFT,
    "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none",
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
}  # fmt: skip


def write_page(path: Path, template: str, **values: Any) -> Path:
    """Write a page, whole or not at all; values are what its template names. Text in them cannot break it."""
    import jinja2

    environment = jinja2.Environment(loader=jinja2.PackageLoader("lookonce", "report"), autoescape=True)
    environment.filters["share"] = lambda value: "-" if value is None else f"{value:.3f}"
    write_text(path, environment.get_template(template).render(version=__version__, **values))
    return path


def data_uri(image: Image) -> str:
    """An image as a data: address, so that the page needs no other file."""
    content = io.BytesIO()
    image.save(content, "JPEG", quality=87)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


class Drawing:
    """A figure in the page's style. width, height: inches of 72 CSS px; close it by leaving `with`."""

    def __init__(self, width: float, height: float) -> None:
        import matplotlib
        from matplotlib.figure import Figure

        self._style = matplotlib.rc_context(STYLE)  # type: ignore[arg-type]
        self._style.__enter__()
        self.figure: Figure = Figure(figsize=(width, height), layout="constrained")

    def __enter__(self) -> Drawing:
        return self

    def __exit__(self, *_: object) -> None:
        self._style.__exit__(None, None, None)

    def svg(self) -> str:
        """The figure as an <svg> element that scales with the page and takes its colours."""
        text = io.StringIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # the reader's browser has its own letters
            self.figure.savefig(text, format="svg", dpi=150, metadata={"Date": None, "Creator": None})
        whole = text.getvalue()
        for mine, theirs in PAGE.items():
            whole = whole.replace(mine, theirs)
        return whole[whole.index("<svg") :]
